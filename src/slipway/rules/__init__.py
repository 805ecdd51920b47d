"""Rules: answer what is fixed without a model, by questions in full, patterns and intents.

A file of rules (YAML) is read and checked (`reading`), compiled (`book`), and checked by the tests
that it holds (`testing`). A rule that is not sure stays silent, and the question goes on.
"""

from slipway.rules.book import MatchedRules, Recognised, RuleBook, RuleQuestion
from slipway.rules.reading import ReadRules, read_rules
from slipway.rules.rule import RuleMatch
from slipway.rules.testing import RuleFailure, failures_of, turn_off_failing

__all__ = [
    "MatchedRules",
    "ReadRules",
    "Recognised",
    "RuleBook",
    "RuleFailure",
    "RuleMatch",
    "RuleQuestion",
    "failures_of",
    "read_rules",
    "turn_off_failing",
]
