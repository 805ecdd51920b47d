"""Test that wrong settings stop the start with file, line, field and fix."""

import json
import socket
from pathlib import Path

import pytest

from processes import run

GOOD = """
models:
  m1: {base_url: "http://127.0.0.1:9/v1"}
routes:
  main: [m1]
apps:
  support: {knowledge: ./docs, route: main}
"""


def check(
    tmp_path: Path, yaml: str, *more: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    (tmp_path / "docs").mkdir(exist_ok=True)
    (tmp_path / "docs" / "a.md").write_text("# A\n\nText.\n")
    (tmp_path / "s.yaml").write_text(yaml)
    done = run("check", "--offline", "--config", "s.yaml", *more, cwd=tmp_path, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_good_settings(tmp_path: Path) -> None:
    code, said = check(tmp_path, GOOD)
    assert code == 0
    assert "The settings are fine." in said


def test_an_embedding_that_there_is_not(tmp_path: Path) -> None:
    code, said = check(tmp_path, f"{GOOD}embedding: qwen2.5-coder-0.5b\n")
    assert code == 2
    assert (
        said
        == "slipway: embedding: `qwen2.5-coder-0.5b` is unknown; write minilm, a folder such as ./model, or none\n"
    )


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (
            "models:\n  m1:\n    base_url: http://h/v1\n    conection: {connect: 1s}\n",
            "s.yaml:4: models.m1.conection: there is no such field; did you mean `connection:`?",
        ),
        (
            "conection: 1\n",
            "s.yaml:1: conection: there is no such field; did you mean `connection:`, which belongs under `models.NAME`",
        ),
        ("model: {}\n", "did you mean `models:`?"),
        (
            "models:\n  m1: {base_url: http://h/v1, cache: soon}\n",
            "s.yaml:2: models.m1.cache: `soon` is not a duration; write `250ms`, `2s`, `5m`, `1h` or `30d`",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, cache: 0}\n",
            "models.m1.cache.exact: 0 keeps nothing; write how long, such as `1h`, or remove it",
        ),
        ("cache: {exact: 0s}\n", "s.yaml:1: cache.exact: 0 keeps nothing"),
        (
            "models:\n  m1: {base_url: http://h/v1, metrics: /metrics}\n",
            "s.yaml:2: models.m1.metrics: `/metrics` is not an address; write `true`, or an address",
        ),
        (
            'models:\n  m1: {base_url: http://h/v1, metrics: "http://me:secret@h/metrics"}\n',
            (
                "models.m1.metrics: `http://h/metrics` is not an address; write `true`, or an address "
                "without a password"
            ),
        ),
        ("metrics: {series: 20}\n", "s.yaml:1: metrics.series: `20` is not valid; expected"),
        ("metrics: {gpu: all}\n", "metrics.gpu: `all` is not valid; expected `true` or `false`"),
        (
            "models:\n  m1: {base_url: http://h/v1, cache: {stale_on_error: 1d}}\n",
            "models.m1.cache.stale_on_error: it has no effect without `exact`; add it to",
        ),
        (
            'models:\n  m1: {base_url: http://h/v1, cache: {exact: 1h, tags: ["a,b"]}}\n',
            "models.m1.cache.tags: `a,b` is not a tag; write a name without commas",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, connection: {connect: soon}}\n",
            "s.yaml:2: models.m1.connection.connect: `soon` is not a duration",
        ),
        (
            "listen:\n  port: lots\n",
            "s.yaml:2: listen.port: `lots` is not valid; expected a whole number",
        ),
        ("listen: {port: 99999}\n", "listen.port"),
        ("models: [a, b]\n", "s.yaml:1: models: expected names with their values, found a list"),
        ("models:\n  m1: {}\n", "s.yaml:2: model m1 needs a key: `export OPENAI_API_KEY=…`"),
        ("models:\n  m1: {base_url: ftp://h/v1}\n", "`ftp://h/v1` is not an address"),
        (
            "models:\n  m1: {base_url: http://h/v1, provider: opnai}\n",
            "there is no provider `opnai`; did you mean `openai`?",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: cheap, output: 1}}\n",
            "models.m1.price.input: `cheap` is not valid",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: .nan, output: 1}}\n",
            "s.yaml:2: models.m1.price.input: `NaN` is not a price",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: 1, output: -1}}\n",
            "models.m1.price.output: `-1` is not a price",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: '0,28', output: 1}}\n",
            "m1.price.input: `0,28` is not valid; write a number with a point, such as `0.28`",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: 0.1234567, output: 1}}\n",
            "m1.price.input: `0.1234567` has more than six decimals; round it",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, price: {input: 1, output: 1, batch: 50}}\n",
            "m1.price.batch: `50` is not a factor; write a number up to 1, such as `0.5`",
        ),
        (
            "models: {m1: {base_url: http://h/v1, price: {input: 1, output: 1, tiers: [{above: 9}, {above: 9}]}}}\n",
            "m1.price.tiers[1].above: `9` is there twice; remove one",
        ),
        (
            "keys:\n  - {key: abcdefgh1, tenant: acmee}\ntenants: {acme: {}}\n",
            "keys[0].tenant: there is no tenant `acmee`; did you mean `acme`?",
        ),
        ("keys:\n  - {key: abcdefgh1, limits: {rpm: 0}}\n", "keys[0].limits.rpm: `0` is not valid"),
        ("keys:\n  - {key: abcdefgh1, limits: {tpm: -5}}\n", "keys[0].limits.tpm: `-5` is not"),
        (
            "tenants:\n  acme: {limits: {usd_per_day: -1}}\n",
            "s.yaml:2: tenants.acme.limits.usd_per_day: `-1` is not a budget from 0.000001 to 1000000000 USD",
        ),
        (
            "tenants:\n  acme: {limits: {usd_per_month: 1e99}}\n",
            "tenants.acme.limits.usd_per_month: `1E+99` is not a budget",
        ),
        (
            "tenants:\n  acme: {limits: {usd_per_day: 9, usd_per_month: 5}}\n",
            "usd_per_day: `9` is more than `usd_per_month` (5), so it limits nothing; lower it",
        ),
        (
            "tenants:\n  acme: {limits: {at_limit: stop}}\n",
            "`stop` is not valid; invalid enum value 'stop'; one of: refuse, cheaper, quote",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1}\n  m1: {base_url: http://h/v1}\n",
            "s.yaml:3: models.m1: this name is used twice, first on line 2",
        ),
        (
            "models:\n  x: {base_url: http://h/v1}\nroutes:\n  x: [x]\n",
            "s.yaml:4: routes.x: `x` is already a name under `models`",
        ),
        (GOOD.replace("[m1]", "[m1, qwen]"), "routes.main[1]: there is no model `qwen`; known: m1"),
        (
            GOOD.replace("route: main", "route: mian"),
            "apps.support.route: there is no route or model `mian`; did you mean `main`?",
        ),
        (GOOD.replace("./docs", "./dox"), "apps.support.knowledge: there is no folder or file"),
        ("models:\n  m1: {base_url: http://h/v1, extends: m2}\n", "there is no model `m2`"),
        (
            "models:\n  a: {extends: b, base_url: http://h/v1}\n  b: {extends: a}\n",
            "extends itself through other models",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, api_key: '${NO_SUCH_VARIABLE}'}\n",
            "s.yaml:2: models.m1.api_key: the environment variable NO_SUCH_VARIABLE is not set",
        ),
        (
            "models:\n  m1: {provider: dashscope, name: qwen-plus}\n",
            "s.yaml:2: model m1 needs a key: `export DASHSCOPE_API_KEY=…`",
        ),
        (
            "listen: {host: 0.0.0.0}\n",
            "s.yaml:1: listen.host: `0.0.0.0` can be reached from other machines, and without keys",
        ),
        ("keys:\n  - {key: abcdefgh1, apps: [nope]}\n", "there is no app, route or model `nope`"),
        (
            "keys:\n  - {key: abcdefgh1}\n  - {key: abcdefgh1}\n",
            "keys[1]: this key is the same as keys[0]",
        ),
        ("keys:\n  - {key: short}\n", "keys[0].key"),
        ("apps:\n  a: {}\n", "an app needs `knowledge`, a `route` or `rules`"),
        ("routes:\n  main: []\n", "this route is empty"),
        ("models:\n  m1: {base_url: 'http://h/v1'\n", "this is not valid YAML"),
        ("a: b: c\n", "s.yaml:1: this is not valid YAML"),
        (
            "models:\n  m1: {base_url: http://h/v1, connection: {ca_file: none.pem}}\n",
            "there is no file",
        ),
        (
            "models:\n  m1: {base_url: 'http://[::1/v1'}\n",
            "s.yaml:2: models.m1.base_url: `http://[::1/v1` is not an address",
        ),
        (
            "models:\n  m1: {base_url: 'http://h:80x/v1'}\n",
            "s.yaml:2: models.m1.base_url: `http://h:80x/v1` is not an address",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, headers: {x: 甲}}\n",
            "s.yaml:2: models.m1.headers.x: a header must not contain line",
        ),
        (
            'models:\n  m1: {base_url: http://h/v1, api_key: "sk-a\\n"}\n',
            "s.yaml:2: models.m1.api_key: a key must not contain line",
        ),
        (
            "models:\n  m1: {base_url: http://h/v1, name: 2026-02-30}\n",
            (
                "s.yaml:2: models.m1.name: this cannot be read (day is out of range for month); "
                "put it in quotes"
            ),
        ),
        (
            "models:\n  m1: {base_url: !env URL}\n",
            (
                "s.yaml:2: models.m1.base_url: this cannot be read (could not determine a "
                "constructor for the tag '!env')"
            ),
        ),
        (f"models: {'[' * 3000}{']' * 3000}\n", "s.yaml: the YAML is nested too deeply"),
        (
            GOOD.replace("./docs", "~no-such-user/docs"),
            "apps.support.knowledge: there is no folder or file",
        ),
    ],
)
def test_each_mistake_names_its_place_and_the_fix(tmp_path: Path, yaml: str, says: str) -> None:
    code, said = check(tmp_path, yaml)
    assert code == 2
    assert says in said


def test_a_reranker_that_cannot_be_imported_is_a_mistake_like_others(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text("def score(\n")
    code, said = check(tmp_path, GOOD.replace("route: main", "route: main, rerank: 'ranks:score'"))
    assert code == 2
    assert "apps.support.rerank: `ranks:score` cannot be loaded (SyntaxError: " in said


def test_a_key_is_not_printed_where_it_will_not_do(tmp_path: Path) -> None:
    code, said = check(
        tmp_path, "models:\n  m1: {base_url: http://h/v1, api_key: 12345678}\nkeys: [hush]\n"
    )
    assert code == 2
    assert "s.yaml:2: models.m1.api_key: this value is not valid" in said
    assert "12345678" not in said
    assert "hush" not in said


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    _, said = check(tmp_path, "listen: {port: x}\nmodels:\n  m1: {url: y}\nlimits: {body_mb: -1}\n")
    assert said.count("slipway: s.yaml:") == 3


def test_variables_extends_and_known_providers(tmp_path: Path) -> None:
    yaml = """
models:
  plus: {provider: dashscope, name: qwen-plus, price: {input: 0.11, output: 0.28}}
  flash: {extends: plus, price: {input: 0.02, output: 0.21}, headers: {x-team: "${TEAM:-none}-a"}}
keys: [{key: "${OUR_KEY}"}, {key: in-the-file-1}]
"""
    code, said = check(tmp_path, yaml, env={"DASHSCOPE_API_KEY": "k", "OUR_KEY": "abcdefgh"})
    assert code == 0, said
    assert "warning: s.yaml:5: keys[1].key is a literal key" in said
    assert "keys[0]" not in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--docs", "nowhere"], "--docs: there is no folder or file `nowhere`"),
        (["--docs", "empty"], "empty"),
        (["--docs", ""], "--docs: it is empty; name a file or a folder, `.` for this one"),
        (["--config", ""], "--config: it is empty"),
        (["--model", "dashscope/qwen-plus"], "`export DASHSCOPE_API_KEY=…`"),
        (["--model", "dashscop/qwen-plus"], "write PROVIDER/MODEL"),
        (
            ["--model", "http://127.0.0.1:9/v1"],
            "nothing listens there. Start that server, or name the model",
        ),
        (
            ["--config", "nofile.yaml"],
            "nofile.yaml: the settings file cannot be read: no such file",
        ),
        (["--host", "0.0.0.0"], "without keys"),
    ],
)
def test_flags(tmp_path: Path, args: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("check", "serve"):
        done = run(command, *args, cwd=tmp_path, env={"DASHSCOPE_API_KEY": ""})
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_slipway_yaml_of_the_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text("nonsense: 1\n")
    assert "slipway.yaml:1: nonsense" in run("check", cwd=tmp_path).stderr


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr


def test_schema_is_json(tmp_path: Path) -> None:
    schema = json.loads(run("check", "--schema", cwd=tmp_path).stdout)
    assert "models" in schema["$defs"]["Settings"]["properties"]


def test_a_made_key_is_kept_as_its_hash(tmp_path: Path) -> None:
    said = run("keys", "create", "--line", "--tenant", "acme", cwd=tmp_path).stdout.splitlines()
    line = said[-1].strip()
    assert line.startswith("- {key: 'sha256:")
    code, _ = check(tmp_path, f"keys:\n  {line}\n")
    assert code == 0


def test_a_group_that_no_key_is_of_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\ntext")
    rules = [{"path": "hr/**", "groups": ["hr", "*"]}, {"path": "x", "groups": ["staff"]}]
    settings = {
        "apps": {"docs": {"knowledge": "docs", "access": rules}},
        "keys": [{"key": "sw-a-key-1", "groups": ["staff"]}],
    }
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
    reported = run("check", "--config", str(tmp_path / "slipway.yaml")).stdout
    assert (
        "warning: apps.docs.access: no key is in the group `hr`, so nobody can read its documents"
        in reported
    )
    assert "staff" not in reported
