"""A ClickHouse server for tests: its HTTP interface, as far as clickhouse-connect uses it, over chdb; with faults.

    python clickhouse_http.py DIRECTORY PORT      serves until it is killed; prints a line when it does

POST /fault?what=refuse|reset|lost|error|slow&times=N  the next N inserts: are cut off unread, cut off when done, not
                                                      answered when done, answered by a 500, answered after 2 s
"""

from __future__ import annotations

import email
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

__all__ = ["ClickHouse"]

_INSERT = re.compile(rb"(INSERT INTO .*) FORMAT Native\n", re.DOTALL)
_NOT_SETTINGS = {
    "query", "database", "query_id", "session_id", "client_protocol_version", "enable_http_compression", "user",
    "password", "wait_end_of_query", "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "default_format", "cancel_http_readonly_queries_on_client_close",
}


class ClickHouse:
    """One as a process of its own. `port` 0: a free one, kept over restarts."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://user:p%40ss@127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self.directory), str(self.port)], stdout=subprocess.PIPE, text=True,
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
    """chdb, one call at a time."""

    def __init__(self, directory: str) -> None:
        import chdb

        self._connection = chdb.connect(directory)
        self._lock = threading.Lock()

    def run(self, sql: str, settings: dict[str, str], parameters: dict[str, str]) -> bytes:
        with self._lock:
            for name, value in settings.items():
                self._connection.query(f"SET {name} = '{value}'", "TabSeparated")
            try:
                return bytes(self._connection.query(sql, "TabSeparated", params=parameters).bytes() or b"")
            finally:
                for name in settings:
                    self._connection.query(f"SET {name} = DEFAULT", "TabSeparated")

    def insert(self, head: str, data: bytes, settings: dict[str, str]) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".native") as file:
            file.write(data)
            file.flush()
            return self.run(f"{head} FROM INFILE '{file.name}' FORMAT Native", settings, {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine
    faults: list[str] = []  # noqa: RUF012 - the server's

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            body = self._body()
        except RuntimeError as error:  # not what its Content-Encoding says
            return self._answer(500, str(error).encode())
        if url.path == "/fault":
            self.faults[:] = [params["what"]] * int(params["times"])
            return self._answer(200, b"")
        insert = _INSERT.match(body)
        fault = self.faults.pop(0) if insert and self.faults else ""
        if fault == "refuse":
            return self._cut()
        if fault == "error":
            return self._answer(500, b"proxy error")
        try:
            result = self._run(params, body, insert)
        except Exception as error:
            code = re.search(r"Code: (\d+)", str(error))
            named = {"X-ClickHouse-Exception-Code": code[1] if code else "1002"}
            return self._answer(500, str(error).encode(), **named)
        if fault == "reset":
            return self._cut()
        if fault == "lost":
            time.sleep(30)
        if fault == "slow":
            time.sleep(2)
        named = {"X-ClickHouse-Format": "TabSeparated"} if result else {}
        return self._answer(200, result, **named)

    def _run(self, params: dict[str, str], body: bytes, insert: re.Match[bytes] | None) -> bytes:
        settings = {name: value for name, value in params.items()
                    if name not in _NOT_SETTINGS and not name.startswith("param_")}
        if insert:
            return self.engine.insert(insert[1].decode(), body[insert.end():], settings)
        if self.headers.get_content_maintype() == "multipart":
            params |= self._form(body)
            body = b""
        parameters = {name.removeprefix("param_"): value for name, value in params.items() if name.startswith("param_")}
        return self.engine.run(params.get("query", "") + body.decode(), settings, parameters)

    def _form(self, body: bytes) -> dict[str, str]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n"
        parts: Any = email.message_from_bytes(head.encode() + body).get_payload()
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode()
            for part in parts
        }

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        else:
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        if self.headers.get("Content-Encoding") == "lz4":
            import lz4.frame

            body = lz4.frame.decompress(body)
        return body

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body)), "X-ClickHouse-Summary": "{}"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: Any) -> None:
        pass


def main(directory: str, port: str) -> None:
    Handler.engine = Engine(directory)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
