"""Check the settings of service level objectives and alerts."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from slipway.settings.alerting import AlertSettings, NotifierSettings, Slo, SpendAlerts
from slipway.settings.values import share

AddProblem = Callable[[str, str], None]  # (dotted path of the field, what is wrong and the fix)
MOST_USD = Decimal(1_000_000_000)
LONGEST_TTFT_S = 600.0
SHORTEST_HEARTBEAT_S = 60.0
MAIL_SCHEMES = ("smtp", "smtps")
FIELDS = ("url", "secret", "server", "user", "password", "sender", "to")  # of notifiers
EXAMPLES = {"url": "https://…", "server": "smtp://HOST:587", "sender": "slipway@example.com"}


def check_alerting(
    slo: Slo,
    alerts: AlertSettings,
    notifiers: Mapping[str, Collection[str]],
    names: Collection[str],
    problem: AddProblem,
) -> None:
    """Report every problem. `notifiers` has the fields that each kind needs, before those that it
    may have; `names` are those of all alerts.
    """
    check_slo(slo, problem)
    check_spend(alerts.spend, problem)
    check_share("alerts.fallback", alerts.fallback, problem)
    for name in alerts.off:
        if name not in names:
            problem("alerts.off", f"there is no alert `{name}`; {suggested(name, names)}")
    if alerts.runbooks.endswith("/"):
        problem("alerts.runbooks", "remove the slash at its end")
    for name, value in (("stale_knowledge", alerts.stale_knowledge), ("repeat", alerts.repeat)):
        if value is not None and value < 60:
            problem(f"alerts.{name}", f"{value:g} s is too short; write a minute (`1m`) or more")
    for name, notifier in alerts.notify.items():
        check_notifier(f"alerts.notify.{name}", notifier, notifiers, problem)


def check_slo(slo: Slo, problem: AddProblem) -> None:
    for field, text in (
        ("availability", slo.availability),
        ("answered_with_source", slo.answered_with_source),
    ):
        if text is None or not check_share(f"slo.{field}", text, problem):
            continue
        if share(text) >= 1:
            why = "allows not a single failure; write less, such as `99.9%`"
            problem(f"slo.{field}", f"`{text}` {why}")
        elif share(text) < 0.5:
            problem(f"slo.{field}", f"`{text}` is less than half; write more, such as `90%`")
    for metric, limit in slo.edges.items():
        if not 0 < limit <= LONGEST_TTFT_S:
            problem(f"slo.{metric}_p95", f"{limit:g} s is no goal; write a time up to `10m`")


def check_share(path: str, text: str, problem: AddProblem) -> bool:
    try:
        share(text)
    except ValueError as error:
        problem(path, str(error))
        return False
    return True


def check_spend(spend: SpendAlerts, problem: AddProblem) -> None:
    for field, usd in (("month", spend.month), ("floor", spend.floor)):
        if usd is not None and not (usd.is_finite() and 0 < usd <= MOST_USD):
            problem(f"alerts.spend.{field}", f"`{usd}` is not an amount; write USD, such as `500`")


def check_notifier(
    path: str,
    notifier: NotifierSettings,
    kinds: Mapping[str, Collection[str]],
    problem: AddProblem,
) -> None:
    """Check that a notifier has the fields of its kind. Secrets and addresses are not repeated:
    many services put a token into the address.
    """
    if notifier.kind not in kinds:
        hint = suggested(notifier.kind, kinds)
        problem(f"{path}.kind", f"there is no notifier `{notifier.kind}`; {hint}")
        return
    required, allowed = needs_of(kinds[notifier.kind])
    for field in FIELDS:
        if field in required and not getattr(notifier, field):
            example = EXAMPLES.get(field, "…")
            problem(path, f"`{notifier.kind}` needs `{field}`; add `{field}: {example}`")
        elif field not in allowed and getattr(notifier, field):
            fields = ", ".join(allowed)
            problem(f"{path}.{field}", f"`{notifier.kind}` has no such field; it has: {fields}")
    check_addresses(path, notifier, problem)
    if notifier.heartbeat is not None and notifier.heartbeat < SHORTEST_HEARTBEAT_S:
        problem(f"{path}.heartbeat", "this is too often; write a minute (`1m`) or more")


def check_addresses(path: str, notifier: NotifierSettings, problem: AddProblem) -> None:
    if notifier.url and not is_address(notifier.url, ("http", "https")):
        problem(f"{path}.url", "this is not an address; write `https://…`")
    if notifier.server:
        check_server(f"{path}.server", notifier.server, problem)
    for address in (*notifier.to, *filter(None, [notifier.sender])):
        if "@" not in address or any(c.isspace() or c in "<>,;" for c in address):
            problem(path, f"`{address}` is not a mail address; write `NAME@HOST`")
    if bool(notifier.user) != bool(notifier.password):
        problem(path, "`user` and `password` belong together; add the other one")


def needs_of(fields: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the required and all fields of a kind, written as `url` and, if optional, `secret?`."""
    required = [field for field in fields if not field.endswith("?")]
    return required, [field.removesuffix("?") for field in fields]


def check_server(path: str, server: str, problem: AddProblem) -> None:
    if not is_address(server, MAIL_SCHEMES):
        problem(path, "this is not a mail server; write `smtp://HOST:587` or `smtps://HOST`")
    elif parts_of(server).username:
        problem(path, "write the user and the password as `user` and `password`")


def is_address(text: str, schemes: Collection[str]) -> bool:
    try:
        parts = parts_of(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or a missing bracket
        return False


def parts_of(text: str) -> SplitResult:
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("an address has no such characters")
    return urlsplit(text)


def suggested(word: str, known: Iterable[str]) -> str:
    known = list(known)
    found = difflib.get_close_matches(word[:100], known, 1, 0.5)
    return f"did you mean `{found[0]}`?" if found else f"known: {', '.join(sorted(known))}"
