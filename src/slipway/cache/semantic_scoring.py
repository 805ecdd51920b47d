"""Estimate the probability that two questions have the same answer, learned from checked pairs.

Bayesian logistic regression, updated after each checked pair by one step of Newton's method on the
posterior (Spiegelhalter and Lauritzen 1990); the estimate is drawn towards one half by what is not
yet known of the weights (MacKay 1992).
"""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_PRIOR = {  # feature -> the mean of its weight before anything is learned
    "bias": 0.0,
    "similarity": 1.0,
    "margin": 0.5,
    "agreement": 0.5,
    "support": 0.0,
    "vote": 0.0,
    "likeness": 0.5,
    "length": 0.0,
    "words": 0.0,
    "refused": -0.5,
    "answer": 0.5,
    "question": 0.0,
    "rivalry": 0.0,
}
_PRIOR_SD = 2.0
_MOST = 20_000  # records of answers, questions and rivals
Score = tuple[int, int]  # how often the answer was right, and wrong


class PairFacts(Record, frozen=True, kw_only=True):
    """What is compared of a question and the kept questions of one answer.

    `similarity` is the cosine of the nearest; `rival` that of the nearest with another answer;
    `agreement` the share of the nearest questions that have this answer, `vote` the same weighted
    by similarity, and `support` their number; `likeness` the share of equal content words; `length`
    the shorter length by the longer, `words` the length of the question; `refused` the share of
    this answer's near questions that a guard refused. `answer`, `question` and `rivalry` say how
    often this answer, this kept question, and this answer beside that rival, were right and wrong.
    """

    similarity: float
    rival: float
    agreement: float
    support: int
    vote: float
    likeness: float
    length: float
    words: int
    refused: float
    answer: Score = (0, 0)
    question: Score = (0, 0)
    rivalry: Score = (0, 0)

    def features(self) -> list[float]:
        return [
            1.0,
            (self.similarity - 0.8) * 8,
            (self.similarity - self.rival) * 8,
            self.agreement * 2 - 1,
            math.log1p(self.support) - 1,
            self.vote * 2 - 1,
            self.likeness * 2 - 1,
            self.length * 2 - 1,
            math.log(max(self.words, 1) / 10),
            self.refused,
            math.log((self.answer[0] + 2) / (self.answer[1] + 0.5)) / 2 - 0.5,
            math.log((self.question[0] + 1) / (self.question[1] + 0.5)) - 0.7,
            math.log((self.rivalry[0] + 1) / (self.rivalry[1] + 0.3)) / 2 - 0.5,
        ]


class TrackRecord:
    """Count how often something was right and wrong; the oldest counts are dropped first."""

    def __init__(self) -> None:
        self._scores: dict[Hashable, Score] = {}

    def of(self, key: Hashable) -> Score:
        return self._scores.get(key, (0, 0))

    def note(self, key: Hashable, right: bool) -> None:
        before = self._scores.pop(key, (0, 0))
        self._scores[key] = (before[0] + right, before[1] + (not right))
        if len(self._scores) > _MOST:
            del self._scores[next(iter(self._scores))]


class PairScorer:
    """Score pairs, and learn from those whose answers were compared."""

    def __init__(self) -> None:
        import numpy as np

        self.seen = 0
        self._mean: Floats = np.array(list(_PRIOR.values()))
        self._covariance: Floats = np.eye(len(_PRIOR)) * _PRIOR_SD**2

    def score(self, facts: PairFacts) -> float:
        """Return the probability that the answers are the same."""
        import numpy as np

        x = np.array(facts.features())
        variance = float(x @ self._covariance @ x)
        return _logistic(float(x @ self._mean) / math.sqrt(1 + math.pi * variance / 8))

    def learn(self, facts: PairFacts, same: bool) -> None:
        import numpy as np

        x = np.array(facts.features())
        expected = _logistic(float(x @ self._mean))
        slope = max(expected * (1 - expected), 1e-4)
        along = self._covariance @ x
        self._covariance -= slope * np.outer(along, along) / (1 + slope * float(x @ along))
        self._mean = self._mean + self._covariance @ x * (float(same) - expected)
        self.seen += 1

    @property
    def weights(self) -> dict[str, float]:
        return dict(zip(_PRIOR, map(float, self._mean), strict=True))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 40.0), -40.0)))
