"""Slipway: one process between an application's users and its language models."""

__version__ = "0.1.0"
