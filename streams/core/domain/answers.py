"""Checks a person's answer against the ask: option, form, edited arguments, comment (CONTRACT §7, status 422).

The edge checks before it appends a vote, and the fold checks again: an ask may change between the two. A source that
gets a badly shaped answer may never resume, hence nothing is sent that does not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from schemas.asking.ask import (
    Action,
    BooleanField,
    ChoiceField,
    Form,
    FormField,
    MultiChoiceField,
    NumberField,
    Option,
    StringField,
)
from schemas.scalars import parse_timestamp

__all__ = ["MAX_COMMENT", "MAX_TEXT", "check_answer", "edited_pointers", "read_values"]

MAX_COMMENT = 4096  # characters
MAX_TEXT = 65536  # characters of one text of a form, unless its maxLength is lower
_MAX_DIGITS = 4000  # of an integer that is read as one; Python refuses to convert 4,300 digits or more
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def read_values(text: bytes) -> Any:
    """Parses JSON whose numbers are compared: integers as int, others as Decimal, so that no digit is rounded.

    Raises ValueError if the text is not JSON or has a number that Decimal cannot represent.
    """
    return json.loads(text, parse_int=_integer, parse_float=_decimal, parse_constant=_refuse)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _MAX_DIGITS else _decimal(digits)


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise ValueError(f"{digits[:40]} is beyond all numbers that are accepted") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def check_answer(
    option: Option, form: Form | None, action: Action | None,
    answer: Mapping[str, Any] | None, args: Mapping[str, Any] | None, comment: str | None,
) -> dict[str, str]:
    """Returns the error of each field by its path (`form.reason`, `args.amount`, `comment`); empty if all fit.

    `form`: that of the option, else that of the ask. `answer`: the person's values by field name. `args`: all arguments
    of the action anew, for an option that does `edit` only. The arguments of `action` and the person's values have to
    be from the same parser (`read_values`), else equal decimals differ.
    """
    errors = _comment_errors(option, comment)
    if form is None:
        if answer:
            errors["form"] = f"option {option.id} has no form"
    else:
        errors |= _form_errors(form, answer or {})
    if option.does == "edit":
        if args is None:
            errors["args"] = "required: all arguments of the action"
        elif action is not None:
            errors |= _args_errors(action, args)
    elif args is not None:
        errors["args"] = f"option {option.id} does {option.does}, only an option that does edit takes args"
    return errors


def _comment_errors(option: Option, comment: str | None) -> dict[str, str]:
    if option.comment == "required" and not (comment or "").strip():
        return {"comment": f"option {option.id} requires a comment"}
    if option.comment == "no" and comment:
        return {"comment": f"option {option.id} takes no comment"}
    if comment is not None and len(comment) > MAX_COMMENT:
        return {"comment": f"{len(comment)} characters; at most {MAX_COMMENT} are accepted"}
    return {}


def _form_errors(form: Form, answer: Mapping[str, Any]) -> dict[str, str]:
    errors = {f"form.{name}": "the form has no such field" for name in answer if name not in form.properties}
    for name, field in form.properties.items():
        if name not in answer:
            if name in form.required:
                errors[f"form.{name}"] = "required"
        elif problem := _value_error(field, answer[name]):
            errors[f"form.{name}"] = problem
    return errors


def _value_error(field: FormField, value: Any) -> str | None:
    match field:
        case ChoiceField():
            return None if value in field.values and isinstance(value, str) else "must be one of the choices"
        case StringField():
            return _string_error(field, value)
        case NumberField():
            return _number_error(field, value)
        case BooleanField():
            return None if isinstance(value, bool) else "must be true or false"
        case MultiChoiceField():
            return _choices_error(field, value)


def _string_error(field: StringField, value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    if field.minLength is not None and len(value) < field.minLength:
        return f"{len(value)} characters; at least {field.minLength} are needed"
    longest = MAX_TEXT if field.maxLength is None else field.maxLength
    if len(value) > longest:
        return f"{len(value)} characters; at most {longest} are accepted"
    if field.format is not None and not _FORMATS[field.format](value):
        return f"must be a valid {field.format}"
    return None


def _number_error(field: NumberField, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return "must be a number"
    if field.type == "integer" and not _is_integral(value):
        return "must be an integer"
    if field.minimum is not None and value < field.minimum:
        return f"must be at least {field.minimum:g}"
    if field.maximum is not None and value > field.maximum:
        return f"must be at most {field.maximum:g}"
    return None


def _is_integral(value: int | float | Decimal) -> bool:
    """Whether the value has no fraction. Never converts to int: 1e999999999 would have a billion digits."""
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) or value.is_integer()


def _choices_error(field: MultiChoiceField, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        return "must be a list of choices"
    if not set(value) <= set(field.values):
        return "must be among the choices"
    if len(set(value)) < len(value):
        return "must not repeat a choice"
    if field.minItems is not None and len(value) < field.minItems:
        return f"{len(value)} choices; at least {field.minItems} are needed"
    if field.maxItems is not None and len(value) > field.maxItems:
        return f"{len(value)} choices; at most {field.maxItems} are accepted"
    return None


def _args_errors(action: Action, args: Mapping[str, Any]) -> dict[str, str]:
    """Arguments that changed, appeared or went although the ask does not let a person edit them."""
    if action.editable is True:
        return {}
    editable: Sequence[str] = action.editable or ()
    missing = object()
    changed = [
        name for name in {**action.args, **args}
        if not _same(action.args.get(name, missing), args.get(name, missing))
    ]
    return {f"args.{name}": "is not editable" for name in changed if name not in editable}


def edited_pointers(before: Any, after: Any, at: str = "") -> list[str]:
    """JSON pointers (RFC 6901) of what differs between two JSON values: the smallest members, in sorted order.

    A list that changed is one pointer: positions in it mean nothing after an insertion.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            pointer for name in sorted({*before, *after})
            for pointer in (
                edited_pointers(before[name], after[name], f"{at}/{_escaped(name)}")
                if name in before and name in after else [f"{at}/{_escaped(name)}"])
        ]
    return [] if _same(before, after) else [at]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, but neither is true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, int | float | Decimal) and isinstance(other, int | float | Decimal):
        return one == other
    return type(one) is type(other) and bool(one == other)


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and date.fromisoformat(text) is not None
    except ValueError:
        return False


def _is_date_time(text: str) -> bool:
    try:
        parse_timestamp(text)
    except ValueError:
        return False
    return True


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and bool(parts.netloc or parts.path) and text.isprintable() and " " not in text


_FORMATS = {
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "uri": _is_uri,
    "date": _is_date,
    "date-time": _is_date_time,
}
