"""Numbatch: a batch engine for language models whose every kernel is Python."""

from numbatch.version import __version__

__all__ = ["__version__"]
