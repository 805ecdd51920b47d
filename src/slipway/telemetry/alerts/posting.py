"""Post JSON to a chat service or webhook, with a time limit."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 10.0
READ_AT_MOST = 64 * 1024  # bytes of a reply
RETRIED = (408, 425, 429, *range(500, 600))


class NotifyError(Exception):
    """A message could not be delivered; `may_retry` says whether it may help to try again.

    The text never holds the address: many services put a token into it.
    """

    def __init__(self, why: str, *, may_retry: bool) -> None:
        super().__init__(why)
        self.may_retry = may_retry


async def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    """Post a JSON value (or bytes that are JSON), and return the reply's JSON; None if it is none.

    Redirects are not followed. Raises NotifyError.
    """
    import httpx  # loaded by the first message

    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    host = urlsplit(url).hostname or "?"
    headers = {"content-type": "application/json", "user-agent": "slipway", **(headers or {})}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            reply = await client.post(url, content=content, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotifyError(f"{host}: {type(error).__name__}", may_retry=True) from None
    if not reply.is_success:
        retried = reply.status_code in RETRIED
        raise NotifyError(f"{host} answered {reply.status_code}", may_retry=retried)
    try:
        return msgspec.json.decode(reply.content[:READ_AT_MOST])
    except msgspec.DecodeError:
        return None


def check_code(reply: Any, field: str, host: str, retried: tuple[int, ...]) -> None:
    """Raise NotifyError if a reply with status 200 says by a code that it failed."""
    code = reply.get(field) if isinstance(reply, dict) else None
    if code not in (0, None):
        raise NotifyError(f"{host} refused it with {field} {code!r:.40}", may_retry=code in retried)
