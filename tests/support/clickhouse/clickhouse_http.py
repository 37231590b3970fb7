"""A ClickHouse server for tests: chdb behind the part of the HTTP interface that clickhouse-connect uses, with faults.

    python clickhouse_http.py DIRECTORY PORT      serves until it is killed; prints "ready" when it listens

POST /fault?what=FAULT&times=N sets the fault of the next N inserts:
    refuse  the connection is closed, the insert is not executed
    reset   the insert is executed, then the connection is closed
    lost    the insert is executed, the response comes after 30 s
    error   the response is a 500, the insert is not executed
    slow    the response comes after 2 s
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

from streams.history.embedded import http_protocol
from streams.history.embedded.http_protocol import QueryRequest

__all__ = ["ClickHouse"]


class ClickHouse:
    """Runs the server in a child process. It keeps its directory and port over restarts."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://user:p%40ss@127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self.directory), str(self.port)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def fault(self, what: str, times: int = 1) -> None:
        urlopen(f"http://127.0.0.1:{self.port}/fault?what={what}&times={times}", data=b"", timeout=5).close()


class Engine:
    """A chdb connection that runs one query at a time."""

    def __init__(self, directory: str) -> None:
        import chdb

        self._connection = chdb.connect(directory)
        self._lock = threading.Lock()

    def run(self, asked: QueryRequest) -> bytes:
        with self._lock:
            for name, value in asked.settings.items():
                self._connection.query(f"SET {name} = '{value}'", "TabSeparated")
            try:
                answer = self._connection.query(asked.sql, asked.format, params=dict(asked.parameters))
                return bytes(answer.bytes() or b"")
            finally:
                for name in asked.settings:
                    self._connection.query(f"SET {name} = DEFAULT", "TabSeparated")

    def insert(self, asked: QueryRequest, rows: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".native") as file:
            file.write(rows)
            file.flush()
            return self.run(QueryRequest(f"{asked.sql} FROM INFILE '{file.name}' FORMAT Native", asked.settings))


class Handler(http_protocol.ClickHouseHttpHandler):
    engine: Engine
    fault = ""
    faults: list[str] = []  # noqa: RUF012 - shared by all requests

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/fault":
            return super().do_POST()
        params = dict(parse_qsl(url.query))
        self.faults[:] = [params["what"]] * int(params["times"])
        self.fault = ""
        return self.respond(200, b"")

    def execute(self, params: dict[str, str], body: bytes) -> None:
        self.fault = self.faults.pop(0) if body.startswith(b"INSERT INTO") and self.faults else ""
        if self.fault == "refuse":
            self._cut()
        elif self.fault == "error":
            self.respond(500, b"proxy error")
        else:
            super().execute(params, body)

    def query(self, asked: QueryRequest) -> bytes:
        return self.engine.run(asked) if asked.rows is None else self.engine.insert(asked, asked.rows)

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        fault, self.fault = self.fault, ""
        if fault == "reset":
            return self._cut()
        time.sleep({"lost": 30, "slow": 2}.get(fault, 0))
        return super().respond(status, body, **headers)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def main(directory: str, port: str) -> None:
    Handler.engine = Engine(directory)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
