"""Check every request's Host, Origin, key and size, call its handler, and send errors.

The chat routes are called directly, since they are under load; all others go through Starlette's
router.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import httptools

from slipway import tracing
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
    log_text,
)
from slipway.login import Person, SignIn, sign_in_of
from slipway.login.sessions import Sealer
from slipway.providers import encode_json
from slipway.settings import Settings, is_loopback, share
from slipway.types import Asker, Language, new_id
from slipway.web.access_notes import AccessNotes, template_of
from slipway.web.asgi import (
    AsgiApp,
    Receive,
    Scope,
    Send,
    decoded_path,
    path_and_query,
    scope_of,
    through_asgi,
)
from slipway.web.error_forms import envelope
from slipway.web.exchange import STATUS_LINES, Exchange, Headers, header_lines
from slipway.web.shutdown import Shutdown

log = logging.getLogger("slipway")
Handler = Callable[[Exchange], Awaitable[None]]
RequestHeaders = dict[bytes, bytes]

# These paths, and those under /static/, need no key
OPEN = frozenset(
    {
        *("/", "/ops", "/embed", "/embed.js", "/favicon.ico"),
        *("/healthz", "/readyz", "/openapi.json"),
        *("/login", "/login/callback", "/logout"),
    }
)
# Clients that are set up without `/v1` call these
VERSIONED = frozenset(
    {
        *("chat", "completions", "answers", "models", "passages", "feedback", "documents"),
        *("traces", "keys", "cache", "usage", "ledger", "operations"),
    }
)
CHAT = frozenset({"/v1/chat/completions", "/v1/completions"})
UNIQUE = frozenset({b"host", b"authorization", b"x-api-key", b"api-key", b"origin"})
EXPOSED = (
    b"x-slipway-answer-id, x-slipway-served-by, x-slipway-model, x-slipway-attempts, "
    b"x-slipway-cost-usd, x-slipway-cache, x-slipway-cache-key, "
    b"x-slipway-cache-similarity, x-slipway-cache-question, x-slipway-saved-usd, "
    b"x-slipway-saved-tokens, age, x-request-id, x-should-retry, retry-after, retry-after-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
SIMPLE_BODY = 64 * 1024  # bytes; a smaller body is quick to parse, whatever it holds
MAX_COMMAS = 200_000  # in a body; a million tokens of text have about 70,000
COUNTED = 256 * 1024  # bytes looked at before the count is compared
CUT_S = 2.0  # time for sending the last event of an answer that is cut
STOPPED = "The server stopped before this answer was complete."
SAME_SITE = (b"same-origin", b"none")
ALWAYS: Headers = [(b"x-content-type-options", b"nosniff")]
STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    *ALWAYS,
]
JSON: Headers = [(b"content-type", b"application/json"), *ALWAYS]


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response through ASGI."""
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


def respond_error(exchange: Exchange, error: SlipwayError, ref: str, language: Language) -> None:
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
    head = STATUS_LINES[error.status] + header_lines(headers)
    body = encode_json(envelope(error, ref, language))
    exchange.respond(head, b"" if exchange.method == "HEAD" else body)


def wrong_method(exchange: Exchange) -> MethodNotAllowed:
    """Return the error for a method other than POST."""
    what = f"`{exchange.path}` does not support {exchange.method}."
    return MethodNotAllowed(what, "Use POST.", allow=("POST",))


class Guard:
    """Checks every request before its handler sees it, and sends the errors that handlers raise.

    `fast` maps a path to the handler of its POST; once such a handler has begun its response, it
    sends its errors itself. `rest` is the ASGI router for all other requests.
    """

    def __init__(
        self,
        current: Current,
        fast: Mapping[str, Handler],
        rest: AsgiApp,
        sealer: Callable[[], Sealer],
    ) -> None:
        self.current, self.fast, self.rest, self.sealer = current, fast, rest, sealer
        self.others = through_asgi(rest)
        # request targets whose handler is called once the body is here
        self.direct = {path.encode(): path for path in fast if path in CHAT}
        self.direct |= {path.removeprefix("/v1").encode(): path for path in fast if path in CHAT}
        self.shutdown = Shutdown(current)
        self.access: AccessNotes | None = None  # None if requests are not logged
        self._prepare(current.settings)

    @property
    def admission(self) -> Admission:
        """Return the keys and limits in force."""
        return self.current.pipeline.admission

    def _prepare(self, settings: Settings) -> None:
        """Derive from the settings what each request is checked against."""
        self.settings = settings
        self.body_mb = settings.limits.body_mb
        self.usual_size = min(SIMPLE_BODY, int(self.body_mb * 1024 * 1024))
        self.hosts = {h.lower() for h in settings.listen.allowed_hosts}
        if not is_loopback(settings.listen.host) and settings.listen.host not in ("0.0.0.0", "::"):
            self.hosts.add(settings.listen.host.lower())
        self.origins = {o.lower().encode() for o in settings.listen.allowed_origins}
        self.sampled_share = share(settings.otlp.sample) if settings.otlp is not None else None
        self.sign_in = sign_in_of(settings, self.sealer)
        self.accepted_hosts: set[bytes] = set()  # Host values that passed the check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan, which is all that uvicorn calls this application for."""
        await self.rest(scope, receive, send)

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request, whatever happens."""
        if self.access is not None:
            self.access.begin(exchange)
        try:
            handler = self.check(exchange)
            if handler is not None:
                if self.sampled_share is not None or b"traceparent" in exchange.headers:
                    tracing.incoming.set(tracing.parsed(exchange.headers, self.sampled_share))
                await handler(exchange)
        except SlipwayError as error:
            await self.reject(exchange, error)
        except asyncio.CancelledError:
            if not exchange.disconnected:  # the client is still there: the server is stopping
                await self.cut(exchange)
        except Exception as error:
            if StorageFull.explains(error):
                await self.reject(exchange, StorageFull("The disk of the store is full."))
                return
            log.exception("bug: %s %s failed unexpectedly", exchange.method, exchange.path)
            await self.reject(exchange, InternalError.of(error))
        finally:
            exchange.close()
            if self.access is not None:
                self.access.end(exchange)

    def check(self, exchange: Exchange) -> Handler | None:
        """Check a request and return its handler; None if it is answered already."""
        if self.settings is not self.current.settings:
            self._prepare(self.current.settings)
        headers, allowed = exchange.headers, False
        origin = headers.get(b"origin")
        if origin is not None and self.is_allowed(origin):
            exchange.cors, allowed = header_lines(cors_headers(origin)), True
        if not exchange.path:
            exchange.path = canonical_path(path_of(exchange.url))
        if len(headers) != len(exchange.raw_headers):
            check_unique(exchange.raw_headers)
        host = headers.get(b"host")
        if host not in self.accepted_hosts:
            self.check_host(host)
        if allowed and exchange.method == "OPTIONS":
            exchange.respond(STATUS_LINES[204] + header_lines(preflight_headers(headers)), b"")
            return None
        site = headers.get(b"sec-fetch-site")
        # only browsers send these two headers, and they send them correctly
        if site not in SAME_SITE and (site is not None or origin is not None):
            self.check_origin(exchange, allowed=allowed)
        self.check_key(exchange)
        handler = self.fast.get(exchange.path)
        if handler is None:
            return self.others
        if exchange.method != "POST":
            raise wrong_method(exchange)
        return handler

    def is_allowed(self, origin: bytes) -> bool:
        """Return whether pages of this origin may call the server."""
        return origin.lower() in self.origins

    async def cut(self, exchange: Exchange) -> None:
        """Tell the client that the server stopped before its answer was complete."""
        ref = ref_of(exchange) or "without an id"
        log.warning("answer %s was cut: the server stopped before it was complete", ref)
        try:
            async with asyncio.timeout(CUT_S):
                await self.reject(exchange, Stopping(STOPPED))
        except TimeoutError:
            log.warning("the error could not be sent to a client that did not read")
        finally:
            exchange.transport.close()

    async def reject(self, exchange: Exchange, error: SlipwayError) -> None:
        """Log an error and send it.

        If a stream of OpenAI's form has begun, it ends with an error event. For any other response
        that has begun, the closed connection is the only sign.
        """
        language = language_of(exchange.headers)
        exchange.error = type(error).code
        writer = exchange.writer
        if writer is not None and writer.streamed:
            await writer.fail(error, language)
            return
        ref = exchange.ref = ref_of(exchange) or new_id("ref")
        if error.status >= 500:
            log.warning("%s: %s", ref, log_text(error))
        else:  # the message may quote the request, which stays out of the log
            log.info(
                "%s: %s %r was rejected: %d (%s)",
                ref,
                exchange.method,
                template_of(exchange)[:100],
                error.status,
                type(error).code,
            )
        if exchange.begun:
            exchange.transport.close()
        else:
            respond_error(exchange, error, ref, language)

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

    def check_origin(self, exchange: Exchange, *, allowed: bool) -> None:
        """Raise Forbidden for pages of sites that are not in `listen.allowed_origins`.

        A link from another site to the chat page is allowed.
        """
        headers = exchange.headers
        origin = headers.get(b"origin")
        if allowed or (
            origin is not None
            and origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
        ):
            return
        if (
            origin is None
            and exchange.method == "GET"
            and headers.get(b"sec-fetch-mode") == b"navigate"
            and exchange.path in OPEN
        ):
            return
        if exchange.method == "GET" and exchange.path.startswith(("/static/", "/embed.js")):
            return  # the same files for everyone: a diagram's frame has no origin
        raise Forbidden(
            "A page of another site may not call this server.",
            "Add its origin to `listen.allowed_origins`.",
            param="Origin",
        )

    def check_key(self, exchange: Exchange) -> None:
        """Set the exchange's asker from the key. Raise Unauthorized if the path needs a key."""
        path = exchange.path
        if path not in OPEN and not path.startswith("/static/"):
            exchange.asker = self.asker(exchange)
        elif path == "/readyz":  # public, but only known keys get the details
            try:
                exchange.asker = self.asker(exchange)
            except (Unauthorized, KeysUnavailable):
                exchange.asker = None

    def asker(self, exchange: Exchange) -> Asker:
        """Say who asks: the holder of the key that was sent, else who signed in."""
        key = authorization(exchange.headers)
        if self.sign_in is None:
            return self.admission.asker(key)
        person = None if key is not None else self.person(exchange, self.sign_in)
        if person is None:
            return self.admission.asker(key)
        exchange.person = person
        return self.sign_in.asker(person)

    def person(self, exchange: Exchange, sign_in: SignIn) -> Person | None:
        scope = scope_of(exchange)
        return sign_in.person(scope, exchange.headers)

    def usual_body(self, exchange: Exchange) -> bytes:
        """Return the body if it is here, small and JSON, as nearly always. Otherwise b"", and `read`
        reads it or says what is wrong.
        """
        parts = exchange.parts
        if (
            exchange.complete
            and len(parts) == 1
            and len(parts[0]) <= self.usual_size
            and exchange.headers.get(b"content-type") == b"application/json"
        ):
            return parts[0]
        return b""

    async def body(self, scope: Scope, _: Receive, most_kb: float | None = None) -> bytes:
        """Return the body of the request that an ASGI handler answers, as `read` does."""
        return await self.read(scope["extensions"]["slipway"], most_kb)

    async def read(self, exchange: Exchange, most_kb: float | None = None) -> bytes:
        """Return the request's JSON body, of at most `most_kb` KiB if that is less than `body_mb`.

        Raise UnsupportedMedia for another content type, TooLarge without reading past the limit.
        """
        headers = exchange.headers
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
        body = await self.whole_body(exchange, limit_mb)
        if len(body) > SIMPLE_BODY:
            check_complexity(body)
        if exchange.said is not None:
            exchange.sent_body = body
        return body

    async def whole_body(self, exchange: Exchange, limit_mb: float) -> bytes:
        if exchange.complete and len(exchange.parts) == 1:
            return exchange.parts[0]
        parts, size = [], 0
        while part := await exchange.part():
            parts.append(part)
            size += len(part)
            self.check_size(size, limit_mb)
        return b"".join(parts)

    def check_size(self, size: int, limit_mb: float) -> None:
        """Raise TooLarge if a body has more than `limit_mb` MiB."""
        if size > limit_mb * 1024 * 1024:
            name = "body_mb" if limit_mb == self.body_mb else "question_kb"
            raise TooLarge(
                f"The body is larger than {limit_mb:g} MiB.",
                f"Send less, or ask the operator to raise `limits.{name}`.",
            )


def path_of(url: bytes) -> str:
    """Return the decoded path of a request's target. Raise BadRequest if it has none."""
    try:
        return decoded_path(path_and_query(url)[0])
    except httptools.HttpParserError:
        raise BadRequest("This is not a valid HTTP request.", "Send HTTP/1.1.") from None


def ref_of(exchange: Exchange) -> str | None:
    """Return the id of the exchange's answer, if it has one."""
    return exchange.ref or (exchange.scope or {}).get("slipway.ref")


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
