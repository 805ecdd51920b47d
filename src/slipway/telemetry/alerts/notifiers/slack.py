"""Post alerts to a channel of Slack, by an incoming webhook (also of Mattermost and Rocket.Chat)."""

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage
from slipway.telemetry.alerts.posting import post

LONGEST = 3_500  # characters; Slack cuts longer texts


async def send(settings: NotifierSettings, message: AlertMessage) -> None:
    await post(
        settings.url or "", {"text": escaped(f"*{message.title}*\n{message.text}")[:LONGEST]}
    )


def escaped(text: str) -> str:
    """Escape what Slack takes for a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
