"""The routes `/v1/chat/completions` and `/v1/completions`, of a model, a route or an app."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from slipway.answer import App, Current, Pipeline, proxy, proxy_kept
from slipway.answer.writing import wants_json
from slipway.errors import BadRequest, Cancelled, NotCached
from slipway.providers import encode_json
from slipway.types import Asker, Failed, Question, new_answer_id
from slipway.web.answers import (
    ANSWER_ERRORS,
    CACHE_WISH,
    NoteAnswered,
    answer_headers,
    note_when_done,
    parse_within,
    work_for,
)
from slipway.web.cache_headers import wish_of
from slipway.web.chat_requests import (
    SLIPWAY_FIELDS,
    Chat,
    Roles,
    conversation,
    parse_chat,
    prepare_chat,
    question_text,
)
from slipway.web.completions import COMPLETION_BODY, CompletionWriter, chat_body_of
from slipway.web.descriptions import (
    EVENTS_TYPE,
    JSON_TYPE,
    OBJECT,
    TEXT,
    YES_NO,
    Operation,
    fields,
    list_of,
    one_of,
    or_null,
)
from slipway.web.exchange import Exchange, header_lines
from slipway.web.guard import Guard, language_of
from slipway.web.names import check_name
from slipway.web.openai_answers import ChunkWriter, chat_completion
from slipway.web.request_json import parse_json
from slipway.web.response_writer import HEARTBEAT, JSON_HEAD, Heartbeats, HttpResponseWriter
from slipway.web.runs import Run
from slipway.web.whole_answers import whole_answer

LARGE_BODY = 1024 * 1024  # bytes
COMPLETED = fields(id=TEXT, object=TEXT, choices=list_of(OBJECT))
MESSAGE = {
    "type": "object",
    "properties": {
        "role": one_of(*get_args(Roles)),
        "content": {"anyOf": [TEXT, list_of(OBJECT), {"type": "null"}]},
    },
    "required": ["role"],
}
CHAT_BODY = {
    "type": "object",
    "description": "OpenAI's chat request; fields that are not listed here go to the model.",
    "properties": {
        "model": TEXT,
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        "stream": or_null(YES_NO),
        "stream_options": or_null(OBJECT),
    },
    "required": ["model", "messages"],
}
CHAT = Operation(
    about="OpenAI's chat completions, of an app, a route or a model",
    headers=(CACHE_WISH,),
    body=CHAT_BODY,
    returns=COMPLETED,
    sends=(JSON_TYPE, EVENTS_TYPE),
    errors=(*ANSWER_ERRORS, Cancelled),
    passes_on_refusals=True,
)
COMPLETION = msgspec.structs.replace(
    CHAT,
    about="OpenAI's older text completions; the prompt is sent as a chat message",
    body=COMPLETION_BODY,
)
decode_fields = msgspec.json.Decoder(dict[str, Any]).decode
NOT_FOR_APPS = ("tools", "functions", "logprobs", "modalities", "audio", "prediction")


class ChatRoutes:
    """Handles chat completions. A question keeps the pipeline that it began with."""

    def __init__(
        self, current: Current, guard: Callable[[], Guard], note_answered: NoteAnswered
    ) -> None:
        """`guard` reads request bodies; `note_answered` is called with each answer of an app."""
        self.current, self.guard, self.note_answered = current, guard, note_answered
        self.heartbeats = Heartbeats()

    async def chat(self, exchange: Exchange) -> None:
        """Answer `POST /v1/chat/completions`."""
        guard = self.guard()
        body = guard.usual_body(exchange) or await guard.read(exchange)
        await self.answer(body, exchange, HttpResponseWriter)

    async def complete(self, exchange: Exchange) -> None:
        """Answer `POST /v1/completions`: the prompt is sent as one user message."""
        body = chat_body_of(await self.guard().read(exchange))
        await self.answer(body, exchange, CompletionWriter)

    async def answer(
        self, body: bytes, exchange: Exchange, writing: type[HttpResponseWriter]
    ) -> None:
        """Answer the body of a chat request; `writing` is the form of the response.

        Once the response has begun, errors are sent through `exchange.writer` by the guard.
        """
        if len(body) > LARGE_BODY:  # then other requests may run between the steps
            await asyncio.sleep(0)
            request = parse_chat(body)
            await asyncio.sleep(0)
            chat = prepare_chat(request, body)
            await asyncio.sleep(0)
        else:
            chat = prepare_chat(parse_chat(body), body)
        asker: Asker = exchange.asker  # type: ignore[assignment]  # the guard has set it
        pipeline = self.current.pipeline
        check_name(pipeline, chat.model, asker)
        answer_id = exchange.ref = new_answer_id()
        writer = exchange.writer = writing(exchange, answer_id, self.heartbeats)
        if (route := pipeline.routes.get(chat.model)) is None:
            await self.answer_by_app(pipeline, chat, body, answer_id, writer)
            return
        policy = pipeline.policies.get(chat.model)
        wish = wish_of(exchange.headers)
        if policy is None and wish != "only" and not chat.call.stream:  # as nearly always
            await proxy(pipeline, route, chat.call, answer_id, asker, writer)
            return
        if chat.call.stream:
            self.heartbeats.add(writer)
        try:
            if policy is not None and wish != "off":
                await proxy_kept(pipeline, route, policy, chat.call, answer_id, asker, writer, wish)
            elif wish == "only":
                raise NotCached(f"No answers of `{chat.model}` are kept.")
            else:
                await proxy(pipeline, route, chat.call, answer_id, asker, writer)
        finally:
            self.heartbeats.discard(writer)

    async def answer_by_app(
        self,
        pipeline: Pipeline,
        chat: Chat,
        body: bytes,
        answer_id: str,
        writer: HttpResponseWriter,
    ) -> None:
        """Answer a chat request to an app. The answer ends with the connection."""
        exchange = writer.exchange
        app = pipeline.apps[chat.model]
        self.guard().check_size(len(body), self.current.settings.limits.question_kb / 1024)
        sent = parse_json(body, decode_fields)
        options = {k: v for k, v in sent.items() if k not in SLIPWAY_FIELDS}
        check_options(app, options)
        messages = conversation(chat.request)
        run = Run(
            Question(
                id=answer_id,
                app=app.name,
                text=question_text(messages),
                messages=messages,
                asker=exchange.asker,  # type: ignore[arg-type]  # the guard has set it
                asked_at=time.monotonic(),
                options=options,
                within=parse_within(sent.get("within")),
                language=language_of(exchange.headers),
                cache=wish_of(exchange.headers),
            )
        )
        run.begin(work_for(pipeline, "chat"))
        note_when_done(run, self.note_answered)
        try:
            writer.limits = header_lines(pipeline.admission.headers(run.question.asker, app.name))
            if chat.call.stream:
                await stream_answer(run, app, chat, writer)
            else:
                await send_answer(run, app, writer)
        finally:
            run.cancel()


def check_options(app: App, options: dict[str, Any]) -> None:
    """Raise BadRequest for a parameter that an app cannot honour, rather than ignore it."""
    refused = next((name for name in NOT_FOR_APPS if options.get(name)), None)
    if refused is None and options.get("n") not in (None, 1):
        refused = "n"
    if refused is not None:
        raise BadRequest(
            f"`{refused}` cannot be used with the app `{app.name}`.",
            "Leave it out, or call a model by its name.",
            param=refused,
        )
    if app.route is None and wants_json(options):
        raise BadRequest(
            f"The app `{app.name}` has no model and quotes documents, so it cannot write JSON.",
            "Leave `response_format` out, or ask the operator to give the app a `route`.",
            param="response_format",
        )


async def send_answer(run: Run, app: App, writer: HttpResponseWriter) -> None:
    """Send an app's answer as one chat completion."""
    events = await run.whole()
    if run.error is not None:
        raise run.error
    answer = whole_answer(run.question.id, events)
    body = writer.whole_body(encode_json(chat_completion(answer, app.name)))
    heads = header_lines(answer_headers(answer))
    writer.exchange.respond(JSON_HEAD + writer.limits + heads, body)


async def stream_answer(run: Run, app: App, chat: Chat, writer: HttpResponseWriter) -> None:
    """Send an app's answer as chunks; an error before the first one is a plain response."""
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
            writer.begin()
            data = chunks.begin() + data
        await writer.write(data)
    if run.error is not None:
        raise run.error
    writer.end()
