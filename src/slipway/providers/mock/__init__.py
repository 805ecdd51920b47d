"""An OpenAI-compatible provider that is as fast, slow or broken as you ask: `slipway mock`.

    POST …/chat/completions   streamed and not, with usage, `n` up to 8, `max_tokens`
    POST …/embeddings         unit vectors of 8 dimensions, the same for the same input
    GET  …/models, /healthz
    GET  /metrics             what vLLM or llama.cpp publishes of itself, if `metrics` names one
    and for tests, also in another process:
    GET  /requests            the requests received
    PUT  /script              a JSON list of entries, which replaces the script
    POST /truth               the undisturbed answer to a chat completion: {"text": …}

The same seed and messages give the same words. If the last user message has lines that start with
`[1]`, `[2]` …, the reply cites some of them, as an answer from documents would.

**Faults by name.** A model called `fault-NAME[-ARG]` fails in that way: `fault-cut-20`,
`fault-status-429-2`, `fault-slow-3`. `FAULTS` lists them all. `say-200` is 200 tokens long, and
`echo` repeats the last message. Any other name is an ordinary model.

**Faults by script.** Each entry of `MockSettings.script` is `FAULT[%P][@WHEN][xM]`. It selects
calls (chat completions and embeddings) by number, by time and by chance:

    status-503@1x3       calls 1, 2 and 3 fail with 503
    cut-10@5             the fifth is cut after 10 chunks
    status-429x2         the first two are limited
    slow-0.5             every call
    down@2s-5s           from second 2 to second 5; also `500ms`, `1m`, and `down@2s` without an end
    cutany%20@10s-20s    every fifth call in these seconds, drawn by the seed and the call's number

Calls and seconds are counted from the start, and again from when `MockServer.script` or `PUT
/script` replaces the script.

All entries that match a call apply to it, and the fault in its model's name too: first faults that
replace a reply (`status`, `html` …), then those that cut it (`cut`, `malformed` …), then those that
change its bytes and times (`split`, `slow` …).

**Continuing.** If the last message is the assistant's, or a user's that says "Go on exactly where
you stopped" follows it, the reply continues that answer: it is the rest of the answer that the
messages before it would get. `MockSettings.continues` makes it start in a wrong way. An answer that
the mock would not have given is not continued; the mock gives its own from the beginning.
"""

from slipway.providers.mock.chat_request import GO_ON
from slipway.providers.mock.continuing import CONTINUES, PREFACES
from slipway.providers.mock.fault_names import parse_fault
from slipway.providers.mock.faults import FAULTS, Fault
from slipway.providers.mock.script import parse_entry
from slipway.providers.mock.server import MockServer, serve
from slipway.providers.mock.settings import MockSettings, RecordedRequest

__all__ = [
    "CONTINUES",
    "FAULTS",
    "GO_ON",
    "PREFACES",
    "Fault",
    "MockServer",
    "MockSettings",
    "RecordedRequest",
    "parse_entry",
    "parse_fault",
    "serve",
]
