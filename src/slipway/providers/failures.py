"""What a provider's failure means: for the client, for the operator, or for the moment.

A failure is a status other than 200, or an error object inside a 200 or a stream; both are
classified by the same table. The status decides if there is one; otherwise the code or type in the
error object.
"""

import re
from collections.abc import Callable
from typing import Any

from slipway.errors import (
    ProviderDeclined,
    ProviderDown,
    ProviderError,
    ProviderKey,
    ProviderLimit,
    ProviderNonsense,
    ProviderRefused,
    ProviderSlow,
    ProviderTooLong,
)
from slipway.providers.lenient_json import BrokenJson, read_json
from slipway.types import Record

SECRET = re.compile(r"\b(sk|key|pk|api)[-_][A-Za-z0-9_\-*]{6,}")
CODE = re.compile(r"[\w.-]{1,64}", re.ASCII)  # anything else is not passed on as an error code
LONGEST_WORDS = 2000
# How providers report that a question is too long: OpenAI, Azure, llama.cpp, vLLM, Anthropic, Groq,
# Mistral, DashScope, Gemini
TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size_error|maximum context length|context window"
    r"|prompt is too long|string_above_max_length|maximum allowed length|input is too long"
    r"|range of input length|input token count.{0,40}exceeds|too many input tokens"
    r"|exceeds? the (?:model's )?(?:maximum )?context|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
# How they report that they will not answer it: OpenAI, Azure, DashScope, OpenRouter, Zhipu
DECLINED = re.compile(
    r"content_policy|content_filter|content management policy|ResponsibleAIPolicyViolation"
    r"|data_?inspection_?failed|moderation|content_moderation|flagged|safety system"
    r"|inappropriate content|sensitive (?:content|words)|risk control|prompt was blocked",
    re.IGNORECASE,
)
OWN_FAULT = (400, 422)  # the request is wrong, whichever provider reads it
KEY = (401, 402, 403)
LATE = (408, 504, 524)
# The status for a code or type in an error object
STATUS_OF = (
    (
        re.compile(
            r"rate.?limit|too.?many|quota|throttl|exceeded_current|concurrency", re.IGNORECASE
        ),
        429,
    ),
    (
        re.compile(
            r"api.?key|auth|permission|forbidden|billing|payment|balance|arrear", re.IGNORECASE
        ),
        401,
    ),
    (
        re.compile(r"model.?not.?found|not_?found|no.?such.?model|does.?not.?exist", re.IGNORECASE),
        404,
    ),
    (re.compile(r"time.?out|timed.?out|deadline", re.IGNORECASE), 504),
    (
        re.compile(r"overload|unavailable|capacity|server|internal|upstream|engine", re.IGNORECASE),
        503,
    ),
    (re.compile(r"invalid|bad.?request|validation|unsupported|parameter", re.IGNORECASE), 400),
)


class Failure(Record, frozen=True, kw_only=True):
    """What an error body says. `status` is the number in the body itself, if it has one; `kind` is
    its code and type, for matching.
    """

    words: str = ""
    param: str | None = None
    code: str | None = None
    kind: str = ""
    status: int | None = None
    all: str = ""  # the whole error object as text, for matching


class ErrorReader:
    """Turns the failures of one model's provider into errors."""

    def __init__(self, name: str, context: int | None, api_key: str | None) -> None:
        """`name` is our name of the model, `context` its size in tokens if known."""
        self.name, self.context, self.api_key = name, context, api_key
        self.who = f"The provider of {name}"

    def error(
        self, body: bytes, status: int = 200, wait: Callable[[], float | None] = lambda: None
    ) -> ProviderError:
        """Return the error for this reply. `wait` returns for how long the provider wants to be
        left alone.
        """
        if 200 < status < 400:
            what = f"{self.who} answered with status {status}, which is not followed."
            return self._made(ProviderNonsense, what, "", status)
        failure = failure_in(body)
        words = self.redacted(failure.words)
        meant = status if status >= 400 else (failure.status or status_of(failure.kind))
        is_unsure = status < 400 and failure.status is None
        if meant != 429 and TOO_LONG.search(failure.all):
            return self._too_long(status)
        if DECLINED.search(failure.all) and meant != 429 and (meant < 500 or is_unsure):
            meant = meant if meant < 500 else 400
            return self._refused(ProviderDeclined, failure, words, meant, status)
        if meant in KEY:
            ours = f"{self.who} did not accept our key ({meant})."
            return self._made(ProviderKey, ours, words, status)
        if meant in LATE:
            return self._made(ProviderSlow, f"{self.who} says that it ran out of time.", "", status)
        if meant == 429:
            error = self._made(ProviderLimit, f"{self.who} is limiting us.", words, status)
            error.retry_after_s = wait()
            return error
        if meant >= 500:
            did = f"failed ({status})" if status != 200 else "failed"
            error = self._made(ProviderDown, f"{self.who} {did}.", words, status)
            error.retry_after_s = wait()
            return error
        return self._refused(ProviderRefused, failure, words, meant, status)

    def _too_long(self, status: int) -> ProviderError:
        fits = f", {self.context} tokens" if self.context else ""
        what = (
            "The question with its sources and history does not fit into the context of "
            f"{self.name}{fits}."
        )
        return self._made(ProviderTooLong, what, "", status)

    def _refused(
        self,
        kind: type[ProviderRefused],
        failure: Failure,
        words: str,
        meant: int,
        status: int,
    ) -> ProviderError:
        """Pass on the provider's own words, status and code."""
        ours = f"{self.who} refused the request ({meant})."
        error = kind(
            words or ours,
            ours=ours,
            param=failure.param,
            model=self.name,
            upstream_status=status,
        )
        error.status = meant
        if failure.code and CODE.fullmatch(failure.code):
            error.code = failure.code
        error.another_may_help = meant not in OWN_FAULT and kind is ProviderRefused
        return error

    def _made(self, kind: type[ProviderError], ours: str, words: str, status: int) -> ProviderError:
        return kind(with_theirs(ours, words), ours=ours, model=self.name, upstream_status=status)

    def redacted(self, text: str) -> str:
        """Return the text on one line, without keys: providers may echo ours, or what looks like
        one.
        """
        if self.api_key:
            text = text.replace(self.api_key, "[key]")
        return SECRET.sub("[key]", " ".join(text.split()))[:LONGEST_WORDS]


def with_theirs(ours: str, words: str) -> str:
    """Return our sentence followed by the provider's words, if it sent any."""
    return f"{ours.removesuffix('.')}: {words}" if words else ours


def is_failure(value: Any) -> bool:
    """Return whether a JSON object without choices, or beside them, reports an error."""
    if not isinstance(value, dict):
        return False
    if value.get("error") or value.get("object") == "error":
        return True
    return not value.get("choices") and any(
        value.get(name) for name in ("message", "detail", "errors", "error_msg", "errorMessage")
    )


def failure_in(body: bytes) -> Failure:
    """Return what an error body says, in OpenAI's form or in a similar one."""
    text = body.decode("utf-8", "replace")
    try:
        found = read_json(body)
    except BrokenJson:
        return Failure(all=text[:LONGEST_WORDS])
    if isinstance(found, list) and found:  # Gemini wraps its errors in a list
        found = found[0]
    if isinstance(found, str):
        return Failure(words=found, all=found)
    if not isinstance(found, dict):
        return Failure(all=text[:LONGEST_WORDS])
    error = found.get("error") or found
    if isinstance(error, str):
        return Failure(words=error, all=text)
    if not isinstance(error, dict):
        error = found
    words = next(
        (error[name] for name in ("message", "detail", "msg", "error_msg") if error.get(name)), ""
    )
    code, param = error.get("code"), error.get("param")
    named = " ".join(str(error[name]) for name in ("code", "type", "status") if error.get(name))
    return Failure(
        words=words if isinstance(words, str) else "",
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
        kind=named,
        status=next(filter(None, map(_status, (code, error.get("status")))), None),
        all=text,
    )


def _status(value: Any) -> int | None:
    """Return an HTTP status in an error object as a number or a text."""
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    is_status = isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600
    return value if is_status else None


def status_of(kind: str) -> int:
    """Return the status for a code or type; 500 for an unknown one."""
    return next((status for form, status in STATUS_OF if form.search(kind)), 500)
