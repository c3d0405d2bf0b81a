"""A server that can be asked: where it is, what it may take, and a key that nobody sees.

The key is read from the environment variable that is named, and from nowhere else: a URL with a
user and password, or with a query, is refused. Neither is repeated in what is said of them.
"""

import os
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

import httpx2 as httpx


class ServerError(ValueError):
    """A server that cannot be asked; one line, without its URL or key."""


class Limits(NamedTuple):
    """What asking may take."""

    concurrency: int  # questions on their way at a time
    item_seconds: float  # for a question, all its attempts and waits
    batch_seconds: float
    attempts: int  # at most, for a question
    backoff: float  # seconds: the largest first wait, doubled from attempt to attempt
    longest_wait: float  # seconds that it is doubled to
    max_bytes: int  # of a reply


class Server(NamedTuple):
    """A server, and how long it may take."""

    url: str
    headers: Mapping[str, str]
    key: str | None
    certificates: ssl.SSLContext
    limits: Limits

    def __repr__(self) -> str:
        return "Server(...)"  # the key is in it


def about_url(url: str) -> str | None:
    """What is wrong with the URL of a server, without a word of it."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL: expected one such as https://host/v1"
    if "@" in parts.netloc or "@" in url:
        return "has a user or password in it: name an environment variable with a key instead"
    if "?" in url or "#" in url:
        return "has a ? or # in it: expected one such as https://host/v1, without a query"
    if not is_fine or re.search(r"[^!-~]", url):
        return "is no URL of HTTP: expected one such as https://host/v1"
    return None


def about_key(variable: str | None) -> str | None:
    """What is wrong with the variable of a key, without a word of either; None needs no key."""
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        return "expected the name of an environment variable that holds the key, never a key"
    key = os.environ.get(variable, "")
    if not key:
        return "the environment variable of this name is not set: it is to hold the key"
    if not re.fullmatch(r"[!-~]+", key):
        return "the environment variable of this name holds what is no key: spaces, line breaks"
    return None


def server_of(url: str, key_variable: str | None, limits: Limits) -> Server:
    """The server at a URL; ServerError if that or its key is nothing to go by."""
    for wrong in (about_url(url), about_key(key_variable)):
        if wrong:
            raise ServerError(f"the server to ask: {wrong}")
    key = os.environ[key_variable] if key_variable else None
    # No compression: a small reply could unpack to any size.
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    place = f"{url.rstrip('/')}/chat/completions"
    return Server(place, headers, key, httpx.create_ssl_context(), limits)
