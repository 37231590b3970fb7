"""`ApiError`: an exception with an HTTP status and a JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NO_STORE", "PARTITION_HEADER", "ApiError", "Misdirected", "NotReady"]

# Header of every response with user data: caches must not store it.
NO_STORE = {"cache-control": "no-store"}
# Header of a 421: the partition of the workspace. A load balancer sends the request to an edge that serves it.
PARTITION_HEADER = "attn-partition"


class ApiError(Exception):
    """Raised by routes and dependencies; the response is `{"error": error, **details}` with this status.

    `api.http.error_handlers` builds the response.
    """

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None, **details: Any) -> None:
        super().__init__(error)
        self.status, self.headers = status, headers
        self.body = {"error": error, **details}


class NotReady(ApiError):
    """503: the edge still loads its view. A load balancer may send the same GET to another edge."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__(503, "the view has not caught up yet", {"retry-after": str(retry_after)})


class Misdirected(ApiError):
    """421 Misdirected Request (RFC 9110): another edge serves the partition of the workspace.

    The edge has changed nothing, so a load balancer may send the same request to another edge.
    """

    def __init__(self, partition: int) -> None:
        super().__init__(421, "another edge serves this workspace", {
            "retry-after": "1", PARTITION_HEADER: str(partition)})
