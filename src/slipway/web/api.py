"""The routes of chat, answers, models and health: each calls the pipeline and sends the result."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from slipway.answer import App, Current, Pipeline, answer, proxy
from slipway.answer.draft import Draft, Say
from slipway.errors import BadRequest, ModelNotFound, NotFound, SlipwayError, Stopping
from slipway.knowledge import Knowledge
from slipway.knowledge.access import matcher
from slipway.providers import encode_json
from slipway.routing import healths_of, models_of
from slipway.settings.checks import suggest
from slipway.telemetry.metrics import Telemetry
from slipway.types import (
    Answered,
    Asker,
    Delta,
    Event,
    Failed,
    Message,
    Question,
    SectionState,
    Within,
    new_id,
)
from slipway.web.feedback import answered_record
from slipway.web.guard import JSON, STREAM, Guard, Receive, Scope, Send, language_of, respond
from slipway.web.pages import clean_html, settled
from slipway.web.response_writer import HEARTBEAT, Heartbeats, HttpResponseWriter
from slipway.web.routes import ApiRoute, AsgiHandler
from slipway.web.runs import Run, Runs, Work
from slipway.web.wire import (
    SLIPWAY_FIELDS,
    AnswerRequest,
    Chat,
    ChunkWriter,
    bad_request_from,
    chat_completion,
    conversation,
    decode_answer,
    parse_chat,
    parse_json,
    question_text,
    whole_answer,
)

log = logging.getLogger("slipway")


class Api:
    """The handlers. Each reads `pipeline` once: a question keeps the one that it began with."""

    def __init__(
        self,
        current: Current,
        telemetry: Telemetry,
        note_answered: Callable[[Answered], None],
        settings_state: Callable[[Asker], dict[str, Any]],
    ) -> None:
        """Keep what the handlers need.

        `note_answered` is called with each finished answer. `settings_state` returns the state of
        the settings for `/readyz`, empty if they never change.
        """
        self.current, self.telemetry = current, telemetry
        self.note_answered, self.settings_state = note_answered, settings_state
        self.streams = Heartbeats()
        self.runs = Runs()
        self.guard: Guard  # set by `app`, which builds both

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline in force; a question reads it once."""
        return self.current.pipeline

    # chat completions
    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a chat completion of a model, a route or an app."""
        body = await self.guard.body(scope, receive)
        chat = parse_chat(body)
        asker: Asker = scope["slipway.asker"]
        pipeline = self.pipeline
        route = pipeline.routes.get(chat.model)
        if route is None and chat.model not in pipeline.apps:
            raise self.unknown(chat.model, asker)
        pipeline.admission.check_call(asker, chat.model)
        answer_id = scope["slipway.ref"] = new_id("ans")
        if route is None:
            await self.chat_app(pipeline, chat, body, answer_id, scope, send)
            return
        writer = HttpResponseWriter(send, answer_id, self.streams)
        if chat.call.stream:
            self.streams.add(writer)
        try:
            await proxy(pipeline, route, chat.call, answer_id, asker, writer)
        except SlipwayError as error:
            if not writer.begun:
                raise
            await writer.fail(error, answer_id, language_of(scope["slipway.headers"]))
        except asyncio.CancelledError:
            if writer.begun and chat.call.stream:  # has no effect if the client is gone
                stopped = Stopping("The server stopped before this answer was complete.")
                await writer.fail(stopped, answer_id, language_of(scope["slipway.headers"]))
            raise
        finally:
            self.streams.discard(writer)

    def unknown(self, name: str, asker: Asker) -> ModelNotFound:
        """Return the error for a name that does not exist, with a suggestion."""
        known = self.callable_by(asker)
        return ModelNotFound(
            f"There is no model or app `{name[:200]}`.",
            f"{suggest(name, known)[:500].capitalize()}",
            param="model",
        )

    def callable_by(self, asker: Asker) -> list[str]:
        """Return the names that the asker may call."""
        return [n for n in self.pipeline.names if self.pipeline.admission.may_call(asker, n)]

    async def chat_app(
        self, pipeline: Pipeline, chat: Chat, body: bytes, answer_id: str, scope: Scope, send: Send
    ) -> None:
        """Answer a chat completion of an app."""
        app = pipeline.apps[chat.model]
        sent = msgspec.json.decode(body)
        options = {k: v for k, v in sent.items() if k not in SLIPWAY_FIELDS}
        within = parse_within(sent.get("within"))
        if refused := next(
            (o for o in ("tools", "functions") if options.get(o)),
            "n" if options.get("n") not in (None, 1) else None,
        ):
            raise BadRequest(
                f"`{refused}` cannot be used with the app `{app.name}`.",
                "Leave it out, or call a model by its name.",
                param=refused,
            )
        messages = conversation(chat.request)
        question = Question(
            id=answer_id,
            app=app.name,
            text=question_text(messages),
            messages=messages,
            asker=scope["slipway.asker"],
            asked_at=time.monotonic(),
            options=options,
            within=within,
            language=language_of(scope["slipway.headers"]),
        )
        run = Run(question)
        run.begin(work_for(pipeline, "chat"))
        self.note_when_done(run)
        try:
            if chat.call.stream:
                await self.stream_app(run, app, chat, send)
            else:
                await self.whole_app(run, app, send)
        finally:
            run.cancel()

    async def whole_app(self, run: Run, app: App, send: Send) -> None:
        """Send an app's answer as one chat completion."""
        events = await run.whole()
        if run.error is not None:
            raise run.error
        folded = whole_answer(run.question.id, events)
        await respond(
            send, 200, JSON + answer_facts(folded), encode_json(chat_completion(folded, app.name))
        )

    async def stream_app(self, run: Run, app: App, chat: Chat, send: Send) -> None:
        """Send an app's answer as chunks; an error before the first one is a plain response."""
        writer = HttpResponseWriter(send, run.question.id, self.streams)
        chunks = ChunkWriter(
            run.question.id,
            app.name,
            usage_wanted=chat.call.usage_wanted,
            progress_wanted=chat.progress_wanted,
        )
        async for _, event in run.follow():
            if isinstance(event, Failed):
                break
            data = HEARTBEAT if event is None else chunks.event(event)
            if data and not writer.begun:
                writer.begun = True
                await send(
                    {
                        "type": "http.response.start",
                        "status": 200,
                        "headers": STREAM + writer.headers,
                    }
                )
                data = chunks.begin() + data
            await writer.write(data)
        if run.error is not None:
            if not writer.begun:
                raise run.error
            await writer.fail(run.error, run.question.id, run.question.language)
        else:
            await writer.end()

    # answers
    async def answers(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a question of `/v1/answers`."""
        request: AnswerRequest = parse_json(await self.guard.body(scope, receive), decode_answer)
        asker: Asker = scope["slipway.asker"]
        messages = messages_of(request)
        text, within = question_text(messages), parse_within(msgspec.to_builtins(request.within))
        pipeline = self.pipeline
        app = pipeline.app(self.app_name(request, asker))
        if app is None:
            raise self.unknown(request.app or "", asker)
        pipeline.admission.check_call(asker, app.name)
        answer_id = scope["slipway.ref"] = new_id("ans")
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
            ),
            work_for(pipeline, "answers"),
        )
        self.note_when_done(run)
        await self.send_answer(run, request.stream, 0, scope, receive, send)

    def note_when_done(self, run: Run) -> None:
        """Record the answer for feedback once it has ended."""
        if run.task is not None:
            run.task.add_done_callback(lambda _: self.note_answered(answered_record(run)))

    def app_name(self, request: AnswerRequest, asker: Asker) -> str:
        """Return the requested app, or the only one. Raise BadRequest if there are several."""
        if request.app is not None:
            return request.app
        mine = [
            n for n in self.pipeline.apps if self.pipeline.admission.may_call(asker, n)
        ] or self.callable_by(asker)
        if len(mine) == 1:
            return mine[0]
        known = ", ".join(f"`{n}`" for n in mine)
        raise BadRequest(
            "`app` is missing.",
            f"Name one of: {known}." if known else "This key has no app.",
            param="app",
        )

    async def send_answer(
        self, run: Run, stream: bool, after: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send the answer as a stream of events, or as a whole after its end."""
        if stream:
            await self.events(run, after)(scope, receive, send)
            return
        events = await run.whole(after)
        if run.error is not None:
            raise run.error
        folded = whole_answer(run.question.id, events)
        await respond(send, 200, JSON + answer_facts(folded), encode_json(folded))

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

    async def html(self, request: Request) -> Response:
        """Return the answer's text as clean HTML, for the page.

        Of a section that is still being written, only complete blocks are returned.
        """
        run = self.run_of(request)
        events = run.events
        written = section_texts(events)
        ended = (
            {e.index for e in events if isinstance(e, SectionState) and e.state != "started"}
            if run.state == "running"
            else set(written)
        )
        parts = {
            index: text if index in ended else text[: settled(text)]
            for index, text in sorted(written.items())
        }
        clean = await asyncio.to_thread(
            lambda: {index: clean_html(text) for index, text in parts.items()}
        )
        titles = {
            e.index: clean_html(f"## {e.title}")
            for e in events
            if isinstance(e, SectionState) and e.title
        }
        sections = [
            {"index": index, "html": html, "end": len(parts[index])}
            for index, html in clean.items()
        ]
        return reply(
            {
                "html": "".join(titles.get(index, "") + html for index, html in clean.items()),
                "sections": sections,
            }
        )

    async def cancel(self, request: Request) -> Response:
        """Stop the answer."""
        run = self.run_of(request)
        run.cancel()
        await asyncio.sleep(0)
        return reply(
            {"id": run.question.id, "state": "cancelled" if run.state == "running" else run.state}
        )

    async def retry(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write again what is missing of an answer."""
        headers = scope["slipway.headers"]
        sent = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        body = await self.guard.body(scope, receive) if sent else b"{}"
        options = parse_json(body, msgspec.json.Decoder(RetryRequest).decode)
        run, pipeline, asker = self.run_of(Request(scope)), self.pipeline, scope["slipway.asker"]
        pipeline.admission.check_call(asker, run.question.app)
        after = run.last
        if not options.stream:
            run.check(0)  # before a model is called: the reply needs all events
        self.runs.retry(run, work_for(pipeline, "answers"))
        run.question = msgspec.structs.replace(
            run.question, asker=asker, language=language_of(headers)
        )  # the groups of the key may have changed since
        self.note_when_done(run)
        await self.send_answer(run, options.stream, after, scope, receive, send)

    # the rest
    async def models(self, request: Request) -> Response:
        """List the names that the asker may call."""
        pipeline, asker = self.pipeline, request.scope["slipway.asker"]
        names = self.callable_by(asker)
        rows = await asyncio.to_thread(lambda: [self.model_row(pipeline, n, asker) for n in names])
        return reply({"object": "list", "data": rows})

    async def model(self, request: Request) -> Response:
        """Return one name."""
        name, asker = request.path_params["name"], request.scope["slipway.asker"]
        if name not in self.callable_by(asker):
            raise self.unknown(name, asker)
        return reply(await asyncio.to_thread(self.model_row, self.pipeline, name, asker))

    def model_row(self, pipeline: Pipeline, name: str, asker: Asker) -> dict[str, Any]:
        """Return a name as OpenAI's model object. Slow: an app's example questions may be read."""
        kind = (
            "app"
            if name in pipeline.apps
            else "route"
            if len(pipeline.routes[name].candidates) > 1
            else "model"
        )
        owner = (
            "slipway" if name in pipeline.apps else pipeline.routes[name].candidates[0].model.kind
        )
        knowledge = pipeline.apps[name].knowledge if name in pipeline.apps else None
        ours = {
            "kind": kind,
            "examples": knowledge.examples(asker) if knowledge is not None else [],
        }
        return {
            "id": name,
            "object": "model",
            "created": self.telemetry.started_at,
            "owned_by": owner,
            "slipway": ours,
        }

    async def passage(self, request: Request) -> Response:
        """Return a passage that the asker may read."""
        pipeline, asker = self.pipeline, request.scope["slipway.asker"]
        for app in pipeline.apps.values():
            mine = app.knowledge is not None and pipeline.admission.may_call(asker, app.name)
            if mine and app.knowledge:  # in a thread: its file is read again if it changed
                passage = await asyncio.to_thread(
                    app.knowledge.passage, request.path_params["id"], asker
                )
                if passage is not None:
                    return reply(passage)
        raise NotFound(
            "There is no passage with this id.",
            "Ask again: a passage gets a new id when its document changes.",
            param="id",
        )

    async def healthz(self, request: Request) -> Response:
        """Return 200 while the process is alive."""
        return reply({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Return 200 if anything can answer, else 503; the body says what is degraded."""
        pipeline, asker = self.pipeline, request.scope["slipway.asker"]
        known = {
            name: app.knowledge for name, app in pipeline.apps.items() if app.knowledge is not None
        }
        ready = bool(pipeline.routes) or any(knowledge.ready for knowledge in known.values())
        visible = (
            {
                n: readiness(k, asker)
                for n, k in known.items()
                if pipeline.admission.may_call(asker, n)
            }
            if asker is not None
            else {}
        )
        local = local_models(pipeline, asker) if asker is not None else {}
        settings = self.settings_state(asker) if asker is not None else {}
        body = {
            "status": "ready" if ready else "starting",
            "models": len(pipeline.routes),
            "knowledge": visible,
            "health": model_states(pipeline, asker) if asker is not None else {},
            **({"local": local} if local else {}),
            **({"settings": settings} if settings else {}),
        }
        return Response(encode_json(body), 200 if ready else 503, media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in the format that the scraper asks for."""
        text, kind = self.telemetry.render(request.headers.get("accept", ""))
        return Response(text, media_type=kind)

    async def preflight(self, request: Request) -> Response:
        """Answer a CORS preflight; the guard adds the headers."""
        return Response(status_code=204)

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute("/v1/models", self.models, methods=["GET"]),
            ApiRoute("/v1/models/{name:path}", self.model, methods=["GET"]),
            ApiRoute("/v1/answers/{id}", self.read, methods=["GET"]),
            ApiRoute("/v1/answers/{id}/events", self.resume, methods=["GET"]),
            ApiRoute("/v1/answers/{id}/html", self.html, methods=["GET"]),
            ApiRoute("/v1/answers/{id}/cancel", self.cancel, methods=["POST"]),
            ApiRoute("/v1/answers/{id}/retry", AsgiHandler(self.retry), methods=["POST"]),
            ApiRoute("/v1/passages/{id}", self.passage, methods=["GET"]),
            ApiRoute("/healthz", self.healthz, methods=["GET"]),
            ApiRoute("/readyz", self.readyz, methods=["GET"]),
            ApiRoute("/metrics", self.metrics, methods=["GET"]),
            ApiRoute("/preflight", self.preflight, methods=["OPTIONS"]),
        ]


def work_for(pipeline: Pipeline, endpoint: str) -> Work:
    """Return the function that answers a question on this pipeline."""

    async def work(question: Question, draft: Draft, say: Say) -> None:
        app = pipeline.app(question.app)
        if app is None:
            raise ModelNotFound(f"The app `{question.app}` no longer exists.")
        await answer(pipeline, app, question, draft, endpoint, say)

    return work


class RetryRequest(msgspec.Struct, forbid_unknown_fields=True):
    stream: bool = False


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


def local_models(pipeline: Pipeline, asker: Asker) -> dict[str, str]:
    """Return the state of each local model that the asker may call."""
    models = models_of(pipeline.routes.values())
    return {
        m.name: m.state
        for m in models
        if m.state is not None and pipeline.admission.may_call(asker, m.name)
    }


def model_states(pipeline: Pipeline, asker: Asker) -> dict[str, Any]:
    """Return the breaker state and the calls of each model that the asker may call."""
    return {
        name: health.report()
        for name, health in healths_of(pipeline.routes.values()).items()
        if pipeline.admission.may_call(asker, name)
    }


def readiness(knowledge: Knowledge, asker: Asker) -> dict[str, Any]:
    """Return how far an app's documents are read; counts only what the asker may read."""
    counts = knowledge.counts(asker)
    documents = {
        "documents": counts.documents,
        "failed": counts.failed,
        "passages": counts.passages,
    }
    return {
        "ready": knowledge.ready,
        "read": f"{int(100 * knowledge.read_share)} %",
        **documents,
        "dense": knowledge.dense_state(asker),
    }


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


def section_texts(events: Iterable[Event]) -> dict[int, str]:
    """Return each section's text; a section that was started again begins empty."""
    texts: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, SectionState) and event.state == "started":
            texts[event.index] = []
        elif isinstance(event, Delta):
            texts.setdefault(event.section, []).append(event.text)
    return {index: "".join(parts) for index, parts in texts.items()}


def answer_facts(folded: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return the response headers that describe an answer."""
    facts = [
        (b"x-slipway-answer-id", folded["id"]),
        (b"x-request-id", folded["id"]),
        (b"x-slipway-served-by", folded["served_by"]),
    ]
    facts += [
        (b"x-slipway-model", folded["model"]),
        (b"x-slipway-attempts", str(folded["attempts"])),
    ]
    facts += [(b"x-slipway-cost-usd", folded["cost_usd"])]
    return [(k, v.encode("latin-1", "replace")) for k, v in facts if v is not None]


def reply(data: Any) -> Response:
    return Response(
        encode_json(data),
        media_type="application/json",
        headers={"x-content-type-options": "nosniff"},
    )
