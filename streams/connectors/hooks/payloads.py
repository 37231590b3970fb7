"""Maps the body of a webhook to events: finds the payload in the body and calls the mapping of the hook.

The edge and `attn hooks try` share it, so a payload that was tried is mapped in the same way when it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from streams.connectors.hooks.hooks_file import Hook
from streams.connectors.mappings import alertmanager, github, grafana
from streams.connectors.mappings.alertmanager import AlertOptions
from streams.connectors.mappings.github import GithubOptions
from streams.connectors.mappings.grafana import GrafanaOptions
from streams.connectors.mappings.mapped import Mapped, MappingError
from streams.core.json_text import read_json

__all__ = ["GITHUB_EVENT", "KEPT_HEADERS", "NotJson", "map_payload"]

GITHUB_EVENT = "x-github-event"
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 20  # of a form
# Headers that a generic mapping must not read, because they authenticate the sender.
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-csrf-token"})
# Headers that a dead letter keeps: those that say what the body is.
KEPT_HEADERS = ("content-type", GITHUB_EVENT, "x-github-delivery", "x-gitlab-event", "user-agent")


class NotJson(MappingError):
    """The body is no JSON text."""

    def __init__(self, reason: str) -> None:
        super().__init__("", f"not JSON: {reason}")


def map_payload(hook: Hook, body: bytes, headers: Mapping[str, str], received: int) -> Mapped:
    """Returns the events of a request. `headers`: lower-case names. `received`: microseconds.

    Raises MappingError with the field that is missing or wrong if the payload as a whole cannot be mapped.
    """
    payload = _payload(body, headers.get("content-type", ""))
    options = hook.options
    if isinstance(options, GrafanaOptions):
        return grafana.events_of(payload, options)
    if isinstance(options, AlertOptions):
        return alertmanager.events_of(payload, options)
    if isinstance(options, GithubOptions):
        event = headers.get(GITHUB_EVENT, "").strip()
        if not event:
            raise MappingError("header X-GitHub-Event", "is missing")
        return github.events_of(event, payload, options)
    from streams.connectors.mappings import generic  # imports JMESPath, which other hooks do not need

    shown = {name: value for name, value in headers.items()
             if name not in _SECRET and name != hook.signature_header}
    return generic.events_of(payload, options, shown, received)


def _payload(body: bytes, content_type: str) -> Any:
    """Returns the JSON value of a body; of a form, as GitHub sends it by default, that of its field `payload`.

    JSON with the media type of a form is read as JSON: `curl -d` sends it so.
    """
    is_form = content_type.partition(";")[0].strip().lower() == _FORM
    if is_form and not body.lstrip().startswith((b"{", b"[", b"\xef\xbb\xbf")):
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=_MAX_FIELDS, strict_parsing=True)
        except ValueError:
            raise NotJson("the body is no form with a field payload") from None
        if len(fields.get("payload", ())) != 1:
            raise NotJson("the form must have one field payload")
        body = fields["payload"][0].encode(errors="replace")
    try:
        return read_json(body)[1]
    except ValueError as error:
        raise NotJson(str(error)) from None
