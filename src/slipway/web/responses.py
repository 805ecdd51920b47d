"""JSON responses."""

from typing import Any

from starlette.responses import Response

from slipway.providers import encode_json


def reply(data: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(
        encode_json(data),
        status,
        media_type="application/json",
        headers={"x-content-type-options": "nosniff"},
    )
