"""Random requests get answers that the OpenAPI document describes: with a token of the caller, with one of another
workspace, and without a token. No answer is a 5xx, and none has data of another workspace."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.edge.edge_with_fold import Deciding, message, waitpoint
from support.edge.edges import token
from support.edge.topic_writer import TopicWriter
from support.examples import law
from support.fold.fold_driver import event

from api.http.app import create_app
from api.http.auth.cookies import csrf_of
from schemas.log import CreateKey, OpenSession
from schemas.scalars import DAY, LATEST, SECOND
from streams.runtime.secret_texts import ENTROPY_BYTES, KEYS, SESSIONS

try:  # what the plugin of schemathesis calls while pytest collects the tests
    from schemathesis.checks import load_all_checks
    from schemathesis.generation.feedback import FeedbackSources
    from schemathesis.generation.hypothesis.builder import InvalidHeadersExampleMark, MissingPathParameters
    from schemathesis.pytest._test_builder import build_operation_test
    from schemathesis.python import asgi
    from schemathesis.python._constants.orchestrator import make_constants_value_source
except ImportError as error:
    raise ImportError(
        f"schemathesis {schemathesis.__version__} lacks functions of this file: change each_operation() to the calls "
        "of SchemathesisCase in schemathesis/pytest/plugin.py, then the range in pyproject.toml") from error

YEARS = 10 * 365 * 86400
SECRET = "only-for-ws"
DOCUMENT = Path(__file__).parents[3] / "schemas" / "json" / "openapi.json"
# Streams do not end, metrics are no JSON, and /readyz is 503 without a broker.
EXCLUDED = ("/org/me/feed", "/events/stream", "/cases/{case}/events", "/metrics", "/readyz")
OPERATIONS = sorted(f"{method.upper()} {path}" for path, methods in json.loads(DOCUMENT.read_text())["paths"].items()
                    for method in methods if path not in EXCLUDED)
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance)


ASKS: tuple[dict[str, Any], ...] = (
    {}, {"quorum": {"approve": 2}, "deciders": {"roles": ["OWNER"], "not": ["requester"], "requester": "bob"}},
    {"options": [{"id": "go", "does": "approve", "form": {"properties": {
        "reason": {"type": "string"}, "size": {"type": "string", "enum": ["s", "m"]},
        "parts": {"type": "array", "items": {"enum": ["a", "b"]}}}}}], "expires_at": "2036-05-20T12:00:00Z",
     "reply": {"to": "x", "token": SECRET}, "batch": {"key": "b"}},
    {"options": [{"id": "edit", "does": "edit"}], "action": {"name": "x", "args": {"n": 1}, "editable": ["n"]}},
)


class Nothing:
    """An empty ClickHouse; tests/contract/history/test_insights.py uses a real one."""

    async def query(self, sql: str, reader: Any, **parameters: Any) -> list[Any]:
        return []

    async def query_all(self, reader: Any, *queries: Any) -> list[Any]:
        return [[] for _ in queries]


KEY = KEYS.new(bytes(range(ENTROPY_BYTES)))
OPENED: list[Deciding] = []  # fold and edge that serve the requests


@cache
def api() -> Any:
    """Returns the operations of a running attn, as schemathesis reads them from its OpenAPI document."""
    attn = Deciding(write_rate=1e6, write_burst=10**6)
    OPENED.append(attn)
    attn.happen(
        message(SECRET, title=SECRET, cluster="c1"), waitpoint(SECRET + "2", title=SECRET, priority="urgent"),
        event("plan.proposed", SECRET + "3", title=SECRET, steps=[{"title": "t", "mode": "auto"}], case_id=SECRET),
        event("draft.edited", SECRET + "4", title=SECRET, editor={"type": "ai", "id": "a", "name": "A"},
              owner_user_id="ann"),
        event("session.completed", SECRET + "5", case_id=SECRET),
        *(event("waitpoint.created", f"{SECRET}/{number}", title=SECRET, ask=ask) for number, ask in enumerate(ASKS)),
        *(event("run.failed", SECRET + name, title=SECRET, cluster=name, incident_key=SECRET) for name in "ab"),
    )
    attn.happen(CreateKey(
        ws="ws", id="k", time=int(attn.now * SECOND), user="ann", roles=("OWNER",), key=KEY.id, digest=KEY.digest,
        name="k", topics=("plans",), source="/other"))
    attn.edges[0].history = Nothing()  # type: ignore[assignment]
    TopicWriter(attn)
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(attn.edges[0]))
    load_all_checks()
    return schema.exclude(path=list(EXCLUDED))


@cache
def operations() -> dict[str, Any]:
    return {operation.label: operation for operation in (result.ok() for result in api().get_all_operations())}


@pytest.fixture(scope="module", autouse=True)
def stopped() -> Iterator[None]:
    """Ends the lifespan of the application, which schemathesis starts at the first request."""
    yield
    asgi.shutdown_lifespans()


def each_operation(check: Callable[[schemathesis.Case], None]) -> Callable[[str], None]:
    """Makes one test per operation. The test builds its cases itself.

    `schema.parametrize()` builds the cases of all operations, 10 s of CPU, while pytest collects the tests: in each
    process, also in those that run other tests.
    """
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test(operation: str) -> None:
        built = build_operation_test(
            config=api().config, operation=operations()[operation], test_func=check, given_kwargs={},
            feedback=FeedbackSources(constants_value_source=make_constants_value_source(api())))
        built()
        assert not InvalidHeadersExampleMark.is_set(built), "a header of an example in the document is invalid"
        assert not MissingPathParameters.is_set(built), "the document does not describe a parameter of the path"

    return test


def test_the_operations_of_the_document_are_those_of_attn() -> None:
    assert sorted(operations()) == OPERATIONS


FEW = law(15, suppress_health_check=list(HealthCheck))


def headers(*args: Any, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(*args, seconds=YEARS, **more)}"}


@each_operation
@FEW
def test_with_a_token(case: schemathesis.Case) -> None:
    answer = case.call(headers=headers("ann", "OWNER", ws="ws"))
    case.validate_response(answer, checks=CHECKS)


@each_operation
@FEW
def test_with_another_workspaces_token(case: schemathesis.Case) -> None:
    answer = case.call(headers=headers("ann", "OWNER", ws="other"))
    case.validate_response(answer, checks=CHECKS)
    assert SECRET not in answer.text


def session() -> dict[str, str]:
    """Opens a session and returns its headers. The request under test may end it."""
    made = SESSIONS.new(secrets.token_bytes(ENTROPY_BYTES))
    OPENED[0].happen(OpenSession(
        ws="ws", id=secrets.token_hex(16), time=int(OPENED[0].now * SECOND), user="ann", roles=("OWNER",),
        session=made.id, digest=made.digest, role="OWNER", via="oidc", expires_at=LATEST - 1, idle=DAY, limit=3))
    csrf = csrf_of(made.text)
    return {"cookie": f"attn_session={made.text}; attn_csrf={csrf}", "x-csrf-token": csrf}


@each_operation
@FEW
def test_with_a_session(case: schemathesis.Case) -> None:
    answer = case.call(headers=session())
    case.validate_response(answer, checks=CHECKS)


@each_operation
@FEW
def test_with_a_key_beside_a_session(case: schemathesis.Case) -> None:
    """Only the Authorization header counts: a session cookie does not extend the rights of a key."""
    alone = case.call(headers={"authorization": f"Bearer {KEY.text}", "cookie": ""})
    answer = case.call(headers=session() | {"authorization": f"Bearer {KEY.text}"})
    case.validate_response(answer, checks=(not_a_server_error,))
    assert answer.status_code == alone.status_code or case.path.startswith("/auth/") or case.method == "POST"
    assert SECRET not in answer.text


@each_operation
@FEW
def test_without_a_token(case: schemathesis.Case) -> None:
    answer = case.call(headers={"authorization": ""})
    case.validate_response(answer, checks=CHECKS)
    open_to_all = case.path in (
        "/healthz", "/auth/session", "/auth/logout", "/auth/methods", "/auth/device",
        "/.well-known/attn-decision-keys.json",
    ) or case.method == "OPTIONS"
    # An invalid request gets its error without authentication; an unknown sign-in link is 410.
    assert answer.status_code in (400, 401, 403, 405, 410) or open_to_all
    assert SECRET not in answer.text
