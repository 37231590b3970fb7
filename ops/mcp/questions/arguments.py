"""Arguments of the tools: models that bound and check them, and the JSON Schemas that clients see. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ops.mcp.questions.handles import subject_of
from schemas.scalars import DAY, HOUR, MINUTE, SECOND, is_valid_unicode, parse_timestamp

__all__ = [
    "AskHuman", "GetAnswer", "InvalidArguments", "ListWaiting", "NotifyHuman", "Withdraw", "expiry_of", "explain",
    "input_schema", "read_arguments",
]

Model = TypeVar("Model", bound=BaseModel)

MAX_WAIT = 3600.0  # seconds
MAX_TITLE, MAX_BODY = 512, 64 << 10  # the defaults of ATTN_MAX_TITLE, ATTN_MAX_BODY
DEFAULT_EXPIRY, MIN_EXPIRY, MAX_EXPIRY = 24 * HOUR, 10 * SECOND, 30 * DAY

_DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)", re.ASCII)
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


class InvalidArguments(Exception):
    """Arguments that a tool refuses. The text names the argument, its limit, and what to send."""


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    if not is_valid_unicode(value):
        raise ValueError("must be valid Unicode without halves of surrogates")
    return value


def _body(value: str) -> str:
    if len(_text(value).encode()) > MAX_BODY:
        raise ValueError(f"{len(value.encode())} bytes; at most {MAX_BODY} are accepted")
    return value


def _handle(value: str) -> str:
    if subject_of(value) is None:
        raise ValueError("not a handle of this server: pass the text `handle` of an earlier result as it is")
    return value


_Title = Annotated[str, StringConstraints(max_length=MAX_TITLE), AfterValidator(_text)]
_Body = Annotated[str, AfterValidator(_body)]
_Name = Annotated[str, StringConstraints(max_length=128), AfterValidator(_text)]
_Label = Annotated[str, StringConstraints(max_length=256), AfterValidator(_text)]
_User = Annotated[str, StringConstraints(max_length=512), AfterValidator(_text)]
_Handle = Annotated[str, AfterValidator(_handle)]
_Wait = Annotated[float, Field(ge=0, le=MAX_WAIT, allow_inf_nan=False)]
_Priority = Literal["low", "normal", "high", "urgent"]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Who(_Arguments):
    """Who sees and answers: one user, everybody with one role, or either."""

    user: _User | None = Field(None, description="Id of one user.")
    role: Literal["OWNER", "ADMIN", "MANAGER", "MEMBER"] | None = Field(
        None, description="Everybody in the workspace with this role.")

    @model_validator(mode="after")
    def _someone(self) -> Self:
        if self.user is None and self.role is None:
            raise ValueError("needs user, role or both; leave `who` out to ask the whole workspace")
        return self


class OptionArgument(_Arguments):
    """One answer that a person may choose."""

    id: Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,128}$")] = Field(
        description="Comes back as `option` when a person chooses it. No white space.")
    title: _Label | None = Field(None, description="Text of the button. Default: the id.")
    does: Literal["approve", "reject", "choose", "respond", "acknowledge", "ignore", "retry"] = Field(
        "choose", description="Meaning of the answer. `reject` and `ignore` do not fill in the form.")
    style: Literal["primary", "danger", "plain"] = "plain"
    comment: Literal["no", "optional", "required"] = "optional"


class AskHuman(_Arguments):
    """Arguments of `ask_human`."""

    question: _Title | None = Field(
        None, description=f"The question, at most {MAX_TITLE} characters. Required unless `handle` is given.")
    context: _Body | None = Field(
        None, description="What the person needs to know to answer, as Markdown, at most 64 KiB.")
    options: Annotated[list[_Label | OptionArgument], Field(min_length=1, max_length=20)] | None = Field(
        None, description="1 to 20 answers to choose from: texts, or objects. Without options and form the person "
                          "writes a text.")
    form: dict[str, Any] | None = Field(
        None, description="What the person fills in: a flat JSON Schema object as in MCP elicitation, with properties "
                          "of type string (format, minLength, maxLength), number, integer, boolean, enum, or array of "
                          "enum. Never ask for passwords or other secrets.")
    priority: _Priority = "normal"
    who: Who | None = Field(None, description="Who is asked. Default: the whole workspace.")
    expires: str | None = Field(
        None, max_length=64, description="When the question ends unanswered: 30m, 2h, 7d, or an RFC 3339 time. "
                                         "Default 24h, at most 30d.")
    reference: _Name | None = Field(
        None, description="Your own id of this question. Calls with the same arguments are one question until its "
                          "answer was handed out; another reference makes another question.")
    wait_seconds: _Wait | None = Field(
        None, description="How long this call waits for the answer, 0 to 3600. Then it returns the status `waiting` "
                          "and the handle.")
    handle: _Handle | None = Field(None, description="Continues to wait for an earlier question; other arguments are "
                                                     "then ignored.")

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.question is None and self.handle is None:
            raise ValueError("question: required, unless handle is given")
        return self


class GetAnswer(_Arguments):
    """Arguments of `get_answer`."""

    handle: _Handle = Field(description="The `handle` that `ask_human` returned.")
    wait_seconds: _Wait | None = Field(
        None, description="How long this call waits for the answer, 0 to 3600; 0 only looks.")


class NotifyHuman(_Arguments):
    """Arguments of `notify_human`."""

    message: _Title = Field(description=f"One line, at most {MAX_TITLE} characters.")
    body: _Body | None = Field(None, description="Details as Markdown, at most 64 KiB.")
    priority: _Priority = "normal"
    who: Who | None = Field(None, description="Who sees it. Default: the whole workspace.")
    reference: _Name | None = Field(
        None, description="Your own id. The same notice within the hour counts once, unless the reference differs.")


class Withdraw(_Arguments):
    """Arguments of `withdraw`."""

    handle: _Handle = Field(description="The `handle` of a question or notice.")


class ListWaiting(_Arguments):
    """Arguments of `list_waiting`."""


def read_arguments(model: type[Model], given: dict[str, Any] | None) -> Model:
    """Returns the checked arguments. Raises InvalidArguments with each wrong argument by its path."""
    try:
        return model.model_validate(given or {})
    except ValidationError as error:
        raise InvalidArguments(explain(error)) from None


def explain(error: ValidationError, prefix: str = "") -> str:
    """Returns the problems of arguments as `PATH: PROBLEM; ...`, at most 500 characters."""
    problems = []
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in (prefix, *item["loc"]) if part != "")
        message = str(item["msg"]).removeprefix("Value error, ")
        problems.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(problems))[:500]


def expiry_of(text: str | None, now: int) -> int:
    """Returns when a question ends, in microseconds. Raises InvalidArguments if the text is neither a duration nor a
    time, or out of range."""
    if text is None:
        return now + DEFAULT_EXPIRY
    if match := _DURATION.fullmatch(text.strip()):
        at = now + int(match[1]) * _UNITS[match[2]]
    else:
        try:
            at = parse_timestamp(text.strip())
        except (ValueError, OverflowError):
            raise InvalidArguments(
                f"expires: {text[:64]!r} is neither a duration such as 30m, 2h or 7d nor an RFC 3339 time") from None
    if not MIN_EXPIRY <= at - now <= MAX_EXPIRY:
        raise InvalidArguments(f"expires: {text[:64]!r} is not between 10 s and 30 days from now")
    return at


def input_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the JSON Schema of a tool's arguments without `$ref`, which some clients do not resolve."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    inlined: dict[str, Any] = _inlined(schema, definitions)
    inlined.pop("title", None)
    inlined.pop("description", None)
    return inlined


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Returns the schema with its definitions in place, without nulls and generated titles."""
    if isinstance(value, list):
        return [_inlined(one, definitions) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        value = definitions[value["$ref"].rpartition("/")[2]] | {
            name: more for name, more in value.items() if name != "$ref"}
    branches = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(branches) == 1:  # an optional argument
        rest = {name: more for name, more in value.items() if name not in ("anyOf", "default")}
        return _inlined(branches[0] | rest, definitions)
    result: dict[str, Any] = {}
    for name, more in value.items():
        if name == "properties":
            result[name] = {one: _without_title(_inlined(schema, definitions)) for one, schema in more.items()}
        elif name == "anyOf":
            result[name] = [_without_title(_inlined(one, definitions)) for one in branches]
        elif not (name == "default" and more is None):
            result[name] = _inlined(more, definitions)
    return result


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "title"}
