"""The exceptions that Numbatch raises, all of one family.

Each message says what was wrong, the value, and what would be right. They are raised where the
input enters, before any work is done on it.
"""

__all__ = [
    "DeviceError",
    "InputError",
    "ModelError",
    "NumbatchError",
    "OutputError",
    "SpecialTokenError",
]


class NumbatchError(Exception):
    """Base of every error that Numbatch raises on purpose."""


class InputError(NumbatchError, ValueError):
    """A request, a text or a parameter cannot be used."""


class SpecialTokenError(InputError):
    """A text holds a special token that the caller disallowed."""


class ModelError(NumbatchError, ValueError):
    """A model or tokenizer file is missing, damaged, or of a kind that is not supported."""


class DeviceError(NumbatchError, RuntimeError):
    """A GPU cannot be used, or failed."""


class OutputError(NumbatchError, OSError):
    """Results cannot be written."""
