"""Dialect `HumanInterrupt` of agent-inbox: one request, bare or in a list; several in a list become a batch.

The graph is resumed with a list of one `HumanResponse` for each request. `accept` and `edit` carry the whole action,
as agent-inbox sends it, but its arguments keep their JSON types: agent-inbox makes strings of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.connectors.langgraph.dialects.asking import (
    ANSWER,
    Answer,
    Misfit,
    Question,
    call_title,
    first_line,
    text_form,
)

__all__ = ["HumanInterrupts", "read_human_interrupts"]

# `config.allow_...` -> option. Option ids are the values of `HumanResponse.type`.
_OPTIONS: dict[str, dict[str, Any]] = {
    "allow_accept": {"id": "accept", "does": "approve", "title": "Accept", "style": "primary", "comment": "no"},
    "allow_edit": {"id": "edit", "does": "edit", "title": "Edit", "comment": "no"},
    "allow_respond": {"id": "response", "does": "respond", "title": "Respond", "comment": "no",
                      "form": text_form(ANSWER, "Response")},
    "allow_ignore": {"id": "ignore", "does": "ignore", "title": "Ignore", "comment": "no"},
}


@dataclass(frozen=True, slots=True)
class HumanInterrupts:
    """Requests of one interrupt."""

    requests: Sequence[Mapping[str, Any]]
    dialect: str = "HumanInterrupt"

    @property
    def questions(self) -> Sequence[Question]:
        return [_question(request) for request in self.requests]

    def part(self, index: int, answer: Answer) -> dict[str, Any]:
        return _response(self.requests[index], answer)

    def join(self, parts: Sequence[Any]) -> list[Any]:
        return list(parts)


def read_human_interrupts(value: Any) -> HumanInterrupts | None:
    """Returns the requests of a value, None if it is of another dialect or a request allows nothing."""
    requests = value if isinstance(value, list) else [value]
    if not requests or not all(_is_request(request) for request in requests):
        return None
    return HumanInterrupts(requests)


def _is_request(request: Any) -> bool:
    if not isinstance(request, dict):
        return False
    action, config = request.get("action_request"), request.get("config")
    return (
        isinstance(action, dict) and isinstance(action.get("action"), str) and bool(action["action"].strip())
        and isinstance(action.get("args"), dict) and isinstance(config, dict)
        and all(isinstance(config.get(name, False), bool) for name in _OPTIONS)
        and any(config.get(name) for name in _OPTIONS)
        and isinstance(request.get("description"), str | None)
    )


def _allowed(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [option for name, option in _OPTIONS.items() if request["config"].get(name)]


def _question(request: Mapping[str, Any]) -> Question:
    name, args = request["action_request"]["action"], request["action_request"]["args"]
    options = _allowed(request)
    editable = any(option["does"] == "edit" for option in options)
    # `action` is a tool's name or a phrase such as "Approve the refund".
    title = first_line(name) if " " in name.strip() else call_title(name, args)
    return Question(title, request.get("description") or "", options,
                    {"name": name[:256], "args": args, "editable": editable})


def _response(request: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    action = request["action_request"]
    allowed = [option["id"] for option in _allowed(request)]
    if answer.option not in allowed:
        raise Misfit(f"the agent does not allow {answer.option!r}; it allows {', '.join(allowed)}")
    if answer.option == "accept":
        return {"type": "accept", "args": {"action": action["action"], "args": action["args"]}}
    if answer.option == "edit":
        if answer.args is None:
            raise Misfit("an edit needs all arguments of the action")
        return {"type": "edit", "args": {"action": action["action"], "args": dict(answer.args)}}
    if answer.option == "response":
        return {"type": "response", "args": answer.text(ANSWER)}
    return {"type": "ignore", "args": None}
