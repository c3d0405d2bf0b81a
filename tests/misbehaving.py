"""A server of an OpenAI-compatible API, on this machine, that does what its prompts tell it to.

A prompt is a name and what happens to it, request by request: "q1: 500, ok". The last word holds
for all further ones. A reply says the prompt's name and the seed it was asked with.
"""

import contextlib
import email.utils
import http.server
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

TOLD = re.compile(r"(.*): ([a-z0-9_/.]+(?:, [a-z0-9_/.]+)*)", re.DOTALL)
STALLS = 5.0  # seconds, far more than any test waits for


def completion(text, **choice) -> bytes:
    """The body of a reply."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]}
    return json.dumps(whole).encode()


class Server(http.server.ThreadingHTTPServer):
    """What was asked, and how much of it at a time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer  # the text for (prompt, seed)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.now = 0  # requests that are being answered
        self.meeting = 0  # how many at a time `busy` waits for
        self.lock, self.is_over = threading.Lock(), threading.Event()
        self.forget()

    def forget(self):
        """As if nothing had been asked yet."""
        self.asked: Counter[str] = Counter()  # requests, by prompt
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most = 0  # requests at a time

    def handle_error(self, request, client_address):
        """Clients that go away are part of it."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format, *args):
        """Nothing."""

    def do_GET(self):
        """A client that followed a redirect."""
        self.server.asked["GET"] += 1
        self.reply(200, b"{}")

    def do_POST(self):
        """What the prompt tells to do."""
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        told = TOLD.fullmatch(prompt)
        self.name, words = (told[1], told[2].split(", ")) if told else (prompt, ["ok"])
        with server.lock:
            word = words[min(server.asked[prompt], len(words) - 1)]
            server.asked[prompt] += 1
            server.bodies.append(body)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.times.append(time.monotonic())
            server.now += 1
            server.most = max(server.most, server.now)
        self.is_counted = True
        try:
            self.close_connection = word != "ok"
            self.body = completion(server.answer(prompt, body.get("seed")))
            FAULTS[word](self) if word in FAULTS else self.by_status(word)
        finally:
            self.leave()

    def leave(self):
        """It is at work no longer; before the client has all of its reply, and may ask again."""
        if self.is_counted:
            self.is_counted = False
            with self.server.lock:
                self.server.now -= 1

    def end_headers(self):
        """What closes says so, or a client may send its next request into a closed connection."""
        if self.close_connection:
            self.send_header("connection", "close")
        super().end_headers()

    def reply(self, status, body, **headers):
        """A whole reply."""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.leave()
        self.wfile.write(body)

    def by_status(self, word):
        """A status, perhaps with what Retry-After is to say: "429", "429/0.2", "503/date"."""
        status, _, wait = word.partition("/")
        if wait == "date":  # of whole seconds, so up to one more than now
            wait = email.utils.formatdate(time.time() + 1, usegmt=True)
        message = f"no {self.headers.get('authorization', 'key')}\x1b[2J" * (status == "401")
        error = json.dumps({"error": {"message": message or f"{self.name} is no model\n here"}})
        self.reply(int(status), error.encode(), **({"retry_after": wait} if wait else {}))

    def ok(self):
        """A good one."""
        self.reply(200, self.body)

    def busy(self):
        """A good one, when as many are there as are to meet, and a moment more for any others."""
        ends = time.monotonic() + STALLS
        while self.server.most < self.server.meeting and time.monotonic() < ends:
            self.server.is_over.wait(0.01)
        self.server.is_over.wait(0.03)
        self.ok()

    def hang(self):
        """Nothing at all."""
        self.server.is_over.wait(STALLS)

    def drip(self):
        """A byte at a time, never more than 50 ms apart."""
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        self.slowly(b" ")

    def slow_headers(self):
        """The same before the body."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        self.slowly(b"x")

    def slowly(self, byte):
        """Bytes until the client has had enough."""
        ends = time.monotonic() + STALLS
        while time.monotonic() < ends and not self.server.is_over.wait(0.05):
            self.wfile.write(byte)

    def half(self):
        """Half of what was announced."""
        self.send_response(200)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body[: len(self.body) // 2])

    def reset(self):
        """A connection that is torn down."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def redirect(self):
        """Elsewhere, where a key is collected."""
        self.reply(307, b"", location=f"{self.server.url}/elsewhere")

    def huge(self):
        """More than anyone would read, as much as is taken."""
        self.send_response(200)
        self.send_header("content-length", str(2**33))
        self.end_headers()
        for _ in range(2**13):
            self.wfile.write(b"x" * 2**20)

    def gzip(self):
        """Compressed, though nobody asked for that."""
        self.reply(200, b"\x1f\x8b" + bytes(40), content_encoding="gzip")


def whole(body: bytes):
    """Status 200 with that body."""
    return lambda handler: handler.reply(200, body)


FAULTS = {
    **{
        word: getattr(Handler, word)
        for word in (
            "ok", "busy", "hang", "drip", "slow_headers", "half", "reset", "redirect", "huge",
            "gzip",
        )
    },
    "html": whole(b" <!doctype html><title>502</title>"),
    "cut": whole(completion("x")[:-9]),
    "nested": whole(b"[" * 200_000),
    "digits": whole(b'{"choices":' + b"9" * 5000 + b"}"),
    "error": whole(b'{"error":{"message":"no such model"}}'),
    "no_choices": whole(b'{"choices":[]}'),
    "list": whole(b"[1]"),
    "no_message": whole(b'{"choices":[{"message":null}]}'),
    "null": whole(completion(None)),
    "parts": whole(completion([{"type": "text", "text": "x"}])),
    "blank": whole(completion(" \n")),
    "refusal": whole(completion("I", message={"refusal": "I cannot."})),
    "filtered": whole(completion("I", finish_reason="content_filter")),
    "length": whole(completion("cut", finish_reason="length")),
    "surrogate": whole(completion("\ud800")),
}  # fmt: skip


@contextlib.contextmanager
def serving(answer=lambda prompt, seed: f"{prompt.partition(':')[0]}/{seed}") -> Iterator[Server]:
    """The server while it runs."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()
