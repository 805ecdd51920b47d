"""`slipway weights`."""

import json
import signal
import sys

import click

from slipway import weights
from slipway.commands.options import JSON
from slipway.terminal import Bar


@click.group("weights")
def command() -> None:
    """Fetch and check the small models that Slipway runs itself.

    The server fetches no weights by itself, except those that --model names.

    \b
    Search by meaning as well as by words (23 MB):
      slipway weights pull minilm
    """


@command.command("list")
@JSON
def list_weights(as_json: bool) -> None:
    """List the known weights, and which of them are here."""
    rows = [
        {
            "name": w.name,
            "bytes": w.size,
            "here": weights.found(w.name) is not None,
            "purpose": w.purpose,
        }
        for w in weights.table().values()
    ]
    text = (
        f"{r['name']:20} {int(str(r['bytes'])) / 1e6:4.0f} MB  "
        f"{'here' if r['here'] else '-':5} {r['purpose']}"
        for r in rows
    )
    click.echo(json.dumps(rows) if as_json else "\n".join(text))


@command.command("pull")
@click.argument("name", default="minilm")
@JSON
def pull(name: str, as_json: bool) -> None:
    """Fetch the weights called NAME [default: minilm], unless they are here."""
    end_on_sigterm()
    weights.known(name)
    with Bar(name, not as_json) as bar:
        files = weights.pull(name, bar.update)
    found = {file: str(path) for file, path in files.items()}
    click.echo(json.dumps({"name": name, "files": found}) if as_json else "\n".join(found.values()))


@command.command("add")
@click.argument("name")
@click.argument("origin", metavar="FILE_OR_URL")
@click.option("--sha256", default="", help="Expected SHA-256; the actual one is recorded.")
@JSON
def add(name: str, origin: str, sha256: str, as_json: bool) -> None:
    """Keep a copy of a file, such as a model's GGUF, as weights called NAME.

    \b
    slipway weights add mine ./mine.gguf
    slipway serve --docs ./docs --model mine
    """
    end_on_sigterm()
    with Bar(name, not as_json) as bar:
        path = weights.add(name, origin, sha256, bar.update)
    file = weights.known(name).files[0]
    found = {"name": name, "file": str(path), "bytes": file.size, "sha256": file.sha256}
    click.echo(json.dumps(found) if as_json else f"{path}\nsha256 {file.sha256}")


@command.command("verify")
@click.argument("name", required=False)
@JSON
def verify(name: str | None, as_json: bool) -> None:
    """Check the files of NAME against their hashes [default: all weights that are here]."""
    names = [name] if name else [each for each in weights.table() if weights.found(each)]
    whole = {each: weights.verify(each) for each in names}
    text = [
        f"{file}: {'whole' if right else f'missing or broken: slipway weights pull {each}'}"
        for each, files in whole.items()
        for file, right in files.items()
    ]
    nothing = "no weights are here: slipway weights pull minilm"
    click.echo(json.dumps(whole) if as_json else "\n".join(text) or nothing)
    sys.exit(0 if all(all(files.values()) for files in whole.values()) else 1)


def end_on_sigterm() -> None:
    """Unwind on SIGTERM, so that partial files go and a pip that was started ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
