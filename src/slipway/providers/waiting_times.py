"""When a provider may be asked again, from the headers of its reply. Whatever a header holds,
reading it never fails.

Known are Retry-After (RFC 9110, 10.2.3), retry-after-ms (OpenAI, Azure), and the reset times of
rate limits, x-ratelimit-reset-* (OpenAI, Groq, OpenRouter).
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

A_DAY_S = 86_400.0
EPOCH_S, EPOCH_MS = 1e9, 1e12  # larger numbers are points in time, in seconds or milliseconds
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": A_DAY_S}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
DURATIONS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
LIMITED = (b"requests", b"tokens", b"")

Header = Callable[[bytes], bytes | None]


def wait_s(header: Header, now: Callable[[], float]) -> float | None:
    """Return for how many seconds the provider wants to be left alone, a day at most; None if it
    does not say. `header` returns a header's value by its lower-case name, `now` is the wall clock.
    """
    in_ms = seconds_of(header(b"retry-after-ms"), now)
    if in_ms is not None:
        return in_ms / 1000
    return seconds_of(header(b"retry-after"), now)


def reset_s(header: Header, now: Callable[[], float]) -> float | None:
    """Return after how many seconds a rate limit is reset: the last of those that are used up, or
    the first one if no header says which.
    """
    resets = dict[bytes, float]()
    used_up = list[float]()
    for limit in LIMITED:
        dash = b"-" if limit else b""
        reset = seconds_of(header(b"x-ratelimit-reset" + dash + limit), now)
        if reset is None:
            continue
        resets[limit] = reset
        if (header(b"x-ratelimit-remaining" + dash + limit) or b"").strip() in (b"0", b"0.0"):
            used_up.append(reset)
    return max(used_up) if used_up else min(resets.values(), default=None)


def seconds_of(value: bytes | None, now: Callable[[], float]) -> float | None:
    """Return the seconds that a header's value means: a number, a duration (`6m0s`), a point in
    time as a number, or a date. None for anything else.
    """
    text = (value or b"").decode("latin-1").strip()
    if not text:
        return None
    seconds = _number(text, now)
    if seconds is None and DURATIONS.fullmatch(text):
        seconds = sum(float(number) * UNITS_S[unit] for number, unit in DURATION.findall(text))
    if seconds is None:
        seconds = _date(text, now)
    return None if seconds is None else max(0.0, min(seconds, A_DAY_S))


def _number(text: str, now: Callable[[], float]) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if math.isnan(number):
        return None
    if EPOCH_MS < number < math.inf:
        return number / 1000 - now()
    return number - now() if EPOCH_S < number < math.inf else number


def _date(text: str, now: Callable[[], float]) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = parse(text)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
