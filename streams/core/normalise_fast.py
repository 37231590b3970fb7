"""Fast path of the validation: one pass of msgspec, at a third of the cost of pydantic.

The pydantic models in schemas.sources are the contract. The msgspec types here are derived from their fields,
constraint by constraint, when the first event of a type arrives; an unknown constraint fails, so a test derives all of
them. The fast path may refuse an event that the models accept, never the other way round
(tests/unit/core/test_normalise_fast.py). The models then decide, and give the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from schemas import scalars, sources
from schemas.asking.ask import Ask
from schemas.log import NO_PAYLOAD
from schemas.scalars import parse_clamped_timestamp, parse_timestamp
from schemas.sources import MODELS, EventData

__all__ = ["ValidatedEvent", "validate_fast"]

_MetaArguments = dict[str, Any]  # arguments of msgspec.Meta

_NOT_EMPTY: _MetaArguments = {"min_length": 1}  # `validate_fast` also refuses blanks: cheaper than a pattern
_NOT_BLANK: _MetaArguments = {"pattern": r"\S"}  # `re` and str.isspace agree on what a space is
# Matches the links of nearly all events; the model decides on the others that `is_link` accepts.
_LINK = Annotated[str, msgspec.Meta(
    max_length=sources.MAX_URL, pattern=r"\A(?:https?://[A-Za-z0-9.-]+(?::[1-9]\d{0,3})?(?=[/?#]|\Z)|/(?!/))[!-\[\]-~]*\Z")]
_PAYLOAD = dict[str, Any] | None
_ASK = Ask | None


class ValidatedEvent(NamedTuple):
    """A valid event: its attributes, its time in microseconds, and the fields of its data as schemas.log.Data has
    them."""

    attributes: Any
    time: int
    data: dict[str, Any]


class _Type(NamedTuple):
    decode: Callable[[bytes], Any]
    texts: list[Callable[[Any], tuple[str | None, ...]]]  # getters of non-blank texts: of the event, and of its data
    times: list[str]  # names of the data fields that are times


def validate_fast(event_type: str, value: bytes) -> ValidatedEvent | None:
    """Returns the event of a structured CloudEvent whose value is JSON. None: the model has to decide."""
    if event_type not in _TYPES:
        return None
    decode, (own, in_data), times = _type(event_type)
    try:
        event = decode(value)
        for text in own(event) + in_data(event.data) if event.data is not None else own(event):
            if text is not None and text.isspace():
                return None
        data = msgspec.structs.asdict(event.data) if event.data is not None else {}
        for name in times:
            if data.get(name) is not None:
                data[name] = parse_clamped_timestamp(data[name])
        return ValidatedEvent(event, parse_timestamp(event.time), data) if _accepts_raw(data) else None
    except ValueError:  # base class of msgspec's errors
        return None


def _accepts_raw(data: dict[str, Any]) -> bool:
    """Replaces a null payload by NO_PAYLOAD. Returns False if the payload is not an object, or if there is an ask: the
    model decides on it."""
    if data.get("ask", NO_PAYLOAD) is not NO_PAYLOAD:
        return False
    payload = data.get("payload", NO_PAYLOAD)
    if payload is NO_PAYLOAD:
        return True
    raw = bytes(payload)
    if raw == b"null":
        data["payload"] = NO_PAYLOAD
        return True
    return raw.startswith(b"{")


def _to_msgspec_type(annotation: Any, not_blank: _MetaArguments) -> Any:
    """Returns the annotation of a model's field for msgspec. Raises TypeError if it has an unknown constraint."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (_PAYLOAD, _ASK):
        return msgspec.Raw
    if origin is Annotated:
        if _has_validator(args[1:], scalars.empty_to_none):
            return _to_msgspec_type(args[0], not_blank)  # "" is refused here, so the model decides
        if _has_validator(annotation, scalars.validate_timestamp):
            return str
        if _has_validator(annotation, scalars.validate_clamped_timestamp):
            return str | None
        if _has_validator(args[1:], sources._usable_link):
            return _LINK | None
        limits = {name: limit for meta in args[1:] for name, limit in _meta_arguments(meta, not_blank).items()}
        return Annotated[_to_msgspec_type(args[0], not_blank), msgspec.Meta(**limits)]
    if origin in (Union, UnionType):
        return Union[tuple(_to_msgspec_type(arg, not_blank) for arg in args)]  # noqa: UP007
    if origin is list:
        return list[_to_msgspec_type(args[0], not_blank)]  # type: ignore[misc]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _to_struct(annotation, _NOT_BLANK)
    if origin is Literal or annotation in (str, bool, NoneType):
        return annotation
    raise TypeError(f"no msgspec type for annotation {annotation}")


def _meta_arguments(constraint: Any, not_blank: _MetaArguments) -> _MetaArguments:
    if isinstance(constraint, FieldInfo):
        return {name: limit for meta in constraint.metadata for name, limit in _meta_arguments(meta, not_blank).items()}
    if isinstance(constraint, AfterValidator):
        if constraint.func is scalars.not_blank:
            return not_blank
    elif is_dataclass(constraint):
        values = {field.name: getattr(constraint, field.name) for field in fields(constraint)}
        limits = {name: limit for name, limit in values.items() if limit is not None}
        if limits.keys() <= {"min_length", "max_length"}:
            return limits
    raise TypeError(f"no msgspec constraint for {constraint}")


def _has_validator(annotation: Any, func: Callable[..., Any]) -> bool:
    """Returns whether the annotation contains a validator with the function."""
    if isinstance(annotation, AfterValidator | BeforeValidator):
        return annotation.func is func
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return any(_has_validator(part, func) for part in parts)


@cache
def _hints(model: type[BaseModel]) -> dict[str, Any]:
    """Returns field -> annotation with its constraints."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def _to_struct(model: type[BaseModel], not_blank: _MetaArguments, **instead: Any) -> type[msgspec.Struct]:
    definitions: list[Any] = []
    for name, hint in _hints(model).items():
        field = (name, instead.get(name) or _to_msgspec_type(hint, not_blank))
        default = NO_PAYLOAD if field[1] is msgspec.Raw else None
        definitions.append(field if model.model_fields[name].is_required() else (*field, default))
    return msgspec.defstruct(model.__name__, definitions, kw_only=True)


def _texts(model: type[BaseModel]) -> Callable[[Any], tuple[str | None, ...]]:
    return attrgetter(*(name for name, hint in _hints(model).items() if _has_validator(hint, scalars.not_blank)))


@cache
def _type(event_type: str) -> _Type:
    """Derives the msgspec types of an event type when its first event arrives: all of them would delay a start by
    0.1 s."""
    model = MODELS[event_type]
    field = model.model_fields["data"]
    data: Any = field.annotation
    checked = _to_struct(data, _NOT_EMPTY)
    # An event that closes needs no data, and null means none.
    event = _to_struct(model, _NOT_EMPTY, data=checked if field.is_required() else checked | None)
    times = [name for name, hint in _hints(data).items() if _has_validator(hint, scalars.validate_clamped_timestamp)]
    return _Type(msgspec.json.Decoder(event).decode, [_texts(model), _texts(data)], times)


# The model decides on reports of decisions, which are rare.
_TYPES = frozenset(
    event_type for event_type, model in MODELS.items()
    if issubclass(cast("type[BaseModel]", model.model_fields["data"].annotation), EventData)
)
