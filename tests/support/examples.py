"""Hypothesis examples: `@law(60)` runs 60, multiplied by ATTN_TEST_TIMES (`make laws`: 20, `make check`: 0.4).

`make test` runs the same examples for the same code each time (profile `fixed` of conftest.py): a new failure is caused
by the change. `make check` and `make laws` draw new examples each time.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

__all__ = ["law"]

TIMES = float(os.environ.get("ATTN_TEST_TIMES", "1"))


def law(examples: int, **more: Any) -> settings:
    """Returns settings for `examples` examples. There is no deadline: tests run on busy machines."""
    return settings(max_examples=max(1, round(examples * TIMES)), deadline=None, **more)
