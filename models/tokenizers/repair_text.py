"""Make any text valid Unicode, or refuse it."""

from __future__ import annotations

from typing import Any, Literal

from numbatch.errors import InputError

__all__ = ["Errors", "check_errors", "valid_text"]

Errors = Literal["replace", "strict"]


def check_errors(errors: Any) -> None:
    """Raise an InputError unless ``errors`` is one of the two ways to treat invalid text."""
    if errors not in ("replace", "strict"):
        raise InputError(f"errors is {errors!r}, should be 'replace' or 'strict'")


def valid_text(text: Any, errors: Errors, which: str) -> str:
    """Return the text as a string without lone surrogates.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8.
    errors : ``replace`` or ``strict``
        ``replace``: surrogate pairs become the character that they mean; lone surrogates and
        invalid UTF-8 become U+FFFD, as in tiktoken. ``strict``: they are refused.
    which : str
        Names the text in messages.

    Raises
    ------
    InputError
        If it is neither str nor bytes, or with ``strict`` is not valid; it says where.
    """
    check_errors(errors)
    if isinstance(text, str):
        return _without_surrogates(text, errors, which)
    if isinstance(text, bytes):
        return _decoded(text, errors, which)
    raise InputError(f"{which} is a {type(text).__name__}, should be str or bytes")


def _without_surrogates(text: str, errors: Errors, which: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "strict":
            raise InputError(
                f"{which} has the surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}, should be valid Unicode"
            ) from None
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _decoded(data: bytes, errors: Errors, which: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if errors == "strict":
            raise InputError(
                f"{which} has the byte 0x{data[error.start]:02X} at byte {error.start}, "
                f"which is not valid UTF-8 there ({error.reason})"
            ) from None
        return data.decode("utf-8", "replace")
