"""Make a model smaller and faster on an ordinary machine, and prove what that cost.

    ingest -> baseline -> prune -> distil -> quantise -> gate -> register

`pipeline.py` walks these stages; each leaves files and a line in `state.json`, so that a stopped
run goes on where it was. Nothing here imports the server: a command hands in what it needs as
callables.
"""
