"""Whether every model can be reached: by its free list of models, or by one tiny call."""

import asyncio
import contextlib
import email.utils
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from slipway import providers
from slipway.app.compiling import rates_for
from slipway.errors import ProviderError
from slipway.ledger import cost_of, format_usd, most_cost, usd
from slipway.prices.catalogue import entry_for
from slipway.providers import Call, encode_json
from slipway.providers.client import head_of
from slipway.providers.lenient_json import BrokenJson, read_json
from slipway.providers.openai import connect
from slipway.readiness.deployment import DeploymentToCheck
from slipway.readiness.raw_http import Address, NoConnection, address_in, connected
from slipway.readiness.rows import Check, CheckRow, CheckState, Facts
from slipway.readiness.way_rows import EXPIRES_NOW_DAYS, EXPIRES_SOON_DAYS, SKEW_AMBER_S, days_left
from slipway.settings import ModelSettings, Settings
from slipway.settings.tree import without_password
from slipway.types import Record, Usage

PROBE_S = 8.0
CALL_S = 60.0
NAMES_SHOWN = 3
QUESTION = "Reply with the word: ok"
QUESTION_TOKENS, ANSWER_TOKENS = 40, 16
FREE = "Look at its row without --paid: that says whether its endpoint answers."
REFUSED = (401, 402, 403)


class ModelProbe(Record, frozen=True, kw_only=True):
    """What was learned of one model: whether it answers, and the difference of the clocks."""

    well: bool
    says: str
    do: tuple[str, ...] = ()
    amber: bool = False  # it answers, but something is odd
    apart_s: float | None = None
    facts: Facts = msgspec.field(default_factory=dict)


def checks(deployment: DeploymentToCheck) -> dict[str, tuple[Check, float]]:
    """Return the checks of models, each with its time limit."""
    if not deployment.settings.models:
        return {}
    limit_s = CALL_S + 2 * PROBE_S if deployment.paid else 2 * PROBE_S
    return {
        "models": (lambda: models(deployment), limit_s + 5.0),
        "certificates": (lambda: certificates(deployment), 2 * PROBE_S),
    }


async def models(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Return a row for each model, and one for the clock that their replies show."""
    settings = deployment.settings
    remote = {name: model for name, model in settings.models.items() if not model.weights}
    if deployment.offline:
        says = f"{len(remote)} models were not asked: --offline."
        return [CheckRow(name="models", looked_at="models", state="skipped", says=says)]
    work = called if deployment.paid else probed
    found = dict(
        zip(remote, await asyncio.gather(*(work(n, m) for n, m in remote.items())), strict=True)
    )
    rows = [row_of(settings, name, probe, found) for name, probe in found.items()]
    return [*rows, *clock(found)]


def row_of(
    settings: Settings, name: str, probe: ModelProbe, found: Mapping[str, ModelProbe]
) -> CheckRow:
    """Return a model's row: a model that fails is red if nothing else answers in its place."""
    state: CheckState = "green" if probe.well and not probe.amber else "amber"
    says = probe.says
    if not probe.well:
        alone = without_substitute(settings, name, found)
        state = "red" if alone else "amber"
        says += (
            f" Nothing answers in its place{f' on {alone}' if alone != name else ''}."
            if alone
            else " The other models of its routes answer."
        )
    return CheckRow(
        name="model",
        looked_at=f"{name}: {without_password(settings.models[name].base_url)}",
        state=state,
        says=f"{name}: {says}",
        do=probe.do,
        facts=probe.facts,
    )


def without_substitute(
    settings: Settings, name: str, found: Mapping[str, ModelProbe]
) -> str | None:
    """Return a route on which no model answers, or the model itself if no route has it."""
    routes = {
        route: [entry.model for entry in entries]
        for route, entries in settings.routes.items()
        if name in [entry.model for entry in entries]
    }
    if not routes:
        return name
    for route, members in routes.items():
        if not any(settings.models[each].weights or found[each].well for each in members):
            return f"`{route}`"
    return None


async def probed(name: str, model: ModelSettings) -> ModelProbe:
    """Ask a model's endpoint for its list of models, which costs nothing."""
    client = connect(model, f"`{name}`")
    headers = {
        "Accept-Encoding": "identity",
        **({"Authorization": f"Bearer {model.api_key}"} if model.api_key else {}),
        **model.headers,
    }
    began_at = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_S):
            reply = await client.send(head_of("GET", f"{model.base_url}/models", headers), b"")
            took_s = time.monotonic() - began_at
            date = reply.header(b"date")
            body = await reply.read() if reply.status == 200 else b""
            reply.close()
    except TimeoutError:
        return ModelProbe(
            well=False,
            says=f"it does not answer within {PROBE_S:g} s.",
            do=("Look at the provider's status page, and at the network.",),
        )
    except ProviderError as error:
        return ModelProbe(well=False, says=error.what, do=("Correct `base_url`, or start it.",))
    finally:
        await client.close()
    return judged(model, reply.status, body, took_s, apart_in(date))


def judged(
    model: ModelSettings, status: int, body: bytes, took_s: float, apart_s: float | None
) -> ModelProbe:
    """Return what an answer to GET /models means."""
    facts = {"status": status, "took_ms": round(1000 * took_s, 1)}
    if status in REFUSED:
        return ModelProbe(
            well=False,
            says=f"it rejects our key (HTTP {status}).",
            do=("Correct `api_key`; the key may have ended, or have no money left.",),
            apart_s=apart_s,
            facts=facts,
        )
    if status >= 500:
        return ModelProbe(
            well=False,
            says=f"its endpoint fails (HTTP {status}).",
            do=("Look at the provider's status page.",),
            apart_s=apart_s,
            facts=facts,
        )
    listed = names_in(body)
    if listed and model.name not in listed:
        shown = ", ".join(listed[:NAMES_SHOWN])
        return ModelProbe(
            well=True,
            amber=True,
            says=f"it answers, but does not list `{model.name}`; it lists {shown}"
            + (f" and {len(listed) - NAMES_SHOWN} more." if len(listed) > NAMES_SHOWN else "."),
            do=("Correct `name`, or try one call: slipway check --paid",),
            apart_s=apart_s,
            facts=facts,
        )
    says = f"its endpoint answers in {1000 * took_s:.0f} ms (HTTP {status})."
    return ModelProbe(well=True, says=says, apart_s=apart_s, facts=facts)


def names_in(body: bytes) -> list[str]:
    """Return the names in a list of models; empty if it is none."""
    try:
        listed: Any = read_json(body)
        return [str(each["id"]) for each in listed["data"]]
    except (BrokenJson, KeyError, TypeError):
        return []


def apart_in(date: bytes | None) -> float | None:
    """Return how far a Date header is ahead of our clock, in seconds."""
    try:
        sent = email.utils.parsedate_to_datetime((date or b"").decode("latin-1"))
    except ValueError:
        return None
    return sent.timestamp() + 0.5 - time.time()  # the header has whole seconds


def clock(found: Mapping[str, ModelProbe]) -> list[CheckRow]:
    """Return how far our clock is from those of the models' endpoints."""
    apart = sorted(probe.apart_s for probe in found.values() if probe.apart_s is not None)
    if not apart:
        return []
    middle = apart[len(apart) // 2]
    is_right = abs(middle) <= SKEW_AMBER_S
    return [
        CheckRow(
            name="clock",
            looked_at=f"the Date header of {len(apart)} endpoints",
            state="green" if is_right else "amber",
            says="The clock agrees with that of the models' endpoints."
            if is_right
            else f"The clock differs from that of the models' endpoints by {-middle:+.0f} s.",
            do=() if is_right else ("Run chrony or systemd-timesyncd on this machine.",),
            facts={"apart_s": round(middle, 1)},
        )
    ]


# Calls that are paid for


def most_paid(settings: Settings) -> tuple[int, Decimal, list[str]]:
    """Return how many calls `--paid` makes, what they may cost together, and the models whose
    price is unknown.
    """
    remote = {name: model for name, model in settings.models.items() if not model.weights}
    costs = {name: most_for(model) for name, model in remote.items()}
    known = [usd(cost) for cost in costs.values() if cost is not None]
    unknown = [name for name, cost in costs.items() if cost is None]
    return len(remote), sum((each for each in known if each is not None), Decimal(0)), unknown


def most_for(model: ModelSettings) -> int | None:
    rates = rates_for(model, entry_for(model.base_url, model.name))
    return most_cost(rates, QUESTION_TOKENS, ANSWER_TOKENS)


async def called(name: str, model: ModelSettings) -> ModelProbe:
    """Ask a model one tiny question, and say when its first words came and what they cost."""
    provider = providers.create(name, model, model.provider)
    body = encode_json(
        {
            "model": "",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": ANSWER_TOKENS,
            "stream": True,
        }
    )
    began_at, first_s, usage = time.monotonic(), None, None
    try:
        async with asyncio.timeout(CALL_S):
            reply = await provider.chat(Call(body=body, name_at=(9, 11), stream=True))
            with contextlib.closing(reply):
                while pieces := await reply.pieces():
                    for piece in pieces:
                        usage = piece.usage or usage
                        if piece.spoke and first_s is None:
                            first_s = time.monotonic() - began_at
    except TimeoutError:
        return ModelProbe(well=False, says=f"its call did not end within {CALL_S:g} s.")
    except ProviderError as error:
        return ModelProbe(well=False, says=error.what, do=(FREE,))
    finally:
        await provider.close()
    return described(model, first_s, usage)


def described(model: ModelSettings, first_s: float | None, usage: Usage | None) -> ModelProbe:
    """Return what a call showed."""
    rates = rates_for(model, entry_for(model.base_url, model.name))
    cost = format_usd(usd(cost_of(rates, usage))) if usage is not None else None
    money = f"it cost {cost} USD." if cost is not None else "what it cost is unknown."
    facts: dict[str, float | int | str | bool | None] = {"cost_usd": cost}
    if first_s is None:
        says = f"its call brought no words; {money}"
        return ModelProbe(well=True, amber=True, says=says, facts=facts)
    facts["ttft_s"] = round(first_s, 4)
    return ModelProbe(
        well=True, says=f"its first words come after {first_s:.2f} s; {money}", facts=facts
    )


# Certificates


async def certificates(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Look at how long the certificates of the models' endpoints are valid."""
    addresses = {
        (address.host, address.port): address
        for model in deployment.settings.models.values()
        if model.base_url.startswith("https://") and not model.connection.proxy
        for address in [address_in(model.base_url, None, model.connection.ca_file)]
    }
    if not addresses or deployment.offline:
        return []
    days = dict(
        zip(addresses, await asyncio.gather(*map(valid_days, addresses.values())), strict=True)
    )
    known = {host: left for (host, _), left in days.items() if left is not None}
    if not known:
        return []
    host = min(known, key=lambda each: known[each])
    left = known[host]
    state: CheckState = (
        "red" if left < EXPIRES_NOW_DAYS else "amber" if left < EXPIRES_SOON_DAYS else "green"
    )
    return [
        CheckRow(
            name="certificates",
            looked_at=f"{len(known)} endpoints of models",
            state=state,
            says=f"The first certificate to end is that of {host}, in {left:.0f} days.",
            do=() if state == "green" else ("Renew it, or ask the provider.",),
            facts={"days": round(left, 1)},
        )
    ]


async def valid_days(address: Address) -> float | None:
    """Return for how many days an endpoint's certificate is valid; None if it cannot be reached,
    which the model's own row says.
    """
    try:
        async with connected(address) as connection:
            return days_left(connection.tls)
    except NoConnection:
        return None
