"""The routes of keys: an admin key makes, lists, limits, replaces and revokes them."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.errors import Conflict, Forbidden, NotFound, NotKept
from slipway.keys import GRACE, KeyDesk, MadeKey, NewKey
from slipway.store import SavedKey, StoreError
from slipway.types import Asker
from slipway.web.descriptions import TEXT, Operation, fields, list_of, one_of
from slipway.web.guard import Guard
from slipway.web.request_json import parse_json
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

MAX_KB = 64.0  # of a request
Result = TypeVar("Result")
ERRORS = (Forbidden, NotKept)
KEY = fields(object=one_of("key"), id=TEXT, name=TEXT, tenant=TEXT)
MADE = fields(object=one_of("key"), id=TEXT, key=TEXT)


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`limits` changes the fields that it has; null removes one, or all."""

    limits: dict[str, Any] | None


class RotateRequest(msgspec.Struct, forbid_unknown_fields=True):
    grace: str = GRACE


decode_new = msgspec.json.Decoder(NewKey).decode
decode_change = msgspec.json.Decoder(ChangeRequest).decode
decode_rotate = msgspec.json.Decoder(RotateRequest).decode

LIST = Operation(
    about="the keys in the store, for an admin key",
    returns=fields(object=one_of("list"), data=list_of(KEY)),
    errors=ERRORS,
)
CREATE = Operation(about="makes a key", body=NewKey, returns=MADE, errors=ERRORS)
READ = Operation(about="one of them", returns=KEY, errors=(*ERRORS, NotFound))
LIMIT = Operation(
    about="changes its limits",
    body=ChangeRequest,
    returns=KEY,
    errors=(*ERRORS, NotFound, Conflict),
)
REVOKE = Operation(about="revokes it", returns=KEY, errors=(*ERRORS, NotFound, Conflict))
ROTATE = Operation(
    about="replaces it by another secret",
    body=RotateRequest,
    returns=MADE,
    errors=(*ERRORS, NotFound, Conflict),
)


class KeyRoutes:
    """The handlers. `changed` is called after each change, so that it counts at once here."""

    def __init__(
        self, desk: KeyDesk, changed: Callable[[], None], guard: Callable[[], Guard]
    ) -> None:
        self.desk, self.changed, self.guard = desk, changed, guard

    async def create(self, request: Request) -> Response:
        check_admin(request)
        body = await self.guard().body(request.scope, request.receive, MAX_KB)
        new = parse_json(body, decode_new)
        return reply(made(await self.change(lambda: self.desk.create(new))))

    async def listed(self, request: Request) -> Response:
        check_admin(request)
        keys = await self.call(self.desk.list_keys)
        return reply({"object": "list", "data": [shown(key) for key in keys]})

    async def one(self, request: Request) -> Response:
        check_admin(request)
        wanted = request.path_params["id"]
        return reply(shown(await self.call(lambda: self.desk.find(wanted))))

    async def rotate(self, request: Request) -> Response:
        check_admin(request)
        wanted = request.path_params["id"]
        body = await self.guard().body(request.scope, request.receive, MAX_KB)
        grace = parse_json(body, decode_rotate).grace
        return reply(made(await self.change(lambda: self.desk.rotate(wanted, grace))))

    async def limit(self, request: Request) -> Response:
        check_admin(request)
        wanted = request.path_params["id"]
        body = await self.guard().body(request.scope, request.receive, MAX_KB)
        limits = parse_json(body, decode_change).limits
        return reply(shown(await self.change(lambda: self.desk.limit(wanted, limits))))

    async def revoke(self, request: Request) -> Response:
        check_admin(request)
        wanted = request.path_params["id"]
        return reply(shown(await self.change(lambda: self.desk.revoke(wanted))))

    async def change(self, verb: Callable[[], Result]) -> Result:
        def changing() -> Result:
            result = verb()
            self.changed()
            return result

        return await self.call(changing)

    async def call(self, verb: Callable[[], Result]) -> Result:
        """Call a verb in a thread. Raises NotKept if the store cannot be used."""
        try:
            return await asyncio.to_thread(verb)
        except StoreError as error:
            raise NotKept(f"The keys in the store cannot be used: {error}.") from None

    def paths(self) -> list[ApiRoute]:
        keys, one = "/v1/keys", "/v1/keys/{id}"
        return [
            ApiRoute(keys, self.listed, methods=["GET"], does=LIST),
            ApiRoute(keys, self.create, methods=["POST"], does=CREATE),
            ApiRoute(one, self.one, methods=["GET"], does=READ),
            ApiRoute(one, self.limit, methods=["PATCH"], does=LIMIT),
            ApiRoute(one, self.revoke, methods=["DELETE"], does=REVOKE),
            ApiRoute(f"{one}/rotate", self.rotate, methods=["POST"], does=ROTATE),
        ]


def check_admin(request: Request) -> None:
    """Raise Forbidden unless the key may manage keys."""
    asker: Asker = request.scope["slipway.asker"]
    if not (asker.admin or asker.everything):
        raise Forbidden(
            "This key may not manage keys.",
            "Send an admin key; `slipway keys create --admin` makes one.",
        )


def shown(key: SavedKey) -> dict[str, Any]:
    """Return what may be shown of a key at any time."""
    return {"object": "key", **msgspec.to_builtins(key)}


def made(result: MadeKey) -> dict[str, Any]:
    """Return a key with its secret, which is shown only now."""
    found = {**shown(result.key), "key": result.secret}
    return found if result.old_ends_at is None else {**found, "old_ends_at": result.old_ends_at}
