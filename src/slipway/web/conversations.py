"""The routes of conversations: those that the server keeps for a reader, and shared links."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current, Pipeline
from slipway.errors import BadRequest, NotFound, NotKept
from slipway.providers import encode_json
from slipway.store import Conversations, RecordStore, SavedConversation, Shared, StoreError
from slipway.types import Asker, new_id
from slipway.web.asgi import Receive, Scope, Send
from slipway.web.descriptions import (
    DELETED,
    OBJECT,
    TEXT,
    WHOLE,
    Operation,
    Parameter,
    fields,
    list_of,
    one_of,
)
from slipway.web.guard import JSON, Guard, respond
from slipway.web.request_json import parse_json
from slipway.web.routes import ApiRoute, AsgiHandler

MOST = 500  # conversations of a reader, and links; the oldest unpinned ones are dropped first
LARGEST = 4 * 1024 * 1024  # bytes of one conversation
MOST_TURNS = 200
SHARED_DAYS = 30
LONGEST_QUERY = 200
_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_NO_CONVERSATION = "There is no conversation of this id."
_NO_SHARE = "There is no shared conversation of this id."
_MAY_BE = "The link may have expired, or your key or login may not read what it cites."

Result = TypeVar("Result")


class ConversationRequest(msgspec.Struct, forbid_unknown_fields=True):
    title: Annotated[str, msgspec.Meta(max_length=4000)]
    at: Annotated[float, msgspec.Meta(ge=0)]
    turns: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MOST_TURNS)]
    pinned: bool = False
    named: bool = False


class ShareRequest(msgspec.Struct, forbid_unknown_fields=True):
    turns: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=MOST_TURNS)]


class SharedSource(msgspec.Struct):
    path: str


class SharedTurn(msgspec.Struct):
    """What is checked of a turn; the rest of it is shown as it is."""

    question: str
    app: str
    sources: list[SharedSource]


decode_conversation = msgspec.json.Decoder(ConversationRequest).decode
decode_share = msgspec.json.Decoder(ShareRequest).decode
is_id = msgspec.json.Decoder(Annotated[str, msgspec.Meta(pattern=_NAME)])

ERRORS = (NotFound, NotKept)
LIST = Operation(
    about="the conversations that the server keeps for this key or person; `?q=WORDS`",
    query=(Parameter(name="q", about="words that title or turns contain"),),
    returns=fields(object=one_of("list"), data=list_of(OBJECT)),
    errors=ERRORS,
)
READ = Operation(
    about="one of them with its turns",
    returns=fields(id=TEXT, title=TEXT, turns=list_of(OBJECT)),
    errors=ERRORS,
)
SAVE = Operation(
    about="saves one", body=ConversationRequest, returns=fields(id=TEXT), errors=ERRORS
)
DELETE = Operation(about="deletes one", returns=DELETED, errors=ERRORS)
SHARE = Operation(
    about="shares a conversation by a link",
    body=ShareRequest,
    returns=fields(id=TEXT, days=WHOLE),
    errors=(NotKept,),
)
READ_SHARED = Operation(
    about="what was shared, if the reader may read what it cites",
    returns=fields(id=TEXT, turns=list_of(OBJECT)),
    errors=ERRORS,
)
UNSHARE = Operation(about="takes a link back", returns=DELETED, errors=ERRORS)


class ConversationRoutes:
    """The handlers. A conversation belongs to the key or login that saved it; to all others it is
    not there.
    """

    def __init__(
        self, current: Current, store: Callable[[], RecordStore], guard: Callable[[], Guard]
    ) -> None:
        self.current, self.store, self.guard = current, store, guard

    # the reader's own

    async def listed(self, request: Request) -> Response:
        self.check_kept()
        words = request.query_params.get("q", "")
        if len(words) > LONGEST_QUERY:
            raise BadRequest(
                f"`q` has {len(words)} characters; {LONGEST_QUERY} is the limit.", param="q"
            )
        owner = owner_of(request.scope)
        rows = await self.call(lambda kept: kept.find(owner, words.split()))
        data = [
            {"id": r.id, "title": r.title, "at": r.at, "pinned": r.pinned, "named": r.named}
            for r in rows
        ]
        return reply({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        self.check_kept()
        wanted, owner = request.path_params["id"], owner_of(request.scope)
        row = await self.call(lambda kept: kept.load(owner, wanted))
        if row is None:
            raise NotFound(_NO_CONVERSATION, param="id")
        return reply({**msgspec.to_builtins(row), "turns": msgspec.Raw(row.turns.encode())})

    async def put(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.check_kept()
        wanted = Request(scope).path_params["id"]
        check_id(wanted)
        sent = parse_json(await self.body(scope, receive), decode_conversation)
        row = SavedConversation(
            id=wanted,
            title=sent.title,
            at=sent.at,
            pinned=sent.pinned,
            named=sent.named,
            turns=encode_json(sent.turns).decode(),
        )
        owner = owner_of(scope)
        await self.call(lambda kept: kept.save(owner, row, at_most=MOST))
        await respond(send, 200, JSON, encode_json({"id": wanted}))

    async def delete(self, request: Request) -> Response:
        self.check_kept()
        wanted, owner = request.path_params["id"], owner_of(request.scope)
        if not await self.call(lambda kept: kept.delete(owner, wanted)):
            raise NotFound(_NO_CONVERSATION, param="id")
        return reply({"id": wanted, "deleted": True})

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of a request that holds a conversation. Raises BadRequest if it is too
        large to be kept.
        """
        body = await self.guard().body(scope, receive)
        if len(body) > LARGEST:
            raise BadRequest(
                f"The conversation is larger than {LARGEST // 1024 // 1024} MiB.",
                "Begin a new one.",
                param="turns",
            )
        return body

    def check_kept(self) -> None:
        if self.current.settings.conversations != "server":
            raise NotFound(
                "Conversations are kept in the browser here, not on the server.",
                "Set `conversations: server` to keep them on the server.",
            )

    # shared links

    async def share(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = parse_json(await self.body(scope, receive), decode_share)
        asker: Asker = scope["slipway.asker"]
        turns, pipeline = shared_turns(sent.turns), self.current.pipeline
        n = await asyncio.to_thread(unreadable, pipeline, turns, asker)
        if n is not None:
            raise BadRequest(
                f"`turns[{n}]` is of an app, or cites a document, that you may not read.",
                "Share what you asked yourself.",
                param=f"turns[{n}]",
            )
        share = Shared(
            id=new_id("shr"),
            tenant=asker.tenant,
            owner=owner_of(scope),
            turns=encode_json(sent.turns).decode(),
        )
        await self.call(lambda kept: kept.save_share(share, days=SHARED_DAYS, at_most=MOST))
        await respond(send, 200, JSON, encode_json({"id": share.id, "days": SHARED_DAYS}))

    async def shared(self, request: Request) -> Response:
        """Return what was shared, to a reader of the same tenant who may read all that it cites."""
        wanted, asker = request.path_params["id"], request.scope["slipway.asker"]
        found = await self.call(lambda kept: kept.load_share(wanted, days=SHARED_DAYS))
        if found is None or found.tenant != asker.tenant:
            raise NotFound(_NO_SHARE, _MAY_BE, param="id")
        turns = msgspec.json.decode(found.turns)
        n = await asyncio.to_thread(unreadable, self.current.pipeline, shared_turns(turns), asker)
        if n is not None:
            raise NotFound(_NO_SHARE, _MAY_BE, param="id")
        return reply({"id": found.id, "turns": turns})

    async def unshare(self, request: Request) -> Response:
        wanted, owner = request.path_params["id"], owner_of(request.scope)
        if not await self.call(lambda kept: kept.delete_share(wanted, owner)):
            raise NotFound(_NO_SHARE, param="id")
        return reply({"id": wanted, "deleted": True})

    async def call(self, verb: Callable[[Conversations], Result]) -> Result:
        """Call a verb of the store in a thread. Raises NotKept if the store cannot be used."""
        try:
            return await asyncio.to_thread(lambda: verb(self.store().conversations))
        except StoreError as error:
            raise NotKept(f"Conversations cannot be saved: {error}.") from None

    def paths(self) -> list[ApiRoute]:
        one, share = "/v1/conversations/{id}", "/v1/shares/{id}"
        return [
            ApiRoute("/v1/conversations", self.listed, methods=["GET"], does=LIST),
            ApiRoute(one, self.one, methods=["GET"], does=READ),
            ApiRoute(one, AsgiHandler(self.put), methods=["PUT"], does=SAVE),
            ApiRoute(one, self.delete, methods=["DELETE"], does=DELETE),
            ApiRoute("/v1/shares", AsgiHandler(self.share), methods=["POST"], does=SHARE),
            ApiRoute(share, self.shared, methods=["GET"], does=READ_SHARED),
            ApiRoute(share, self.unshare, methods=["DELETE"], does=UNSHARE),
        ]


def owner_of(scope: Scope) -> str:
    asker: Asker = scope["slipway.asker"]
    return f"{asker.tenant}/{asker.owner}"


def check_id(wanted: str) -> None:
    try:
        is_id.decode(msgspec.json.encode(wanted))
    except msgspec.ValidationError:
        raise BadRequest(
            "`id` is not the name of a conversation.",
            "Use at most 64 letters, digits, `-` and `_`.",
            param="id",
        ) from None


def shared_turns(turns: list[dict[str, Any]]) -> list[SharedTurn]:
    """Return what is checked of each turn. Raises BadRequest, naming the field."""
    try:
        return msgspec.convert(turns, list[SharedTurn])
    except msgspec.ValidationError as error:
        raise BadRequest(
            f"`turns`: {error}.", "Send the page's own turns.", param="turns"
        ) from None


def unreadable(pipeline: Pipeline, turns: list[SharedTurn], asker: Asker) -> int | None:
    """Return the number of the first turn of an app that the asker may not call, or with a document
    that it may not read; None if there is none. Blocks while an app's documents are listed.
    """
    readable = dict[str, set[str]]()
    for n, turn in enumerate(turns):
        if not pipeline.admission.may_call(asker, turn.app):
            return n
        app = pipeline.apps.get(turn.app)
        if app is None and turn.app not in pipeline.routes:
            return n
        if turn.app not in readable:
            docs = app.knowledge.documents(asker) if app is not None and app.knowledge else []
            readable[turn.app] = {doc.path for doc in docs}
        if not readable[turn.app].issuperset(source.path for source in turn.sources):
            return n
    return None


def reply(data: Any) -> Response:
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    return Response(encode_json(data), media_type="application/json", headers=headers)
