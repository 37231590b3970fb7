"""A password in `--clickhouse URL` is removed from the process list."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.cli.main import without_password

URL = "http://attn:s3cret@127.0.0.1:1/attn"


@pytest.mark.parametrize(("argv", "kept", "url"), [
    (["python", "attn", "up", "--clickhouse", URL, "--port", "1"], ["python", "attn", "up", "--port", "1"], URL),
    (["python", "attn", "up", f"--clickhouse={URL}"], ["python", "attn", "up"], URL),
    (["attn", "up", "--clickhouse", "http://h:1/attn"], ["attn", "up", "--clickhouse", "http://h:1/attn"], None),
    (["attn", "up", "--clickhouse=http://user@h:1/attn"], ["attn", "up", "--clickhouse=http://user@h:1/attn"], None),
    (["attn", "up", "--clickhouse"], ["attn", "up", "--clickhouse"], None),
])
def test_only_a_url_with_a_password_is_removed(argv: list[str], kept: list[str], url: str | None) -> None:
    assert without_password(argv) == (kept, url)


def test_a_running_command_shows_no_password(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "edge", "--clickhouse", URL, "--kafka", "127.0.0.1:1", "--port", "0",
         "--data-dir", str(tmp_path)],
        env=env | {"ATTN_JWT_SECRET": "x" * 32}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while b"s3cret" in (shown := Path(f"/proc/{process.pid}/cmdline").read_bytes()) or not shown:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert shown.split(b"\0")[3:4] == [b"edge"]
        assert f"ATTN_CLICKHOUSE={URL}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    finally:
        process.kill()
        process.wait()
