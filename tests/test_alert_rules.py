"""Test each alert as a rule of Prometheus and by Slipway's own evaluator: it fires, is silent, ends."""

import shutil
from pathlib import Path

import pytest

from alert_cases import SETTINGS, all_cases
from alert_mutants import mutants
from alert_rules import own_problems, promtool_problems
from slipway.telemetry.alerts.definitions import DEFINITIONS, rules_of

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)
CASES = all_cases()
RULES = rules_of(SETTINGS)
ALERTS = [definition.name for definition in DEFINITIONS]


def test_every_alert_has_cases_in_which_it_fires_and_is_silent() -> None:
    assert {rule.name for rule in RULES} == set(ALERTS), "the settings ask for every alert"
    for name in ALERTS:
        seen = {fires for case in CASES if case.name == name for _, fires in case.moments}
        assert seen == ({True} if name == "Watchdog" else {True, False}), name


@needs_promtool
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_and_is_silent_in_prometheus(name: str, tmp_path: Path) -> None:
    rules = [rule for rule in RULES if rule.name == name]
    problems = promtool_problems(rules, [case for case in CASES if case.name == name], tmp_path)
    assert not problems, problems


@pytest.mark.parametrize("name", [d.name for d in DEFINITIONS if not d.only_prometheus])
def test_slipway_itself_comes_to_the_same(name: str) -> None:
    rules = [rule for rule in RULES if rule.name == name]
    cases = [case for case in CASES if case.name == name]
    problems = [problem for case in cases for problem in own_problems(rules, case)]
    assert not problems, "\n".join(problems)


def survivors(
    name: str, folder: Path, every: int = 1, *, fast: bool = False
) -> tuple[int, list[str]]:
    """Return how many changed rules of an alert were tried, and which of them no case noticed. If
    `fast`, promtool is only asked if Slipway's own evaluator notices nothing.
    """
    rules = [rule for rule in RULES if rule.name == name]
    cases = [case for case in CASES if case.name == name]
    changed = [
        (says, [*rules[:number], mutant, *rules[number + 1 :]])
        for number, rule in enumerate(rules[-1:], len(rules) - 1)
        for says, mutant in mutants(rule)
    ][::every]
    left = []
    for says, some in changed:
        noticed = fast and any(own_problems(some, case) for case in cases)
        if not noticed and not promtool_problems(some, cases, folder):
            left.append(says)
    return len(changed), [f"{name}: {says}" for says in left]


@needs_promtool
def test_a_threshold_or_window_that_is_a_fifth_off_fails_a_case(tmp_path: Path) -> None:
    """Try one change of each of some alerts; the whole is `test_almost_every_change_is_noticed`."""
    for name, every in (("AvailabilityBurnFast", 8), ("TimePerToken", 5), ("RowsLost", 2)):
        tried, left = survivors(name, tmp_path, every)
        assert tried
        assert not left


@needs_promtool
@pytest.mark.soak
def test_almost_every_change_is_noticed(tmp_path: Path) -> None:
    tried, left = 0, list[str]()
    for name in ALERTS:
        count, missed = survivors(name, tmp_path, fast=True)
        tried, left = tried + count, [*left, *missed]
    print(f"{tried - len(left)} of {tried} changes are noticed; not these: {left}")  # noqa: T201
    assert len(left) <= 0.1 * tried
