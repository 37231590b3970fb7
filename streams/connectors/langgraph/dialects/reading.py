"""Chooses the dialect of an interrupt."""

from __future__ import annotations

from typing import Any

from streams.connectors.langgraph.dialects.asking import Reading
from streams.connectors.langgraph.dialects.human_interrupt import read_human_interrupts
from streams.connectors.langgraph.dialects.langchain import read_hitl_requests, read_tool_approval
from streams.connectors.langgraph.dialects.values import read_any_value

__all__ = ["read_interrupt"]


def read_interrupt(value: Any, response_schema: Any = None) -> Reading:
    """Returns how the value of an interrupt is asked and answered.

    A value that resembles a dialect but differs from it is read as any other value: a person then answers with text or
    JSON, and nobody answers in a shape that the graph does not expect.
    """
    if isinstance(response_schema, dict) and response_schema:
        return read_tool_approval(value, response_schema) or read_any_value(value, response_schema)
    return read_hitl_requests(value) or read_human_interrupts(value) or read_any_value(value, None)
