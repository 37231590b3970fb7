"""`ApiError`: an exception with an HTTP status and a JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NO_STORE", "ApiError"]

# Nothing here may be kept by a cache: it is one person's, and old a moment later.
NO_STORE = {"cache-control": "no-store"}


class ApiError(Exception):
    """An answer that is an error. `details` are added to its JSON."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None, **details: Any) -> None:
        super().__init__(error)
        self.status, self.headers = status, headers
        self.body = {"error": error, **details}
