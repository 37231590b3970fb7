"""Embedded ClickHouse for others: its directory belongs to this process alone, so edges and analysts ask here, over
HTTP on this machine, as they would ask a server.

Each query has a connection of its own to the engine: one costs 0.2 ms, runs beside the writer's, and what a query that
failed leaves behind is nobody's next answer. Its settings are set, then `readonly`, which fixes them.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from schemas.settings import Settings
from streams import keyfile
from streams.history import metrics
from streams.history.client import DATABASE
from streams.history.wire import Asked, BadRequest, Handler, Overloaded

__all__ = ["Engine", "serve"]

_CONNECTIONS = 64  # edges and dashboards keep a few each
_WAITING = 16  # queries, beyond those that run
_PATIENCE = 5.0  # seconds such a query waits
_ASKED = 1 << 20  # bytes of a request: a query with a page's ids is a few KiB
# Limits of one query; a caller may set them lower. What it answers is held in memory, by us and by whoever asked.
_LIMITS = {
    "max_result_bytes": 64 << 20, "max_result_rows": 1_000_000, "max_memory_usage": 1 << 30, "max_threads": 2,
}
_EXPORT = {"max_execution_time": 600, "max_result_bytes": 0, "max_result_rows": 0}  # format Parquet goes to a file
# A setting of these kinds would undo the others, or reach beyond the tables.
_NOT_THEIRS = frozenset({"readonly", "allow_ddl", "profile", "result_overflow_mode", "timeout_overflow_mode"})
_QUERIES = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "EXISTS")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`")
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\0": "\\0"})  # as a parameter's value is written
# clickhouse-connect asks at its start which settings it may send. Beside the query: those that are not ours.
_MAY_SEND = re.compile(r"SELECT name, value, readonly FROM system\.settings LIMIT \d+( FORMAT Native)?")


class Engine:
    """chdb in `path`, which this process has open. For any number of threads."""

    def __init__(self, path: Path, seconds: float, at_once: int) -> None:
        self._path = str(path)
        self._scratch = path.parent / "clickhouse-results"
        shutil.rmtree(self._scratch, ignore_errors=True)  # of one that was killed
        self._scratch.mkdir(mode=0o700)
        self._limits = _LIMITS | {"max_execution_time": seconds}
        self._running = threading.BoundedSemaphore(at_once)
        self._waiting = threading.BoundedSemaphore(at_once + _WAITING)

    def ask(self, asked: Asked) -> bytes | Path:
        """The result. Overloaded; BadRequest: not a query; RuntimeError: what ClickHouse says."""
        with self._turn(), self._connection() as connection:
            sql = _canonical(connection, asked.sql)
            settings = ", ".join(f"{name} = {_quote(value)}" for name, value in self._settings(asked).items())
            connection.query(f"SET {settings}")
            connection.query(f"USE {DATABASE}")
            if asked.format == "Parquet":
                return self._file(connection, sql.removesuffix(" FORMAT Parquet"), asked)
            connection.query(f"SET readonly = {2 if _MAY_SEND.fullmatch(sql) else 1}")
            answer = connection.query(asked.sql, asked.format, params=dict(asked.parameters))
            return bytes(answer.bytes() or b"")

    def _file(self, connection: Any, sql: str, asked: Asked) -> Path:
        """An export: as large as it comes, so not through memory, and not as soon as what a person waits for."""
        settings = ", ".join(f"{name} = {value}" for name, value in _EXPORT.items())
        connection.query(f"SET {settings}, readonly = 1")
        draft = Path(tempfile.mkdtemp(dir=self._scratch)) / "result.parquet"
        try:
            connection.query(f"{sql} INTO OUTFILE {_quote(str(draft))} FORMAT Parquet", params=dict(asked.parameters))
            return draft.rename(draft.parent.with_suffix(".parquet"))
        finally:
            draft.unlink(missing_ok=True)
            draft.parent.rmdir()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Overloaded("too many queries wait already")
        try:
            if not self._running.acquire(timeout=_PATIENCE):
                raise Overloaded(f"no turn within {_PATIENCE:.0f} s")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._waiting.release()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        import chdb

        connection = chdb.connect(self._path)
        try:
            yield connection
        finally:
            connection.close()

    def _settings(self, asked: Asked) -> dict[str, str]:
        """The caller's, within our limits."""
        found = {name: value for name, value in asked.settings.items() if name not in _NOT_THEIRS}
        for name, most in self._limits.items():
            found[name] = _lower(found.get(name), most)
        return found


def _lower(wanted: str | None, most: float) -> str:
    """A caller's limit where it is lower than ours; 0 would be none."""
    try:
        number = float(wanted or 0)
    except ValueError:
        raise BadRequest(f"{wanted!r} is no number") from None
    return str(number if 0 < number < most and type(most) is float else int(number) if 0 < number < most else most)


def _canonical(connection: Any, sql: str) -> str:
    """The statement as ClickHouse reads it. BadRequest: more than one, none that only reads, or one that writes a file
    (`readonly` would let KILL and INTO OUTFILE through)."""
    given = {"q": sql.translate(_ESCAPED)}
    answer = connection.query("SELECT formatQuerySingleLine({q:String})", "TSVRaw", params=given)
    found = str(bytes(answer.bytes()).decode()).strip()
    bare = _QUOTED.sub("''", found)
    if not bare.startswith(_QUERIES) or " INTO OUTFILE " in bare:
        raise BadRequest("Code: 164. DB::Exception: only queries are answered here (READONLY)", 403)
    return found


def _quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class _Server(ThreadingHTTPServer):
    """With a bounded number of connections."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[Handler]) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            with contextlib.suppress(OSError):
                request.settimeout(1.0)
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no news."""


@contextlib.contextmanager
def serve(settings: Settings, path: Path) -> Iterator[int]:
    """Answers on 127.0.0.1, at `clickhouse_port`, while the body runs: the port. OSError: it is taken."""
    secret = settings.clickhouse_password_file
    keyfile.make(secret)
    password = keyfile.read(secret).encode()
    engine = Engine(path, settings.clickhouse_read_seconds, settings.clickhouse_read_at_once)

    class Reading(Handler):
        most = _ASKED

        def allows(self, user: str, given: str) -> bool:
            return hmac.compare_digest(given.encode(), password)

        def answer(self, asked: Asked) -> bytes | Path:
            with metrics.QUERY_SECONDS.time():
                return engine.ask(asked)

    with _Server(settings.clickhouse_port, Reading) as server:
        thread = threading.Thread(target=server.serve_forever, name="clickhouse-http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
