"""Send alerts as mail, through a server that takes SMTP."""

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import urlsplit

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage
from slipway.telemetry.alerts.posting import TIMEOUT_S, NotifyError

PORTS = {"smtp": 587, "smtps": 465}


async def send(settings: NotifierSettings, message: AlertMessage) -> None:
    await asyncio.to_thread(send_now, settings, written(settings, message))


def written(settings: NotifierSettings, message: AlertMessage) -> EmailMessage:
    """Return the mail."""
    mail = EmailMessage()
    mail["Subject"] = f"Slipway: {message.title}"[:200]
    mail["From"], mail["To"] = settings.sender, ", ".join(settings.to)
    mail["Date"], mail["AlertMessage-ID"] = formatdate(), make_msgid(domain="slipway")
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notes, please
    mail.set_content(f"{message.text}\n")
    return mail


def send_now(settings: NotifierSettings, mail: EmailMessage) -> None:
    """Deliver the mail to the server. A password is only sent over TLS. Raises NotifyError."""
    parts = urlsplit(settings.server or "")
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    context = ssl.create_default_context()
    try:
        with (
            smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=context)
            if parts.scheme == "smtps"
            else smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        ) as server:
            secure = parts.scheme == "smtps"
            server.ehlo_or_helo_if_needed()
            if not secure and server.has_extn("starttls"):
                server.starttls(context=context)
                secure = True
            if settings.user and settings.password:
                if not secure:
                    why = f"{host} offers no TLS, so the password is not sent"
                    raise NotifyError(why, may_retry=False)
                server.login(settings.user, settings.password)
            server.send_message(mail)
    except smtplib.SMTPAuthenticationError:
        raise NotifyError(f"{host} refused the user or the password", may_retry=False) from None
    except smtplib.SMTPResponseException as error:
        may_retry = 400 <= error.smtp_code < 500
        raise NotifyError(f"{host} answered {error.smtp_code}", may_retry=may_retry) from None
    except smtplib.SMTPRecipientsRefused:
        raise NotifyError(f"{host} refused the recipients", may_retry=False) from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotifyError(f"{host}: {type(error).__name__}", may_retry=True) from None
