"""Fuzzers of the records that producers send: `python -m fuzz events --minutes 5`."""
