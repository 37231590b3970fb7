"""`ApiError`: an exception with an HTTP status and a JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NO_STORE", "ApiError"]

# Header of every response with user data: caches must not store it.
NO_STORE = {"cache-control": "no-store"}


class ApiError(Exception):
    """Raised by routes and dependencies; the response is `{"error": error, **details}` with this status.

    `api.http.error_handlers` builds the response.
    """

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None, **details: Any) -> None:
        super().__init__(error)
        self.status, self.headers = status, headers
        self.body = {"error": error, **details}
