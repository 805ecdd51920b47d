"""The outermost ASGI function: check Host, Origin, key and size, dispatch, and send errors.

The chat route is called directly, since it is the one under load; all others go through
Starlette's router.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from slipway.admission import Admission
from slipway.answer import Current
from slipway.catalogue import preferred_language
from slipway.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    SlipwayError,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
)
from slipway.login import sign_in_of
from slipway.login.sessions import Sealer
from slipway.providers import encode_json
from slipway.settings import Settings, is_loopback
from slipway.types import Asker, Language, new_id
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
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await respond(send, error.status, headers, encode_json(envelope(error, ref, language)))


def check_post(scope: Scope) -> None:
    """Raise MethodNotAllowed unless the method is POST."""
    if scope["method"] != "POST":
        what = f"`{scope['path']}` does not support {scope['method']}."
        raise MethodNotAllowed(what, "Use POST.")


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
        self._prepare(current.settings)

    @property
    def admission(self) -> Admission:
        """Return the keys and limits in force."""
        return self.current.pipeline.admission

    def _prepare(self, settings: Settings) -> None:
        """Derive from the settings what each request is checked against."""
        self.settings = settings
        self.body_mb = settings.limits.body_mb
        self.largest_body = int(self.body_mb * 1024 * 1024)
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
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            send_through = self.admit(scope, send)
            fast = self.fast.get(scope["path"])
            if fast is not None:
                check_post(scope)
                await fast(scope, receive, send_through)
            else:
                send = send_through
                await self.rest(scope, receive, watched)
        except SlipwayError as error:
            await self.reject(scope, send, error, started)
        except asyncio.CancelledError:
            if not connection.lost:  # the client is still there: the server is stopping
                log.warning(
                    "answer %s was cut: the server stopped before it was complete",
                    scope.get("slipway.ref", "without an id"),
                )
                connection.transport.close()
        except Exception as error:
            log.exception("bug: %s %s failed unexpectedly", scope["method"], scope["path"])
            await self.reject(scope, send, InternalError.of(error), started)

    async def reject(self, scope: Scope, send: Send, error: SlipwayError, started: bool) -> None:
        """Log an error and send it; if the response has `started`, close the connection instead."""
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
        if started:  # no error can be sent any more; closing tells the client that it is cut
            scope["extensions"]["slipway"].transport.close()
        else:
            await respond_error(send, error, ref, language_of(scope["slipway.headers"]))

    def admit(self, scope: Scope, send: Send) -> Send:
        """Check a request and return the `send` to use, which may add CORS headers.

        Raise an error if the request is not allowed. The headers are read once, into
        `scope["slipway.headers"]`.
        """
        if self.settings is not self.current.settings:
            self._prepare(self.current.settings)
        headers = scope["slipway.headers"] = dict(scope["headers"])
        host = headers.get(b"host")
        if host not in self.accepted_hosts:
            self.check_host(host)
        site = headers.get(b"sec-fetch-site")
        if site not in (b"same-origin", b"none") and (
            site is not None or b"origin" in headers
        ):  # only browsers send these, and they send them correctly
            return self.check_origin(scope, headers, send)
        self.check_key(scope, headers)
        return send

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

    def check_origin(self, scope: Scope, headers: RequestHeaders, send: Send) -> Send:
        """Raise Forbidden for pages of sites that are not in `listen.allowed_origins`.

        A link from another site to the chat page is allowed.
        """
        origin = headers.get(b"origin")
        if (
            origin is not None
            and origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
        ):
            self.check_key(scope, headers)
            return send
        if origin is not None and origin.lower() in self.origins:
            return self.cors(scope, headers, origin, send)
        if (
            origin is None
            and scope["method"] == "GET"
            and headers.get(b"sec-fetch-mode") == b"navigate"
            and scope["path"] in OPEN
        ):
            return send
        if scope["method"] == "GET" and scope["path"].startswith(("/static/", "/embed.js")):
            return send  # the same files for everyone: a diagram's frame has no origin
        raise Forbidden(
            "A page of another site may not call this server.",
            "Add its origin to `listen.allowed_origins`.",
            param="Origin",
        )

    def cors(self, scope: Scope, headers: RequestHeaders, origin: bytes, send: Send) -> Send:
        """Return a `send` that adds the CORS headers for an allowed origin."""
        allow = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        allow.append(
            (
                b"access-control-expose-headers",
                b"x-slipway-answer-id, x-slipway-served-by, x-slipway-model, retry-after",
            )
        )
        if scope["method"] == "OPTIONS":
            wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
            allow.append((b"access-control-allow-methods", b"GET, POST, DELETE"))
            allow.append((b"access-control-allow-headers", wanted))
            allow.append((b"access-control-max-age", b"600"))
            scope["path"] = "/preflight"
        else:
            self.check_key(scope, headers)

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *allow]
            await send(message)

        return with_cors

    def check_key(self, scope: Scope, headers: RequestHeaders) -> None:
        """Set `scope["slipway.asker"]` from the key. Raise Unauthorized if the path needs a key."""
        path = scope["path"]
        if path not in OPEN and not path.startswith("/static/"):
            scope["slipway.asker"] = self.asker(scope, headers)
        elif path == "/readyz":  # public, but only known keys get the details
            try:
                scope["slipway.asker"] = self.asker(scope, headers)
            except Unauthorized:
                scope["slipway.asker"] = None

    def asker(self, scope: Scope, headers: RequestHeaders) -> Asker:
        """Say who asks: the holder of the key that was sent, else who signed in."""
        authorization = headers.get(b"authorization")
        if self.sign_in is None:
            return self.admission.asker(authorization)
        if authorization is None and (person := self.sign_in.person(scope, headers)) is not None:
            scope["slipway.person"] = person
            return self.sign_in.asker(person)
        return self.admission.asker(authorization)

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the request's JSON body.

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
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.largest_body:
            raise self.too_large()
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.largest_body:
                raise self.too_large()
        return b"".join(parts)

    def too_large(self) -> TooLarge:
        return TooLarge(
            f"The body is larger than {self.body_mb:g} MiB.",
            "Send less, or ask the operator to raise `limits.body_mb`.",
        )
