"""Embedded ClickHouse for others: its directory belongs to this process alone, so edges and analysts ask here, over
HTTP on this machine, as they would ask a server.

Each query has a connection of its own to the engine: one costs 0.2 ms, runs beside the writer's, and what a query that
failed leaves behind is nobody's next answer. `guard` decides what may run. The query's settings are set, then
`readonly`, which fixes them.

There are two users, each with a password file and query slots of its own: `reader` (analysts, dashboards, reports)
and `edge`, so that analysts' queries never hold up what people ask an edge.
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
_WAITING = 16  # queries, beyond those that run
_PATIENCE = 5.0  # seconds such a query waits
_ASKED = 1 << 20  # bytes of a request: a query with a page's ids is a few KiB
# Limits of one query; a caller may set them lower. What it answers is held in memory, by us and by whoever asked.
_LIMITS = {
    "max_result_bytes": 64 << 20, "max_result_rows": 1_000_000, "max_memory_usage": 1 << 30, "max_threads": 2,
}
_EXPORT = {"max_execution_time": 600, "max_result_rows": 0}  # format Parquet goes to a file
# Set for every query, beside `readonly`: the guard lets none of these be needed.
_FIXED = {"allow_ddl": "0", "allow_introspection_functions": "0"}

User = Literal["reader", "edge"]


def results(path: Path) -> Path:
    """Where exports are written, of the database in `path`."""
    return path.parent / "clickhouse-results"


class QueryEngine:
    """chdb in `path`, which this process has open. For any number of threads."""

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
        """The result. Raises Overloaded if no query slot is free; BadRequest if the statement may not run; RuntimeError
        with what ClickHouse says."""
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
        """An export: as large as it comes, so not through memory, and not as soon as what a person waits for."""
        most = _EXPORT | {"max_result_bytes": shutil.disk_usage(self._scratch).free // 2}  # the broker is on that disk
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
        """The caller's, within our limits."""
        found = query_guard.check_settings(asked.settings)
        for name, most in self._limits.items():
            found[name] = _lower(found.get(name), most)
        return found


class _Slots:
    """Queries of one user: `at_once` run, `_WAITING` more wait for a slot."""

    def __init__(self, at_once: int) -> None:
        self._running = threading.BoundedSemaphore(at_once)
        self._waiting = threading.BoundedSemaphore(at_once + _WAITING)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Overloaded(f"{_WAITING} queries wait already")
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
    """A caller's limit where it is lower than ours; 0 would be none."""
    try:
        number = float(wanted or 0)
    except ValueError:
        raise BadRequest(f"{wanted!r} is no number") from None
    return str(number if 0 < number < most and type(most) is float else int(number) if 0 < number < most else most)


def _quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class _Server(ThreadingHTTPServer):
    """With a bounded number of connections. A new one beyond the bound closes the one whose client has been silent, or
    has been sending its request, for longest. A connection whose query runs or waits for a slot is never closed."""

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
                oldest.shutdown(socket.SHUT_RDWR)  # its thread ends and counts it off
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
        """While the body runs, the connection is not closed in favour of another."""
        with self._lock:
            self._idle.pop(request, None)
        try:
            yield
        finally:
            with self._lock:
                self._idle[request] = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no news."""


@contextlib.contextmanager
def serve(settings: Settings, path: Path) -> Iterator[int]:
    """Answers on 127.0.0.1, at `clickhouse_port`, while the body runs: the port. OSError: it is taken."""
    passwords: Mapping[User, bytes] = {
        "reader": _password(settings.clickhouse_password_file),
        "edge": _password(settings.clickhouse_edge_password_file),
    }
    engine = QueryEngine(path, settings.chdb_query_seconds, settings.chdb_query_concurrency)

    class Reading(ClickHouseHttpHandler):
        most = _ASKED
        user: User = "reader"

        def allows(self, user: str, given: str) -> bool:
            self.user = "edge" if user == "edge" else "reader"  # other names are readers: clients send "default"
            return hmac.compare_digest(given.encode(), passwords[self.user])

        def query(self, asked: QueryRequest) -> bytes | Path:
            with server.busy(self.connection), metrics.QUERY_SECONDS.time():
                return engine.run(asked, self.user)

    with _Server(settings.clickhouse_port, Reading) as server:
        thread = threading.Thread(target=server.serve_forever, name="clickhouse-http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _password(file: Path) -> bytes:
    private_files.create_secret(file)
    return private_files.read_secret(file).encode()
