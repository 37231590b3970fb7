"""JavaScript modules of the dashboard: node's unit tests, types, shared test vectors and vendored files."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.edge.feed_vectors import FOLDER, vectors

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "api" / "static"
JS = ROOT / "tests" / "js"
NODE = shutil.which("node")
TSC = shutil.which("tsc", path=str(JS / "node_modules" / ".bin")) or shutil.which("tsc")
MOST_LINES = 300


def test_the_vectors_equal_those_of_the_current_server() -> None:
    made = vectors()
    assert {path.name for path in FOLDER.glob("*.json")} == set(made)
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, "run `python -m support.edge.feed_vectors` in tests/"


def test_the_vectors_have_every_frame_and_reason() -> None:
    streams = "".join(step["stream"] for text in vectors().values() for step in json.loads(text)["steps"])
    for event in ("snapshot", "added", "changed", "removed", "activity", "drafts", "preferences"):
        assert f"event: {event}\n" in streams
    for reason in ("resolved", "decided", "dismissed", "snoozed", "retargeted", "grouped", "beyond"):
        assert f'"reason":"{reason}"' in streams


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("file", sorted(path.name for path in JS.glob("*.test.mjs")))
def test_node(file: str) -> None:
    assert NODE is not None
    done = subprocess.run([NODE, "--test", str(JS / file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(TSC is None, reason="tsc is not installed (npm ci in tests/js)")
def test_types() -> None:
    assert TSC is not None
    done = subprocess.run([TSC, "-p", str(JS)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:]


def test_vendored_modules_are_the_named_ones() -> None:
    noted = json.loads((STATIC / "vendor" / "vendored.json").read_text())
    assert {path.name for path in (STATIC / "vendor").glob("*.js")} == set(noted)
    wanted = json.loads((JS / "package.json").read_text())["dependencies"]
    for name, note in noted.items():
        body = (STATIC / "vendor" / name).read_bytes()
        assert hashlib.sha256(body).hexdigest() == note["sha256"], f"{name} was changed by hand"
        assert note["version"] == wanted[note["package"]]
        assert note["license"]


def test_modules_are_small() -> None:
    for path in (STATIC / "attn").rglob("*.js"):
        assert len(path.read_text().splitlines()) < MOST_LINES, path.name
