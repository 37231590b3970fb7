"""HTTP proxy in front of a system. Calls a function before it forwards a request, and before it returns the response.

A test kills a connector in this function. Its last request then has, or has not, reached the system.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["Dropped", "Moment", "StoppingProxy"]

Moment = Literal["before", "after"]
_DROPPED = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}


class Dropped(Exception):
    """Raised by `StoppingProxy.at` to close the connection: the request is not forwarded, or its response is lost."""


class StoppingProxy:
    """The proxy, a context manager. Calls `at(moment, method, path)` in the thread of the request: before it forwards
    the request, and after the response has arrived. `down`: answers 503 in place of the system."""

    def __init__(self, target: str) -> None:
        self.at: Callable[[Moment, str, str], None] | None = None
        self.down = False
        self.seen: list[tuple[str, str]] = []
        self._target = urlsplit(target)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> StoppingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    self.forward()
                except Dropped:
                    self.close_connection = True

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                proxy.seen.append((self.command, path))
                self.close_connection = True
                if proxy.down:
                    self.answer(503, [], b"")
                    return
                if proxy.at is not None:
                    proxy.at("before", self.command, path)
                connection = http.client.HTTPConnection(proxy._target.hostname or "", proxy._target.port, timeout=60)
                try:
                    connection.request(self.command, self.path, body or None, {
                        name: value for name, value in self.headers.items() if name.lower() not in _DROPPED})
                    response = connection.getresponse()
                    content = response.read()
                except OSError:
                    return  # the system is down: closes the connection
                finally:
                    connection.close()
                if proxy.at is not None:
                    proxy.at("after", self.command, path)
                self.answer(response.status, response.getheaders(), content)

            do_POST = do_DELETE = do_GET

            def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                try:
                    self.send_response_only(status)
                    for name, value in headers:
                        if name.lower() not in _DROPPED:
                            self.send_header(name, value)
                    self.send_header("content-length", str(len(content)))
                    self.send_header("connection", "close")
                    self.end_headers()
                    if status != 304:
                        self.wfile.write(content)
                except OSError:  # the client was killed
                    pass

            def log_message(self, *_: object) -> None:
                pass

        return Handler
