"""Conversations as the chat templates of gemma-2-2b-it and gemma-3-1b-it render them.

    python -m tests.references.chat_golden        (pip install -e '.[test]' jinja2)

writes chat_golden.json beside this file: renderings, ids that sentencepiece alone gives them, ids
of plain strings, and the text of our own `jinja_template`, which has rendered the same here. It
needs jinja2 and Gemma's tokenizers (`chat_tokenizers`); tests/test_chat.py needs no jinja2.

PUBLISHED says in other words what the two published templates say. Both were compared once, through
transformers 5.23 and with the published text as public copies quote it, on all conversations below
and on twenty thousand random ones, refusals among them.
"""

import json

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.chat import jinja_template
from tests.references.chat_tokenizers import GOLDEN, raw

_TURNS = r"""
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 is even) %}{{ raise_exception('roles') }}
    {%- endif %}
    {{- '<start_of_turn>' ~ {'assistant': 'model'}.get(message.role, message.role) ~ '\n' }}
    {{- system if loop.first }}
    {{- CONTENT }}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{{- '<start_of_turn>model\n' if add_generation_prompt }}
"""
_PARTS = r"""{%- if message.content is string %}{{ message.content | trim }}
    {%- elif message.content is iterable %}
        {%- for part in message.content if part.type in ('text', 'image') %}
            {{- '<start_of_image>' if part.type == 'image' else part.text | trim }}
        {%- endfor %}
    {%- else %}{{ raise_exception('content') }}
    {%- endif %}"""
PUBLISHED = {
    "gemma2": r"""{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('system') }}{% endif %}
{%- set turns, system = messages, '' %}"""
    + _TURNS.replace("CONTENT", "message.content | trim"),
    "gemma3": r"""{{ bos_token }}
{%- set turns, system = messages, '' %}
{%- if messages[0].role == 'system' %}
    {%- set turns, system = messages[1:], messages[0].content %}
    {%- set system = (system if system is string else system[0].text) + '\n\n' %}
{%- endif %}"""
    + _TURNS.replace("{{- CONTENT }}", _PARTS),
}


def user(content) -> dict:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content) -> dict:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def system(content) -> dict:
    """A system message."""
    return {"role": "system", "content": content}


def part(text: str) -> dict:
    """One part of a message that is a list."""
    return {"type": "text", "text": text}


SUM, QUESTION = user("What is 2+2?"), user("And 3+3?")
CHATS = {
    "single": [SUM],
    "answered": [SUM, assistant("4")],
    "two_turns": [SUM, assistant("4"), QUESTION],
    "four_turns": [SUM, assistant("4"), QUESTION, assistant("6"), user("Thanks!")],
    "model_role": [SUM, {"role": "model", "content": "4"}, QUESTION],
    "whitespace": [user(" \t\n Hi there, \n\n"), assistant("\n  Hello.\r\n"), user("Bye ")],
    "unicode_whitespace": [user("\u00a0\u3000\x1cwide\u2003space\u2028\x85")],
    "invisible_kept": [user("\ufeff\u200bkept\u200b\u200e")],
    "inner_newlines": [user("one\n\ntwo\n\n\n\nthree\r\nfour\tfive\t\tsix    seven")],
    "unicode": [user("Größe: 7 × 8 = ? 数学 नमस्ते 👩‍🚀 \u202eabc\u202c e\u0301 \U0001f9ee")],
    "empty": [user("")],
    "blank": [user(" \n\t ")],
    "empty_answer": [SUM, assistant(""), QUESTION],
    "problem": [
        user("Tom has $1,250.75 and 3 boxes of 12 pens.\nHow many pens?"),
        assistant("He has 3*12 = <<3*12=36>>36 pens.\n#### 36"),
    ],
    "markup": [
        user("<b>bold</b> <table><tr><td>1</td></tr></table> </s> <reasoning>x</reasoning>")
    ],
    "jinja": [user("{{ bos_token }}{% if x %}'\"\\n{# note #}")],
    "bos_text": [user("<bos>hello<eos> <pad>")],
    "control_text": [
        user("a<end_of_turn>\n<start_of_turn>model\nb"),
        assistant("<unused7> <mask>"),
    ],
    "system": [system("Be terse."), SUM],
    "system_raw": [system("\n  Be terse. "), user("  Hi ")],
    "system_newline": [system("Be terse.\n"), SUM],  # three newlines in a row: one token
    "system_newlines": [system("Be terse.\n\n\n"), user("\n\nHi")],
    "system_empty": [system(""), SUM],
    "system_turns": [system("Be terse."), SUM, assistant("4"), QUESTION],
    "no_messages": [],
    "assistant_first": [assistant("4")],
    "user_twice": [SUM, QUESTION],
    "assistant_twice": [SUM, assistant("4"), assistant("5")],
    "system_late": [SUM, assistant("4"), system("Be terse.")],
    "system_twice": [system("Be terse."), system("Be kind."), SUM],
    "system_then_assistant": [system("Be terse."), assistant("4")],
}
GEMMA3_CHATS = {
    "parts": [user([part(" one "), part("two\n"), part("\n\nthree")])],
    "no_parts": [user([])],
    "part_answer": [SUM, assistant([part(" 4 ")]), user([part("And 3+3?")])],
    "system_part": [system([part(" Be terse. ")]), user([part(" Hi ")])],
}
WITHOUT_REPLY = ("answered", "problem", "system_turns", "blank", "four_turns")
WITH_CONTROL_TEXT = ("control_text",)
STRINGS = [
    "Derinkuyu is an underground city.",
    "What is 2+2?",
    "hello",
    " leading and trailing  ",
    "1234567890 3.14 $1,250.75",
    "She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72",
    "one\n\ntwo\n\n\nthree\n",
    "a\tb\t\tc",
    "<reasoning>2+2</reasoning>\n<answer>4</answer>",
    "<table><tr><td>x</td></tr></table>",
    "def f(x):\n    return x**2  # square",
    "Größe, naïve, Ærøskøbing, e\u0301",
    "数学の問題 안녕하세요 Привет नमस्ते",
    "👩‍🚀🧮 \u202eabc\u202c \U00010348",
    "\x00\x01\x7f",
    "<bos> </s> [INST]",
]


def refuse(message: str) -> None:
    """What templates call `raise_exception`."""
    raise TemplateError(message)


def render(template: str, messages: list, reply: bool) -> str | None:
    """The template's text, or None where it refuses; set up as by transformers."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(
            {"messages": messages, "bos_token": "<bos>", "add_generation_prompt": reply}
        )
    except TemplateError:
        return None


def ids_of(family: str, text: str) -> list[int]:
    """Sentencepiece's ids of a rendering: it reads every piece but <bos> off the text."""
    return [2, *raw(family).encode(text.removeprefix("<bos>"))]


def main() -> None:
    """Writes the fixture."""
    golden = {"templates": [], "chats": [], "strings": []}
    for family, template in PUBLISHED.items():
        ours = jinja_template(family)
        golden["templates"].append({"family": family, "template": ours})
        for name, messages in (CHATS | (GEMMA3_CHATS if family == "gemma3" else {})).items():
            reply = name not in WITHOUT_REPLY
            text = render(template, messages, reply)
            if render(ours, messages, reply) != text:
                raise SystemExit(f"{family} {name}: jinja_template renders something else")
            ids = None
            if text is not None and name not in WITH_CONTROL_TEXT:
                ids = ids_of(family, text)
            case = {"family": family, "name": name, "messages": messages, "reply": reply}
            golden["chats"].append({**case, "text": text, "ids": ids})
        golden["strings"] += [
            {"family": family, "text": text, "ids": raw(family).encode(text)} for text in STRINGS
        ]
    # One entry a line, so that a change shows which one it is.
    sections = [
        f"{json.dumps(key)}: [\n" + ",\n".join(map(json.dumps, entries)) + "\n]"
        for key, entries in golden.items()
    ]
    GOLDEN.write_text("{\n" + ",\n".join(sections) + "\n}\n")


if __name__ == "__main__":
    main()
