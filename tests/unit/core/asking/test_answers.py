"""An answer is accepted exactly if it matches the ask; `jsonschema` is the second implementation for forms."""

from __future__ import annotations

import tracemalloc
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import ValidationError

from schemas.asking.ask import Action, Ask, Form, Option
from streams.core.domain.answers import check_answer, edited_pointers, read_values
from streams.core.domain.questions import read_ask, shown_args

APPROVE = Option(id="ok", does="approve")
EDIT = Option(id="edit", does="edit")

LABELS = st.text("abcdxyz", min_size=1, max_size=6)
CHOICES = st.lists(LABELS, min_size=1, max_size=4, unique=True)
SMALL = st.integers(0, 8)


def ordered(low: str, high: str, bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draws two bounds, either of which may be absent; the lower one is first."""
    return st.tuples(st.none() | bounds, st.none() | bounds).map(lambda pair: {
        name: bound for name, bound in zip(
            (low, high), sorted(pair) if None not in pair else pair, strict=True) if bound is not None})


STRINGS = ordered("minLength", "maxLength", SMALL).map(lambda limits: {"type": "string"} | limits)
NUMBERS = st.tuples(st.sampled_from(["number", "integer"]), ordered("minimum", "maximum", st.integers(-5, 5))).map(
    lambda pair: {"type": pair[0]} | pair[1])
ONE_OF = CHOICES.map(lambda values: {"type": "string", "enum": values}) | CHOICES.map(
    lambda values: {"type": "string", "oneOf": [{"const": value, "title": value.upper()} for value in values]})
MANY_OF = st.tuples(CHOICES, ordered("minItems", "maxItems", SMALL)).map(
    lambda pair: {"type": "array", "items": {"type": "string", "enum": pair[0]}} | pair[1])
FIELDS = STRINGS | NUMBERS | st.just({"type": "boolean"}) | ONE_OF | MANY_OF
SCHEMAS = st.dictionaries(LABELS, FIELDS, min_size=1, max_size=4).flatmap(lambda properties: st.lists(
    st.sampled_from(sorted(properties)), unique=True).map(
        lambda required: {"type": "object", "properties": properties, "required": required}))
ANSWERS = st.one_of(
    st.booleans(), st.integers(-6, 6), st.floats(-6, 6), st.text("aé\U0001f600 ", max_size=9), LABELS,
    st.lists(LABELS, max_size=4), st.none(),
)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the form as a JSON Schema that also refuses unknown fields and repeated choices, as attn does."""
    properties = {
        name: field | ({"uniqueItems": True} if field["type"] == "array" else {})
        for name, field in schema["properties"].items()
    }
    return schema | {"properties": properties, "additionalProperties": False}


@given(SCHEMAS, st.data())
def test_a_form_is_accepted_exactly_if_json_schema_accepts_it(schema: dict[str, Any], data: st.DataObject) -> None:
    form = Form.model_validate(schema)
    names = st.sampled_from(sorted(schema["properties"])) | LABELS
    answer = data.draw(st.dictionaries(names, ANSWERS, max_size=5))
    errors = check_answer(APPROVE, form, None, answer, None, None)
    expected = jsonschema.Draft202012Validator(strict(schema)).is_valid(answer)
    assert (not errors) == expected, errors


@pytest.mark.parametrize(("kind", "good", "bad"), [
    ("email", "a.b@example.org", "a.b"),
    ("uri", "https://example.org/x", "no spaces here"),
    ("date", "2026-02-28", "2026-02-30"),
    ("date-time", "2026-02-28T10:00:00Z", "2026-02-28 10 o'clock"),
])
def test_formats_are_checked(kind: str, good: str, bad: str) -> None:
    form = Form.model_validate({"properties": {"x": {"type": "string", "format": kind}}})
    assert not check_answer(APPROVE, form, None, {"x": good}, None, None)
    assert check_answer(APPROVE, form, None, {"x": bad}, None, None) == {"form.x": f"must be a valid {kind}"}


@pytest.mark.parametrize(("rule", "comment", "error"), [
    ("required", None, True), ("required", "  ", True), ("required", "why", False),
    ("optional", None, False), ("optional", "x" * 4096, False), ("optional", "x" * 4097, True),
    ("no", None, False), ("no", "why", True),
])
def test_the_option_says_whether_it_takes_a_comment(rule: Any, comment: str | None, error: bool) -> None:
    option = Option(id="ok", does="approve", comment=rule)
    assert bool(check_answer(option, None, None, None, None, comment)) == error


def test_only_editable_arguments_may_change() -> None:
    action = Action(name="pay", args={"amount": 10, "to": "a", "dry": True}, editable=["amount"])
    assert not check_answer(EDIT, None, action, None, {"amount": 11, "to": "a", "dry": True}, None)
    assert check_answer(EDIT, None, action, None, {"amount": 11, "to": "b", "dry": 1, "new": 0}, None) == {
        "args.to": "is not editable", "args.dry": "is not editable", "args.new": "is not editable"}
    assert check_answer(EDIT, None, action, None, {"amount": 10}, None) == {
        "args.to": "is not editable", "args.dry": "is not editable"}


def test_args_belong_to_an_edit_only() -> None:
    assert set(check_answer(EDIT, None, None, None, None, None)) == {"args"}
    assert set(check_answer(APPROVE, None, None, None, {}, None)) == {"args"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | LABELS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(LABELS, children, max_size=3), max_leaves=6)


@given(JSON, JSON)
def test_pointers_are_empty_exactly_if_nothing_differs(before: Any, after: Any) -> None:
    assert not edited_pointers(before, before)
    both = repr(before) == repr(after)  # `repr` distinguishes True from 1, `==` does not
    assert both <= (not edited_pointers(before, after))


def test_pointers_name_the_smallest_members_that_differ() -> None:
    before = {"a": {"b/c": 1, "d~": [1]}, "e": 1}
    after = {"a": {"b/c": 2, "d~": [1, 2]}, "f": 1}
    assert edited_pointers(before, after) == ["/a/b~1c", "/a/d~0", "/e", "/f"]


@pytest.mark.parametrize(("ask", "path"), [
    ({"options": []}, ("options",)),
    ({"options": [{"id": "a", "does": "approve"}] * 2}, ()),
    ({"options": [{"id": "a b", "does": "approve"}]}, ("options", 0, "id")),
    ({"options": [{"id": "a", "does": "delete"}]}, ("options", 0, "does")),
    ({"options": [{"id": "a", "does": "edit"}]}, ()),
    ({"options": [{"id": "a", "does": "approve"}], "on_expiry": "a", "expires_at": "2027-01-01T00:00:00Z"}, ()),
    ({"form": {"properties": {"x": {"type": "object"}}}}, ("form", "properties", "x")),
    ({"form": {"properties": {"x": {"type": "boolean"}}, "required": ["y"]}}, ("form",)),
    ({"deciders": {"user": ["u"]}}, ("deciders", "user")),
    ({"deciders": {"users": ["u"]}, "quorum": {"approve": 2}}, ()),
    ({"deciders": {"users": ["u", "v"], "not": ["requester"], "requester": "u"}, "quorum": {"approve": 2}}, ()),
    ({"quorum": {"approve": 11}}, ("quorum", "approve")),
    ({"reply": {"token": "x" * 4097}}, ("reply", "token")),
])
def test_an_invalid_ask_is_refused_with_its_place(ask: dict[str, Any], path: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        Ask.model_validate(ask)
    assert path in [error["loc"] for error in refused.value.errors()]


# --- numbers keep their digits ---

COUNT = Form.model_validate(
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9e300}}})
AMOUNT = b'{"id":12345678901234567890123,"amount":0.10000000000000000001,"rate":12.50}'


@pytest.mark.parametrize(("number", "fits"), [
    (b"1", True), (b"1.0", True), (b"1e2", True), (b"1" * 300, True), (b"0", False), (b"1.5", False),
    (b"1.00000000000000000000000001", False), (b"1e999999999", False), (b"-1e999999999", False),
    (b"1e-999999999", False), (b"1" * 5000, False), (b"true", False), (b'"1"', False), (b"null", False),
])
def test_numbers_of_a_form_are_compared_exactly_and_in_bounded_time(number: bytes, fits: bool) -> None:
    answer = read_values(b'{"n":' + number + b"}")
    assert (check_answer(APPROVE, COUNT, None, answer, None, None) == {}) is fits


@pytest.mark.parametrize("text", [b"[NaN]", b"[Infinity]", b"{", b"[1e99999999999999999999999]"])
def test_a_text_that_is_no_json_or_beyond_decimals_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|beyond"):
        read_values(text)


@pytest.mark.parametrize(("changed", "names"), [
    (AMOUNT, set()),
    (AMOUNT.replace(b"12.50", b"12.5"), set()),
    (AMOUNT.replace(b"123,", b"124,"), {"args.id"}),
    (AMOUNT.replace(b"0001,", b"0002,"), {"args.amount"}),
    (AMOUNT.replace(b"12.50", b'"12.50"'), {"args.rate"}),
])
def test_the_last_digit_of_an_argument_cannot_be_edited_unnoticed(changed: bytes, names: set[str]) -> None:
    action = Action(name="pay", args=read_values(AMOUNT), editable=["note"])
    assert check_answer(EDIT, None, action, None, read_values(changed), None).keys() == names
    assert edited_pointers(read_values(AMOUNT), read_values(changed)) == [
        "/" + name.removeprefix("args.") for name in names]


ASK_SCHEMA = jsonschema.Draft202012Validator(Ask.model_json_schema())


@given(SCHEMAS)
def test_the_json_schema_of_an_ask_accepts_each_form_that_attn_accepts(schema: dict[str, Any]) -> None:
    """Clients and producers validate with the published schema: a text field and a choice must not match both."""
    ask = {"options": [{"id": "ok", "does": "approve", "form": schema}], "form": schema}
    Ask.model_validate(ask)
    ASK_SCHEMA.validate(ask)


def test_large_asks_are_not_kept_in_memory() -> None:
    def read(number: int, size: int) -> None:
        args = "[" + "{}," * size + f"{number}]"
        text = Raw(b'{"action":{"name":"x","args":{"a":%b}}}' % args.encode())
        state = read_ask(text, "waitpoint")
        assert state is not None
        assert shown_args(state)["a"][-1] == number

    tracemalloc.start()
    try:
        for number in range(600):
            read(number, 5)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(40):
            read(number, 20_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 << 20, "a cached ask would take 1.5 MB"
