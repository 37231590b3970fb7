"""Dialects of LangChain's `HumanInTheLoopMiddleware`: `HITLRequest` (all calls of a turn) and `ToolApprovalRequest`.

A `HITLRequest` becomes a batch: one question for each call, and one resume value `{"decisions": [...]}` with as many
decisions in the same order. Another count or shape makes the thread fail for ever.
A `ToolApprovalRequest` is one question; its `response_schema` says which decisions are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.connectors.langgraph.dialects.asking import ANSWER, Answer, Misfit, Question, call_title, text_form
from streams.connectors.langgraph.json_schema import list_of, resolve, schema_error

__all__ = ["HitlRequests", "ToolApproval", "read_hitl_requests", "read_tool_approval"]

MAX_CALLS = 50

# Decision -> option. Option ids are the values of `Decision.type`.
_OPTIONS: dict[str, dict[str, Any]] = {
    "approve": {"id": "approve", "does": "approve", "title": "Approve", "style": "primary", "comment": "no"},
    "edit": {"id": "edit", "does": "edit", "title": "Edit", "comment": "no"},
    "reject": {"id": "reject", "does": "reject", "title": "Reject", "style": "danger", "comment": "optional"},
    "respond": {"id": "respond", "does": "respond", "title": "Answer in place of the tool", "comment": "no",
                "form": text_form(ANSWER, "Answer")},
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A tool call with the decisions that are allowed for it. `args_schema`: JSON Schema of its arguments."""

    name: str
    args: Mapping[str, Any]
    description: str
    allowed: Sequence[str]
    args_schema: Mapping[str, Any] | None = None

    @property
    def question(self) -> Question:
        action: dict[str, Any] = {"name": self.name[:256], "args": self.args, "editable": "edit" in self.allowed}
        if self.args_schema is not None and action["editable"]:
            action["args_schema"] = self.args_schema
        title = call_title(self.name, self.args)
        return Question(title, _without_call(self.description, self.name), [_OPTIONS[one] for one in self.allowed],
                        action)

    def decision(self, answer: Answer) -> dict[str, Any]:
        """Returns the `Decision` of LangChain. Raises Misfit if it is not allowed, or its arguments do not fit."""
        if answer.option not in self.allowed:
            raise Misfit(f"{self.name} does not allow {answer.option!r}; it allows {', '.join(self.allowed)}")
        if answer.option == "edit":
            if answer.args is None:
                raise Misfit(f"an edit of {self.name} needs all its arguments")
            if self.args_schema is not None and (
                    error := schema_error(self.args_schema, answer.args, self.args_schema, "args")):
                raise Misfit(f"{self.name}: {error}")
            return {"type": "edit", "edited_action": {"name": self.name, "args": dict(answer.args)}}
        if answer.option == "respond":
            return {"type": "respond", "message": answer.text(ANSWER)}
        if answer.option == "reject" and (answer.comment or "").strip():
            return {"type": "reject", "message": answer.comment}
        return {"type": answer.option}


@dataclass(frozen=True, slots=True)
class HitlRequests:
    """The calls of one interrupt."""

    calls: Sequence[_Call]
    dialect: str = "HITLRequest"

    @property
    def questions(self) -> Sequence[Question]:
        return [call.question for call in self.calls]

    def part(self, index: int, answer: Answer) -> dict[str, Any]:
        return self.calls[index].decision(answer)

    def join(self, parts: Sequence[Any]) -> dict[str, Any]:
        return {"decisions": list(parts)}


@dataclass(frozen=True, slots=True)
class ToolApproval:
    """One call, which has an interrupt of its own."""

    call: _Call
    schema: Mapping[str, Any]
    dialect: str = "ToolApprovalRequest"

    @property
    def questions(self) -> Sequence[Question]:
        return [self.call.question]

    def part(self, index: int, answer: Answer) -> dict[str, Any]:
        decision = self.call.decision(answer)
        if error := schema_error(self.schema, decision, self.schema):
            raise Misfit(f"{self.call.name}: {error}")
        return decision

    def join(self, parts: Sequence[Any]) -> Any:
        return parts[0]


def read_hitl_requests(value: Any) -> HitlRequests | None:
    """Returns the calls of a `HITLRequest`, None if the value is none or a call allows nothing that is known."""
    if not isinstance(value, dict) or not isinstance(value.get("action_requests"), list):
        return None
    requests, configs = value["action_requests"], value.get("review_configs")
    if not 1 <= len(requests) <= MAX_CALLS or not isinstance(configs, list):
        return None
    allowed: dict[str, list[str]] = {}
    for config in configs:
        if not isinstance(config, dict) or not isinstance(config.get("action_name"), str):
            return None
        allowed.setdefault(config["action_name"], _known(config.get("allowed_decisions")))
    if not all(_is_call(request) and allowed.get(request["name"]) for request in requests):
        return None
    return HitlRequests([
        _Call(request["name"], request["args"], request.get("description") or "", allowed[request["name"]])
        for request in requests])


def read_tool_approval(value: Any, schema: Any) -> ToolApproval | None:
    """Returns the call of a `ToolApprovalRequest`, None if the value is none or its schema allows nothing known."""
    if not (isinstance(value, dict) and value.get("type") == "tool_approval" and _is_call(value)
            and isinstance(schema, Mapping)):
        return None
    branches = list_of(schema, "oneOf") or list_of(schema, "anyOf") or [schema]
    by_type = {kind: found for branch in branches if (found := resolve(branch, schema))
               and (kind := _constant(found, "type", schema)) is not None}
    allowed = _known(list(by_type))
    if not allowed:
        return None
    args_schema = _args_schema(by_type["edit"], schema, value["name"]) if "edit" in allowed else None
    return ToolApproval(_Call(value["name"], value["args"], value.get("description") or "", allowed, args_schema),
                        schema)


def _known(decisions: Any) -> list[str]:
    """The known ones of the allowed decisions in the order of the options, each once."""
    named = decisions if isinstance(decisions, list) else []
    return [name for name in _OPTIONS if name in named]


def _is_call(request: Any) -> bool:
    return (isinstance(request, dict) and isinstance(request.get("name"), str) and bool(request["name"].strip())
            and isinstance(request.get("args"), dict) and isinstance(request.get("description"), str | None))


def _property(schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    properties = schema.get("properties")
    return resolve(properties.get(name), root) if isinstance(properties, Mapping) else None


def _constant(schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> str | None:
    constant = (_property(schema, name, root) or {}).get("const")
    return constant if isinstance(constant, str) else None


def _args_schema(edit: Mapping[str, Any], root: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """JSON Schema of the arguments of an edit, with the definitions that it refers to."""
    action = _property(edit, "edited_action", root)
    if action is None or _constant(action, "name", root) not in (None, name):
        return None
    found = _property(action, "args", root)
    if found is None:
        return None
    definitions = {key: root[key] for key in ("$defs", "definitions") if isinstance(root.get(key), Mapping)}
    return {**found, **definitions} if "$ref" in str(found) else found


def _without_call(description: str, name: str) -> str:
    """The description without the call that LangChain repeats in it: the item shows the call by itself."""
    return description.split(f"\n\nTool: {name}\nArgs: ", 1)[0]
