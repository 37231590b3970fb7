"""What every dialect of interrupts has in common: questions that attn asks, answers of people, and what does not fit.

A dialect reads the value of an interrupt and returns a `Reading`. The same reading turns answers into the value that
the graph is resumed with. It raises Misfit in place of a value that the graph might not accept: one wrongly shaped
value can make a thread fail for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from streams.connectors.langgraph.json_values import json_text

__all__ = [
    "ANSWER", "JSON_ANSWER", "Answer", "Misfit", "Question", "Reading", "call_title", "code_block", "first_line",
    "resume_value", "text_form",
]

ANSWER = "answer"  # field of a form that asks for one text
JSON_ANSWER = "json"  # field of a form that asks for JSON text
MAX_TITLE = 200  # characters that a person reads in a list
_MAX_BODY = 14_000  # characters of a value that is shown as JSON


class Misfit(ValueError):
    """The answer does not fit the interrupt. Nothing may be sent; the text is the reason that the person reads."""


@dataclass(frozen=True, slots=True)
class Question:
    """One item of attn. `options`, `form` and `action` are those of `data.ask` (CONTRACT §7)."""

    title: str
    body: str
    options: Sequence[dict[str, Any]]
    action: dict[str, Any] | None = None

    @property
    def kind(self) -> Literal["pending_action", "session_waiting"]:
        """`pending_action` if the answer lets something run, else `session_waiting`."""
        runs = any(option["does"] in ("approve", "edit") for option in self.options)
        return "pending_action" if runs and self.action is not None else "session_waiting"


@dataclass(frozen=True, slots=True)
class Answer:
    """One decision of attn. Numbers of `form` and `args` are int or Decimal, so that they keep their digits."""

    option: str
    form: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] | None = None
    comment: str | None = None

    def text(self, name: str) -> str:
        """Returns a text of the form. Raises Misfit if there is none."""
        value = self.form.get(name)
        if not isinstance(value, str):
            raise Misfit(f"the answer has no text in the field {name}")
        return value


class Reading(Protocol):
    """An interrupt as one dialect understands it. `questions`: in the order in which `resume` expects answers."""

    @property
    def dialect(self) -> str: ...

    @property
    def questions(self) -> Sequence[Question]: ...

    def part(self, index: int, answer: Answer) -> Any:
        """Returns what one answer adds to the resume value. Raises Misfit if it does not fit its question."""

    def join(self, parts: Sequence[Any]) -> Any:
        """Returns the value that the graph is resumed with, from one part for each question."""


def resume_value(reading: Reading, answers: Sequence[Answer]) -> Any:
    """Returns the value that the graph is resumed with. Raises Misfit unless each question has one answer that fits."""
    if len(answers) != len(reading.questions):
        raise Misfit(f"{len(answers)} answers for {len(reading.questions)} questions of a {reading.dialect}")
    return reading.join([reading.part(index, answer) for index, answer in enumerate(answers)])


def text_form(name: str, title: str, *, required: bool = True) -> dict[str, Any]:
    """Returns a form with one text field."""
    field_of = {"type": "string", "title": title, **({"minLength": 1} if required else {})}
    return {"type": "object", "properties": {name: field_of}, "required": [name] if required else []}


def first_line(text: str) -> str:
    """Returns the first line that is not blank, without Markdown's heading marks, cut to MAX_TITLE characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return _cut(line.lstrip("#").strip() or line)


def call_title(name: str, args: Mapping[str, Any]) -> str:
    """Returns a call as a person reads it: `send_mail(to="a@b.c", delay_seconds=3)`, cut to MAX_TITLE characters."""
    shown = ", ".join(f"{key}={json_text(value)[:80]}" for key, value in list(args.items())[:20])
    return _cut(" ".join(f"{name}({shown})".split()))


def code_block(value: Any) -> str:
    """Returns the JSON of a value as a Markdown code block. Says so if it was cut."""
    text = json_text(value, indent=2)
    longest = max((len(run) for run in _runs_of_backticks(text)), default=0)
    fence = "`" * max(3, longest + 1)
    note = f"\n\nThe first {_MAX_BODY} of {len(text)} characters are shown." if len(text) > _MAX_BODY else ""
    return f"{fence}json\n{text[:_MAX_BODY]}\n{fence}{note}"


def _runs_of_backticks(text: str) -> list[str]:
    return "".join(letter if letter == "`" else " " for letter in text).split()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TITLE else text[: MAX_TITLE - 1] + "…"
