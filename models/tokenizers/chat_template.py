"""Render chat templates: Jinja2 in a sandbox, with what templates of Hugging Face expect."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from numbatch.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["check_messages", "render_chat"]

# Jinja2 is imported where a template is used: most runs have none, and it takes 80 ms.


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    **extra: Any,
) -> str:
    """Return the prompt that a chat template makes of messages.

    Parameters
    ----------
    template : str
        A Jinja2 template. It runs in a sandbox: it can call no unsafe method and change nothing.
    messages : sequence of mappings
        Each with ``role`` and ``content`` (or ``tool_calls``).
    add_generation_prompt : bool
        Whether the prompt ends where the assistant's answer begins.
    bos_token, eos_token : str
        The texts of these tokens.
    **extra
        Further variables of the template (``tools``, ``enable_thinking``, ...).

    Raises
    ------
    InputError
        If the messages are malformed, the template is not valid, or the template refuses them.
    """
    from jinja2 import TemplateError

    check_messages(messages)
    variables = {
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos_token,
        "eos_token": eos_token,
        **extra,
    }
    try:
        return _compiled(template).render(messages=list(messages), **variables)
    except TemplateError as error:
        raise InputError(f"the chat template failed: {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        # Filters and operators of a template raise Python's own errors on what they cannot take.
        raise InputError(
            f"the chat template failed on these messages: {type(error).__name__}: {error}"
        ) from error


def check_messages(messages: Any) -> None:
    """Refuse what is not a list of messages.

    Raises
    ------
    InputError
        It names the first message that is wrong.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise InputError(
            f"messages is a {type(messages).__name__}, "
            'should be a list of {"role": ..., "content": ...}'
        )
    if not messages:
        raise InputError("messages is empty, should hold at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InputError(
                f"message {index} is a {type(message).__name__}, "
                'should be {"role": ..., "content": ...}'
            )
        if not isinstance(message.get("role"), str):
            raise InputError(
                f"message {index} has role {message.get('role')!r}, should be a string"
            )
        content = message.get("content")
        if not isinstance(content, str | list) and "tool_calls" not in message:
            raise InputError(
                f"message {index} has content of type {type(content).__name__}, "
                "should be a string or a list of parts"
            )


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Write JSON without the HTML escapes of Jinja2's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
