"""JSON Lines: objects from lines, their ids, and lines from objects."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from numbatch.errors import InputError

__all__ = [
    "LineIds",
    "check_unicode",
    "numbered_lines",
    "parse_line",
    "refuse_unknown",
    "shown",
]


def numbered_lines(source: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, each with its number from 1."""
    for number, line in enumerate(source, 1):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if content and not content.isspace():
            yield number, content


def parse_line(line: bytes) -> dict[str, Any]:
    """Read the JSON object of a line; keys whose value is null are left out.

    Raises
    ------
    InputError
        If the line is not UTF-8, not standard JSON, not an object, or holds a number of more than
        64 bits.
    """
    try:
        record = json.loads(line.decode(), parse_int=_integer, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InputError(
            f"the line is not valid UTF-8: byte 0x{line[error.start]:02x} at place {error.start}"
        ) from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"the line is not valid JSON: {error}") from None
    except RecursionError:
        raise InputError("the line is nested too deeply") from None
    if not isinstance(record, dict):
        raise InputError(
            f"the line is a JSON {_json_type(record)}, should be an object: "
            '{"custom_id": ..., "prompt": ...}'
        )
    return {key: value for key, value in record.items() if value is not None}


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else 2**63
    if not -(2**63) <= value < 2**63:
        raise InputError(f"the number {digits[:24]} has more than 64 bits")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"the line is not valid JSON: {name} is no JSON number")


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "null")


class LineIds:
    """The ids that lines have taken, each with its line: the first keeps it."""

    def __init__(self) -> None:
        self._lines: dict[str | int, int] = {}

    def claim(self, record: Mapping[str, Any], line: int) -> str | int:
        """Return the id of a line: its ``custom_id``, or ``line-N`` where it has none.

        Raises
        ------
        InputError
            If the id is of a wrong type, or an earlier line has it.
        """
        name = record.get("custom_id", f"line-{line}")
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise InputError(
                f"custom_id is {shown(name)}, should be a non-empty string or a whole number"
            )
        check_unicode("custom_id", name)
        first = self._lines.setdefault(name, line)
        if first != line:
            raise InputError(
                f"custom_id {name!r} is taken by line {first}, should be given once only"
            )
        return name

    def claim_default(self, line: int) -> str | None:
        """Return ``line-N`` for a line whose own id cannot be used; None if that is taken."""
        name = f"line-{line}"
        return name if self._lines.setdefault(name, line) == line else None


def check_unicode(key: str, value: Any) -> None:
    """Raise InputError if a string anywhere in a value has a lone surrogate."""
    try:
        json.dumps([key, value], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise InputError(
            f"{key!a} holds the lone surrogate \\u{code:04x}, which is half a character"
        ) from None


def refuse_unknown(record: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise InputError if a key is not among the known ones."""
    for key in record:
        if key not in known:
            raise InputError(f"unknown key {key!r}; the known ones are {', '.join(known)}")


def shown(value: Any) -> str:
    """Return JSON of a value for a message, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
