"""The routes of `/v1/answers`: ask, follow, resume, stop and retry."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from slipway.answer import Current, Pipeline, answer, answer_kept
from slipway.answer.draft import Draft, Say
from slipway.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    Gone,
    ModelNotFound,
    NotCached,
    NotFound,
    ProviderError,
    SlipwayError,
    all_errors,
)
from slipway.knowledge.access import matcher
from slipway.knowledge.attachments import Attachments
from slipway.types import (
    Answered,
    Asker,
    Message,
    Question,
    Within,
    new_answer_id,
)
from slipway.web.asgi import Receive, Scope, Send
from slipway.web.cache_headers import cache_headers, wish_of
from slipway.web.chat_requests import question_text
from slipway.web.descriptions import (
    EVENTS_TYPE,
    JSON_TYPE,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    YES_NO,
    Operation,
    Parameter,
    fields,
    list_of,
    or_null,
)
from slipway.web.feedback import answered_record, is_alone
from slipway.web.guard import STREAM, Guard, language_of
from slipway.web.names import callable_names, check_name, unknown_name
from slipway.web.request_json import bad_request_from, parse_json
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute
from slipway.web.runs import Run, Runs, Work
from slipway.web.whole_answers import whole_answer

NoteAnswered = Callable[[Answered], None]


class AnswerRequest(msgspec.Struct, forbid_unknown_fields=True):
    question: str | None = None
    messages: list[dict[str, Any]] | None = None
    app: str | None = None
    stream: bool = False
    within: Within | None = None
    attachments: tuple[str, ...] = ()


class RetryRequest(msgspec.Struct, forbid_unknown_fields=True):
    stream: bool = False


decode_answer = msgspec.json.Decoder(AnswerRequest).decode
CACHE_WISH = Parameter(
    name="x-slipway-cache", about="what the cache may do: `off`, `refresh` or `only`"
)
LAST_EVENT = Parameter(name="Last-Event-ID", about="the number of the last event that was read")
AFTER = Parameter(name="after", about="the same, for clients that cannot set the header")
ANSWER_ERRORS: tuple[type[SlipwayError], ...] = (
    ModelNotFound,
    NotCached,
    *all_errors(ProviderError),
)
ANSWER = fields(
    id=TEXT,
    text=or_null(TEXT),
    served_by=or_null(TEXT),
    model=or_null(TEXT),
    abstained=YES_NO,
    sources=list_of(OBJECT),
    citations=list_of(OBJECT),
    sections=list_of(OBJECT),
    usage=or_null(OBJECT),
    notices=list_of(OBJECT),
    attempts=WHOLE,
    ttft_s=or_null(NUMBER),
    duration_s=or_null(NUMBER),
)
ASK = Operation(
    about="an answer with its sources, whole or as events",
    headers=(CACHE_WISH,),
    body=AnswerRequest,
    returns=ANSWER,
    sends=(JSON_TYPE, EVENTS_TYPE),
    errors=(*ANSWER_ERRORS, NotFound, Cancelled),
    passes_on_refusals=True,
)
READ = Operation(
    about="an answer as far as it is written",
    returns=fields(**ANSWER["properties"], state=TEXT),
    errors=(NotFound, Gone),
)
RESUME = Operation(
    about="its events behind `Last-Event-ID`",
    headers=(LAST_EVENT,),
    query=(AFTER,),
    sends=(EVENTS_TYPE,),
    returns=TEXT,
    errors=(NotFound, Gone),
)
CANCEL = Operation(about="stops it", returns=fields(id=TEXT, state=TEXT), errors=(NotFound, Gone))
RETRY = Operation(
    about="does again what is missing",
    body=RetryRequest,
    body_is_needed=False,
    returns=ANSWER,
    sends=(JSON_TYPE, EVENTS_TYPE),
    errors=(*ANSWER_ERRORS, NotFound, Gone, Conflict, Cancelled),
    passes_on_refusals=True,
)


class AnswerRoutes:
    """Handles `/v1/answers`. A question keeps the pipeline that it began with."""

    def __init__(
        self,
        current: Current,
        guard: Callable[[], Guard],
        note_answered: NoteAnswered,
        attachments: Attachments,
    ) -> None:
        """Keep what the handlers need.

        `guard` reads request bodies; `note_answered` is called with each finished answer.
        """
        self.current, self.guard, self.note_answered = current, guard, note_answered
        self.attachments, self.runs = attachments, Runs()

    async def ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a question."""
        most_kb = self.current.settings.limits.question_kb
        body = await self.guard().body(scope, receive, most_kb)
        request: AnswerRequest = parse_json(body, decode_answer)
        asker: Asker = scope["slipway.asker"]
        messages = messages_of(request)
        text, within = question_text(messages), parse_within(msgspec.to_builtins(request.within))
        pipeline = self.current.pipeline
        name = self.app_name(pipeline, request, asker)
        check_name(pipeline, name, asker)
        app = pipeline.app(name)
        if app is None:
            raise unknown_name(pipeline, name, asker)
        if request.attachments and app.knowledge is None:
            raise BadRequest(
                f"`{app.name}` has no documents, and takes no files.",
                "Ask an app with documents.",
                param="attachments",
            )
        attached = self.attachments.get(asker.owner, request.attachments)
        answer_id = scope["slipway.ref"] = new_answer_id()
        run = self.runs.start(
            Question(
                id=answer_id,
                app=app.name,
                text=text,
                messages=messages,
                asker=asker,
                asked_at=time.monotonic(),
                within=within,
                language=language_of(scope["slipway.headers"]),
                attached=attached,
                cache=wish_of(scope["slipway.headers"]),
            ),
            body,
            work_for(pipeline, "answers"),
        )
        note_when_done(run, self.note_answered)
        response = await self.response(run, stream=request.stream)
        await response(scope, receive, send)

    def app_name(self, pipeline: Pipeline, request: AnswerRequest, asker: Asker) -> str:
        """Return the requested app, or the only one. Raise BadRequest if there are several."""
        if request.app is not None:
            return request.app
        names = callable_names(pipeline, asker)
        mine = [name for name in names if name in pipeline.apps] or names
        if len(mine) == 1:
            return mine[0]
        known = ", ".join(f"`{n}`" for n in mine)
        raise BadRequest(
            "`app` is missing.",
            f"Name one of: {known}." if known else "This key has no app.",
            param="app",
        )

    async def response(self, run: Run, *, stream: bool, after: int = 0) -> Response:
        """Return the answer as a stream of events, or as a whole after its end."""
        if stream:
            return self.events(run, after)
        events = await run.whole(after)
        if run.error is not None:
            raise run.error
        whole = whole_answer(run.question.id, events)
        response = reply(whole)
        response.raw_headers += answer_headers(whole)
        return response

    def events(self, run: Run, after: int) -> StreamingResponse:
        """Return the stream of the events after number `after`."""

        async def body() -> AsyncIterator[bytes]:
            async for encoded, _ in run.follow(after):
                yield encoded

        headers = {k.decode(): v.decode() for k, v in STREAM} | {
            "x-slipway-answer-id": run.question.id,
            "x-request-id": run.question.id,
        }
        return StreamingResponse(body(), headers=headers)

    def run_of(self, request: Request) -> Run:
        """Return the answer in the path. Raise NotFound or Gone."""
        asker: Asker = request.scope["slipway.asker"]
        return self.runs.get(request.path_params["id"], asker.owner)

    async def resume(self, request: Request) -> Response:
        """Return the events after `Last-Event-ID`."""
        after = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        run = self.run_of(request)
        if not (after.isascii() and after.isdigit() and len(after) < 20):
            raise BadRequest(
                "`Last-Event-ID` must be the number of an event.",
                "Send the id of the last event that you saw.",
                param="Last-Event-ID",
            )
        run.check(int(after))  # before the response headers are sent
        return self.events(run, int(after))

    async def read(self, request: Request) -> Response:
        """Return the answer as far as it is written."""
        run = self.run_of(request)
        return reply({**whole_answer(run.question.id, run.events), "state": run.state})

    async def cancel(self, request: Request) -> Response:
        """Stop the answer."""
        run = self.run_of(request)
        run.cancel()
        await asyncio.sleep(0)
        return reply(
            {"id": run.question.id, "state": "cancelled" if run.state == "running" else run.state}
        )

    async def retry(self, request: Request) -> Response:
        """Write again what is missing of an answer."""
        headers = request.scope["slipway.headers"]
        sent = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        body = await self.guard().body(request.scope, request.receive) if sent else b"{}"
        options = parse_json(body, msgspec.json.Decoder(RetryRequest).decode)
        pipeline, asker = self.current.pipeline, request.scope["slipway.asker"]
        run = self.run_of(request)
        check_name(pipeline, run.question.app, asker)
        after = run.last
        if not options.stream:
            run.check(0)  # before a model is called: the response needs all events
        self.runs.retry(run, work_for(pipeline, "answers"))
        run.question = msgspec.structs.replace(
            run.question, asker=asker, language=language_of(headers)
        )  # the groups of the key may have changed since
        note_when_done(run, self.note_answered)
        return await self.response(run, stream=options.stream, after=after)

    def paths(self) -> list[ApiRoute]:
        """Return the routes, except `POST /v1/answers`, which is called directly."""
        one = "/v1/answers/{id}"
        return [
            ApiRoute(one, self.read, methods=["GET"], does=READ),
            ApiRoute(f"{one}/events", self.resume, methods=["GET"], does=RESUME),
            ApiRoute(f"{one}/cancel", self.cancel, methods=["POST"], does=CANCEL),
            ApiRoute(f"{one}/retry", self.retry, methods=["POST"], does=RETRY),
        ]


def note_when_done(run: Run, note_answered: NoteAnswered) -> None:
    """Record the answer for feedback once it has ended."""
    alone = is_alone(run.question)  # the question forgets its messages when it is done
    run.on_end = lambda: note_answered(answered_record(run, alone=alone))


def work_for(pipeline: Pipeline, endpoint: str) -> Work:
    """Return the function that answers a question on this pipeline."""

    async def work(question: Question, draft: Draft, say: Say) -> None:
        app = pipeline.app(question.app)
        if app is None:
            raise ModelNotFound(f"The app `{question.app}` no longer exists.")
        policy = app.cache
        uses_it = question.cache != "off" and not question.attached and not draft.sections
        if policy is not None and uses_it:
            await answer_kept(pipeline, app, policy, question, draft, endpoint, say)
        elif question.cache == "only":
            raise NotCached(f"No answer of `{app.name}` to this question is kept.")
        else:
            await answer(pipeline, app, question, draft, endpoint, say)

    return work


def messages_of(request: AnswerRequest) -> tuple[Message, ...]:
    """Return the conversation of a request. Raise BadRequest."""
    if request.messages and request.question:
        raise BadRequest(
            "`question` and `messages` are both set.", "Send only one of them.", param="messages"
        )
    if request.messages is not None:
        try:
            return msgspec.convert(request.messages, tuple[Message, ...])
        except msgspec.ValidationError as error:
            raise BadRequest(
                f"`messages`: {error}.",
                'Send a list of {"role": …, "content": …}.',
                param="messages",
            ) from None
    if not (request.question or "").strip():
        raise BadRequest(
            "`question` is missing or empty.", 'Send `{"question": "…"}`.', param="question"
        )
    return (Message(role="user", content=request.question),)


def parse_within(sent: Any) -> Within | None:
    """Return the document filter of a request, or None. Raise BadRequest if it is invalid."""
    if sent is None:
        return None
    try:
        within = msgspec.convert(sent, Within)
    except msgspec.ValidationError as error:
        raise bad_request_from(
            f"{error}".replace("`$.", "`$.within.")
            if " - at " in f"{error}"
            else f"{error} - at `$.within`"
        ) from None
    matcher(within)
    return within


def answer_headers(answer: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return the response headers that describe an answer."""
    facts = {
        b"x-slipway-answer-id": answer["id"],
        b"x-request-id": answer["id"],
        b"x-slipway-served-by": answer["served_by"],
        b"x-slipway-model": answer["model"],
        b"x-slipway-attempts": str(answer["attempts"]),
        b"x-slipway-cost-usd": answer["cost_usd"],
    }
    found = [(k, v.encode("latin-1", "replace")) for k, v in facts.items() if v is not None]
    return found + (cache_headers(answer["cache"]) if answer["cache"] is not None else [])
