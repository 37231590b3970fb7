"""Fuzzers of what producers send: `python -m fuzz events --minutes 5`."""
