"""The ask of an event (`data.ask`, CONTRACT §7): what a person is asked, which answers exist, who may give them.

`Ask` validates what a producer sends. Unknown fields are ignored, except in `deciders`, `quorum` and `batch`: there a
misspelt field would widen who may decide. An invalid ask rejects the event, because an item without its ask would show
a question that nobody can answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    Tag,
    model_validator,
)

from schemas.scalars import EMPTY_TO_NONE, ClampedTimestamp, OptionalId, Role

__all__ = [
    "MAX_ASK_BYTES", "MAX_TOKEN", "Ask", "BooleanField", "ChoiceField", "Does", "Form", "FormField", "MultiChoiceField",
    "NumberField", "Option", "StringField",
]

MAX_ASK_BYTES = 64 << 10  # of the JSON text, as of a payload
MAX_TOKEN = 4096  # characters of `reply.token`
_MAX_FIELDS = 50
_MAX_CHOICES = 200

Does = Literal["approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"]

# A name that appears in a URL, a form's field name or a log line.
_Handle = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Text = Annotated[str, StringConstraints(max_length=4096)]
_Count = Annotated[int, Field(ge=0, le=65536)]


class _Open(BaseModel):
    # Built at the first use, as the models of events (schemas.sources).
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, populate_by_name=True, defer_build=True)


class _Closed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


class _FieldBase(_Open):
    title: _Label | None = None
    description: _Text | None = None


# In JSON Schema a field matches exactly one of the field types, as `_kind_of_field` does.
_HAS_CHOICES: dict[str, Any] = {"anyOf": [{"required": ["enum"]}, {"required": ["oneOf"]}]}


class StringField(_FieldBase):
    """Free text. `minLength` and `maxLength` count Unicode code points, as JSON Schema does."""

    model_config = ConfigDict(json_schema_extra={"not": _HAS_CHOICES})
    type: Literal["string"]
    minLength: _Count | None = None
    maxLength: _Count | None = None
    format: Literal["email", "uri", "date", "date-time"] | None = None
    default: str | None = None


class NumberField(_FieldBase):
    type: Literal["number", "integer"]
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None


class BooleanField(_FieldBase):
    type: Literal["boolean"]
    default: bool | None = None


class Choice(_Open):
    const: _Label
    title: _Label | None = None


def _unique(choices: list[Any]) -> list[Any]:
    values = [choice.const if isinstance(choice, Choice) else choice for choice in choices]
    if len(set(values)) < len(values):
        raise ValueError("must not repeat a value")
    return choices


_Enum = Annotated[list[_Label], Field(min_length=1, max_length=_MAX_CHOICES), AfterValidator(_unique)]
_Titled = Annotated[list[Choice], Field(min_length=1, max_length=_MAX_CHOICES), AfterValidator(_unique)]


class ChoiceField(_FieldBase):
    """One of several strings: `enum`, with or without `enumNames`, or `oneOf` with titles."""

    model_config = ConfigDict(json_schema_extra=_HAS_CHOICES)
    type: Literal["string"]
    enum: _Enum | None = None
    enumNames: list[_Label] | None = None
    oneOf: _Titled | None = None
    default: str | None = None

    @property
    def values(self) -> list[str]:
        return self.enum or [choice.const for choice in self.oneOf or ()]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.enum is None) == (self.oneOf is None):
            raise ValueError("needs one of enum and oneOf")
        if self.enumNames is not None and len(self.enumNames) != len(self.values):
            raise ValueError("enumNames must have as many entries as enum")
        if self.default is not None and self.default not in self.values:
            raise ValueError("default must be one of the values")
        return self


class ChoiceItems(_Open):
    type: Literal["string"] | None = None
    enum: _Enum | None = None
    anyOf: _Titled | None = None


class MultiChoiceField(_FieldBase):
    """Several of several strings, each at most once."""

    type: Literal["array"]
    items: ChoiceItems
    minItems: _Count | None = None
    maxItems: _Count | None = None
    default: list[str] | None = None

    @property
    def values(self) -> list[str]:
        return self.items.enum or [choice.const for choice in self.items.anyOf or ()]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.items.enum is None) == (self.items.anyOf is None):
            raise ValueError("items needs one of enum and anyOf")
        if not set(self.default or ()) <= set(self.values):
            raise ValueError("default must be among the values")
        return self


def _kind_of_field(value: Any) -> str | None:
    """The model that a property of the form belongs to; None: of none, which pydantic reports."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "string":
        is_choice = isinstance(value, ChoiceField) or (isinstance(value, dict) and not value.keys().isdisjoint(
            ("enum", "oneOf")))
        return "choice" if is_choice else "string"
    return {"number": "number", "integer": "number", "boolean": "boolean", "array": "multi"}.get(str(kind))


class _AnyOf:
    """Exports a union as `anyOf`: a field with `enum` also fits the schema of free text, which `oneOf` forbids."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        schema["anyOf"] = schema.pop("oneOf")
        return schema


FormField = Annotated[
    Annotated[StringField, Tag("string")] | Annotated[ChoiceField, Tag("choice")]
    | Annotated[NumberField, Tag("number")] | Annotated[BooleanField, Tag("boolean")]
    | Annotated[MultiChoiceField, Tag("multi")],
    Discriminator(
        _kind_of_field, custom_error_type="form_field",
        custom_error_message="type must be string, number, integer, boolean, or array of enum",
    ),
    _AnyOf(),
]


class Form(_Open):
    """A flat JSON Schema object: the subset that MCP's elicitation has (revision 2025-11-25)."""

    type: Literal["object"] = "object"
    properties: Annotated[dict[_Handle, FormField], Field(min_length=1, max_length=_MAX_FIELDS)]
    required: Annotated[list[str], Field(max_length=_MAX_FIELDS)] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if missing := set(self.required) - self.properties.keys():
            raise ValueError(f"required names {min(missing)[:100]!r}, which properties does not have")
        return self


class Option(_Open):
    """One answer that a person may give."""

    id: _Handle
    does: Does
    title: _Label | None = None
    style: Literal["primary", "danger", "plain"] = "plain"
    comment: Literal["no", "optional", "required"] = "optional"
    form: Form | None = None
    safe: bool = False  # may be taken without a person, when the ask expires


def _unique_names(names: Any) -> Any:
    if isinstance(names, list) and len(set(map(str, names))) < len(names):
        raise ValueError("must not repeat a name")
    return names


class Action(_Open):
    """What will be done. `args` are shown, and kept with the digits of the source."""

    name: _Label
    args: dict[str, Any] = {}
    args_schema: dict[str, Any] | None = None
    editable: bool | Annotated[list[str], Field(max_length=100), BeforeValidator(_unique_names)] = False
    risk: Annotated[Literal["low", "medium", "high", "critical"] | None, EMPTY_TO_NONE] = None
    reversible: bool | None = None


class Deciders(_Closed):
    """Who may decide: everybody named by `users` or `roles`, but nobody that `not` excludes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    users: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=512)]], Field(max_length=100)] = []
    roles: list[Role] = []
    excluded: Annotated[list[Literal["requester"]], Field(alias="not", max_length=1)] = []
    requester: OptionalId = None  # the user on whose behalf the source asks; default: `data.by_user_id`


class Quorum(_Closed):
    approve: Annotated[int, Field(ge=1, le=10)] = 1


class Batch(_Closed):
    key: _Handle


class Reply(_Open):
    """How the answer goes back. "" is no token, but an error: a blanked dead letter must not be accepted without its
    token. `token` is sealed when the event is read (`streams.core.sealing`)."""

    to: Annotated[_Handle | None, EMPTY_TO_NONE] = None
    token: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOKEN)] | None = None
    confirm: bool = True


class Ask(_Open):
    """`data.ask`. `id` defaults to the event's subject, `options` to those of the item's kind."""

    id: OptionalId = None
    options: Annotated[list[Option], Field(min_length=1, max_length=20)] | None = None
    form: Form | None = None
    action: Action | None = None
    deciders: Deciders | None = None
    quorum: Quorum | None = None
    expires_at: ClampedTimestamp = None
    on_expiry: Annotated[_Handle | None, EMPTY_TO_NONE] = None
    batch: Batch | None = None
    reply: Reply | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [option.id for option in self.options or ()]
        if len(set(ids)) < len(ids):
            raise ValueError("options must not repeat an id")
        if self.on_expiry is not None:
            named = next((option for option in self.options or () if option.id == self.on_expiry), None)
            if named is None:
                raise ValueError("on_expiry must be the id of an option")
            if not named.safe:
                raise ValueError(f"on_expiry names {named.id[:100]!r}, which is not marked safe")
            if self.expires_at is None:
                raise ValueError("on_expiry needs expires_at")
        if any(option.does == "edit" for option in self.options or ()) and (
                self.action is None or self.action.editable is False):
            raise ValueError("an option that does edit needs an action that is editable")
        if self.quorum is not None and self.deciders is not None and self.deciders.users and not self.deciders.roles:
            voters = set(self.deciders.users)
            if "requester" in self.deciders.excluded:
                voters.discard(self.deciders.requester or "")
            if len(voters) < self.quorum.approve:
                raise ValueError(f"quorum needs {self.quorum.approve} people, deciders names {len(voters)}")
        return self
