"""Send random requests that fit a server's /openapi.json, and requests that do not, and check what
comes back against the document. Prints a JSON object with what was found.

    python random_requests.py http://127.0.0.1:8080 KEY REQUESTS SEED '{"model": ["m"]}'

The last argument gives values that exist, for fields and path parameters of these names: half of
the requests use them, so that handlers get further than a 404. It runs in an environment of its own,
see `make clients`.
"""

import json
import sys
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument, Unsatisfiable
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

CONFORMANCE = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
QUIET = {
    "database": None,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
TIMEOUT_S = 30
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each))
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())  # NaN, surrogates too
SHOWN = 20  # of the failures of a kind


class Found:
    """What came back, counted, and the first failures of each kind."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.unexplained: list[str] = []
        self.mismatches: dict[str, str] = {}
        self.sent = 0

    def take(self, case: Any, response: Any, checks: list[Any]) -> None:
        self.sent += 1
        status = response.status_code
        self.statuses[status] += 1
        operation = case.operation
        if status >= 500 and not explained(operation.definition.raw, response):
            self.unexplained.append(f"{sent(case)}: {status} {response.text[:300]}")
        try:
            case.validate_response(response, checks=checks)
        except BaseExceptionGroup as error:  # of all failures; they are printed
            first = " ".join(str(error).split())[:600]
            self.mismatches.setdefault(f"{operation.label} {status}", f"{sent(case)}: {first}")


def explained(operation: dict[str, Any], response: Any) -> bool:
    """Return whether a 5xx has our envelope and a code that the document lists for this status."""
    try:
        error = response.json()["error"]
        code, says = error["code"], error["slipway"]["what"]
    except (ValueError, KeyError, TypeError):
        # only readiness answers 503 without an error
        return response.status_code == 503 and operation["operationId"] == "get_readyz"
    listed = operation["responses"].get(str(response.status_code), {}).get("x-slipway-codes", ())
    return bool(says) and code in listed and code != "internal_error"


def sent(case: Any) -> str:
    parts = [case.method, case.formatted_path, str(case.query or ""), repr(case.body)[:200]]
    return " ".join(parts)


def replaced(value: Any, known: dict[str, list[Any]], pick: Any) -> Any:
    """Return a body or parameters with values that exist in fields of known names."""
    if isinstance(value, dict):
        return {
            k: pick(st.sampled_from(known[k])) if k in known else replaced(v, known, pick)
            for k, v in value.items()
        }
    return value


def strategies(operation: Any) -> list[Any]:
    """Return what makes requests: some that fit, and if there is more than a path, some that do not
    and some whose body is any JSON or any bytes.
    """
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not (operation.body or operation.query or operation.headers):
        return [fitting]
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    if "application/json" not in [each.media_type for each in operation.body]:
        return [fitting, wrong]
    return [fitting, wrong, st.tuples(fitting, BODIES).map(with_body)]


def with_body(made: tuple[Any, bytes]) -> Any:
    case, body = made
    case.body = body
    return case


def try_operation(
    operation: Any, strategy: Any, count: int, number: int, known: dict[str, list[Any]], send: Any
) -> None:
    @seed(number)
    @settings(max_examples=count, **QUIET)
    @given(data=st.data())
    def attempt(data: st.DataObject) -> None:
        case = data.draw(strategy)
        if not isinstance(case.body, bytes) and data.draw(st.booleans()):
            case.body = replaced(case.body, known, data.draw)
            case.path_parameters = replaced(case.path_parameters, known, data.draw)
            case.query = replaced(case.query, known, data.draw)
        send(case)

    try:
        attempt()
    except (Unsatisfiable, InvalidArgument):  # nothing about it can be wrong
        if count > 1:
            try_operation(operation, operation.as_strategy(), count, number, known, send)


def main(url: str, key: str, count: int, number: int, known: dict[str, list[Any]]) -> None:
    session = requests.Session()
    headers = {"Authorization": f"Bearer {key}"}
    document = session.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()
    problems = [str(e)[:300] for e in OpenAPIV31SpecValidator(document).iter_errors()]
    schema = schemathesis.openapi.from_dict(document)
    checks = [check for check in CHECKS.get_all() if check.__name__ in CONFORMANCE]
    assert len(checks) == len(CONFORMANCE)
    found = Found()

    def send(case: Any) -> None:
        raw = isinstance(case.body, bytes)
        body, case.body = case.body, ({} if raw else case.body)
        kwargs = case.as_transport_kwargs(base_url=url, headers=headers)
        if raw:
            case.body = kwargs["data"] = body
            kwargs.pop("json", None)
            kwargs["headers"] = {**kwargs["headers"], "Content-Type": "application/json"}
        kwargs.setdefault("allow_redirects", False)
        try:
            response = session.request(**kwargs, timeout=TIMEOUT_S)
        except (UnicodeError, requests.exceptions.InvalidHeader, ValueError):
            return  # the client cannot write it
        except requests.exceptions.RequestException as error:
            found.unexplained.append(f"{sent(case)}: {error!r}"[:600])
            return
        found.take(case, schemathesis.Response.from_requests(response, verify=True), checks)

    operations = [result.ok() for result in schema.get_all_operations()]
    tries = [
        (operation, strategy) for operation in operations for strategy in strategies(operation)
    ]
    each = max(1, count // len(tries))
    for n, (operation, strategy) in enumerate(tries):
        try_operation(operation, strategy, each, number * 1000 + n, known, send)
    print(  # noqa: T201 - the test reads it
        json.dumps(
            {
                "invalid": problems,
                "operations": len(operations),
                "sent": found.sent,
                "statuses": dict(sorted(found.statuses.items())),
                "unexplained": found.unexplained[:SHOWN],
                "unexplained_count": len(found.unexplained),
                "mismatches": dict(list(found.mismatches.items())[:SHOWN]),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
