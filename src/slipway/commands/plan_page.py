"""Serve `slipway plan init --page`: ask the questions on a page, check the answers, write the file
and show the plan. It listens on loopback only, and accepts forms only from its own page.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import click
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from slipway.errors import SettingsError
from slipway.evals.markup import Markup, joined, tag
from slipway.evals.run_pages import page
from slipway.planner import interview
from slipway.planner.catalogue import load
from slipway.planner.deciding import decide
from slipway.planner.interview import ASKINGS, Asking
from slipway.planner.pages import html
from slipway.planner.requirements import assumed

HOST = "127.0.0.1"
_LARGEST = 64 * 1024
_STYLE = Markup(
    "<style>form { max-width: 40rem }"
    " label { display: block; margin-top: 1.25rem; font-weight: 600 }"
    " input, select { width: 100%; padding: 0.5rem; font: inherit; color: inherit;"
    " background: var(--paper); border: 1px solid var(--soft); border-radius: 0.4rem }"
    " [aria-invalid=true] { border-color: var(--bad) }"
    " button { margin-top: 1.5rem; padding: 0.6rem 1.2rem; font: inherit; font-weight: 600;"
    " border: 0; border-radius: 0.4rem; color: var(--paper); background: var(--s0);"
    " cursor: pointer }"
    " :focus-visible { outline: 2px solid var(--s0); outline-offset: 2px }</style>"
)


def application(out: Path, catalogues: tuple[Path, ...], token: str, hosts: set[str]) -> Starlette:
    """Return the page; `token` is in its form, so that no other site can send one."""

    async def ask(request: Request) -> Response:
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("This page is for this machine alone.", status_code=403)
        return HTMLResponse(form({}, {}, token))

    async def take(request: Request) -> Response:
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("This page is for this machine alone.", status_code=403)
        body = await request.body()
        if len(body) > _LARGEST:
            return PlainTextResponse("That is more than this page asks for.", status_code=413)
        answers = {
            name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()
        }
        if not secrets.compare_digest(answers.pop("token", ""), token):
            return PlainTextResponse("This form is of another page; reload it.", status_code=403)
        return answered(answers, out, catalogues, token)

    return Starlette(routes=[Route("/", ask, methods=["GET"]), Route("/", take, methods=["POST"])])


def answered(
    answers: Mapping[str, str], out: Path, catalogues: tuple[Path, ...], token: str
) -> Response:
    """Return the form again with what is wrong in it, or the plan."""
    wrong = interview.problems(answers)
    try:
        if wrong:
            return HTMLResponse(form(answers, wrong, token), status_code=422)
        raw, needs = interview.complete(answers)
        out.write_text(interview.written(raw), encoding="utf-8")
        decision = decide(needs, load(catalogues), datetime.now(UTC).date(), folder=out.parent)
    except (SettingsError, OSError) as error:
        return HTMLResponse(form(answers, {"": str(error)}, token), status_code=422)
    return HTMLResponse(html(decision, list(assumed(raw))))


def form(answers: Mapping[str, str], wrong: Mapping[str, str], token: str) -> str:
    parts = [
        _field(
            asking,
            answers.get(asking.field, asking.default if not answers else ""),
            wrong.get(asking.field),
        )
        for asking in ASKINGS
    ]
    general = tag("p", wrong[""], class_="bad", role="alert") if "" in wrong else ""
    summary = (
        tag(
            "p",
            f"{len(wrong)} of the answers cannot be used; each says why.",
            class_="bad",
            role="alert",
        )
        if wrong and "" not in wrong
        else ""
    )
    return page(
        "Plan: what do you need?",
        _STYLE,
        tag("h1", "What do you need?"),
        tag(
            "p",
            "The answers become a requirements file, and the plan follows at once. Empty fields "
            "get defaults, which the plan lists.",
        ),
        general,
        summary,
        Markup(
            '<form method="post" action="/" autocomplete="off">'
            f'<input type="hidden" name="token" value="{token}"/>{joined(*parts)}'
            '<button type="submit">Make the plan</button></form>'
        ),
    ).replace("default-src 'none';", "default-src 'none'; form-action 'self';")


def _field(asking: Asking, value: str, problem: str | None) -> Markup:
    name = asking.field
    about = f"{name}-about"
    hints = (
        f"one of {', '.join(asking.choices)}" if asking.field == "task" else "",
        asking.hint,
        f"default: {asking.default}" if asking.default else "",
    )
    hint = "; ".join(each for each in hints if each)
    shared = {
        "id": name,
        "name": name,
        "aria_describedby": about,
        "aria_invalid": "true" if problem else None,
    }
    if asking.choices and name != "task":
        options = (
            tag("option", each, value=each, selected=each == value) for each in asking.choices
        )
        control = tag("select", options, **shared)
    else:
        control = Markup(_input(value, asking, {**shared}))
    return joined(
        tag("label", asking.question, for_=name),
        control,
        tag(
            "small",
            joined(hint, tag("span", f" {problem}", class_="bad") if problem else ""),
            id=about,
        ),
    )


def _input(value: str, asking: Asking, shared: Mapping[str, object]) -> str:
    listed = f"{asking.field}-choices" if asking.choices else None
    whole = tag("input", value=value, list=listed, **shared).removesuffix("</input>")
    choices = (
        tag("datalist", (tag("option", value=each) for each in asking.choices), id=listed)
        if listed
        else ""
    )
    return f"{whole}{choices}"


def serve(out: Path, port: int, catalogues: tuple[Path, ...]) -> None:
    """Until Ctrl+C. Raises SettingsError if the port cannot be had."""
    import socket

    bound = socket.socket()
    try:
        bound.bind((HOST, port))
        bound.listen()  # from now on a browser can connect
    except OSError as error:
        raise SettingsError(
            [f"--port: {port} cannot be had ({error.strerror}); choose another"]
        ) from None
    port = bound.getsockname()[1]
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}
    app = application(out, catalogues, secrets.token_urlsafe(24), hosts)
    click.echo(
        f"The questions are at http://{HOST}:{port}/ - the answers go into {out}. Ctrl+C ends this."
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    server.run(sockets=[bound])
