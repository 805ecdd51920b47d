"""`slipway ask`: a question in the terminal, answered here or by a running server."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.answer import App, Pipeline, answer
from slipway.answer.draft import Draft, Say
from slipway.app.offline import local_pipeline
from slipway.commands.options import settings_options
from slipway.errors import BadRequest
from slipway.providers import encode_json
from slipway.providers.client import Timeouts, head_of
from slipway.providers.http import Pool
from slipway.providers.sse import LINE, Framer, data_of
from slipway.routing import models_of
from slipway.settings import Flags
from slipway.terminal import printable
from slipway.types import Asker, Message, Question, new_answer_id
from slipway.web.event_stream import EVENT_NAMES, event_data
from slipway.web.runs import Run
from slipway.web.whole_answers import section_heading, whole_answer
from slipway.weights.fetching import fetch

EventData = tuple[str, dict[str, Any]]  # an event's name and its data
ESC = "\x1b["


@click.command("ask")
@click.argument("question", nargs=-1, required=True)
@settings_options
@click.option("--app", help="App to ask, if there are several.")
@click.option("--url", help="Ask a running server instead, such as http://127.0.0.1:8080.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
def command(
    question: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    app: str | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Ask QUESTION in the terminal; the answer appears as it is written, with its sources.

    \b
    slipway ask --docs ./docs "How do I add a model?"
    """
    text = " ".join(question)
    if url:
        events = ask_server(url, key, app, text)
    else:
        pipeline = local_pipeline(Flags(config=config, docs=docs, models=models))
        fetch(models, shown=not as_json)
        events = ask_once(pipeline, app, text)
    sys.exit(run(events, as_json))


def question_for(pipeline: Pipeline, app_name: str | None, text: str) -> tuple[App, Question]:
    """Return the app to ask and the question, asked by the operator. Raises BadRequest."""
    names = list(pipeline.apps) or pipeline.names
    if not names:
        raise BadRequest("There is nothing to ask.", "Add --docs FOLDER or --model MODEL.")
    if app_name is None and len(names) > 1:
        raise BadRequest("There are several apps.", f"Name one with --app: {', '.join(names)}.")
    app = pipeline.app(app_name or names[0])
    if app is None:
        raise BadRequest(f"There is no app `{app_name}`.", f"Known: {', '.join(pipeline.names)}.")
    message = Message(role="user", content=text)
    question = Question(
        id=new_answer_id(),
        app=app.name,
        text=text,
        messages=(message,),
        asker=Asker(owner="local", everything=True),
        asked_at=time.monotonic(),
    )
    return app, question


async def ask_here(pipeline: Pipeline, app_name: str | None, text: str) -> AsyncIterator[EventData]:
    """Ask in this process, and yield events. Raises SlipwayError."""
    app, question = question_for(pipeline, app_name, text)

    async def work(question: Question, draft: Draft, say: Say) -> None:
        await answer(pipeline, app, question, draft, "ask", say)

    run = Run(question)
    run.begin(work)
    async for _, event in run.follow():
        if event is not None:
            yield EVENT_NAMES[type(event)], msgspec.to_builtins(event_data(event))


async def ask_once(pipeline: Pipeline, app_name: str | None, text: str) -> AsyncIterator[EventData]:
    """Ask the only question of this process.

    A model that runs here starts loading before the search, and ends after the answer.
    """
    app, _ = question_for(pipeline, app_name, text)
    for candidate in app.route.candidates if app.route is not None else ():
        candidate.model.start()
    try:
        async for event in ask_here(pipeline, app_name, text):
            yield event
    finally:
        for model in models_of(pipeline.routes.values()):
            await model.close()


async def ask_server(
    url: str, key: str | None, app_name: str | None, text: str
) -> AsyncIterator[EventData]:
    """Ask a running server, and yield events. Raises SlipwayError."""
    pool = Pool(url, url, Timeouts(first_byte_s=120.0, between_bytes_s=120.0))
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    body = {"question": text, "stream": True, **({"app": app_name} if app_name else {})}
    try:
        reply = await pool.send(
            head_of("POST", f"{url.rstrip('/')}/v1/answers", headers), encode_json(body)
        )
        if reply.status != 200:
            error = msgspec.json.decode(await reply.read()).get("error", {})
            raise BadRequest(error.get("message", f"The server answered with {reply.status}."), "")
        framer = Framer()
        while data := await reply.chunk():
            for event in framer.feed(data):
                if payload := data_of_event(event):
                    yield payload
    except msgspec.MsgspecError:
        raise BadRequest(f"{url} does not answer like Slipway.", "Check --url.") from None
    finally:
        await pool.close()


def data_of_event(event: bytes) -> EventData | None:
    name = next(
        (line[6:].strip().decode() for line in LINE.split(event) if line.startswith(b"event:")), ""
    )
    return (name, msgspec.json.decode(data_of(event))) if name else None


class Screen:
    """Show progress on one line of stderr, the text on stdout, and the sources below it."""

    def __init__(self) -> None:
        self.status = sys.stderr.isatty()
        self.styled = sys.stdout.isatty()
        self.sources: list[dict[str, Any]] = []
        self.cited: set[int] = set()
        self.any_text = False
        self.titles: dict[int, str] = {}
        self.section: int | None = None  # the one that is shown
        self.failed = False

    def event(self, name: str, data: dict[str, Any]) -> None:
        handler = getattr(self, f"on_{name}", None)
        if handler is not None:
            handler(data)

    def on_progress(self, data: dict[str, Any]) -> None:
        if self.status and not self.any_text:
            sys.stderr.write(f"\r{ESC}K{printable(data['label'], one_line=True)}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self.status and not self.any_text:
            sys.stderr.write(f"\r{ESC}K")
            sys.stderr.flush()

    def on_source(self, data: dict[str, Any]) -> None:
        self.sources.append(data)

    def on_section(self, data: dict[str, Any]) -> None:
        self.titles[data["index"]] = data["title"]

    def on_delta(self, data: dict[str, Any]) -> None:
        self.clear()
        if data["section"] != self.section:
            sys.stdout.write(
                printable(
                    section_heading(self.titles.get(data["section"], ""), first=not self.any_text)
                )
            )
        self.section, self.any_text = data["section"], True
        sys.stdout.write(printable(data["text"]))
        sys.stdout.flush()

    def on_citation(self, data: dict[str, Any]) -> None:
        self.cited.add(data["n"])

    def on_notice(self, data: dict[str, Any]) -> None:
        self.clear()
        print(f"({printable(data['text'])})", file=sys.stderr)

    def on_error(self, data: dict[str, Any]) -> None:
        self.clear()
        self.failed = True
        said = printable(f"{data['what']} {data['next']}", one_line=True)
        print(f"\n{said} ({data['ref']})", file=sys.stderr)

    def on_done(self, data: dict[str, Any]) -> None:
        cited = [s for s in self.sources if s["n"] in self.cited]
        print("\n")
        for s in cited:
            place = f"{s['path']} - {s['heading']}" + (
                f", page {s['page']}" if s.get("page") else ""
            )
            print(f"{self.dim('[' + str(s['n']) + ']')} {printable(place, one_line=True)}")
        who = data["model"] or without_model(data)
        print(self.dim(f"{printable(who, one_line=True)}, {data['duration_s']:.1f} s"))

    def dim(self, text: str) -> str:
        return f"{ESC}2m{text}{ESC}0m" if self.styled else text


def without_model(data: dict[str, Any]) -> str:
    """Return what answered if no model did."""
    if data["served_by"] == "rule":
        return "no rule answers this" if data["abstained"] else "answered by a rule"
    return "not found in the documents" if data["abstained"] else "quoted from the documents"


async def show(events: AsyncIterator[EventData], as_json: bool) -> int:
    """Show the events; return 0 for an answer and 1 for none.

    With `as_json`, print one object instead: the answer as `/v1/answers` gives it.
    """
    screen, seen = Screen(), list[EventData]()
    async for name, data in events:
        seen.append((name, data))
        if not as_json or name == "error":
            screen.event(name, data)
    if as_json and not screen.failed:
        print(encode_json(folded(seen)).decode())
    return int(screen.failed)


def folded(seen: list[EventData]) -> dict[str, Any]:
    kinds = {name: kind for kind, name in EVENT_NAMES.items()}
    events = [msgspec.convert(whole(name, data), kinds[name]) for name, data in seen]
    return whole_answer(next((d["id"] for n, d in seen if n == "done"), ""), events)


def whole(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Turn an event's data on the wire into the fields of its type."""
    if name == "source":
        return {"source": data}
    if name == "usage":
        return {
            "model": data["model"],
            "cost_usd": data["cost_usd"],
            "usage": {k: v for k, v in data.items() if k not in ("model", "cost_usd")},
        }
    return data


def run(events: AsyncIterator[EventData], as_json: bool) -> int:
    """Show the answer and return the command's exit code."""
    try:
        return asyncio.run(show(events, as_json))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
