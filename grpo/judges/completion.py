"""What an OpenAI-compatible server sent back: the text of its completion, or why there is none.

    {"choices": [{"message": {"content": "..."}, "finish_reason": "stop"}]}

The body is from outside: it may be a page of HTML, cut off, nested deeply, or anything else. A text
that was cut off at max_tokens is a text; whoever reads it must know what a whole one looks like.

A server's own message of an error is quoted if it has no piece of the key in it: some repeat it.
"""

import http
import json
from typing import Any

PIECE = 6  # characters of a key that are not to be seen
QUOTED = 160  # characters of a server's message


def text_in(body: bytes) -> tuple[str | None, str]:
    """The text of a completion; or None, and the reason why there is none."""
    if body.lstrip()[:1] == b"<":
        return None, "html: a page, where JSON is expected: is the url the one of the API?"
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError and long numbers among them
        return None, "not_json: cut off, or no JSON at all"
    choice = first(whole, "choices")
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None, "no_choice: JSON without choices[0].message"
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return None, "refused: by the model or by a filter"
    text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        return None, "empty: choices[0].message.content is no text, or blank"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return None, "not_unicode: half of a surrogate pair, which is no character"
    return text, ""


def first(whole: Any, field: str) -> Any:
    """The first of the list in a field, if there is one."""
    found = whole.get(field) if isinstance(whole, dict) else None
    return found[0] if isinstance(found, list) and found else None


def refusal(status: int, body: bytes, key: str | None) -> str:
    """The reason of a status that is no success, with what the server says of it."""
    known = {each.value: each.phrase for each in http.HTTPStatus}
    said = message_in(body)
    quoted = f" {said[:QUOTED]!r}" if said and not shows(said, key) else ""
    return f"http_{status}: {known.get(status, 'no known status')}{quoted}"


def message_in(body: bytes) -> str:
    """The message of an error as such servers write it, on one line; or nothing."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = whole.get("error", whole) if isinstance(whole, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(message.split()) if isinstance(message, str) else ""


def shows(text: str, key: str | None) -> bool:
    """Whether a piece of a key stands in a text."""
    if not key:
        return False
    return any(key[at : at + PIECE] in text for at in range(max(1, len(key) - PIECE + 1)))
