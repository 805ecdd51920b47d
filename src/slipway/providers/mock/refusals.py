"""Refuse a call, or fail it, with an error in OpenAI's form."""

import msgspec

from slipway.providers.mock.reply import JSON, MockReply, envelope, whole

KINDS = {  # status -> OpenAI's type and code
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


def refusal(
    status: int, message: str, *, kind: str = "", code: str = "", param: str | None = None
) -> MockReply:
    """Return an error in OpenAI's envelope; type and code follow from the status unless given."""
    usual = KINDS.get(status) or (("server_error", "server_error") if status >= 500 else KINDS[400])
    return whole(envelope(message, kind or usual[0], code or usual[1], param), status=status)


def failed(code: int, retry_after: str = "") -> MockReply:
    """Return a failure with this status. `retry_after` is the header's value."""
    reply = refusal(code, f"The mock provider was asked to fail with {code}.")
    return (
        msgspec.structs.replace(reply, headers=(JSON, ("Retry-After", retry_after)))
        if retry_after
        else reply
    )
