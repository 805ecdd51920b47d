"""Post alerts to a group of DingTalk, by a custom robot.

A robot that checks signatures needs its `secret`: `timestamp` (milliseconds) and `sign` (the HMAC of
timestamp, a line feed and the secret) are added to the address.
"""

import base64
import hashlib
import hmac
import time
from urllib.parse import urlencode, urlsplit

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage
from slipway.telemetry.alerts.posting import check_code, post

LONGEST = 5_000  # characters of a robot's message
BUSY = (-1, 130101, 410100)  # codes of errors that may be over soon


async def send(settings: NotifierSettings, message: AlertMessage) -> None:
    url = settings.url or ""
    if settings.secret:
        url = signed(url, settings.secret, int(time.time() * 1000))
    text = f"#### {message.title}\n\n{message.markdown}"[:LONGEST]
    body = {"msgtype": "markdown", "markdown": {"title": message.title, "text": text}}
    check_code(await post(url, body), "errcode", urlsplit(url).hostname or "?", BUSY)


def signed(url: str, secret: str, at_ms: int) -> str:
    """Return the address with its signature."""
    digest = hmac.new(secret.encode(), f"{at_ms}\n{secret}".encode(), hashlib.sha256).digest()
    query = urlencode({"timestamp": at_ms, "sign": base64.b64encode(digest).decode()})
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"
