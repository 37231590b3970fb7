"""Request bodies of the decision routes. `form` and `args` are read again from the bytes of the body
(`api.http.decisions.answers`), because a parsed number may have lost digits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from api.contract.requests import MAX_IDS, distinct_ids

__all__ = ["AliasAnswer", "Answer", "ManyAnswers"]

_MAX_OPTION, _MAX_DIGEST = 128, 128
_MAX_REVISION = 2**53 - 1
_MAX_VIEWED = 30 * 86400.0  # seconds

_Option = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_OPTION)]
_Digest = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_DIGEST)]
# The routes answer 422 with `fields` if the value is no object.
_Object = Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": True})]
_Revision = Annotated[int, Field(ge=0, le=_MAX_REVISION)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


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
    ids: Annotated[list[str], BeforeValidator(distinct_ids), Field(
        default=[], validate_default=True, max_length=MAX_IDS)]
    option: _Option
    comment: str | None = None
    revisions: Annotated[dict[str, _Revision], Field(max_length=MAX_IDS)] = Field(default={}, description=(
        "item id -> its `revision` as the client saw it; an item with another one is not answered. Without an entry: "
        "the revision that this edge shows"))
