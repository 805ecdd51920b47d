"""Test settings that change while the server runs: what applies, what stays, what is refused."""

import asyncio
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import COMMAND, Serving, free_port, mocking, models, serving
from slipway.providers.mock import MockServer
from test_local import alive, child, children
from tiny_model import write_tiny
from waiting import PATIENCE_S, until

KEY, OTHER = {"authorization": "Bearer sw-first-key"}, {"authorization": "Bearer sw-second-key"}


class Edited:
    """A server, and its settings file."""

    def __init__(self, server: Serving, file: Path) -> None:
        self.server, self.file = server, file

    def save(self, settings: Any) -> None:
        """Save as careful editors do: write beside the file, then replace it."""
        beside = self.file.with_suffix(".new")
        beside.write_text(settings if isinstance(settings, str) else json.dumps(settings))
        beside.replace(self.file)

    def apply(self, settings: Any, said: str = "settings applied") -> None:
        before = self.server.log.count(said)
        self.save(settings)
        self.wait(lambda: self.server.log.count(said) > before)

    def wait(self, what: Callable[[], Any]) -> Any:
        return until(what)

    def chat(
        self, model: str, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
        return self.server.post("/v1/chat/completions", body, headers=headers)

    def count(self, outcome: str) -> int:
        lines = self.server.get("/metrics", headers=KEY).text.splitlines()
        return int(
            float(
                next(
                    line
                    for line in lines
                    if line.startswith(f'slipway_settings_reloads_total{{outcome="{outcome}"}}')
                ).split()[-1]
            )
        )

    def readyz(self, **kwargs: Any) -> Any:
        return self.server.get("/readyz", **kwargs).json()["settings"]


@contextmanager
def edited(tmp_path: Path, settings: Any, *args: str) -> Iterator[Edited]:
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(settings))
    with serving(tmp_path, "--config", str(file), *args) as server:
        yield Edited(server, file)
        assert "Traceback" not in server.log


def said_times(site: Edited, said: str, times: int) -> bool:
    """Waits for it."""
    return bool(site.wait(lambda: site.server.log.count(said) == times))


def app_of(url: str, **app: Any) -> dict[str, Any]:
    return {**models(url, "mock-model"), "apps": {"docs": {"route": "mock-model", **app}}}


def asked(mock: MockServer) -> list[dict[str, Any]]:
    return [seen.body for seen in mock.requests]


@contextmanager
def streaming(
    server: Serving, model: str, headers: dict[str, str] | None = None, **more: Any
) -> Iterator[Iterator[str]]:
    """Begin a stream, and return its lines."""
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
        **more,
    }
    with plain_http.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S, headers=headers
    ) as reply:
        assert reply.status_code == 200, reply.read()
        lines = reply.iter_lines()
        next(lines)
        yield lines


def test_a_changed_default_applies_to_the_next_question_but_not_to_a_running_one(
    tmp_path: Path,
) -> None:
    with (
        mocking(tokens=40, tpot_s=0.05) as mock,
        edited(tmp_path, app_of(mock.url, defaults={"temperature": 0.1})) as site,
    ):
        with streaming(site.server, "docs") as lines:
            site.apply(app_of(mock.url, defaults={"temperature": 0.9}))
            assert list(lines)[-2] == "data: [DONE]"
        assert site.chat("docs", stream=True).status_code == 200
        assert [body["temperature"] for body in asked(mock)] == [0.1, 0.9]
        assert "settings applied: app docs changed\n" in site.server.log


def test_a_section_that_is_asked_for_later_uses_the_settings_its_question_began_with(
    tmp_path: Path,
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tides.md").write_text(
        "# Tides\n\nThe tide in the harbour rises 4 metres.\n\n# Ropes\n\nA rope is 30 metres "
        "long.\n"
    )
    question = "How many metres does the tide rise? How long is a rope?"
    with mocking(tokens=30, tpot_s=0.03) as mock:
        settings = {**app_of(mock.url, knowledge="docs", defaults={"seed": 1}), "embedding": "none"}
        settings["models"]["mock-model"]["connection"] = {"max": 1}
        with edited(tmp_path, settings) as site, ThreadPoolExecutor(1) as pool:
            site.wait(lambda: site.server.get("/readyz").json()["knowledge"]["docs"]["ready"])
            whole = pool.submit(
                site.server.post, "/v1/answers", {"question": question, "app": "docs"}
            )
            site.wait(lambda: asked(mock))
            site.apply(json.loads(json.dumps(settings).replace('"seed": 1', '"seed": 2')))
            assert [section["state"] for section in whole.result().json()["sections"]] == [
                "done",
                "done",
            ]
        assert [body["seed"] for body in asked(mock)] == [1, 1]


def test_a_new_model_is_used_soon_and_a_removed_one_is_not_called_again(
    tmp_path: Path,
) -> None:
    def names() -> list[str]:
        return [row["id"] for row in site.server.get("/v1/models").json()["data"]]

    with mocking() as mock, edited(tmp_path, models(mock.url, "mock-model")) as site:
        assert names() == ["mock-model"]
        site.save(models(mock.url, "mock-model", "second"))
        site.wait(lambda: names() == ["mock-model", "second"])
        assert site.chat("second").status_code == 200
        site.apply(models(mock.url, "second"))
        assert names() == ["second"]
        assert site.chat("mock-model").json()["error"]["code"] == "model_not_found"
        assert "settings applied: model second added\n" in site.server.log
        assert "settings applied: model mock-model removed\n" in site.server.log


def test_a_wrong_file_is_refused_with_all_its_problems_until_it_is_corrected(
    tmp_path: Path,
) -> None:
    with mocking() as mock:
        good = models(mock.url, "mock-model")
        with edited(tmp_path, good) as site:
            began_at = site.readyz()["applied_at"]
            assert site.readyz()["refused"] == []
            url = json.dumps(mock.url)
            site.apply(
                f"models:\n  mock-model: {{base_url: {url}}}\n  new: "
                f"{{base_ulr: {url}}}\nlimits: {{answers: -1}}\n",
                "settings not applied",
            )
            for problem in ("own.yaml:3: models.new.base_ulr: ", "own.yaml:4: limits.answers: "):
                assert problem in site.server.log
                assert any(problem in each for each in site.wait(lambda: site.readyz()["refused"]))
            assert site.readyz()["applied_at"] == began_at
            assert site.chat("mock-model").status_code == 200
            assert (site.count("refused"), site.count("applied")) == (1, 0)
            site.apply(models(mock.url, "mock-model", "new"))
            assert site.chat("new").status_code == 200
            site.wait(lambda: site.readyz()["refused"] == [])
            assert site.readyz()["applied_at"] > began_at
            assert (site.count("refused"), site.count("applied")) == (1, 1)


@pytest.mark.parametrize("text", ["", "# all of it was here\n", "models: ["])
def test_a_file_that_lost_its_content_gives_nothing_up(tmp_path: Path, text: str) -> None:
    with (
        mocking() as mock,
        edited(tmp_path, {**models(mock.url, "mock-model"), "keys": ["sw-first-key"]}) as site,
    ):
        site.apply(text, "settings not applied")
        assert site.chat("mock-model").status_code == 401
        assert site.chat("mock-model", headers=KEY).status_code == 200


def test_questions_go_on_whatever_is_wrong_with_the_file(tmp_path: Path) -> None:
    written(tmp_path, "tides", "# Tides\n\nThe tide in the harbour rises 4 metres.\n")
    (tmp_path / "ranks.py").write_text("def score(\n")
    settings = {"embedding": "none", "apps": {"docs": {"knowledge": "tides"}}}
    unforeseen = {"models": {"m": {"base_url": "http://127.0.0.1:9/v1", "name": "\ud800"}}}
    reranked = {"apps": {"docs": {"knowledge": "tides", "rerank": "ranks:score"}}}
    with edited(tmp_path, settings) as site:
        site.wait(lambda: "Documents are ready" in site.server.log)
        for n, wrong in enumerate((unforeseen, reranked), 1):
            site.save({**settings, **wrong})
            assert site.server.post(
                "/v1/answers", {"question": "How many metres does the tide rise?"}
            ).json()["sources"]
            assert said_times(site, "settings not applied", n)
        assert site.wait(lambda: any("SyntaxError" in each for each in site.readyz()["refused"]))


def test_a_missing_file_changes_nothing_and_applies_when_it_returns(tmp_path: Path) -> None:
    with mocking() as mock:
        (tmp_path / "slipway.yaml").write_text(json.dumps(models(mock.url, "mock-model")))
        with serving(tmp_path) as server:
            site = Edited(server, tmp_path / "slipway.yaml")
            site.file.unlink()
            site.wait(lambda: "the settings file cannot be read" in server.log)
            assert server.chat("mock-model").status_code == 200
            site.apply(models(mock.url, "mock-model", "second"))
            assert server.chat("second").status_code == 200


def test_a_folder_that_a_rejected_file_names_may_be_created_later(tmp_path: Path) -> None:
    with mocking() as mock, edited(tmp_path, app_of(mock.url)) as site:
        site.apply(app_of(mock.url, knowledge="later"), "settings not applied")
        assert "there is no folder or file" in site.server.log
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "tides.md").write_text("# Tides\n\nThe tide rises 4 metres.\n")
        until(lambda: "settings applied: app docs changed" in site.server.log)
        assert site.count("refused") == 1


def test_keys_count_from_the_next_request_on(tmp_path: Path) -> None:
    with mocking(tokens=40, tpot_s=0.05) as mock:
        settings = models(mock.url, "mock-model")
        with edited(tmp_path, {**settings, "keys": ["sw-first-key", "sw-second-key"]}) as site:
            with streaming(site.server, "mock-model", headers=OTHER) as lines:
                site.apply({**settings, "keys": ["sw-first-key"]})
                assert site.chat("mock-model", headers=OTHER).status_code == 401
                assert site.chat("mock-model", headers=KEY).status_code == 200
                assert list(lines)[-2] == "data: [DONE]"
            assert "settings applied: keys changed\n" in site.server.log


def test_a_retried_answer_uses_the_current_access_and_models_of_its_key(
    tmp_path: Path,
) -> None:
    with mocking() as mock:
        settings = models(mock.url, "mock-model", "fault-cut-3")
        settings["keys"] = [{"key": "sw-first-key"}]
        with edited(tmp_path, settings) as site:
            failed = site.server.post(
                "/v1/answers", {"question": "Hello", "app": "fault-cut-3"}, headers=KEY
            )
            assert failed.status_code == 502
            path = f"/v1/answers/{failed.headers['x-slipway-answer-id']}/retry"
            assert site.server.post(path, {}, headers=KEY).status_code == 502
            settings["keys"] = [{"key": "sw-first-key", "apps": ["mock-model"]}]
            site.apply(settings)
            assert site.server.post(path, {}, headers=KEY).status_code == 404


def test_limits_hosts_and_origins_count_from_the_next_request_on_and_answers_under_way_are_counted(
    tmp_path: Path,
) -> None:
    with mocking(tokens=40, tpot_s=0.05) as mock:
        settings = models(mock.url, "mock-model")
        with edited(tmp_path, settings) as site:
            assert site.chat("mock-model", headers={"host": "answers.test"}).status_code == 403
            with streaming(site.server, "mock-model") as lines:
                listen = {
                    "allowed_hosts": ["answers.test"],
                    "allowed_origins": ["https://page.test"],
                }
                site.apply(
                    {
                        **settings,
                        "listen": listen,
                        "limits": {"answers": 1, "body_mb": 0.001, "header_kb": 1},
                    }
                )
                assert site.chat("mock-model").status_code == 503  # the one under way began before
                assert "slipway_answers_in_flight 1.0" in site.server.get("/metrics").text
                assert list(lines)[-2] == "data: [DONE]"
            assert site.chat("mock-model", headers={"host": "answers.test"}).status_code == 200
            assert (
                site.chat("mock-model", headers={"origin": "https://page.test"}).status_code == 200
            )
            assert site.chat("mock-model", user="x" * 2000).status_code == 413
            assert site.server.get("/healthz", headers={"x-long": "y" * 2000}).status_code == 431
            assert "settings applied: listen changed; limits changed\n" in site.server.log


def test_changes_that_need_a_restart_are_reported_and_the_others_applied(tmp_path: Path) -> None:
    with mocking() as mock, edited(tmp_path, models(mock.url, "mock-model")) as site:
        port = site.server.port + 1
        lines = [
            "listen:",
            "  host: 0.0.0.0",
            f"  port: {port}",
            "store: sqlite:///other.db",
            "embedding: none",
            "models:",
        ]
        site.apply("\n".join([*lines, f"  new: {{base_url: {json.dumps(mock.url)}}}"]))
        assert site.chat("new").status_code == 200
        for place in (
            "own.yaml:2: listen.host: `0.0.0.0`",
            "own.yaml:4: store: ",
            "own.yaml:5: embedding: `none`",
        ):
            assert site.server.log.count(place) == 1
        assert "after a restart" in site.server.log
        assert (
            "listen.port" not in site.server.log
        )  # --port wins over the file, also after a restart
        assert not (tmp_path / "other.db").exists()


def test_keys_cannot_be_removed_while_the_server_listens_beyond_this_machine(
    tmp_path: Path,
) -> None:
    with mocking() as mock:
        settings = models(mock.url, "mock-model")
        with edited(
            tmp_path, {**settings, "listen": {"host": "0.0.0.0"}, "keys": ["sw-first-key"]}
        ) as site:
            site.apply({**settings, "listen": {"host": "127.0.0.1"}}, "settings not applied")
            assert site.chat("mock-model").status_code == 401


def test_a_stream_from_a_model_that_is_removed_comes_to_its_end_and_its_connection_ends_with_it(
    tmp_path: Path,
) -> None:
    with (
        mocking(tokens=40, tpot_s=0.05) as mock,
        mocking() as other,
        edited(tmp_path, models(mock.url, "mock-model")) as site,
    ):
        with streaming(site.server, "mock-model") as lines:
            site.apply(models(other.url, "other"))
            assert site.chat("mock-model").status_code == 404
            assert list(lines)[-2] == "data: [DONE]"
        site.wait(lambda: connections(mock) == 0)
        assert mock.requests[-1].closed_at is None
        assert site.chat("other").status_code == 200


def test_a_removed_model_is_not_probed_any_more(tmp_path: Path) -> None:
    """Its last call reports that it is unhealthy, which must start no probes."""
    with (
        mocking(script=("status-401", "slow-2")) as mock,
        edited(tmp_path, models(mock.url, "gone", "other", retries=0)) as site,
    ):
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(site.chat, "gone")
            site.wait(lambda: asked(mock))
            site.apply(models(mock.url, "other", retries=0))
            mock.script("down")
        assert reply.result().json()["error"]["code"] == "provider_key"
        requests = len(mock.requests)
        time.sleep(1.2)  # a model that is not well is looked at twice a second
        assert len(mock.requests) == requests


def test_a_model_whose_settings_stay_keeps_its_connection_and_one_that_changes_gets_another(
    tmp_path: Path,
) -> None:
    with mocking() as mock, mocking() as other:
        settings: dict[str, Any] = {
            "models": {"mock-model": {"base_url": mock.url}, "other": {"base_url": other.url}}
        }
        with edited(tmp_path, settings) as site:
            for name in settings["models"]:
                assert site.chat(name).status_code == 200
            (kept,), (gone,) = ports(mock), ports(other)
            settings["models"]["other"]["headers"] = {"x-team": "ours"}
            site.apply(settings)
            site.wait(lambda: gone not in ports(other))  # it was idle
            for name in settings["models"]:
                assert site.chat(name).status_code == 200
            assert ports(mock) == {kept}
            assert other.requests[-1].headers["x-team"] == "ours"
            assert "settings applied: model other changed\n" in site.server.log


def connections(mock: MockServer) -> int:
    return len(mock._connections)


def ports(mock: MockServer) -> set[int]:
    """Return the remote ends of its connections."""
    return {
        connection.transport.get_extra_info("peername")[1] for connection in list(mock._connections)
    }


def test_a_file_that_is_written_over_counts_only_once_it_is_whole(tmp_path: Path) -> None:
    with mocking() as mock, edited(tmp_path, models(mock.url, "mock-model")) as site:
        text = json.dumps(
            models(mock.url, "mock-model", *(f"model-{n}" for n in range(50))), indent=1
        )
        with site.file.open("w") as file:
            for line in text.splitlines(keepends=True):
                file.write(line)
                file.flush()
                time.sleep(0.001)
        site.wait(lambda: site.chat("model-49").status_code == 200)
        assert site.server.log.count("settings applied") == 1
        assert (
            "settings applied: models model-0, model-1, model-2, model-3, model-4 and 45 more "
            "added\n" in site.server.log
        )
        assert "settings not applied" not in site.server.log


def test_a_config_map_of_kubernetes_is_followed(tmp_path: Path) -> None:
    """The file is a link into `..data`, which is a link to a folder that is replaced as a whole."""

    def publish(version: str, settings: Any) -> None:
        (tmp_path / version).mkdir()
        (tmp_path / version / "own.yaml").write_text(json.dumps(settings))
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    with mocking() as mock:
        publish("..one", models(mock.url, "mock-model"))
        file = tmp_path / "own.yaml"
        file.symlink_to("..data/own.yaml")
        with serving(tmp_path, "--config", str(file)) as server:
            publish("..two", models(mock.url, "mock-model", "second"))
            until(lambda: server.chat("second").status_code == 200)


def test_sighup_reloads_at_once_and_is_logged_even_if_nothing_changed(tmp_path: Path) -> None:
    with mocking() as mock, edited(tmp_path, models(mock.url, "mock-model")) as site:
        os.kill(site.server.process.pid, signal.SIGHUP)
        site.wait(lambda: "settings applied: nothing changed\n" in site.server.log)
        site.apply("models: [", "settings not applied")
        os.kill(site.server.process.pid, signal.SIGHUP)
        site.wait(lambda: site.server.log.count("settings not applied") == 2)
        assert site.count("refused") == 2


def answers(port: int) -> bool:
    with suppress(httpx.TransportError):
        return plain_http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return False


@pytest.mark.skipif(shutil.which("setsid") is None, reason="util-linux's setsid makes the terminal")
def test_a_server_ends_with_its_terminal(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text("models: {}")
    terminal, theirs = pty.openpty()
    command = ["setsid", "--ctty", *COMMAND, "serve", "--port", str(port := free_port())]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path
    ) as server:
        os.close(theirs)
        until(lambda: answers(port))
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: b"settings applied: nothing changed" in os.read(terminal, 10_000))
        os.close(terminal)
        assert server.wait(PATIENCE_S) == 0


def test_flags_go_on_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "tides.md").write_text(
        "# Tides\n\nThe tide in the harbour rises 4 metres.\n"
    )
    with mocking() as mock:
        settings = {**models(mock.url, "mock-model"), "embedding": "none"}
        with edited(
            tmp_path, settings, "--docs", str(tmp_path / "pages"), "--model", f"{mock.url}#by-flag"
        ) as site:
            site.apply({**settings, **models(mock.url, "second")})
            names = {row["id"] for row in site.server.get("/v1/models").json()["data"]}
            assert names == {"docs", "by-flag", "second"}


def test_a_prompt_file_that_changes_is_reloaded(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tides.md").write_text(
        "# Tides\n\nThe tide in the harbour rises 4 metres.\n"
    )
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Be brief, or say NOT IN THE DOCUMENTS.")

    def said() -> str:
        site.server.post(
            "/v1/answers", {"question": "How many metres does the tide rise?", "app": "docs"}
        )
        return str(asked(mock)[-1]["messages"][0]["content"])

    with mocking() as mock:
        settings = {**app_of(mock.url, knowledge="docs", prompt="prompt.md"), "embedding": "none"}
        with edited(tmp_path, settings) as site:
            site.wait(lambda: site.server.get("/readyz").json()["knowledge"]["docs"]["ready"])
            assert said().startswith("Be brief")
            prompt.write_text("Be long, or say NOT IN THE DOCUMENTS.")
            site.wait(lambda: "settings applied: app docs changed\n" in site.server.log)
            assert said().startswith("Be long")
            prompt.write_text("")
            site.wait(lambda: "prompt.md` is empty" in site.server.log)
            assert said().startswith("Be long")


def written(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "page.md").write_text(text)


def test_added_documents_are_read_while_others_stay_and_removed_ones_are_closed_and_may_return(
    tmp_path: Path,
) -> None:
    written(tmp_path, "tides", "# Tides\n\nThe tide in the harbour rises 4 metres.\n")
    written(tmp_path, "ropes", "# Ropes\n\nA rope of the harbour is 30 metres long.\n")

    def settings(*folders: str) -> dict[str, Any]:
        return {"embedding": "none", "apps": {name: {"knowledge": name} for name in folders}}

    def found(app: str, question: str) -> list[str]:
        return [
            source["text"]
            for source in site.server.post(
                "/v1/answers", {"question": question, "app": app}
            ).json()["sources"]
        ]

    with edited(tmp_path, settings("tides")) as site:
        assert found("tides", "How many metres does the tide rise?")
        passage = site.server.post(
            "/v1/answers", {"question": "How many metres does the tide rise?"}
        ).json()["sources"][0]["id"]
        for _ in range(3):
            site.apply(settings("tides", "ropes"))
            assert "30 metres" in found("ropes", "How long is a rope?")[0]
            assert site.server.get(f"/v1/passages/{passage}").status_code == 200
            site.apply(settings("tides"))
            assert (
                site.server.post(
                    "/v1/answers", {"question": "How long is a rope?", "app": "ropes"}
                ).status_code
                == 404
            )
        time.sleep(0.6)  # now nobody keeps them any more
        (tmp_path / "ropes" / "page.md").write_text(
            "# Ropes\n\nA rope of the harbour is 60 metres long.\n"
        )
        site.apply(settings("tides", "ropes"))
        site.wait(lambda: "60 metres" in found("ropes", "How long is a rope?")[0])


def parsers(pid: int) -> int:
    """Return how many processes parse documents for this one: each set of documents has its own."""
    count = 0
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for each in task.read_text().split():
            with suppress(OSError):
                count += b"parsing import serve" in Path(f"/proc/{each}/cmdline").read_bytes()
    return count


def test_documents_of_a_removed_app_are_closed_after_its_last_question(
    tmp_path: Path,
) -> None:
    written(tmp_path, "tides", "# Tides\n\nThe tide in the harbour rises 4 metres.\n")
    written(tmp_path, "ropes", "# Ropes\n\nA rope of the harbour is 30 metres long.\n")
    with mocking(tokens=60, tpot_s=0.05) as mock, ThreadPoolExecutor(1) as pool:
        settings = {
            **models(mock.url, "mock-model"),
            "embedding": "none",
            "apps": {"tides": {"knowledge": "tides"}},
        }
        apps = {**settings["apps"], "ropes": {"knowledge": "ropes", "route": "mock-model"}}
        with edited(tmp_path, {**settings, "apps": apps}) as site:
            pid = site.server.process.pid
            site.wait(lambda: site.server.log.count("Documents are ready") == 2)
            assert parsers(pid) == 2
            answer = pool.submit(
                site.server.post,
                "/v1/answers",
                {"question": "How many metres is a rope?", "app": "ropes"},
            )
            site.wait(lambda: asked(mock))
            site.apply(settings)
            time.sleep(0.6)
            assert parsers(pid) == 2
            assert answer.result().json()["sources"][0]["text"].endswith("30 metres long.")
            site.wait(lambda: parsers(pid) == 1)


def test_documents_that_go_leave_no_file_open(tmp_path: Path) -> None:
    for name in ("tides", "ropes"):
        written(tmp_path, name, f"# {name}\n\nThe harbour has {name}.\n")

    def settings(*folders: str) -> dict[str, Any]:
        return {"embedding": "none", "apps": {name: {"knowledge": name} for name in folders}}

    with edited(tmp_path, settings("tides")) as site:
        folder, opened = Path(f"/proc/{site.server.process.pid}/fd"), list[int]()
        for n in range(6):
            site.apply(settings("tides", "ropes"))
            assert said_times(site, "Documents are ready", n + 2)
            site.apply(settings("tides"))
            time.sleep(0.6)  # now nobody keeps them any more
            opened.append(sum("slipway.db" in str(each.readlink()) for each in folder.iterdir()))
        assert opened[-1] <= opened[1] + 2  # those of one thread, more or less


def test_rules_that_were_written_for_other_documents_open_none_before_those_are_there(
    tmp_path: Path,
) -> None:
    written(tmp_path, "pay", "# Pay\n\nThe pay of the harbour master is 4000 a month.\n")
    written(tmp_path, "tides", "# Tides\n\nThe tide in the harbour rises 4 metres.\n")

    def settings(**app: Any) -> dict[str, Any]:
        return {"embedding": "none", "keys": ["sw-first-key"], "apps": {"docs": app}}

    closed = settings(knowledge="pay", access=[{"path": "**", "groups": ["hr"]}])
    with edited(tmp_path, closed) as site:
        site.wait(lambda: "Documents are ready" in site.server.log)
        for n in range(5):  # the question is there before the new pipeline, four times of five
            site.save(settings(knowledge="tides"))
            said = site.server.post(
                "/v1/answers", {"question": "What is the pay of the harbour master?"}, headers=KEY
            )
            assert "4000" not in said.json()["text"]
            assert "4000" not in str(said.json()["sources"])
            assert said_times(site, "settings applied", 2 * n + 1)
            site.apply(closed)


def test_a_gateway_that_gets_its_first_documents_can_scan_them(tmp_path: Path) -> None:
    written(tmp_path, "tides", "# Tides\n\nThe tide in the harbour rises 4 metres.\n")
    with mocking() as mock, edited(tmp_path, models(mock.url, "mock-model")) as site:
        assert not (tmp_path / ".slipway").exists()
        site.apply(
            {
                **models(mock.url, "mock-model"),
                "apps": {"docs": {"knowledge": "tides"}},
                "embedding": "minilm",
            }
        )
        site.wait(
            lambda: (
                json.loads((tmp_path / ".slipway" / "lock").read_text()).get("url")
                == site.server.url
            )
        )
        token = json.loads((tmp_path / ".slipway" / "lock").read_text())["token"]
        assert (
            site.server.post(
                "/v1/documents/scan", {}, headers={"authorization": f"Bearer {token}"}
            ).status_code
            == 200
        )


def test_mistakes_in_the_file_are_shown_to_the_operator_only(tmp_path: Path) -> None:
    written(tmp_path, "tides", "# Tides\n\nThe tide rises 4 metres.\n")
    settings = {
        "embedding": "none",
        "apps": {"docs": {"knowledge": "tides"}},
        "keys": ["sw-first-key"],
    }
    with edited(tmp_path, settings) as site:
        token = json.loads((tmp_path / ".slipway" / "lock").read_text())["token"]
        site.apply({**settings, "keys": ["short"]}, "settings not applied")
        assert "keys" in str(
            site.wait(lambda: site.readyz(headers={"authorization": f"Bearer {token}"})["refused"])
        )
        assert site.readyz(headers=KEY)["refused"] == ["1 problem: see the server's log"]
        assert "settings" not in site.server.get("/readyz").json()


def test_a_model_that_runs_here_keeps_its_process_and_one_that_is_removed_ends_with_its_last_call(
    tmp_path: Path,
) -> None:
    tiny = {
        "provider": "local",
        "weights": str(write_tiny(tmp_path / "tiny.gguf", ends=False)),
        "threads": 1,
        "context": 8192,
    }
    settings: dict[str, Any] = {"models": {"tiny": tiny}}
    with mocking() as mock, edited(tmp_path, settings) as site:
        pid = child(site.server)
        settings["models"]["beside"] = {"base_url": mock.url}
        site.apply(settings)
        assert site.chat("tiny", max_tokens=3).status_code == 200
        assert children(site.server.process.pid) == [pid]
        del settings["models"]["tiny"]
        with streaming(site.server, "tiny", max_tokens=1000) as lines:
            os.kill(pid, signal.SIGSTOP)  # so that it writes when the settings have changed
            site.apply(settings)
            assert alive(pid)
            os.kill(pid, signal.SIGCONT)
            assert list(lines)[-2] == "data: [DONE]"
        site.wait(lambda: not alive(pid))
        assert children(site.server.process.pid) == []


def test_a_model_behind_a_proxy_is_retired_too(tmp_path: Path) -> None:
    """The mock accepts any path, so it can play the proxy too."""
    with mocking(tokens=40, tpot_s=0.05) as mock:
        proxy = mock.url.removesuffix("/v1")
        settings = models("http://upstream.test/v1", "mock-model", connection={"proxy": proxy})
        with edited(tmp_path, settings) as site:
            with streaming(site.server, "mock-model") as lines:
                site.apply(models(mock.url, "other"))
                assert list(lines)[-2] == "data: [DONE]"
            site.wait(lambda: connections(mock) == 0)


async def client(server: Serving, stream: bool, stop: asyncio.Event) -> list[str]:
    """Ask questions in a row to what is always there, and return what was not answered completely."""
    wrong = list[str]()
    async with plain_http.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        while not stop.is_set():
            for model in ("mock-model", "docs", "all"):
                body = {
                    "model": model,
                    "stream": stream,
                    "messages": [{"role": "user", "content": "Hello"}],
                }
                reply = await http.post("/v1/chat/completions", json=body)
                whole = (
                    reply.text.endswith("data: [DONE]\n\n") if stream else reply.status_code == 200
                )
                wrong += [] if whole else [reply.text[-500:]]
    return wrong


async def storm(site: Edited, url: str, reloads: int) -> list[str]:
    stop = asyncio.Event()
    clients = [asyncio.create_task(client(site.server, n % 2 == 0, stop)) for n in range(8)]
    for n in range(reloads):
        site.save(stormy(url, n + 1))
        os.kill(site.server.process.pid, signal.SIGHUP)
        await asyncio.sleep(0.08)
    stop.set()
    return [wrong for each in await asyncio.gather(*clients) for wrong in each]


def stormy(url: str, n: int) -> dict[str, Any]:
    """Change the model of the app again and again: one is removed and one is added, and sometimes
    the file is invalid.
    """
    changing = {
        "mock-model": {"base_url": url, "headers": {"x-n": str(n)}},
        "same": {"base_url": url},
        f"model-{n}": {"base_url": url},
    }
    wrong: dict[str, Any] = {"nothing": {}} if n % 10 == 5 else {}
    apps = {"docs": {"route": "mock-model", "defaults": {"seed": n}}}
    return {
        "models": {**changing, **wrong},
        "routes": {"all": ["same", f"model-{n}"]},
        "apps": apps,
    }


def weather(tmp_path: Path, reloads: int) -> None:
    with mocking(tokens=10, tpot_s=0.005) as mock, edited(tmp_path, stormy(mock.url, 0)) as site:
        assert asyncio.run(storm(site, mock.url, reloads)) == []
        site.apply(stormy(mock.url, 10_000))
        assert site.count("applied") >= reloads // 3
        assert [row["id"] for row in site.server.get("/v1/models").json()["data"]] == [
            "docs",
            "mock-model",
            "same",
            "model-10000",
            "all",
        ]
        assert "slipway_answers_in_flight 0.0" in site.server.get("/metrics").text
        site.wait(lambda: connections(mock) <= 12)
        limit_s = 5 + 10 * site.server.at_once_s()
        assert seconds_to_end(site.server) < limit_s


def seconds_to_end(server: Serving) -> float:
    began_at = time.monotonic()
    server.terminate()
    assert server.process.wait(PATIENCE_S) == 0
    return time.monotonic() - began_at


def test_a_storm_of_reloads_fails_no_answer(tmp_path: Path) -> None:
    weather(tmp_path, 50)


@pytest.mark.soak
def test_a_thousand_reloads_fail_no_answer(tmp_path: Path) -> None:
    weather(tmp_path, 1000)
