"""Corrects the OpenAPI document that FastAPI generates from the routes (`/openapi.json`)."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import FastAPI

__all__ = ["install_openapi"]

_ABOUT = """\
One inbox for people who work with AI agents and automation: a live, ranked list per person.

Every route except `/healthz`, `/readyz`, `/metrics` and `/.well-known/attn-decision-keys.json` needs authentication: a
bearer token, or the session cookie that `POST /auth/session` creates from a token. Whatever the caller may not see is
answered with 404, on every route. A write is answered when it is durable, and later reads on the same edge show it. A
write with an `Idempotency-Key` can be repeated safely for a day.
"""


def install_openapi(app: FastAPI) -> None:
    """Replaces `app.openapi` by a function that returns the corrected document. It is generated once, at the first
    call."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            document["info"] |= {"version": metadata.version("attn"), "description": _ABOUT, "license": {
                "name": "Apache-2.0", "identifier": "Apache-2.0"}}
            _drop_validation_responses(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _drop_validation_responses(document: dict[str, Any]) -> None:
    """Removes FastAPI's own 422 responses: attn answers an invalid request with 400 (api.http.error_handlers)."""
    for path in document["paths"].values():
        for route in path.values():
            schema = route["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if schema.get("$ref", "").endswith("/HTTPValidationError"):
                del route["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
