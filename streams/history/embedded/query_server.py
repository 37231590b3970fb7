"""Read-only query server on embedded ClickHouse. Only one process can open the directory of chdb, so edges and analysts
send their queries to this one, over HTTP on this machine, as to a ClickHouse server.

Each query has its own connection to the engine. A connection costs 0.2 ms, runs beside that of the writer, and a failed
query leaves no state for the next one. `query_guard` decides which statements may run. The server applies the settings
of the query, then `readonly`, which makes them final.

There are two users, each with its own password file and query slots: `reader` (analysts, dashboards, reports) and
`edge`. Queries of analysts therefore never delay those of an edge.
"""

from __future__ import annotations

import contextlib
import hmac
import shutil
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from schemas.settings import DATABASE, Settings
from streams.history import metrics
from streams.history.embedded import query_guard
from streams.history.embedded.http_protocol import BadRequest, ClickHouseHttpHandler, Overloaded, QueryRequest
from streams.runtime import private_files

__all__ = ["QueryEngine", "results", "serve"]

_CONNECTIONS = 64  # edges and dashboards keep a few each
_WAITING = 16  # queries that wait for a slot
_PATIENCE = 5.0  # seconds; the longest wait for a slot
_ASKED = 1 << 20  # bytes of a request; a query with the ids of a page has a few KiB
# Limits of one query; a client may set lower ones. Server and client hold the whole result in memory.
_LIMITS = {
    "max_result_bytes": 64 << 20, "max_result_rows": 1_000_000, "max_memory_usage": 1 << 30, "max_threads": 2,
}
_EXPORT = {"max_execution_time": 600, "max_result_rows": 0}  # of format Parquet, which is written to a file
# Set for every query in addition to `readonly`; no statement that the guard allows needs them.
_FIXED = {"allow_ddl": "0", "allow_introspection_functions": "0"}

User = Literal["reader", "edge"]


def results(path: Path) -> Path:
    """Returns the directory for exports of the database in `path`."""
    return path.parent / "clickhouse-results"


class QueryEngine:
    """Runs queries on chdb in `path`, which this process has open. Thread-safe."""

    def __init__(self, path: Path, seconds: float, at_once: int) -> None:
        self._path = str(path)
        self._scratch = results(path)
        private_files.make_private_dir(self._scratch)
        for left in self._scratch.iterdir():  # of a process that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._limits = _LIMITS | {"max_execution_time": seconds}
        self._slots: dict[User, _Slots] = {"reader": _Slots(at_once), "edge": _Slots(at_once)}
        with self._connection() as connection:
            self._guard = query_guard.Guard(connection)

    def run(self, asked: QueryRequest, user: User = "reader") -> bytes | Path:
        """Returns the result. Raises Overloaded if no query slot is free, BadRequest if the statement is not allowed,
        RuntimeError with ClickHouse's error message."""
        with self._slots[user].taken(), self._connection() as connection:
            connection.query(f"USE {DATABASE}")
            statement = self._guard.check(connection, asked.sql, asked.format)
            given = self._settings(asked) | _FIXED
            connection.query("SET " + ", ".join(f"{name} = {_quote(value)}" for name, value in given.items()))
            if (statement.format or asked.format).lower() == "parquet":
                return self._file(connection, statement, asked)
            connection.query("SET readonly = 1")
            answer = connection.query(statement.sql, statement.format or asked.format, params=dict(asked.parameters))
            return bytes(answer.bytes() or b"")

    def _file(self, connection: Any, statement: query_guard.Statement, asked: QueryRequest) -> Path:
        """Writes an export to a file, because its size is not limited by memory. It may run for 600 s."""
        # Half of the free space, because the broker may be on the same disk.
        most = _EXPORT | {"max_result_bytes": shutil.disk_usage(self._scratch).free // 2}
        settings = ", ".join(f"{name} = {value}" for name, value in most.items())
        connection.query(f"SET {settings}, readonly = 1")
        if statement.format and not statement.canonical.endswith(f" FORMAT {statement.format}"):
            raise BadRequest("Code: 62. DB::Exception: FORMAT Parquet must be the end of the query (SYNTAX_ERROR)")
        sql = statement.canonical.removesuffix(f" FORMAT {statement.format}")
        draft = Path(tempfile.mkdtemp(dir=self._scratch)) / "result.parquet"
        try:
            connection.query(f"{sql} INTO OUTFILE {_quote(str(draft))} FORMAT Parquet", params=dict(asked.parameters))
            return draft.rename(draft.parent.with_suffix(".parquet"))
        finally:
            draft.unlink(missing_ok=True)
            draft.parent.rmdir()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        import chdb

        connection = chdb.connect(self._path)
        try:
            yield connection
        finally:
            connection.close()

    def _settings(self, asked: QueryRequest) -> dict[str, str]:
        """Returns the settings of the request, with limits that do not exceed those of the server."""
        limited = query_guard.check_settings(asked.settings)
        for name, most in self._limits.items():
            limited[name] = _lower(limited.get(name), most)
        return limited


class _Slots:
    """Query slots of one user: `at_once` queries run, up to 16 more wait for at most 5 s."""

    def __init__(self, at_once: int) -> None:
        self._running = threading.BoundedSemaphore(at_once)
        self._waiting = threading.BoundedSemaphore(at_once + _WAITING)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Overloaded(f"all query slots are in use and {_WAITING} queries wait; retry later")
        try:
            if not self._running.acquire(timeout=_PATIENCE):
                raise Overloaded(f"no query slot became free within {_PATIENCE:.0f} s")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._waiting.release()


def _lower(wanted: str | None, most: float) -> str:
    """Returns the limit of the request if it is lower than `most`. 0 means no limit, so it is replaced by `most`."""
    try:
        number = float(wanted or 0)
    except ValueError:
        raise BadRequest(f"{wanted!r} is not a number") from None
    return str(number if 0 < number < most and type(most) is float else int(number) if 0 < number < most else most)


def _quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class _Server(ThreadingHTTPServer):
    """HTTP server with at most 64 connections. A further connection closes the one that has been idle, or has been
    sending its request, for the longest time. Connections with a running or waiting query are never closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type[ClickHouseHttpHandler]) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[socket.socket, None] = OrderedDict()
        self._open = 0
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = self._open >= _CONNECTIONS
            oldest = self._idle.popitem(last=False)[0] if full and self._idle else None
            accepted = not full or oldest is not None
            if accepted:
                self._open += 1
                self._idle[request] = None
        if oldest is not None:
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread ends and decrements the count
        if accepted:
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.settimeout(1.0)
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open -= 1
                self._idle.pop(request, None)

    @contextlib.contextmanager
    def busy(self, request: socket.socket) -> Iterator[None]:
        """Protects the connection while the body runs: no new connection closes it."""
        with self._lock:
            self._idle.pop(request, None)
        try:
            yield
        finally:
            with self._lock:
                self._idle[request] = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs nothing: a client that disconnects is not an error."""


@contextlib.contextmanager
def serve(settings: Settings, path: Path) -> Iterator[int]:
    """Serves on 127.0.0.1 at `clickhouse_port` while the body runs, and yields the port. Raises OSError if the port is
    taken."""
    passwords: Mapping[User, bytes] = {
        "reader": _password(settings.clickhouse_password_file),
        "edge": _password(settings.clickhouse_edge_password_file),
    }
    engine = QueryEngine(path, settings.chdb_query_seconds, settings.chdb_query_concurrency)

    class QueryHandler(ClickHouseHttpHandler):
        most = _ASKED
        user: User = "reader"

        def allows(self, user: str, given: str) -> bool:
            self.user = "edge" if user == "edge" else "reader"  # clients send "default" if no user is set
            return hmac.compare_digest(given.encode(), passwords[self.user])

        def query(self, asked: QueryRequest) -> bytes | Path:
            with server.busy(self.connection), metrics.QUERY_SECONDS.time():
                return engine.run(asked, self.user)

    with _Server(settings.clickhouse_port, QueryHandler) as server:
        thread = threading.Thread(target=server.serve_forever, name="clickhouse-http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _password(file: Path) -> bytes:
    private_files.create_secret(file)
    return private_files.read_secret(file).encode()
