"""Runs the receivers of docs/decisions.md as programs."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["done", "receiver_code", "start_receiver"]

PAGE = Path(__file__).parents[3] / "docs" / "decisions.md"

# Prepended to the program, which kills itself at the step that KILL_AT names.
_KILLER = """
import os, signal, sqlite3 as _sqlite3
STEP = os.environ.get("KILL_AT", "")
def _die(step):
    if step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
"""
_STEPS = {  # text of the page -> code that replaces it
    "        body = self.rfile.read(int(self.headers[\"content-length\"]))\n":
        "        body = self.rfile.read(int(self.headers[\"content-length\"]))\n        _die('read')\n",
    "        self.answer(200, {})\n":
        "        _die('applied')\n        self.answer(200, {})\n        _die('confirmed')\n",
    "            with sqlite3.connect(os.environ[\"DATABASE\"]) as db:  # one":
        "            _die('checked')\n            with sqlite3.connect(os.environ[\"DATABASE\"]) as db:  # one",
    "                db.execute(\"INSERT OR IGNORE INTO done VALUES (?, ?, ?)\",  # the effect, once for this id\n":
        "                _die('read')\n"
        "                db.execute(\"INSERT OR IGNORE INTO done VALUES (?, ?, ?)\",\n",
    "                applied = {": "                _die('applied')\n                applied = {",
    "                del held[id]\n": "                _die('confirmed')\n                del held[id]\n",
}


def receiver_code(kind: str) -> str:
    """Returns a program of the page; `kind`: "topic" or "http"."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    block, = [block for block in blocks if ("aiokafka" in block) == (kind == "topic")]
    return block


def start_receiver(kind: str, database: Path, kill_at: str = "", **environment: Any) -> subprocess.Popen[bytes]:
    """Starts a program of the page. `kill_at`: the step at which it kills itself: read, checked, applied, confirmed."""
    code = receiver_code(kind)
    for text, replaced in _STEPS.items():
        code = code.replace(text, replaced)
    assert not kill_at or f"_die('{kill_at}')" in code, f"the page has no step {kill_at}"
    given = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-c", _KILLER + code],
        env=os.environ | {"DATABASE": str(database), "KILL_AT": kill_at} | given)


def done(database: Path) -> list[tuple[str, str, str]]:
    """Returns the decisions that the receiver has applied: id, subject, option."""
    if not database.exists():
        return []
    with sqlite3.connect(database) as db:
        try:
            return list(db.execute("SELECT * FROM done ORDER BY subject"))
        except sqlite3.OperationalError:
            return []
