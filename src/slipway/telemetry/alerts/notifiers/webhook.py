"""Post alerts to an address of yours, as Alertmanager does.

With a `secret`, the header `x-slipway-signature` is `sha256=` and the HMAC-SHA256, in hexadecimal, of
the header `x-slipway-timestamp`, a point and the body.
"""

import hashlib
import hmac
import time

import msgspec

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage, as_json
from slipway.telemetry.alerts.posting import post


async def send(settings: NotifierSettings, message: AlertMessage) -> None:
    body = msgspec.json.encode(as_json(message))
    headers = signed(settings.secret, body, int(time.time())) if settings.secret else {}
    await post(settings.url or "", body, headers)


def signed(secret: str, body: bytes, at: int) -> dict[str, str]:
    """Return the headers that prove who sent a body, and when."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"x-slipway-timestamp": str(at), "x-slipway-signature": f"sha256={digest}"}
