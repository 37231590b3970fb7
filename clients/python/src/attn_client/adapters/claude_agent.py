"""Claude Agent SDK: people answer permission prompts and questions of Claude in attn.

While the process waits, as the SDK's permission callback:

    options = ClaudeAgentOptions(can_use_tool=can_use_tool(attn, "nightly-17"), ...)

Without a process that waits, as a hook that defers the call:

    deferral = Deferral(attn, "nightly-17")
    options = ClaudeAgentOptions(
        hooks={"PreToolUse": [HookMatcher(matcher="Bash", hooks=[deferral.hook])]},
        can_use_tool=deferral.can_use_tool, ...)
    # The run ends with `deferred_tool_use`: `await deferral.wait(deferred_tool_use)`, then resume the session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from attn_client.adapters.tool_calls import tool_question
from attn_client.client import AsyncAttn
from attn_client.questions import Answer, Option, Question

__all__ = ["Deferral", "can_use_tool"]

_ASKS = "AskUserQuestion"  # Claude's tool that asks the user: its answers go into its input
_DENIED = "A person denied this tool call. Do not retry it unless the user asks for it."


def can_use_tool(
    attn: AsyncAttn, name: str, *, editable: bool = True, fields: Mapping[str, Any] | None = None,
) -> Callable[[str, dict[str, Any], Any], Awaitable[Any]]:
    """Returns a permission callback. It waits until a person allows, edits or denies the call.

    `name`: the run; together with the id of the tool call it is the subject of the question. `editable`: whether people
    may change the input. `fields`: further fields of each `Question`, such as `to_role` or `expires`. A question that
    expires or is withdrawn denies the call.
    """
    from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

    from attn_client.errors import NoAnswer

    async def callback(tool: str, input: dict[str, Any], context: Any) -> Any:
        question = _question(
            tool, input, f"{name}/{context.tool_use_id}", editable, context.title, context.description,
            context.decision_reason)
        try:
            answer = await attn.ask(replace(question, **(fields or {})))
        except NoAnswer as error:
            return PermissionResultDeny(message=f"Nobody allowed this tool call: {error}.")
        allowed = _allowed_input(tool, input, answer)
        if allowed is None:
            return PermissionResultDeny(message=answer.comment or _DENIED)
        return PermissionResultAllow(updated_input=allowed)

    return callback


class Deferral:
    """A `PreToolUse` hook that asks in attn, and defers the call until it is answered.

    The hook does not wait. Without an answer it returns `defer`: the run ends, with `deferred_tool_use` in its result.
    When the session is resumed, Claude Code either calls the hook again for the same call, or asks its permission
    callback. Give it both, so that the call runs in either case.
    """

    def __init__(
        self, attn: AsyncAttn, name: str, *, editable: bool = True, fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._attn, self._name, self._editable, self._fields = attn, name, editable, dict(fields or {})

    def _question(self, tool: str, input: dict[str, Any], call: str) -> Question:
        return replace(_question(tool, input, f"{self._name}/{call}", self._editable), **self._fields)

    async def hook(self, input: Any, tool_use_id: str | None, context: Any) -> dict[str, Any]:
        """The callback of a `HookMatcher` of `PreToolUse`."""
        given = input["tool_input"]
        decided = await self._decide(input["tool_name"], given, tool_use_id or input.get("tool_use_id") or "")
        if decided is None:
            return _hook_output("defer")
        allowed, reason = decided
        if allowed is None:
            return _hook_output("deny", reason)
        return _hook_output("allow", reason, allowed if allowed != given else None)

    async def can_use_tool(self, tool: str, input: dict[str, Any], context: Any) -> Any:
        """The permission callback (`ClaudeAgentOptions.can_use_tool`). It does not wait: a call without an answer is
        denied, and the session can be resumed when there is one."""
        from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

        decided = await self._decide(tool, input, context.tool_use_id)
        if decided is None:
            return PermissionResultDeny(message="Nobody has answered yet. Do not retry this tool call.", interrupt=True)
        allowed, reason = decided
        return PermissionResultDeny(message=reason) if allowed is None else PermissionResultAllow(updated_input=allowed)

    async def _decide(self, tool: str, given: dict[str, Any], call: str) -> tuple[dict[str, Any] | None, str] | None:
        """Returns the input with which the call may run (None: denied) and the reason. Returns None without an answer,
        after the question was sent. May be called several times for one call: an answer counts once."""
        from attn_client.errors import NoAnswer

        try:
            answer = await self._attn.submit(self._question(tool, given, call))
        except NoAnswer as error:
            return None, f"Nobody allowed this tool call: {error}."
        if answer is None:
            return None
        allowed = _allowed_input(tool, given, answer)
        await self._attn.applied(answer)
        if allowed is None:
            return None, answer.comment or _DENIED
        return allowed, f"allowed by {answer.by or 'attn'}"

    async def wait(self, deferred: Any, timeout: float | None = None) -> Answer:
        """Waits for the answer of a deferred call (`ResultMessage.deferred_tool_use`), in any process. The session
        can be resumed then. Raises as `AsyncAttn.ask` does."""
        return await self._attn.ask(
            self._question(deferred.name, deferred.input, deferred.id), confirm=False, timeout=timeout)


def _hook_output(decision: str, reason: str | None = None, updated: dict[str, Any] | None = None) -> dict[str, Any]:
    specific: dict[str, Any] = {"hookEventName": "PreToolUse", "permissionDecision": decision}
    if reason is not None:
        specific["permissionDecisionReason"] = reason
    if updated is not None:
        specific["updatedInput"] = updated
    return {"hookSpecificOutput": specific}


def _question(
    tool: str, input: dict[str, Any], subject: str, editable: bool, title: str | None = None,
    description: str | None = None, reason: str | None = None,
) -> Question:
    body = "\n\n".join(one for one in (description, reason) if one) or None
    if tool == _ASKS and (form := _form(input)) is not None:
        asked = input["questions"]
        named = asked[0]["question"] if len(asked) == 1 else f"Claude has {len(asked)} questions"
        options = [Option("answer", "respond", style="primary"), Option("deny", "reject", comment="optional")]
        return Question(named[:512], body, options, form=form, subject=subject)
    allowed = ("approve", "edit", "reject") if editable else ("approve", "reject")
    return tool_question(tool, input, allowed, subject, title, body)


def _form(input: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the form of Claude's questions, `q1`, `q2`, ...; None if their shape is unknown."""
    fields: dict[str, Any] = {}
    try:
        for number, one in enumerate(input["questions"], 1):
            choices = [{"const": option["label"], "title": _choice_title(option)} for option in one["options"]]
            shown = {"title": one["question"][:256]}
            fields[f"q{number}"] = (
                {"type": "array", **shown, "items": {"anyOf": choices}, "minItems": 1} if one.get("multiSelect")
                else {"type": "string", **shown, "oneOf": choices})
    except (KeyError, TypeError):
        return None
    return {"type": "object", "properties": fields, "required": list(fields)} if fields else None


def _choice_title(option: Mapping[str, Any]) -> str:
    described = f"{option['label']}: {option['description']}" if option.get("description") else option["label"]
    return str(described)[:256]


def _allowed_input(tool: str, input: dict[str, Any], answer: Answer) -> dict[str, Any] | None:
    """Returns the input with which the tool may run; None if the call is denied."""
    if tool == _ASKS and answer.does == "respond":
        answers = {}
        for number, one in enumerate(input["questions"], 1):
            value = answer.form.get(f"q{number}")
            answers[one["question"]] = ", ".join(value) if isinstance(value, list) else value
        return {**input, "answers": answers}
    if not answer.approved:
        return None
    return dict(answer.args) if answer.args is not None else input
