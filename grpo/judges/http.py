"""Any OpenAI-compatible server as one that is asked: POST {url}/chat/completions.

    retried       408, 409, 425, 429, 5xx, and connections that fail, after a wait (`waiting`), as
                  long as there are attempts and time
    not retried   any other status, and a reply without a text (`completion`)
    ends a batch  401, 402, 403: nothing more of it is sent, as it would fare alike

At most `concurrency` questions are on their way at a time; one that waits keeps its place, so a
server in trouble is asked less. A question has `item_seconds` from its first request to the end of
its last reply, a batch `batch_seconds`; both are wall-clock time, however slowly bytes come in. If
a wait would outlast them, the question has failed at once. Of a reply no more than `max_bytes` are
read. Redirects are not followed: they would take the key elsewhere.

The key of a server (`server`) stands in no reason, error or file. Proxies and certificates are
those of the environment, as for any other client.
"""

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import httpx2 as httpx

from grpo.judges.asking import Ask, Question, Reply, kind_of
from grpo.judges.completion import refusal, text_in
from grpo.judges.server import Limits, Server, server_of
from grpo.judges.waiting import seconds_of, wait_of

RETRIED = (408, 409, 425, 429)
ENDS = ("http_401", "http_402", "http_403")
Value = TypeVar("Value")


class Batch(NamedTuple):
    """A batch on its way."""

    client: httpx.AsyncClient
    server: Server
    settings: Mapping[str, Any]
    gate: asyncio.Semaphore
    ends: float  # on the loop's clock
    sent: list[int]  # requests, by question
    over: list[str]  # the reason why no more are sent, if there is one


class Failure(NamedTuple):
    """An attempt that failed."""

    reason: str
    is_retried: bool
    retry_after: float = 0.0  # seconds


def asker(
    url: str, *, key_variable: str | None, settings: Mapping[str, Any], limits: Limits
) -> Ask:
    """Asks a server; the settings are the fields of a request beside its messages.

    They are what `asking.question` is given too: model, temperature, max_tokens, seed and the like;
    those that are None are left out.
    """
    server = server_of(url, key_variable, limits)
    fields = {name: value for name, value in settings.items() if value is not None}

    def ask(questions: Sequence[Question]) -> list[Reply]:
        return run(ask_all(server, fields, questions))

    return ask


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """The result of asynchronous work; what it leaves behind is cancelled.

    Unlike asyncio.run this does not wait for a name that is still being looked up in a thread.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def ask_all(
    server: Server, settings: Mapping[str, Any], questions: Sequence[Question]
) -> list[Reply]:
    """The replies to a batch, in its order, when all are there or the time is up."""
    if not questions:
        return []
    limits = server.limits
    ends = asyncio.get_running_loop().time() + limits.batch_seconds
    places = httpx.Limits(max_connections=limits.concurrency)
    async with httpx.AsyncClient(
        headers=dict(server.headers), verify=server.certificates, limits=places, timeout=None
    ) as client:
        gate, sent = asyncio.Semaphore(limits.concurrency), [0] * len(questions)
        batch = Batch(client, server, settings, gate, ends, sent, [])
        tasks = [asyncio.create_task(ask_one(batch, n, q)) for n, q in enumerate(questions)]
        await asyncio.wait(tasks, timeout=ends - asyncio.get_running_loop().time())
        for task in tasks:
            task.cancel()  # which does nothing to one that is done
        done = await asyncio.gather(*tasks, return_exceptions=True)
    late = f"deadline: the batch took more than {limits.batch_seconds:g} s"
    replies = []
    for reply, attempts in zip(done, sent, strict=True):
        if isinstance(reply, asyncio.CancelledError):
            reply = Reply(reason=late, attempts=attempts)
        if isinstance(reply, BaseException):
            raise reply
        replies.append(reply)
    return replies


async def ask_one(batch: Batch, number: int, question: Question) -> Reply:
    """The reply to a question, once there is a place for it."""
    seconds = batch.server.limits.item_seconds
    async with batch.gate:
        if batch.over:
            reason = f"not_asked: the batch has ended with {batch.over[0]}"
            return Reply(reason=reason, attempts=0)
        try:
            async with asyncio.timeout(seconds):
                ends = min(batch.ends, asyncio.get_running_loop().time() + seconds)
                said = await attempts_at(batch, number, question, ends)
        except TimeoutError:
            said = Failure(f"deadline: took more than {seconds:g} s", False)
    attempts = batch.sent[number]
    if isinstance(said, str):
        return Reply(text=said, attempts=attempts)
    return Reply(reason=said.reason, attempts=attempts)


async def attempts_at(batch: Batch, number: int, question: Question, ends: float) -> str | Failure:
    """The text of a reply, or the last failure to get one."""
    limits = batch.server.limits
    while True:
        batch.sent[number] += 1
        said = await post(batch, question.prompt)
        if isinstance(said, str):
            return said
        if kind_of(said.reason) in ENDS:
            batch.over.append(said.reason)
        if not said.is_retried or batch.sent[number] == limits.attempts:
            return said
        wait = wait_of(
            question.key, batch.sent[number],
            base=limits.backoff, longest=limits.longest_wait, retry_after=said.retry_after,
        )  # fmt: skip
        if asyncio.get_running_loop().time() + wait >= ends:
            return said._replace(reason=f"{said.reason}; a wait of {wait:.1f} s would be too long")
        await asyncio.sleep(wait)
        if batch.over:
            return said


async def post(batch: Batch, prompt: str) -> str | Failure:
    """One request."""
    body = {**batch.settings, "messages": [{"role": "user", "content": prompt}]}
    content = json.dumps(body, allow_nan=False).encode("ascii")  # whatever is in the prompt
    try:
        async with batch.client.stream("POST", batch.server.url, content=content) as response:
            read = await body_of(response, batch.server.limits.max_bytes)
    except httpx.HTTPError as error:  # its text may name hosts; what it is says enough
        return Failure(f"connection: {type(error).__name__}", True)
    status = response.status_code
    if status != 200:
        reason = refusal(status, read or b"", batch.server.key)
        wait = seconds_of(response.headers.get("retry-after"), time.time())
        return Failure(reason, status in RETRIED or status >= 500, wait)
    if read is None:
        return Failure(f"too_large: more than {batch.server.limits.max_bytes} bytes", False)
    text, reason = text_in(read)
    return Failure(reason, False) if text is None else text


async def body_of(response: httpx.Response, most: int) -> bytes | None:
    """What a reply holds, None if it is more than `most` bytes."""
    read = bytearray()
    async for part in response.aiter_raw():
        read += part
        if len(read) > most:
            return None
    return bytes(read)
