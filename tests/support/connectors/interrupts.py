"""Hypothesis strategies of interrupts in each dialect, and of answers that attn would accept for a question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from schemas.asking.ask import Ask
from streams.connectors.langgraph.dialects.asking import Answer, Question
from streams.core.domain.answers import check_answer

PEER_TYPES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "langgraph" / "peer_types.json").read_text())

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
NUMBERS = st.integers(-(2**63), 2**63) | st.decimals(-(10**9), 10**9, places=3)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8)
ARGS = st.dictionaries(WORDS, JSON, max_size=4)
DECISIONS = ("approve", "edit", "reject", "respond")
SOME_DECISIONS = st.lists(st.sampled_from(DECISIONS), min_size=1, max_size=5)


@st.composite
def human_interrupts(draw: st.DrawFn) -> dict[str, Any]:
    names = ("allow_ignore", "allow_respond", "allow_edit", "allow_accept")
    allowed = draw(st.sets(st.sampled_from(names), min_size=1))
    return {"action_request": {"action": draw(WORDS), "args": draw(ARGS)},
            "config": {name: name in allowed for name in names}, "description": draw(st.none() | TEXTS)}


@st.composite
def hitl_requests(draw: st.DrawFn) -> dict[str, Any]:
    rules = draw(st.dictionaries(WORDS, SOME_DECISIONS, min_size=1, max_size=3))
    names = draw(st.lists(st.sampled_from(sorted(rules)), min_size=1, max_size=5))
    return {
        "action_requests": [{"name": name, "args": draw(ARGS), **draw(st.just({}) | st.builds(
            lambda text: {"description": text}, TEXTS))} for name in names],
        "review_configs": [{"action_name": name, "allowed_decisions": rules[name]} for name in names],
    }


@st.composite
def tool_approvals(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a strategy of value and schema, by the schema that LangChain 1.5.2 generates for the tool `send_mail`."""
    allowed = draw(st.sets(st.sampled_from(DECISIONS), min_size=1))
    schema = json.loads(json.dumps(PEER_TYPES["send_mail"]))
    refs = {kind: {"$ref": f"#/$defs/{kind.capitalize()}Decision"} for kind in sorted(allowed)}
    if len(refs) == 1:
        [ref] = refs.values()
        schema = {**schema["$defs"][ref["$ref"].rsplit("/", 1)[1]], "$defs": schema["$defs"]}
    else:
        schema["oneOf"] = list(refs.values())
        schema["discriminator"]["mapping"] = {kind: ref["$ref"] for kind, ref in refs.items()}
    value = {"type": "tool_approval", "tool_call_id": draw(WORDS), "name": "send_mail", "description": draw(TEXTS),
             "args": {"to": draw(WORDS), "subject": draw(WORDS), "delay_seconds": draw(st.integers(0, 99))}}
    return value, schema


def ask_of(question: Question) -> Ask:
    """Returns the ask as attn's validation reads it."""
    options = [dict(option) for option in question.options]
    return Ask.model_validate({"options": options, **({"action": question.action} if question.action else {})},
                              strict=True)


@st.composite
def answers_of(draw: st.DrawFn, question: Question) -> Answer:
    """Returns a strategy of answers that attn accepts for the question."""
    ask = ask_of(question)
    option = draw(st.sampled_from(ask.options or []))
    form = {}
    if option.form is not None:
        for name, field in option.form.properties.items():
            if name in option.form.required or draw(st.booleans()):
                form[name] = draw(_values_of(field))
    args = None
    if option.does == "edit":
        args = draw(ARGS | st.just(dict(ask.action.args if ask.action else {})))
    comment = draw(st.none() | TEXTS) if option.comment != "no" else None
    errors = check_answer(option, option.form, ask.action, form, args, comment)
    return draw(st.just(Answer(option.id, form, args, comment)).filter(lambda answer: not errors))


def _values_of(field: Any) -> st.SearchStrategy[Any]:
    if field.type == "string" and getattr(field, "values", None):
        return st.sampled_from(field.values)
    if field.type == "string":
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=field.minLength or 0,
                       max_size=field.maxLength or 20)
    if field.type == "boolean":
        return st.booleans()
    if field.type == "array":
        return st.lists(st.sampled_from(field.values), unique=True, min_size=field.minItems or 0,
                        max_size=len(field.values) if field.maxItems is None else field.maxItems)
    least = -100 if field.minimum is None else field.minimum
    most = 100 if field.maximum is None else field.maximum
    whole = st.integers(int(least), int(max(least, most)))
    return whole if field.type == "integer" else whole | whole.map(Decimal)


def answers(draw: st.DrawFn, questions: Sequence[Question]) -> list[Answer]:
    """Returns a strategy of answers, one for each question."""
    return [draw(answers_of(question)) for question in questions]


# Schemas as Pydantic generates them for models with simple fields.
_FIELDS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={
        "minLength": st.integers(0, 3), "maxLength": st.integers(3, 9), "title": WORDS, "pattern": st.just("^a")}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])}, optional={
        "minimum": st.integers(-9, 0), "maximum": st.integers(1, 9), "exclusiveMinimum": st.integers(-9, 0)}),
    st.fixed_dictionaries({"type": st.just("boolean")}, optional={"default": st.booleans()}),
    st.builds(lambda words: {"type": "string", "enum": words}, st.lists(WORDS, min_size=1, max_size=3, unique=True)),
    st.builds(lambda words: {"type": "array", "items": {"type": "string", "enum": words}, "maxItems": 3},
              st.lists(WORDS, min_size=1, max_size=3, unique=True)),
    st.builds(lambda word: {"const": word, "type": "string"}, WORDS),
    st.just({"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}),
    st.just({"$ref": "#/$defs/Color"}),
)
_OPTIONAL = _FIELDS.map(lambda field: {"anyOf": [field, {"type": "null"}], "default": None})


@st.composite
def response_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Returns a strategy of JSON Schemas of an answer: an object with fields, or a single value."""
    defs = {"Color": {"type": "string", "enum": ["red", "green"], "title": "Color"}}
    if draw(st.booleans()):
        return {**draw(_FIELDS), "$defs": defs}
    fields = draw(st.dictionaries(WORDS, _FIELDS | _OPTIONAL, min_size=1, max_size=4))
    required = [name for name in fields if draw(st.booleans())]
    return {"type": "object", "properties": fields, "required": required, "title": "Answer", "$defs": defs,
            **({"additionalProperties": False} if draw(st.booleans()) else {})}
