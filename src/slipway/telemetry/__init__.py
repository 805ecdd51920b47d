"""Metrics and traces, built from the records that the pipeline emits."""
