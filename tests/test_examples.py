"""Test that the examples work as their READMEs say; only ports are replaced by free ones."""

import json
import shutil
from pathlib import Path

from processes import ROOT, mocking, run, serving

EXAMPLES = ROOT / "examples"


def copied(name: str, tmp_path: Path, ports: dict[int, int]) -> Path:
    """Return the example's settings file in a copy of its folder, with other upstream ports."""
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    file = folder / "slipway.yaml"
    text = file.read_text()
    for old, new in ports.items():
        assert f":{old}/" in text
        text = text.replace(f":{old}/", f":{new}/")
    file.write_text(text)
    return file


def test_each_folder_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    folders = [folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()]
    assert folders
    assert all(f"]({name})" in listed for name in folders)


def test_the_gateway_needs_the_team_key_and_keeps_the_upstream_key(tmp_path: Path) -> None:
    with mocking(api_key="upstream-secret") as mock:
        file = copied("gateway", tmp_path, {9100: mock.port})
        env = {"UPSTREAM_KEY": "upstream-secret", "TEAM_KEY": "sw-team-key"}
        with serving(tmp_path, "--config", str(file), env=env) as server:
            assert server.chat("chat").status_code == 401
            body = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
            key = {"Authorization": "Bearer sw-team-key"}
            answer = server.post("/v1/chat/completions", body, headers=key)
    assert answer.status_code == 200
    assert "upstream-secret" not in answer.text
    assert answer.json()["choices"][0]["message"]["content"]


def test_documents_answer_in_the_terminal_and_over_http(tmp_path: Path) -> None:
    question = "How many days of leave are there?"
    asked = run("ask", "--docs", str(EXAMPLES / "documents/handbook"), question, cwd=tmp_path)
    assert "28 days" in asked.stdout
    with serving(tmp_path, "--config", str(copied("documents", tmp_path, {}))) as server:
        answer = server.post("/v1/answers", {"question": question}).json()
    assert "28 days" in answer["text"]
    assert answer["sources"][0]["path"] == "leave.md"


def test_a_broken_answer_is_continued_by_the_second_model(tmp_path: Path) -> None:
    with mocking(script=("cut",)) as first, mocking() as second:
        file = copied("failover", tmp_path, {9101: first.port, 9102: second.port})
        with serving(tmp_path, "--config", str(file)) as server:
            answer = server.chat("main")
    assert answer.status_code == 200
    assert answer.headers["x-slipway-model"] == "second"
    assert answer.headers["x-slipway-attempts"] == "2"


def test_search_and_answers_are_measured(tmp_path: Path) -> None:
    given = (
        *("--docs", str(EXAMPLES / "documents/handbook")),
        *("--questions", str(EXAMPLES / "evaluation/questions.jsonl")),
    )
    knowledge = run("eval", "knowledge", *given, "--json", cwd=tmp_path)
    assert knowledge.returncode == 0, knowledge.stderr
    assert json.loads(knowledge.stdout)["keyword"]["recall@3"] == 1.0
    page = tmp_path / "report.html"
    answers = run("eval", "answers", *given, "--html", str(page), "--json", cwd=tmp_path)
    assert answers.returncode == 0, answers.stderr
    assert "28 days" in page.read_text()
