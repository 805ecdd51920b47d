"""An OpenAI-compatible provider that is as fast, slow or broken as you ask: `slipway mock`.

    POST …/chat/completions   streamed and not, with usage, `n` up to 8, `max_tokens` POST
    …/embeddings         unit vectors of 8 dimensions, the same for the same input GET  …/models,
    /healthz   and for tests, also in another process: GET  /requests            what was received
    PUT  /script              a JSON list of entries, which replaces the script POST /truth
    what an undisturbed answer to the same chat completion says: {"text": …}

The same seed and messages give the same words. Where the last user message has lines that start
with `[1]`, `[2]` …, the reply cites some of them, as an answer from documents would.

**Faults by name.** A model called `fault-NAME[-ARG]` fails in that way: `fault-cut-20`,
`fault-status-429-2`, `fault-slow-3`. `FAULTS` lists them all. `say-200` is 200 tokens long, and
`echo` says what it was told. Any other name is an ordinary model.

**Faults by script.** Each entry of `MockSettings.script` is `FAULT[%P][@WHEN][xM]`. It goes by the
number of the call (chat completions and embeddings), by seconds and by chance:

    status-503@1x3       calls 1, 2 and 3 fail with 503
    cut-10@5             the fifth is cut after 10 chunks
    status-429x2         the first two are limited
    slow-0.5             every call
    down@2s-5s           from second 2 to second 5; also `500ms`, `1m`, and `down@2s` without an end
    cutany%20@10s-20s    every fifth call in these seconds, drawn by the seed and the call's number

Calls and seconds are counted from the start, and again from when `MockServer.script` or `PUT
/script` replaced the script.

All entries that fit a call apply to it, and the fault in its model's name as well: what replaces a
reply (`status`, `html` …) before what cuts it (`cut`, `malformed` …), and that before what changes
its bytes and times (`split`, `slow` …).

**Going on.** Where the last message is the assistant's, or a user's that says "Go on exactly where
you stopped" follows it, that answer is gone on with: the reply is what is left of the answer that
the messages before it would get. `MockSettings.continues` has it go wrong at the joint. An answer
that the mock would not have given is not gone on with; it says its own from the beginning.
"""

from slipway.providers.mock.asked import GO_ON
from slipway.providers.mock.continuing import CONTINUES, PREFACES
from slipway.providers.mock.faults import FAULTS, Fault, parse_fault
from slipway.providers.mock.script import parse_entry
from slipway.providers.mock.server import MockServer, serve
from slipway.providers.mock.settings import MockSettings, Seen

__all__ = [
    "CONTINUES",
    "FAULTS",
    "GO_ON",
    "PREFACES",
    "Fault",
    "MockServer",
    "MockSettings",
    "Seen",
    "parse_entry",
    "parse_fault",
    "serve",
]
