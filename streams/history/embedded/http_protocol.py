"""ClickHouse's HTTP interface in front of chdb: requests read, results and errors told as a server does.

What clickhouse-connect, Grafana and curl use of it. Who answers is up to a subclass: that of
streams.history.embedded.query_server
takes queries only; the tests' server takes inserts as well, and has faults.
"""

from __future__ import annotations

import base64
import binascii
import email
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["BadRequest", "ClickHouseHttpHandler", "Overloaded", "QueryRequest"]

# What comes among the settings in the URL, and is none.
_NOT_SETTINGS = frozenset({
    "query", "database", "query_id", "session_id", "session_timeout", "session_check", "client_protocol_version",
    "enable_http_compression", "compress", "decompress", "user", "password", "quota_key", "role", "wait_end_of_query",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "default_format", "buffer_size",
    "cancel_http_readonly_queries_on_client_close",
})
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.IGNORECASE)
_INSERT = re.compile(rb"(INSERT INTO .*) FORMAT Native\n", re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z]+)\s*(?:SETTINGS\s.*)?;?\s*$", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)")
_TYPES = (("JSON", "application/json"), ("CSV", "text/csv"), ("T", "text/tab-separated-values"))  # by their beginning
_UNKNOWN = "1002"  # ClickHouse's code for an error without one


class BadRequest(Exception):
    """Not to be read as a request. `status`: of the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Overloaded(Exception):
    """More is asked at once than is answered."""


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One statement. `rows`: the bytes of an insert in format Native, whose statement `sql` is then without FORMAT."""

    sql: str
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    format: str = "TabSeparated"
    rows: bytes | None = None


class ClickHouseHttpHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0  # seconds a client may be silent
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms for an acknowledgement
    most = 64 << 20  # bytes of a request's body, packed or not

    def query(self, asked: QueryRequest) -> bytes | Path:
        """The result in the statement's format, or a file with it, which is removed once it is sent. Raises what
        ClickHouse says, Overloaded, BadRequest."""
        raise NotImplementedError

    def allows(self, user: str, password: str) -> bool:
        """Whether these may ask."""
        return True

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        try:
            body = self.body()
        except BadRequest as bad:
            self.close_connection = True  # the rest of it was not read
            self.respond(bad.status, f"{bad}\n".encode())
        else:
            self._handle(body)

    def _handle(self, body: bytes) -> None:
        url = urlsplit(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        if url.path == "/ping" or (not body and "query" not in params):
            self.respond(200, b"Ok.\n")
        elif not self.allows(*self._credentials(params)):
            named = {"WWW-Authenticate": 'Basic realm="ClickHouse"', "X-ClickHouse-Exception-Code": "516"}
            self.respond(401, b"Code: 516. DB::Exception: Authentication failed (AUTHENTICATION_FAILED)\n", **named)
        else:
            self.execute(params, body)

    def execute(self, params: dict[str, str], body: bytes) -> None:
        """Answer a request of one who may."""
        try:
            asked = self.request_of(params, body)
            result = self.query(asked)
        except Overloaded as over:
            self._fail(503, f"Code: 202. DB::Exception: {over} (TOO_MANY_SIMULTANEOUS_QUERIES)", **{"Retry-After": "1"})
        except BadRequest as bad:
            self._fail(bad.status, str(bad))
        except Exception as error:
            self._fail(500, str(error))
        else:
            self._give(asked, result)

    def _fail(self, status: int, text: str, **headers: str) -> None:
        code = _CODE.search(text)
        headers["X-ClickHouse-Exception-Code"] = code[1] if code else _UNKNOWN
        self.respond(status, f"{text}\n".encode(), **headers)

    def _give(self, asked: QueryRequest, result: bytes | Path) -> None:
        if isinstance(result, Path):
            return self._send(result)
        if not result:
            return self.respond(200, result)  # a command has no format
        kind = next((kind for start, kind in _TYPES if asked.format.startswith(start)), "application/octet-stream")
        return self.respond(200, result, **{"X-ClickHouse-Format": asked.format, "Content-Type": kind})

    def _send(self, result: Path) -> None:
        try:
            with result.open("rb") as file:
                self._head(200, result.stat().st_size, {"Content-Type": "application/octet-stream"})
                shutil.copyfileobj(file, self.wfile, 1 << 20)
        finally:
            result.unlink()

    def request_of(self, params: Mapping[str, str], body: bytes) -> QueryRequest:
        """The statement of a request: what the URL says of it, then the body."""
        params = dict(params)
        if insert := _INSERT.match(body):
            return QueryRequest(insert[1].decode(), _settings(params), rows=body[insert.end():])
        if self.headers.get_content_maintype() == "multipart":
            params |= self._form(body)
            body = b""
        try:
            sql = params.get("query", "") + body.decode()
        except UnicodeDecodeError:
            raise BadRequest("the query is not UTF-8") from None
        written = _FORMAT.search(sql)
        return QueryRequest(
            sql, _settings(params),
            {name.removeprefix("param_"): value for name, value in params.items() if name.startswith("param_")},
            written[1] if written else params.get("default_format") or "TabSeparated",
        )

    def _credentials(self, params: Mapping[str, str]) -> tuple[str, str]:
        scheme, _, packed = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(packed.strip(), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return "", ""
            return user, password
        return (
            self.headers.get("X-ClickHouse-User") or params.get("user", ""),
            self.headers.get("X-ClickHouse-Key") or params.get("password", ""),
        )

    def _form(self, body: bytes) -> dict[str, str]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n"
        parts: Any = email.message_from_bytes(head.encode() + body).get_payload()
        if isinstance(parts, str):
            raise BadRequest("the form has no parts")
        try:
            return {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode()
                for part in parts
            }
        except (UnicodeDecodeError, AttributeError):
            raise BadRequest("the form can't be read") from None

    def body(self) -> bytes:
        """The request's body, unpacked. BadRequest: it is too large, or not what its head says."""
        body = self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self._counted()
        if (packed := self.headers.get("Content-Encoding")) == "lz4":
            body = _unpack(body, self.most)
        elif packed:
            raise BadRequest(f"no Content-Encoding {packed} here", 415)
        return body

    def _counted(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", 0))
        except ValueError:
            raise BadRequest("Content-Length is no number") from None
        self._bound(length)
        return self.rfile.read(length)

    def _chunked(self) -> bytes:
        parts, length = [], 0
        while True:
            try:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
            except ValueError:
                raise BadRequest("a chunk without its size") from None
            self._bound(length := length + size)
            parts.append(self.rfile.read(size))
            self.rfile.readline(64)
            if not size:
                return b"".join(parts)

    def _bound(self, length: int) -> None:
        if not 0 <= length <= self.most:
            raise BadRequest(f"more than {self.most} bytes", 413)

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, size: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(size), "X-ClickHouse-Summary": "{}"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing: queries have no business in logs."""


def _settings(params: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in params.items()
        if name not in _NOT_SETTINGS and not name.startswith("param_") and _NAME.fullmatch(name)
    }


def _unpack(body: bytes, most: int) -> bytes:
    import lz4.frame  # clickhouse-connect needs it too

    try:
        unpacked = bytes(lz4.frame.LZ4FrameDecompressor().decompress(body, max_length=most + 1))
    except RuntimeError as error:
        raise BadRequest(str(error)) from None
    if len(unpacked) > most:
        raise BadRequest(f"more than {most} bytes", 413)
    return unpacked
