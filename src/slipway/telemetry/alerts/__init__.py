"""Alerts: defined once, written as Prometheus rules, and evaluated by Slipway itself."""
