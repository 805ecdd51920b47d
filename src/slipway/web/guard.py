"""The outermost ASGI function: check Host, Origin, key and size, dispatch, and send errors.

The chat route is called directly, since it is the one under load; all others go through
Starlette's router.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from slipway.admission import Admission
from slipway.answer import Current
from slipway.catalogue import preferred_language
from slipway.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    KeysUnavailable,
    LimitReached,
    MethodNotAllowed,
    SlipwayError,
    Stopping,
    StorageFull,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
)
from slipway.login import sign_in_of
from slipway.login.sessions import Sealer
from slipway.providers import encode_json
from slipway.settings import Settings, is_loopback
from slipway.types import Asker, Language, new_id
from slipway.web.shutdown import Shutdown
from slipway.web.wire import envelope

log = logging.getLogger("slipway")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
RequestHeaders = dict[bytes, bytes]

# These paths, and those under /static/, need no key
OPEN = frozenset(
    {
        *("/", "/embed", "/embed.js", "/favicon.ico", "/healthz", "/readyz"),
        *("/login", "/login/callback", "/logout"),
    }
)
# Clients that are set up without `/v1` call these
VERSIONED = frozenset(
    {
        *("chat", "completions", "answers", "models", "passages", "feedback", "documents"),
        *("traces", "keys", "usage", "ledger"),
    }
)
UNIQUE = frozenset({b"host", b"authorization", b"x-api-key", b"api-key", b"origin"})
EXPOSED = (
    b"x-slipway-answer-id, x-slipway-served-by, x-slipway-model, x-slipway-attempts, "
    b"x-slipway-cost-usd, x-slipway-cache, x-slipway-cache-key, x-slipway-saved-usd, "
    b"x-slipway-saved-tokens, age, x-request-id, x-should-retry, retry-after, retry-after-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
SIMPLE_BODY = 64 * 1024  # bytes; a smaller body is quick to parse, whatever it holds
MAX_COMMAS = 200_000  # in a body; a million tokens of text have about 70,000
COUNTED = 256 * 1024  # bytes looked at before the count is compared
CUT_S = 2.0  # time for sending the last event of an answer that is cut
STOPPED = "The server stopped before this answer was complete."
ALWAYS: Headers = [(b"x-content-type-options", b"nosniff")]
STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    *ALWAYS,
]
JSON: Headers = [(b"content-type", b"application/json"), *ALWAYS]


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


def language_of(headers: Mapping[bytes, bytes]) -> Language:
    """Return the user's language, from Accept-Language."""
    return preferred_language(headers.get(b"accept-language", b"").decode("latin-1"))


async def respond_error(send: Send, error: SlipwayError, ref: str, language: Language) -> None:
    """Send an error in OpenAI's form, with the headers that clients act on."""
    headers = [*JSON, (b"x-slipway-answer-id", ref.encode()), (b"x-request-id", ref.encode())]
    headers.append(
        (b"x-should-retry", b"true" if error.retryable else b"false")
    )  # the OpenAI clients go by it
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    if isinstance(error, LimitReached):
        headers += error.headers
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    await respond(send, error.status, headers, encode_json(envelope(error, ref, language)))


def check_post(scope: Scope) -> None:
    """Raise MethodNotAllowed unless the method is POST."""
    if scope["method"] != "POST":
        what = f"`{scope['path']}` does not support {scope['method']}."
        raise MethodNotAllowed(what, "Use POST.", allow=("POST",))


class StreamWriter(Protocol):
    """A response in OpenAI's form: whether it has begun, and whether it is a stream."""

    begun: bool
    streamed: bool

    async def fail(self, error: SlipwayError, language: Language) -> None:
        """End the stream with an error event."""
        ...


class Guard:
    """Checks every request before its handler sees it, and sends the errors that handlers raise.

    `fast` maps a path to the handler of its POST; once such a handler has begun its response, it
    sends its errors itself. `rest` is the router for all other requests.
    """

    def __init__(
        self,
        current: Current,
        fast: Mapping[str, Handler],
        rest: Handler,
        sealer: Callable[[], Sealer],
    ) -> None:
        self.current, self.fast, self.rest, self.sealer = current, fast, rest, sealer
        self.shutdown = Shutdown(current)
        self._prepare(current.settings)

    @property
    def admission(self) -> Admission:
        """Return the keys and limits in force."""
        return self.current.pipeline.admission

    def _prepare(self, settings: Settings) -> None:
        """Derive from the settings what each request is checked against."""
        self.settings = settings
        self.body_mb = settings.limits.body_mb
        self.hosts = {h.lower() for h in settings.listen.allowed_hosts}
        if not is_loopback(settings.listen.host) and settings.listen.host not in ("0.0.0.0", "::"):
            self.hosts.add(settings.listen.host.lower())
        self.origins = {o.lower().encode() for o in settings.listen.allowed_origins}
        self.sign_in = sign_in_of(settings, self.sealer)
        self.accepted_hosts: set[bytes] = set()  # Host values that passed the check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
            return
        connection = scope["extensions"]["slipway"]
        task = asyncio.current_task()
        connection.gone = task.cancel if task is not None else None
        headers = scope["slipway.headers"] = dict(scope["headers"])
        if self.settings is not self.current.settings:
            self._prepare(self.current.settings)
        origin = headers.get(b"origin")
        allowed = origin is not None and origin.lower() in self.origins
        if origin is not None and allowed:
            send = with_cors(send, origin)
        try:
            await self.dispatch(scope, receive, send, allowed=allowed)
        except SlipwayError as error:
            await self.reject(scope, send, error)
        except asyncio.CancelledError:
            if not connection.lost:  # the client is still there: the server is stopping
                await self.cut(scope, send)
        except Exception as error:
            if StorageFull.explains(error):
                await self.reject(scope, send, StorageFull("The disk of the store is full."))
                return
            log.exception("bug: %s %s failed unexpectedly", scope["method"], scope["path"])
            await self.reject(scope, send, InternalError.of(error))

    async def dispatch(self, scope: Scope, receive: Receive, send: Send, *, allowed: bool) -> None:
        """Check a request and call its handler; `allowed` is true for an allowed CORS origin."""
        headers: RequestHeaders = scope["slipway.headers"]
        if len(headers) != len(scope["headers"]):
            check_unique(scope["headers"])
        host = headers.get(b"host")
        if host not in self.accepted_hosts:
            self.check_host(host)
        scope["path"] = canonical_path(scope["path"])
        if allowed and scope["method"] == "OPTIONS":
            await respond(send, 204, preflight_headers(headers), b"")
            return
        site = headers.get(b"sec-fetch-site")
        # only browsers send these two headers, and they send them correctly
        if site not in (b"same-origin", b"none") and (site is not None or b"origin" in headers):
            self.check_origin(scope, headers, allowed=allowed)
        self.check_key(scope, headers)
        fast = self.fast.get(scope["path"])
        if fast is not None:
            check_post(scope)
            await fast(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            scope["slipway.started"] = True
            await send(message)

        await self.rest(scope, receive, watched)

    async def cut(self, scope: Scope, send: Send) -> None:
        """Tell the client that the server stopped before its answer was complete."""
        log.warning(
            "answer %s was cut: the server stopped before it was complete",
            scope.get("slipway.ref", "without an id"),
        )
        try:
            async with asyncio.timeout(CUT_S):
                await self.reject(scope, send, Stopping(STOPPED))
        except TimeoutError:
            log.warning("the error could not be sent to a client that did not read")
        finally:
            scope["extensions"]["slipway"].transport.close()

    async def reject(self, scope: Scope, send: Send, error: SlipwayError) -> None:
        """Log an error and send it.

        If a stream of OpenAI's form has begun, it ends with an error event. For any other response
        that has begun, the closed connection is the only sign.
        """
        language = language_of(scope["slipway.headers"])
        writer: StreamWriter | None = scope.get("slipway.writer")
        if writer is not None and writer.streamed:
            await writer.fail(error, language)
            return
        ref = scope.get("slipway.ref") or new_id("ref")
        if error.status >= 500:
            log.warning("%s: %s (%s)", ref, error.what, error.code)
        else:  # the message may quote the request, which stays out of the log
            log.info(
                "%s: %s %r was rejected: %d (%s)",
                ref,
                scope["method"],
                scope["path"][:100],
                error.status,
                type(error).code,
            )
        if scope.get("slipway.started") or (writer is not None and writer.begun):
            scope["extensions"]["slipway"].transport.close()
        else:
            await respond_error(send, error, ref, language)

    def check_host(self, host: bytes | None) -> None:
        """Raise if Host is neither loopback nor allowed.

        This stops DNS rebinding: the page of another site must not reach a server on loopback under
        the site's own name.
        """
        if host is None:
            raise BadRequest("The request has no Host header.")
        name = host.decode("latin-1").lower()
        name = (
            name.rpartition(":")[0]
            if name.rpartition(":")[2].isdigit() and not name.endswith("]")
            else name
        )
        if not (is_loopback(name) or name.strip("[]") in self.hosts or "*" in self.hosts):
            raise Forbidden(
                f"This server does not accept the host name `{name[:100]}`.",
                f"Add it to `listen.allowed_hosts`: [{name[:100]}].",
                param="Host",
            )
        if len(self.accepted_hosts) < 1000:
            self.accepted_hosts.add(host)

    def check_origin(self, scope: Scope, headers: RequestHeaders, *, allowed: bool) -> None:
        """Raise Forbidden for pages of sites that are not in `listen.allowed_origins`.

        A link from another site to the chat page is allowed.
        """
        origin = headers.get(b"origin")
        if allowed or (
            origin is not None
            and origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
        ):
            return
        if (
            origin is None
            and scope["method"] == "GET"
            and headers.get(b"sec-fetch-mode") == b"navigate"
            and scope["path"] in OPEN
        ):
            return
        if scope["method"] == "GET" and scope["path"].startswith(("/static/", "/embed.js")):
            return  # the same files for everyone: a diagram's frame has no origin
        raise Forbidden(
            "A page of another site may not call this server.",
            "Add its origin to `listen.allowed_origins`.",
            param="Origin",
        )

    def check_key(self, scope: Scope, headers: RequestHeaders) -> None:
        """Set `scope["slipway.asker"]` from the key. Raise Unauthorized if the path needs a key."""
        path = scope["path"]
        if path not in OPEN and not path.startswith("/static/"):
            scope["slipway.asker"] = self.asker(scope, headers)
        elif path == "/readyz":  # public, but only known keys get the details
            try:
                scope["slipway.asker"] = self.asker(scope, headers)
            except (Unauthorized, KeysUnavailable):
                scope["slipway.asker"] = None

    def asker(self, scope: Scope, headers: RequestHeaders) -> Asker:
        """Say who asks: the holder of the key that was sent, else who signed in."""
        key = authorization(headers)
        if self.sign_in is None:
            return self.admission.asker(key)
        if key is None and (person := self.sign_in.person(scope, headers)) is not None:
            scope["slipway.person"] = person
            return self.sign_in.asker(person)
        return self.admission.asker(key)

    async def body(self, scope: Scope, receive: Receive, most_kb: float | None = None) -> bytes:
        """Return the request's JSON body, of at most `most_kb` KiB if that is less than `body_mb`.

        Raise UnsupportedMedia for another content type, TooLarge without reading past the limit.
        """
        headers: RequestHeaders = scope["slipway.headers"]
        kind = headers.get(b"content-type", b"")
        if (
            kind != b"application/json"
            and kind.partition(b";")[0].strip().lower() != b"application/json"
        ):
            raise UnsupportedMedia(
                "The body must be JSON.",
                "Send it with `Content-Type: application/json`.",
                param="Content-Type",
            )
        limit_mb = self.body_mb if most_kb is None else min(self.body_mb, most_kb / 1024)
        length = headers.get(b"content-length", b"0")
        if length.isdigit():
            self.check_size(int(length), limit_mb)
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self.check_size(size, limit_mb)
            body = b"".join(parts)
        if len(body) > SIMPLE_BODY:
            check_complexity(body)
        return body

    def check_size(self, size: int, limit_mb: float) -> None:
        """Raise TooLarge if a body has more than `limit_mb` MiB."""
        if size > limit_mb * 1024 * 1024:
            name = "body_mb" if limit_mb == self.body_mb else "question_kb"
            raise TooLarge(
                f"The body is larger than {limit_mb:g} MiB.",
                f"Send less, or ask the operator to raise `limits.{name}`.",
            )


def canonical_path(path: str) -> str:
    """Return the path of a route for the spellings that clients use: without `/v1`, or with `/`."""
    if len(path) > 1 and path.endswith("/"):
        path = path.rstrip("/") or "/"
    if path.split("/", 2)[1:2] and path.split("/", 2)[1] in VERSIONED:
        path = f"/v1{path}"
    return path


def authorization(headers: RequestHeaders) -> bytes | None:
    """Return the value of Authorization, or the key of `x-api-key` or `api-key` in its form."""
    sent = headers.get(b"authorization")
    if sent is not None:
        return sent
    key = headers.get(b"x-api-key") or headers.get(b"api-key")
    return None if key is None else b"Bearer " + key


def check_unique(headers: Headers) -> None:
    """Raise BadRequest for a repeated header that decides who is asked, or by whom."""
    seen = set[bytes]()
    for name, _ in headers:
        if name in UNIQUE and name in seen:
            header = name.decode().title()
            raise BadRequest(f"The request has several {header} headers.", "Send it once.")
        seen.add(name)


def check_complexity(body: bytes) -> None:
    """Raise TooLarge if parsing the body would hold up all other requests.

    The number of commas bounds the number of JSON values. Counting stops at the limit.
    """
    count = 0
    for start in range(0, len(body), COUNTED):
        count += body.count(b",", start, start + COUNTED)
        if count > MAX_COMMAS:
            raise TooLarge(
                f"The body has more than {MAX_COMMAS:,} commas, too many values to parse.",
                "Send fewer fields and items, or less text.",
            )


def with_cors(send: Send, origin: bytes) -> Send:
    """Return a `send` that adds the CORS headers of an allowed origin, also to errors."""
    allow = cors_headers(origin)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *allow]
        await send(message)

    return sending


def cors_headers(origin: bytes) -> Headers:
    """Return the CORS headers for an allowed origin."""
    return [
        (b"access-control-allow-origin", origin),
        (b"vary", b"Origin"),
        (b"access-control-expose-headers", EXPOSED),
    ]


def preflight_headers(headers: RequestHeaders) -> Headers:
    """Return the headers that answer a CORS preflight (Fetch standard, 3.2)."""
    wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
    return [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", b"600"),
    ]
