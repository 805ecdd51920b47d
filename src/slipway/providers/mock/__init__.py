"""An OpenAI-compatible provider that is as fast, slow or broken as you ask: `slipway mock`.

    POST …/chat/completions   streamed and not, with usage, `n` up to 8, `max_tokens`
    POST …/embeddings         unit vectors of 8 dimensions, the same for the same input
    GET  …/models, /healthz   and GET /requests: what was received, so that a test in another process can look

The same seed and messages give the same words. Where the last user message has lines that start with `[1]`, `[2]` …, the reply cites
some of them, as an answer from documents would.

**Faults by name.** A model called `fault-NAME[-ARG]` fails in that way: `fault-cut-20`, `fault-status-429-2`, `fault-slow-3`. `FAULTS`
lists them all. `say-200` is 200 tokens long, and `echo` says what it was told. Any other name is an ordinary model.

**Faults by script.** Each entry of `MockSettings.script` is `FAULT[@N][xM]`, counted by calls (chat completions and embeddings):

    status-503@1x3    calls 1, 2 and 3 fail with 503
    cut-10@5          the fifth is cut after 10 chunks
    status-429x2      the first two are limited
    slow-0.5          every call

All entries that fit a call apply to it, and the fault in its model's name as well: what replaces a reply (`status`, `html` …) before what
cuts it (`cut`, `malformed` …), and that before what changes its bytes and times (`split`, `slow` …).
"""

from slipway.providers.mock.faults import FAULTS, Fault, parse_fault, parse_script
from slipway.providers.mock.server import MockServer, serve
from slipway.providers.mock.settings import MockSettings, Seen

__all__ = ["FAULTS", "Fault", "MockServer", "MockSettings", "Seen", "parse_fault", "parse_script", "serve"]
