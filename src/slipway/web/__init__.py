"""The guard: HTTP in, HTTP out."""
