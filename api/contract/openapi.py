"""The OpenAPI document at `/openapi.json`: what FastAPI makes of the routes, put right where it can't know better."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import FastAPI

__all__ = ["document"]

_ABOUT = """\
One inbox for people who work with AI agents and automation: a live, ranked list per person.

Every route but `/healthz`, `/readyz` and `/metrics` needs a caller: a bearer token, or the session cookie that
`POST /auth/session` makes of one. What a caller may not see is 404, on every route. Writes answer when they are durable
and a read that follows on the same edge shows them; with an `Idempotency-Key` they may be sent again safely for a day.
"""


def document(app: FastAPI) -> None:
    """Makes `app.openapi` give the document; it is made once, when somebody asks."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = made()
            found["info"] |= {"version": metadata.version("attn"), "description": _ABOUT, "license": {
                "name": "Apache-2.0", "identifier": "Apache-2.0"}}
            _drop_what_never_comes(found)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _drop_what_never_comes(found: dict[str, Any]) -> None:
    """FastAPI's own 422: a request that does not fit is 400 here (api.http.error_handlers)."""
    for path in found["paths"].values():
        for route in path.values():
            said = route["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if said.get("$ref", "").endswith("/HTTPValidationError"):
                del route["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
