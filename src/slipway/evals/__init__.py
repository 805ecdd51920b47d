"""Measure how good answers and searches are, and whether a difference is more than chance."""
