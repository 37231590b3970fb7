"""The base of the response models, and the argument `responses` of a route.

`api.contract.serializers` and `api.readmodel.pages` encode the responses; tests validate them against these models. A
field with the default None is omitted if it has no value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ERRORS", "Count", "Error", "Priority", "ResponseModel", "State", "responses_of"]

State = Literal["unread", "read", "decided", "resolved"]
Priority = Literal["low", "normal", "high", "urgent"]
Count = Annotated[int, Field(ge=0)]


class ResponseModel(BaseModel):
    """A response without fields that the document does not name."""

    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    """An error response. Some errors have additional fields."""

    model_config = ConfigDict(extra="allow")
    error: str = Field(examples=["not found"])


ERRORS = {
    400: "invalid request; the error names the field",
    401: "no token, or an invalid one",
    403: "not allowed for this role, or a write with the session cookie and without the CSRF header",
    404: "does not exist, or the caller may not see it",
    409: "only its source may resolve this item",
    410: "the sign-in link was used or has expired",
    412: "the item has another revision than If-Match; `item` is its current state",
    413: "the body is too large",
    422: "the Idempotency-Key was used for another request",
    429: "too many requests or connections; `limit` is the limit",
    503: "temporarily unavailable; retry after Retry-After seconds",
}


# 404: also of a session that names a workspace which it may not enter.
_EVERY_ROUTE = (400, 401, 404, 429, 503)
_EVERY_WRITE = (403, 413, 422, 429)


def responses_of(
    model: type[BaseModel] | None, *errors: int, status: int = 200, writes: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Returns the argument `responses` of a route: its success response, `errors`, and the errors that every route has.
    `writes` adds the errors of every write."""
    codes = {*_EVERY_ROUTE, *errors, *(_EVERY_WRITE if writes else ())}
    errors_by_status: dict[int | str, dict[str, Any]] = {
        code: {"model": Error, "description": ERRORS[code]} for code in sorted(codes)
    }
    success: dict[str, Any] = {"model": model} if model is not None else {"description": "success, no content"}
    return {status: success, **errors_by_status}
