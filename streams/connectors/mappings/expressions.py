"""Evaluates JMESPath expressions of a mapping file within a budget. Pure.

JMESPath itself has no limits: `[@, @]` doubles a value, and forty of them in a row would describe 2**40 of it. Here
each visit of a node of an expression, and each value that an expression builds or a function reads, is charged by its
full size to the budget of the payload. So no value ever grows beyond the budget, whatever shares its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath import exceptions, functions, visitor

__all__ = ["BUDGET", "EvaluationCost", "Evaluator", "Expression", "ExpressionError", "compile_expression"]

BUDGET = 300_000  # per payload; about 0.3 s of CPU
MAX_EXPRESSION = 2000  # characters
_TEXT_UNIT = 64  # characters of a text that cost as much as a node


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: the tree of JMESPath."""

    parsed: dict[str, Any]


class ExpressionError(Exception):
    """An expression is not JMESPath, fails on a payload, or exceeds the budget. `str(error)`: the reason."""


def compile_expression(text: str) -> Expression:
    """Returns the parsed expression. Raises ExpressionError if it is too long, or not JMESPath, or calls a function
    that does not exist."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"has {len(text)} characters; at most {MAX_EXPRESSION} are accepted")
    try:
        parsed = jmespath.compile(text)
    except exceptions.JMESPathError as error:
        raise ExpressionError(f"is not JMESPath: {_first_line(error)}") from None
    except (RecursionError, ValueError, ArithmeticError) as error:
        raise ExpressionError(f"is not JMESPath: {type(error).__name__}") from None
    for name in _called(parsed.parsed):
        if name not in _Functions.FUNCTION_TABLE:
            raise ExpressionError(f"calls {name}(), which does not exist")
    return Expression(parsed.parsed)


class EvaluationCost:
    """What the expressions may still cost for one payload."""

    def __init__(self, units: int = BUDGET) -> None:
        self._left = units

    def charge(self, units: int) -> None:
        """Raises ExpressionError if the budget is used up."""
        self._left -= units
        if self._left < 0:
            raise ExpressionError("costs too much for this payload")

    def charge_value(self, value: Any) -> None:
        """Charges each node of a value, shared ones each time, and stops as soon as the budget is used up."""
        stack = [value]
        while stack:
            node = stack.pop()
            self.charge(1 + (len(node) // _TEXT_UNIT if isinstance(node, str) else 0))
            if isinstance(node, dict):
                self.charge(len(node))
                stack.extend(node.values())
            elif isinstance(node, list):
                stack.extend(node)


class Evaluator:
    """Evaluates expressions on one payload, with one budget. `tables`: what the function `lookup` reads."""

    def __init__(self, tables: dict[str, dict[str, Any]], budget: EvaluationCost) -> None:
        self._interpreter = _Interpreter(tables, budget)

    def evaluate(self, expression: Expression, value: Any) -> Any:
        """Returns the result. Raises ExpressionError with the reason, for whatever goes wrong."""
        try:
            return self._interpreter.visit(expression.parsed, value)
        except ExpressionError:
            raise
        except exceptions.JMESPathError as error:
            raise ExpressionError(f"fails: {_first_line(error)}") from None
        except Exception as error:  # JMESPath lets errors of Python pass: 1 < 'a', ceil of infinity, deep recursion
            raise ExpressionError(f"fails: {type(error).__name__}") from None

    def is_true(self, expression: Expression, value: Any) -> bool:
        """Returns whether JMESPath takes the result as true: it is not null, false, "", [] or {}."""
        return bool(self._interpreter._is_true(self.evaluate(expression, value)))


class _Functions(functions.Functions):  # type: ignore[misc]
    """The functions of JMESPath, with `lookup(table, key)`, `lower(text)` and `replace(text, old, new)`."""

    def __init__(self, tables: dict[str, dict[str, Any]], budget: EvaluationCost) -> None:
        self._tables, self._budget = tables, budget

    def call_function(self, function_name: str, resolved_args: list[Any]) -> Any:
        for value in resolved_args:
            if isinstance(value, str | list | dict):
                self._budget.charge_value(value)
        if function_name == "join" and len(resolved_args) == 2 and isinstance(resolved_args[1], list):
            self._budget.charge(_length(resolved_args[0]) * len(resolved_args[1]) // _TEXT_UNIT)
        if function_name == "replace" and len(resolved_args) == 3:
            self._budget.charge(_length(resolved_args[0]) * (1 + _length(resolved_args[2])) // _TEXT_UNIT)
        result = super().call_function(function_name, resolved_args)
        if isinstance(result, str | list | dict):
            self._budget.charge_value(result)
        return result

    @functions.signature({"types": ["string"]}, {"types": []})  # type: ignore[untyped-decorator]
    def _func_lookup(self, table: str, key: Any) -> Any:
        text = {True: "true", False: "false"}.get(key) if isinstance(key, bool) else key
        return self._tables.get(table, {}).get(str(text)) if isinstance(text, str | int) else None

    @functions.signature({"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @functions.signature(  # type: ignore[untyped-decorator]
        {"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, text: str, old: str, new: str) -> str:
        return text.replace(old, new) if old else text


class _Interpreter(visitor.TreeInterpreter):  # type: ignore[misc]
    """Charges every visit, and every value that it builds."""

    def __init__(self, tables: dict[str, dict[str, Any]], budget: EvaluationCost) -> None:
        super().__init__(visitor.Options(custom_functions=_Functions(tables, budget)))
        self._budget = budget

    def visit(self, node: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self._budget.charge(1)
        result = super().visit(node, *args, **kwargs)
        if node["type"] in ("multi_select_list", "multi_select_dict", "flatten", "slice"):
            self._budget.charge_value(result)
        return result

    def visit_comparator(self, node: dict[str, Any], value: Any) -> Any:
        left, right = (self.visit(child, value) for child in node["children"])
        for side in (left, right):
            if isinstance(side, str | list | dict):
                self._budget.charge_value(side)
        literals = [{"type": "literal", "children": [], "value": side} for side in (left, right)]
        return super().visit_comparator({**node, "children": literals}, value)


def _called(node: dict[str, Any]) -> set[str]:
    names, stack = set(), [node]
    while stack:
        node = stack.pop()
        if node["type"] == "function_expression":
            names.add(node["value"])
        stack.extend(child for child in node["children"] if isinstance(child, dict))
    return names


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
