"""The process of embedded ClickHouse has only the secrets that it needs, and can open only files of the database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.process.environment import cleaned

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and Landlock of Linux")

# Queries bypass the guard here: the sandbox alone must keep the engine from reading and writing other files.
CONFINED = """
import json, os, sys, urllib.request
from pathlib import Path
from schemas.settings import Settings
from streams.history.clickhouse import client, migrate
from streams.history.embedded import query_server
from streams.history.embedded.sandbox import confine

ground, data = Path(sys.argv[1]), Path(sys.argv[2])
settings = Settings(data_dir=data, clickhouse_port=0, _env_file=None)
why = confine(settings)
found = {"why": why}
def tried(name, what):
    try:
        found[name] = repr(what())
    except Exception as error:
        found[name] = "refused" if "ermission" in str(error) else repr(error)
tried("secret", (data / "secret").read_text)
tried("outside", (ground / "canary").read_text)
tried("parent", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
tried("write", lambda: (ground / "out").write_text("x"))
tried("beside", lambda: (data / "out").write_text("x"))
tried("home", lambda: os.listdir(os.path.expanduser("~")))
writer = client.connect(settings)
migrate.apply(writer, "attn")
writer.command("CREATE TABLE attn.t (a UInt64) ENGINE = MergeTree ORDER BY a")
for _ in range(3):
    writer.command("INSERT INTO attn.t SELECT number FROM numbers(100000)")
writer.command("OPTIMIZE TABLE attn.t FINAL")
writer.command("ALTER TABLE attn.t DELETE WHERE a % 2 SETTINGS mutations_sync = 2")
writer.command("RENAME TABLE attn.t TO attn.u")
found["rows"] = writer.query("SELECT count() FROM attn.u").result_rows[0][0]
tried("engine", lambda: writer.query(f"SELECT file('{data / 'secret'}')").result_rows)
tried("engine writes", lambda: writer.command(f"SELECT 1 INTO OUTFILE '{ground / 'out'}' FORMAT CSV"))
writer.command("DROP TABLE attn.u SYNC")
with query_server.serve(settings, client.directory(settings)) as port:
    auth = settings.clickhouse_password_file.read_text().strip()
    for form in ("JSON", "Parquet"):
        url = f"http://127.0.0.1:{port}/?user=reader&password={auth}"
        body = f"SELECT 1 AS a FORMAT {form}".encode()
        found[form] = len(urllib.request.urlopen(url, body).read())
writer.close()
print(json.dumps(found))
"""


@linux
def test_the_sandbox_restricts_file_access_to_the_database_directory(tmp_path: Path) -> None:
    ground, data = tmp_path / "ground", tmp_path / "data"
    for directory in (ground, data):
        directory.mkdir()
    (ground / "canary").write_text("canary")
    (data / "secret").write_text("canary")
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(ground), str(data)], capture_output=True, text=True, timeout=120,
        check=False, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    if results.pop("why"):
        pytest.skip("this kernel has no Landlock")
    assert results.pop("rows") == 150_000
    assert results.pop("JSON") > 10
    assert results.pop("Parquet") > 10
    assert set(results.values()) == {"refused"}, results
    assert not (ground / "out").exists()


@linux
def test_a_secret_of_the_environment_is_not_in_proc(tmp_path: Path) -> None:
    """`attn history`, started with the secrets of other roles in its environment, removes them from /proc/PID/environ.
    This is the case in a container whose roles share one environment."""
    secrets = {"ATTN_JWT_SECRET": "canary-of-tokens" * 3, "attn_clickhouse_read": "http://u:canary-of-url@127.0.0.1:1",
               "AWS_SECRET_ACCESS_KEY": "canary-of-others"}
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ops.cli", "history", "--data-dir", str(tmp_path / "data")], stdout=out,
            stderr=out, env={**os.environ, **secrets, "ATTN_KAFKA": "127.0.0.1:1", "ATTN_LOG_FORMAT": "json"})
    try:
        deadline = time.monotonic() + 60
        while b"canary" in (shown := Path(f"/proc/{process.pid}/environ").read_bytes()) or not shown:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert b"ATTN_KAFKA=" in shown
    finally:
        process.kill()
        process.wait()


def test_every_role_gets_the_secrets_it_uses_and_no_others() -> None:
    given = dict.fromkeys((
        "ATTN_JWT_SECRET", "Attn_Jwt_Secret", "ATTN_KAFKA_PASSWORD", "ATTN_CLICKHOUSE", "ATTN_CLICKHOUSE_READ_URL",
        "ATTN_CLICKHOUSE_READ",
        "ATTN_KAFKA", "PATH", "HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY"), "x")
    tokens, kafka, base = {"ATTN_JWT_SECRET", "Attn_Jwt_Secret"}, {"ATTN_KAFKA_PASSWORD"}, {"ATTN_KAFKA", "PATH"}
    others = {"HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY"}
    assert set(cleaned("edge", given)) == set(given)
    assert set(cleaned("worker", given)) == base | kafka | others
    assert set(cleaned("broker", given)) == base | others
    assert set(cleaned("demo", given)) == base | kafka | tokens | others
    assert set(cleaned("history", given)) == base | kafka | {"ATTN_CLICKHOUSE"}
