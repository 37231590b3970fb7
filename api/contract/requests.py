"""Request bodies (pydantic), and the name of the session cookie.

Error texts that the contract defines have the error type `WORDED`; `api.http.error_handlers` returns them unchanged.
`form` and `args` of an answer are read again from the bytes of the body (`api.http.decisions.answers`): a parsed number
may have lost digits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.scalars import is_valid_unicode, parse_timestamp, validate_timestamp

__all__ = [
    "SESSION_COOKIE", "WORDED", "AliasAnswer", "Answer", "Bulk", "DeviceCode", "Dismissal", "LinkText", "ManyAnswers",
    "Preferences", "Session", "StateChange", "TerminalAnswer", "TerminalName", "TerminalText", "TokenRevocation",
]

SESSION_COOKIE = "attn_session"

WORDED = "worded"  # pydantic error type: the message is the whole error text of the response
MAX_IDS = 500  # as many as a list returns (C21)
_ID = 2000
_MAX_ACTION = 256
_MAX_CLUSTERS, _MAX_WIDGETS, _MAX_NAME = 200, 200, 512
# Bytes of all names of one preferences key: they are stored in the view and sent in every snapshot.
_MAX_NAMES = 8 << 10


def _state(value: Any) -> Any:
    if value not in ("unread", "read", "resolved") or not isinstance(value, str):
        raise PydanticCustomError(WORDED, "state must be unread|read|resolved")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _ID and is_valid_unicode(value)


def _ids(value: Any) -> Any:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise PydanticCustomError(WORDED, "ids must be a list of strings")
    ids = list(dict.fromkeys(one.strip() for one in value if one.strip()))
    if not ids:
        raise PydanticCustomError(WORDED, "ids required")
    if len(ids) > MAX_IDS:
        raise PydanticCustomError(WORDED, f"too many ids (max {MAX_IDS})")
    return ids


def _until(value: Any) -> Any:
    if value is None:
        return None
    try:
        return parse_timestamp(value) if isinstance(value, str) else _bad_time()
    except (ValueError, OverflowError):
        return _bad_time()


def _first_of_each(widgets: list[Widget]) -> list[Widget]:
    """Returns the widgets without repeats; the first one of an id counts, as for clusters."""
    by_id: dict[str, Widget] = {}
    for widget in widgets:
        by_id.setdefault(widget.id, widget)
    return list(by_id.values())


def _small(names: list[str]) -> None:
    size = sum(len(name.encode()) for name in names)
    if size > _MAX_NAMES:
        raise PydanticCustomError("too_many_bytes", "the names have {size} bytes in total: at most {limit} are allowed",
                                  {"size": size, "limit": _MAX_NAMES})


def _small_clusters(clusters: list[str]) -> list[str]:
    _small(clusters)
    return clusters


def _small_widgets(widgets: list[Widget]) -> list[Widget]:
    _small([widget.id for widget in widgets])
    return widgets


def _bad_time() -> Any:
    raise PydanticCustomError(WORDED, "dismissed_until must be an RFC 3339 time with an offset")


State = Annotated[
    Literal["unread", "read", "resolved"], BeforeValidator(_state), Field(default=None, validate_default=True)]
Action = Annotated[str, StringConstraints(max_length=_MAX_ACTION)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StateChange(_Body):
    """The new state of an item."""

    state: State
    resolved_action: Action | None = Field(
        None, description="what was done, for example approved, rejected, retried, cancelled")


class Bulk(_Body):
    """The new state of many items. Blank and repeated ids are ignored."""

    ids: Annotated[
        list[str], BeforeValidator(_ids), Field(default=[], validate_default=True, max_length=MAX_IDS)]
    state: State
    resolved_action: Action | None = None


class Dismissal(_Body):
    """Without a time the item is dismissed; with a time it is snoozed and returns then."""

    dismissed_until: Annotated[
        int | None, BeforeValidator(_until), WithJsonSchema({"type": "string", "format": "date-time"})] = None


class Widget(_Body):
    """A widget of the dashboard's overview."""

    id: Name
    visible: bool


class Preferences(_Body):
    """The given keys are replaced; the others stay. The order of a list is the layout."""

    # None means that the key is not given; a client cannot send null.
    pinned_clusters: Annotated[
        list[Name], Field(max_length=_MAX_CLUSTERS), AfterValidator(_small_clusters)] = None  # type: ignore[assignment]
    widgets: Annotated[
        list[Widget], Field(max_length=_MAX_WIDGETS), AfterValidator(_first_of_each),
        AfterValidator(_small_widgets)] = None  # type: ignore[assignment]


_MAX_OPTION, _MAX_DIGEST = 128, 128
_MAX_REVISION = 2**53 - 1
_MAX_VIEWED = 30 * 86400.0  # seconds

_Option = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_OPTION)]
_Digest = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_DIGEST)]
# The routes answer 422 with `fields` if the value is no object.
_Object = Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": True})]
_Revision = Annotated[int, Field(ge=0, le=_MAX_REVISION)]


class _Answer(_Body):
    form: _Object = Field(None, description="values of the form by field name")
    args: _Object = Field(None, description="of an option that does `edit`: all arguments of the action anew")
    comment: str | None = None


class Answer(_Answer):
    """A person's answer to the question of an item."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"option": "approve", "digest": "1f4c0a" + "9d" * 29, "comment": "checked the plan"},
        {"option": "edit", "digest": "1f4c0a" + "9d" * 29, "args": {"service": "payments-api", "version": "2.4.0"}},
    ]})
    option: _Option = Field(description="id of one of the item's options")
    digest: _Digest = Field(description="`digest` of the item as the person saw it; another one is answered with 412")
    viewed: Annotated[float, Field(ge=0, le=_MAX_VIEWED, allow_inf_nan=False)] | None = Field(
        None, description="seconds for which the page had shown the whole item; insights use it")


class AliasAnswer(_Answer):
    """An answer by the source id of a waitpoint. Without `digest` the answer is to the question of now."""

    digest: _Digest | None = None


class ManyAnswers(_Body):
    """The same option for many items: one without a form that does not edit."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"ids": ["ibx_6d0f5a8c1b2e4f7a9c3d5e7f1a2b3c4d"], "option": "approve",
         "revisions": {"ibx_6d0f5a8c1b2e4f7a9c3d5e7f1a2b3c4d": 17}},
    ]})
    ids: Annotated[list[str], BeforeValidator(_ids), Field(
        default=[], validate_default=True, max_length=MAX_IDS)]
    option: _Option
    comment: str | None = None
    revisions: Annotated[dict[str, _Revision], Field(max_length=MAX_IDS)] = Field(default={}, description=(
        "item id -> its `revision` as the client saw it; an item with another one is not answered. Without an entry: "
        "the revision that this edge shows"))


class Session(_Body):
    """The token to store as the session cookie."""

    token: Annotated[str, StringConstraints(min_length=1)]


class LinkText(_Body):
    """The text of a sign-in link: what follows `#signin=`."""

    link: Annotated[str, StringConstraints(min_length=1, max_length=200)]


_Sealed = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class TerminalName(_Body):
    """What the terminal says of itself, such as the name of its machine. The person reads it."""

    device: Annotated[str, StringConstraints(max_length=200)] = ""


class DeviceCode(_Body):
    """`device_code` of `POST /auth/device`."""

    device_code: _Sealed


class TerminalText(_Body):
    """What follows `#device=` in the address that the terminal shows."""

    request: _Sealed


class TerminalAnswer(TerminalText):
    """Lets a terminal in, or refuses it. `user_code`: needed to let it in; the person reads it on the terminal."""

    allow: bool
    user_code: Annotated[str, StringConstraints(max_length=100)] = ""


def _name(value: str) -> str:
    if not is_valid_unicode(value):
        raise ValueError("must be text")
    return value


_Name = Annotated[str, StringConstraints(min_length=1, max_length=_ID), AfterValidator(_name)]
_OptionalTime = Annotated[
    int | None, BeforeValidator(lambda value: None if value is None else validate_timestamp(value)),
    WithJsonSchema({"type": "string", "format": "date-time"})]


class TokenRevocation(_Body):
    """Which bearer tokens of the workspace to revoke: the one with this `jti`, or those of `sub` that were issued
    before a time (default: now). `expires_at`: when all of them have expired; the revocation ends then."""

    jti: _Name | None = None
    sub: _Name | None = None
    issued_before: _OptionalTime = None
    expires_at: _OptionalTime = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.jti is None) == (self.sub is None):
            raise ValueError("name either jti or sub")
        if self.jti is not None and self.issued_before is not None:
            raise ValueError("issued_before goes with sub")
        return self
