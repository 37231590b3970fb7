"""Fuzzers of what producers send. `python -m fuzz events --minutes 5`; a module here is a fuzzer with a `main`."""
