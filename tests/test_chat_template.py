import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from numbatch.errors import InputError
from numbatch.models.tokenizers.chat_template import render_chat

CHATML = (
    "{% for message in messages %}\n"
    "    {% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHi<|im_end|>\n' }}"
    "{% endif %}\n"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LOOPS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{% if loop.index > 3 %}{% break %}{% endif %}{{ m | tojson }}{{ m.content | trim }}"
    "{% endfor %}{{ eos_token }}{{ tools | tojson(indent=2) if tools else '' }}"
)
MESSAGES = [
    {"role": "system", "content": 'Be <kind> & "brief"'},
    {"role": "user", "content": " Grüße, 你好 "},
    {"role": "assistant", "content": "ok"},
    {"role": "user", "content": "bye"},
]


@pytest.mark.parametrize("template", [CHATML, LOOPS])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("tools", [None, [{"name": "f", "text": "<é>"}]])
def test_equals_transformers(template, prompt, tools):
    options = {"add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
    expected = render_jinja_template(
        conversations=[MESSAGES], chat_template=template, tools=tools, **options
    )[0][0]
    assert render_chat(template, MESSAGES, tools=tools, **options) == expected


def test_json_is_not_escaped_for_html():
    out = render_chat("{{ messages[0] | tojson }}", [{"role": "user", "content": "<é> & '"}])
    assert json.loads(out)["content"] == "<é> & '"
    assert "<é> & '" in out


def test_the_date_can_be_asked_for():
    out = render_chat("{{ strftime_now('%Y') }}", MESSAGES)
    assert len(out) == 4
    assert int(out) > 2000


def test_a_template_can_refuse():
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="roles must alternate"):
        render_chat(template, MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}",
        "{{ messages[0].content.nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages | no_such_filter }}",
    ],
)
def test_template_errors(template):
    with pytest.raises(InputError, match="chat template failed"):
        render_chat(template, MESSAGES)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "messages is a str"),
        ({"role": "user"}, "messages is a dict"),
        (None, "messages is a NoneType"),
        ([], "messages is empty"),
        (["hello"], "message 0 is a str"),
        ([{"role": "user", "content": "a"}, {"content": "b"}], "message 1 has role None"),
        ([{"role": 3, "content": "b"}], "message 0 has role 3"),
        ([{"role": "user"}], "message 0 has content of type NoneType"),
        ([{"role": "user", "content": 5}], "message 0 has content of type int"),
    ],
)
def test_malformed_messages(messages, message):
    with pytest.raises(InputError, match=message):
        render_chat(CHATML, messages)


def test_messages_are_not_changed():
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(InputError):
        render_chat("{% set _ = messages[0].update({'content': 'b'}) %}", messages)
    assert messages == [{"role": "user", "content": "a"}]
