"""Each benchmark that `make bench-NAME` names has a module with `main`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHES

MAKEFILE = Path(__file__).parents[3] / "Makefile"


@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_has_a_main(name: str) -> None:
    assert callable(importlib.import_module(BENCHES[name]).main)


def test_the_makefile_names_the_same_benchmarks() -> None:
    names = re.search(r"BENCHES := \$\(addprefix bench-,([\w,]+|[\w ]+)\)", MAKEFILE.read_text())
    assert names is not None
    assert sorted(re.split(r"[ ,]+", names[1].strip())) == sorted(BENCHES)
