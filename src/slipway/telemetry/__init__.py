"""What operators see: metrics and traces, made from the records that the pipeline emits."""
