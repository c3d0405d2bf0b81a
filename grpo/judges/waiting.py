"""How long to wait before a question is asked again.

    wait = max(retry_after, U(0, min(longest, base · 2^(attempt - 1))))       attempt = 1, 2, ...

Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), drawn from
the question's key: what is asked at once does not come back at once, and equal runs wait alike. A
server's Retry-After (RFC 9110, 10.2.3) is seconds or a date; anything else is passed over.
"""

import email.utils
import re
import zlib

import numpy as np


def wait_of(key: str, attempt: int, *, base: float, longest: float, retry_after: float) -> float:
    """Seconds before the next one, after so many attempts."""
    most = min(longest, base * 2.0 ** min(attempt - 1, 60))
    drawn = np.random.RandomState([zlib.crc32(key.encode()), attempt]).uniform(0.0, most)
    return max(retry_after, drawn)


def seconds_of(header: str | None, now: float) -> float:
    """The seconds that a Retry-After asks for, 0 without one that can be read."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
