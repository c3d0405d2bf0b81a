"""Gemma's chat format, byte for byte as its published templates render it.

    <bos><start_of_turn>user
    {content}<end_of_turn>
    <start_of_turn>model
    {content}<end_of_turn>

Content is stripped. Gemma 3 puts a system message, unstripped, and a blank line at the head of the
first user turn; Gemma 2 has no system role. The newline after <end_of_turn> belongs to the
template: the model stops at the token. Deviations: what the templates would pass through unread (a
"tool", a system message in the middle) or leave out (a system message alone or its further parts, a
part that is no text) is refused; Gemma 2 reads lists of text parts too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.tokenizer import END_OF_TURN, START_OF_TURN, Tokenizer

Message = Mapping[str, Any]  # role: system, user, assistant; content: str or text parts


class ChatError(ValueError):
    """A conversation that the model's template does not allow."""


def _texts(index: int, message: Message) -> list[str]:
    """What a message says: one string, or that of each text part in a list."""
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    if isinstance(content, list | tuple) and all(
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
        for part in content
    ):
        return [part["text"] for part in content]
    raise ChatError(f"messages[{index}]: content is neither a text nor a list of text parts")


def turns(messages: Sequence[Message], family: str) -> list[tuple[str, str]]:
    """(role, text) of every turn, as the template writes them."""
    numbered = list(enumerate(messages))
    if not numbered:
        raise ChatError("messages: a conversation needs at least one message")
    for index, message in numbered:
        if not isinstance(message, Mapping):
            raise ChatError(f"messages[{index}]: not a mapping with a role and content")
    prefix = ""
    if numbered[0][1].get("role") == "system":
        if family == "gemma2":
            raise ChatError("messages[0]: System role not supported by Gemma 2")
        texts = _texts(*numbered.pop(0))
        if len(texts) != 1 or not numbered:
            raise ChatError("messages[0]: a system message is one text, and a user turn follows it")
        prefix = texts[0] + "\n\n"
    rendered = []
    for place, (index, message) in enumerate(numbered):
        role = "model" if message.get("role") == "assistant" else message.get("role")
        expected = ("user", "model")[place % 2]
        if role != expected:
            raise ChatError(
                f"messages[{index}]: role {message.get('role')!r} where "
                f"{'assistant' if expected == 'model' else 'user'!r} is due; "
                "roles must alternate user/assistant/user/assistant/..."
            )
        text = "".join(text.strip() for text in _texts(index, message))
        rendered.append((role, (prefix if place == 0 else "") + text))
    return rendered


def render(messages: Sequence[Message], family: str, *, reply: bool = True) -> str:
    """The conversation as one text from <bos> on; with `reply`, up to where the model speaks.

    For reading and comparing: control text that a message contains stands in it as typed, so ids
    must come from `encode_chat`.
    """
    text = "<bos>"
    for role, content in turns(messages, family):
        text += f"{START_OF_TURN}{role}\n{content}{END_OF_TURN}\n"
    return text + (f"{START_OF_TURN}model\n" if reply else "")


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, reply: bool = True
) -> list[int]:
    """The ids of `render`; control tokens come from the template alone, never from a message."""
    ids = [tokenizer.bos_id]
    for role, content in turns(messages, tokenizer.family):
        ids.append(tokenizer.start_of_turn_id)
        ids += tokenizer.encode(f"{role}\n{content}", bos=False)
        ids.append(tokenizer.end_of_turn_id)
        ids += tokenizer.encode("\n", bos=False)
    if reply:
        ids += [tokenizer.start_of_turn_id, *tokenizer.encode("model\n", bos=False)]
    return ids


def jinja_template(family: str) -> str:
    """The same format as a Jinja template, for the tokenizers of exported directories."""
    if family == "gemma2":
        head = "{% if messages[0]['role'] == 'system' %}"
        head += "{{ raise_exception('System role not supported') }}{% endif %}"
        head += "{% set prefix = '' %}{% set turns = messages %}"
    else:
        head = "{% if messages[0]['role'] == 'system' %}"
        head += "{% set first = messages[0]['content'] %}{% set turns = messages[1:] %}"
        head += "{% set prefix = (first if first is string else first[0]['text']) + '\n\n' %}"
        head += "{% else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}"
    alternate = "roles must alternate user/assistant/user/assistant/..."
    return (
        "{{ bos_token }}" + head + "{% for turn in turns %}"
        "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('" + alternate + "') }}{% endif %}"
        "{% set role = 'model' if turn['role'] == 'assistant' else turn['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') }}"
        "{% if turn['content'] is string %}{{ turn['content'] | trim }}{% else %}"
        "{% for part in turn['content'] %}{{ part['text'] | trim }}{% endfor %}{% endif %}"
        "{{ '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
