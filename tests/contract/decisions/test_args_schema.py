"""Edited arguments against the `args_schema` of their ask: errors, and schemas that are never evaluated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.edge.edge_with_fold import Deciding
from support.fold.fold_driver import event

from api.commands.args_checker import ArgsChecker
from api.contract.asking.args_schema import check

SCHEMA = {
    "type": "object", "required": ["to", "amount"], "additionalProperties": False,
    "properties": {
        "to": {"type": "string", "pattern": "^[a-z]+@example\\.com$", "maxLength": 30},
        "amount": {"type": "number", "multipleOf": 0.01, "maximum": 500},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
ARGS = {"to": "ann@example.com", "amount": 10}


@pytest.fixture
async def checker() -> AsyncIterator[ArgsChecker]:
    args_checker = ArgsChecker()
    yield args_checker
    await args_checker.stop()


def errors(args: Any, schema: Any = SCHEMA) -> dict[str, str]:
    return check(json.dumps(schema), json.dumps(args))["errors"]


@pytest.mark.parametrize(("change", "expected"), [
    ({}, {}),
    ({"to": None}, {"args.to": "must be of type string"}),
    ({"to": "Ann"}, {"args.to": "does not fit pattern ^[a-z]+@example\\.com$"}),
    ({"amount": 501}, {"args.amount": "does not fit maximum 500"}),
    ({"amount": 0.015}, {"args.amount": "does not fit multipleOf 0.01"}),
    ({"amount": 499.99}, {}),
    ({"currency": "GBP"}, {"args.currency": 'must be one of ["EUR", "USD"]'}),
    ({"lines": [{"n": 1}, {"n": "1"}]}, {"args.lines.1.n": "must be of type integer"}),
    ({"other": 1}, {"args": "does not fit additionalProperties"}),
], ids=lambda value: json.dumps(value)[:60])
def test_each_error_names_its_argument(change: dict[str, Any], expected: dict[str, str]) -> None:
    assert errors(ARGS | change) == expected


def test_missing_arguments_are_named_each() -> None:
    assert errors({}) == {"args.to": "required", "args.amount": "required"}
    assert errors([]) == {"args": "must be of type object"}


def test_numbers_are_compared_by_their_digits() -> None:
    schema = '{"properties": {"n": {"multipleOf": 0.1, "maximum": 12345678901234567890.5}}}'
    assert check(schema, '{"n": 0.3}') == {"errors": {}}
    assert check(schema, '{"n": 12345678901234567890.6}')["errors"]
    assert check(schema, '{"n": 12345678901234567890.5}') == {"errors": {}}


def test_the_number_of_errors_is_bounded() -> None:
    assert len(errors({f"n{number}": "x" for number in range(1000)}, {"additionalProperties": {"type": "null"}})) == 20


NESTED = {"$ref": "#/$defs/d0", "$defs": {
    **{f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(60)}, "d60": True}}
DEEP = '{"not": ' * 20_000 + "true" + "}" * 20_000


@pytest.mark.parametrize("schema", [
    {"$ref": "http://127.0.0.1:9/schema.json"}, {"$ref": "#/$defs/missing"}, {"$ref": "#"}, {"type": "text"},
    {"pattern": "("}, {"properties": []}, {"$schema": "urn:unknown", "type": 7}, [], "object",
], ids=lambda value: json.dumps(value)[:60])
async def test_a_schema_that_cannot_be_evaluated_refuses_nothing(checker: ArgsChecker, schema: Any) -> None:
    assert "unusable" in check(json.dumps(schema), json.dumps({"s": "x"}))
    assert await checker.errors(orjson.dumps(schema), b'{"s":"x"}') == {}
    assert await checker.errors(orjson.dumps(SCHEMA), b"{}") != {}


@pytest.mark.parametrize("schema", [
    {"properties": {"s": {"pattern": "^(a+)+$"}}}, NESTED, DEEP,
    {"properties": {"s": {"pattern": "(?:a{1,9999}){1,9999}b"}}},
], ids=["backtracking", "nested", "deep", "large pattern"])
async def test_an_endless_schema_is_killed_and_the_next_check_works(schema: Any) -> None:
    checker = ArgsChecker(seconds=1)
    try:
        text = schema.encode() if isinstance(schema, str) else json.dumps(schema).encode()
        args = json.dumps({"s": "a" * 60 + "!"}).encode()
        assert await checker.errors(text, args) == {}
        assert await checker.errors(text, args) == {}, "a schema that timed out is not evaluated again"
        assert await checker.errors(json.dumps(SCHEMA).encode(), b"{}") == {
            "args.to": "required", "args.amount": "required"}
    finally:
        await checker.stop()


async def test_the_process_has_no_secret_and_ends_with_its_edge(
    checker: ArgsChecker, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATTN_JWT_SECRET", "only-for-the-edge")
    await checker.errors(b"{}", b"{}")
    process = checker._process
    assert process is not None
    assert b"only-for-the-edge" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    process.stdin.close()  # type: ignore[union-attr]
    assert await process.wait() == 0


async def test_a_killed_process_is_replaced(checker: ArgsChecker) -> None:
    await checker.errors(b"{}", b"{}")
    checker._process.kill()  # type: ignore[union-attr]
    assert await checker.errors(json.dumps(SCHEMA).encode(), b"{}") == errors({})


ASK = {
    "options": [{"id": "go", "does": "approve"}, {"id": "edit", "does": "edit"}],
    "action": {"name": "pay", "args": {"to": "ann@example.com", "amount": 10}, "args_schema": SCHEMA, "editable": True},
}


async def test_an_edit_that_does_not_fit_is_422_and_one_that_fits_decides() -> None:
    attn = Deciding()
    attn.happen(event("waitpoint.created", "w", title="T", ask=ASK))
    try:
        async with attn.client("ann", "OWNER") as client:
            [row] = (await client.get("/api/v1/inbox")).json()["rows"]
            path = f"/api/v1/inbox/{row['id']}/decision"
            answer = {"option": "edit", "digest": row["digest"]}
            for key in ({}, {"idempotency-key": "k"}):
                refused = await client.post(path, json=answer | {"args": ARGS | {"amount": 501}}, headers=key)
                assert (refused.status_code, refused.json()["fields"]) == (
                    422, {"args.amount": "does not fit maximum 500"})
            stale = answer | {"digest": "0" * 64, "args": ARGS | {"amount": 501}}
            assert (await client.post(path, json=stale)).status_code == 412
            made = await client.post(path, json=answer | {"args": ARGS | {"amount": 499.99}})
            assert made.status_code == 201, made.text
            again = await client.post(path, json=answer | {"args": ARGS | {"amount": 499.99}})
            assert again.status_code == 200
    finally:
        await attn.edges[0].args_checker.stop()
