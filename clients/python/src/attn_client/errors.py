"""Errors of the client. All of them derive from `AttnError`."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AttnError", "EventRejected", "Expired", "Forbidden", "NoAnswer", "Replaced", "RequestFailed", "Unauthorized",
    "Unavailable", "Withdrawn",
]


class AttnError(Exception):
    """Base of all errors of this package."""


class RequestFailed(AttnError):
    """attn refused a request. `status`: the HTTP status; `body`: the parsed JSON body, if there is one."""

    def __init__(self, message: str, status: int, body: Any = None) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class EventRejected(RequestFailed):
    """An event or question is invalid or too large. The message names the field; a repeat fails in the same way."""


class Unauthorized(RequestFailed):
    """The key or token is unknown, expired or revoked."""


class Forbidden(RequestFailed):
    """The topics, the source or the workspace of the key do not cover the request."""


class Unavailable(AttnError):
    """attn did not answer within `patience` seconds. The request may have taken effect; a repeat is idempotent."""


class NoAnswer(AttnError):
    """Base of the errors of a question that will get no answer. `subject`: the subject of the question."""

    def __init__(self, message: str, subject: str) -> None:
        super().__init__(message)
        self.subject = subject


class Expired(NoAnswer):
    """Nobody decided before the question expired, and the question names no option for this case."""


class Withdrawn(NoAnswer):
    """The source withdrew or closed the question before a person decided."""


class Replaced(Withdrawn):
    """Another question was asked under the same subject."""
