"""HTTP protocol of ClickHouse in front of chdb: parses requests, and sends results and errors as a server does.

Implements what clickhouse-connect, Grafana and curl use. A subclass runs the statements: that of
streams.history.embedded.query_server runs queries only; that of the tests also runs inserts and injects faults.
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

# Parameters of the URL that are not settings.
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
# Content types by the start of the format's name.
_TYPES = (("JSON", "application/json"), ("CSV", "text/csv"), ("T", "text/tab-separated-values"))
_UNKNOWN = "1002"  # ClickHouse's code of an unknown exception


class BadRequest(Exception):
    """The request is invalid or not allowed. `status`: HTTP status of the response."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Overloaded(Exception):
    """Too many queries run or wait."""


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One statement. `rows`: data of an insert in format Native; `sql` then has no FORMAT clause. `parameters`: values
    of the query parameters. `format`: output format, unless the statement names one."""

    sql: str
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    format: str = "TabSeparated"
    rows: bytes | None = None


class ClickHouseHttpHandler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0  # seconds without data from the client
    disable_nagle_algorithm = True  # headers and body are two writes; the second would wait 40 ms for an ACK
    most = 64 << 20  # bytes of a request body, compressed and decompressed

    def query(self, asked: QueryRequest) -> bytes | Path:
        """Returns the result in the format of the statement, or a file with it. The handler sends and deletes the file.

        Raises Overloaded, BadRequest, or any exception whose text is ClickHouse's error message.
        """
        raise NotImplementedError

    def allows(self, user: str, password: str) -> bool:
        """Whether user and password are accepted."""
        return True

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        try:
            body = self.body()
        except BadRequest as bad:
            self.close_connection = True  # the rest of the body was not read
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
        """Runs an authorized request and responds."""
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
        """Returns the statement of a request: the `query` of the URL followed by the body."""
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
            raise BadRequest("the multipart form has no parts")
        try:
            return {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode()
                for part in parts
            }
        except (UnicodeDecodeError, AttributeError):
            raise BadRequest("the multipart form is invalid") from None

    def body(self) -> bytes:
        """Returns the request body, decompressed. Raises BadRequest if it is too large or contradicts its headers."""
        body = self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self._counted()
        if (packed := self.headers.get("Content-Encoding")) == "lz4":
            body = _unpack(body, self.most)
        elif packed:
            raise BadRequest(f"Content-Encoding {packed} is not supported; use lz4 or none", 415)
        return body

    def _counted(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", 0))
        except ValueError:
            raise BadRequest("Content-Length is not a number") from None
        self._check_length(length)
        return self.rfile.read(length)

    def _chunked(self) -> bytes:
        parts, length = [], 0
        while True:
            try:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
            except ValueError:
                raise BadRequest("a chunk of the body has no valid size") from None
            self._check_length(length := length + size)
            parts.append(self.rfile.read(size))
            self.rfile.readline(64)
            if not size:
                return b"".join(parts)

    def _check_length(self, length: int) -> None:
        if not 0 <= length <= self.most:
            raise BadRequest(f"the body exceeds {self.most} bytes", 413)

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        """Sends a response."""
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, size: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(size), "X-ClickHouse-Summary": "{}"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Logs nothing: queries may contain titles of items."""


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
        raise BadRequest(f"the decompressed body exceeds {most} bytes", 413)
    return unpacked
