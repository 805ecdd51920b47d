"""The pipeline that a question passes through, read from top to bottom.

`answer()` serves apps and visits every stage: admission, planning, then knowledge, prompt and
routing for each section, and settlement. `proxy()` serves bare models and routes: admission,
routing, settlement. Both run inside `run_settled`, which emits exactly one AnswerDone.
"""

from slipway.answer.answering import answer
from slipway.answer.current import Current
from slipway.answer.kept_answers import answer_kept
from slipway.answer.kept_chat import proxy_kept
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.proxying import ResponseWriter, proxy
from slipway.answer.settlement import Facts, Tally

__all__ = [
    "App",
    "Current",
    "Facts",
    "Pipeline",
    "ResponseWriter",
    "Tally",
    "answer",
    "answer_kept",
    "proxy",
    "proxy_kept",
]
