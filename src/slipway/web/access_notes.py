"""Note requests for the access log: when they began, what they were, and how they ended."""

import time

from slipway.telemetry.access_log import AccessLog, RequestSeen
from slipway.web.exchange import Exchange

# Requests whose content may be logged
CONTENT = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/answers"})


class AccessNotes:
    """Hands each request to the access log when it has ended."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def begin(self, exchange: Exchange) -> None:
        """Note when a request began; its content is kept from now on if it is logged."""
        exchange.began_at = time.monotonic()
        if self._log.content:
            exchange.said = []

    def end(self, exchange: Exchange) -> None:
        """Hand a request on that has ended, unless another process logs it."""
        if exchange.passed_on:
            return
        asker, said, path, body = exchange.asker, exchange.said, exchange.path, exchange.sent_body
        scope = exchange.scope  # None for chat requests, which have no parameters in their path
        if said is not None and body is None and len(exchange.parts) == 1:
            body = exchange.parts[0]  # it was read where it lay
        has_content = said is not None and path in CONTENT
        self._log.note(
            RequestSeen(
                at=time.time(),
                duration_s=time.monotonic() - exchange.began_at,
                method=exchange.method,
                path=path if scope is None else template_of(exchange),
                head=exchange.head[:12],
                error=exchange.error,
                ref=exchange.ref or (scope.get("slipway.ref") if scope is not None else None),
                tenant=None if asker is None else asker.tenant,
                key=None if asker is None else asker.owner,
                body=body if has_content else None,
                said=(said or ()) if has_content else (),
            )
        )


def template_of(exchange: Exchange) -> str:
    """Return the path of a request with the names of its parameters in place of their values, which may be names
    of documents.
    """
    path = exchange.path
    parameters = exchange.scope.get("path_params") if exchange.scope is not None else None
    for name, value in (parameters or {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path
