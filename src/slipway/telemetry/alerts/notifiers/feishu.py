"""Post alerts to a group of Feishu (Lark), by a custom bot.

A bot that checks signatures needs its `secret`: `timestamp` (seconds) and `sign` (the HMAC of
nothing, with timestamp, a line feed and the secret as its key) are added to the message.
"""

import base64
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import urlsplit

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage
from slipway.telemetry.alerts.posting import check_code, post

LONGEST = 5_000  # characters
BUSY = (9499, 11232, 11233)  # codes of errors that may be over soon: too many messages


async def send(settings: NotifierSettings, message: AlertMessage) -> None:
    text = f"{message.title}\n\n{message.text}"[:LONGEST]
    body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
    if settings.secret:
        body |= signed(settings.secret, int(time.time()))
    url = settings.url or ""
    check_code(await post(url, body), "code", urlsplit(url).hostname or "?", BUSY)


def signed(secret: str, at: int) -> dict[str, str]:
    """Return the fields that prove who sent a message, and when."""
    digest = hmac.new(f"{at}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": str(at), "sign": base64.b64encode(digest).decode()}
