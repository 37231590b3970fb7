"""Hypothesis examples: `@law(60)` runs 60, multiplied by ATTN_TEST_TIMES (`make laws`: 20, `make check`: 0.4).

`make test` takes the same examples for the same code every time (profile `fixed` of conftest.py), so that a red build
is the change's own doing; `make check` and `make laws` take others each time.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

__all__ = ["law"]

TIMES = float(os.environ.get("ATTN_TEST_TIMES", "1"))


def law(examples: int, **more: Any) -> settings:
    """No deadline: the machine is busy, and nothing here is about time."""
    return settings(max_examples=max(1, round(examples * TIMES)), deadline=None, **more)
