"""Any interrupt that no other dialect reads: a form where its schema fits one, else a text or raw JSON.

The graph is resumed with exactly what the person answered: a text is a string, a form an object or its only value, and
JSON text is the value that it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.connectors.langgraph.dialects.asking import (
    ANSWER,
    JSON_ANSWER,
    Answer,
    Misfit,
    Question,
    code_block,
    first_line,
    text_form,
)
from streams.connectors.langgraph.dialects.schema_forms import SchemaForm, read_schema_form
from streams.connectors.langgraph.json_schema import schema_error
from streams.connectors.langgraph.json_values import read_values
from streams.core.json_text import read_json

__all__ = ["AnyValue", "read_any_value"]

# Members of a value that often have the question, in the order in which they are looked for.
_TITLES = ("question", "title", "message", "prompt", "task", "instruction", "description", "text")
_FORM, _TEXT, _JSON = "answer", "answer", "json"


@dataclass(frozen=True, slots=True)
class AnyValue:
    """A question of any shape. `form`: of its schema, if the schema fits one."""

    value: Any
    schema: Mapping[str, Any] | None
    form: SchemaForm | None

    @property
    def dialect(self) -> str:
        return "form" if self.form is not None else "value"

    @property
    def questions(self) -> Sequence[Question]:
        title, body = _shown(self.value)
        return [Question(title, body, self._options())]

    def _options(self) -> list[dict[str, Any]]:
        primary: dict[str, Any] = {"does": "respond", "style": "primary", "title": "Answer", "comment": "no"}
        as_json = {"id": _JSON, "does": "respond", "title": "Answer with JSON", "comment": "no",
                   "form": text_form(JSON_ANSWER, "JSON")}
        if self.form is not None:
            return [{"id": _FORM, **primary, "form": dict(self.form.form)}]
        if self.schema is not None:
            return [{**as_json, "style": "primary"}]
        return [{"id": _TEXT, **primary, "form": text_form(ANSWER, "Answer")}, as_json]

    def part(self, index: int, answer: Answer) -> Any:
        allowed = [option["id"] for option in self._options()]
        if answer.option not in allowed:
            raise Misfit(f"the question has no option {answer.option!r}; it has {', '.join(allowed)}")
        if answer.option == _JSON:
            value = _parsed(answer.text(JSON_ANSWER))
        elif self.form is not None:
            value = self.form.value_of(answer.form)
        else:
            value = answer.text(ANSWER)
        if self.schema is not None and (error := schema_error(self.schema, value, self.schema)):
            raise Misfit(f"the answer does not match the schema of the question: {error}")
        return value

    def join(self, parts: Sequence[Any]) -> Any:
        return parts[0]


def read_any_value(value: Any, schema: Any) -> AnyValue:
    """Returns the question of an interrupt. Each value has one."""
    return AnyValue(value, schema if isinstance(schema, Mapping) and schema else None, read_schema_form(schema))


def _parsed(text: str) -> Any:
    try:
        normal, _ = read_json(text.encode(errors="surrogatepass"))
        return read_values(normal)
    except (ValueError, RecursionError) as error:
        raise Misfit(f"the answer is not JSON: {error}") from None


def _shown(value: Any) -> tuple[str, str]:
    """Title and body."""
    if isinstance(value, str):
        title = first_line(value)
        return title or "The agent waits for an answer", "" if value.strip() == title else value
    named = next((text for name in _TITLES if isinstance(value, Mapping)
                  and isinstance(text := value.get(name), str) and text.strip()), None)
    title = first_line(named) if named is not None else "The agent waits for an answer"
    return title, code_block(value)
