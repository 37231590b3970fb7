"""Generates docs/settings.md from the settings. `python -m ops.cli.settings_docs` prints it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas.settings import RENAMED, Settings

__all__ = ["page"]

_HEAD = """# Settings

Variables, or lines of a `.env` file in the directory where attn is started. Where a command has a
flag for it, the flag comes first. A name that is not in this table is ignored. `PT15M`, `PT8H` and
`P3D` are times as ISO 8601 writes them. [Operations](operations.md) says when to touch which.
This table is made of [`schemas/settings.py`](../schemas/settings.py), which has the reasons, by
`make schemas`.
"""

_RENAMED = """## Renamed settings

The old names work until the next release. Each process that reads one logs a warning when it
starts. If both names are set, the new name wins.
"""


def page() -> str:
    """Returns the page as Markdown."""
    rows = [f"| `ATTN_{name.upper()}` | {_default(name)} | {_about(name)} |" for name in Settings.model_fields]
    old_names = [f"| `ATTN_{old.upper()}` | `ATTN_{name.upper()}` |" for old, name in sorted(RENAMED.items())]
    return "\n".join([
        _HEAD, "| setting | default | |", "| --- | --- | --- |", *rows, "",
        _RENAMED, "| old name | new name |", "| --- | --- |", *old_names, "",
    ])


def _default(name: str) -> str:
    value: Any = Settings.model_fields[name].default
    if isinstance(value, frozenset):
        value = ",".join(sorted(value))
    elif isinstance(value, timedelta):
        value = TypeAdapter(timedelta).dump_python(value, mode="json")
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if value not in (None, "") else ""


def _about(name: str) -> str:
    description = Settings.model_fields[name].description or ""
    return re.sub(r"\s+", " ", description).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
