"""Read e-mails (`.eml`, RFC 5322 and MIME): subject, sender, receivers, date and text."""

import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    counted,
    described,
    one_line,
)
from slipway.knowledge.readers.encoding import cleaned, decoded
from slipway.knowledge.readers.html import html_text
from slipway.knowledge.readers.text import plain_text

_HEADERS = ("From", "To", "Cc", "Date")


def mail(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read an e-mail. Its plain text is preferred to its HTML; attachments are counted as missing."""
    message = message_from_bytes(data, policy=policy.default)
    subject = _header(message, "Subject")
    builder = DocumentBuilder()
    builder.heading(1, subject or fallback)
    headers = [(name, _header(message, name)) for name in _HEADERS]
    if not any(value for _, value in headers):
        raise UnreadableFile("It is not an e-mail", "export it again as .eml")
    builder.block("\n".join(f"{name}: {value}" for name, value in headers if value))
    body = _body(message)
    if body is not None:
        builder.include(body, below=1)
    attachments = [part.get_filename() or "" for part in _attachments(message)]
    if attachments:
        what = counted(len(attachments), "attachment is", "attachments are")
        named = ", ".join(name for name in attachments[:5] if name)
        builder.losses.append(
            Loss(what=f"{what} not read{f' ({named})' if named else ''}", fix="save them as files")
        )
    return builder.document(subject or fallback, described(subject, *_facts(message)))


def _header(message: EmailMessage, name: str) -> str:
    try:
        return cleaned(one_line(str(message.get(name) or "")))
    except (ValueError, IndexError, AttributeError):  # the email package on damaged headers
        return ""


def _body(message: EmailMessage) -> ParsedDocument | None:
    try:
        part = message.get_body(("plain", "html"))
    except (KeyError, AttributeError):  # the email package on damaged structures
        part = None
    if part is None:
        return None
    raw = cast(bytes, part.get_payload(decode=True) or b"")
    charset = part.get_content_charset() or ""
    try:
        text = cleaned(raw.decode(charset).replace("\r\n", "\n"))
    except (LookupError, UnicodeDecodeError):  # none, or a wrong one
        text = decoded(raw, markup=part.get_content_subtype() == "html").text
    return html_text(text, "") if part.get_content_subtype() == "html" else plain_text(text, "")


def _attachments(message: EmailMessage) -> list[EmailMessage]:
    try:
        return list(cast(Any, message.iter_attachments()))
    except (KeyError, AttributeError):
        return []


def _facts(message: EmailMessage) -> tuple[str, str]:
    """Return the sender and the day, as ISO 8601."""
    date = getattr(message.get("Date"), "datetime", None)
    day = date.isoformat() if isinstance(date, datetime.datetime) else ""
    return _header(message, "From"), day
