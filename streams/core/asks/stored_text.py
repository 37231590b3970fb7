"""The text under which an ask is stored: the source's own, with the fields that attn knows and a sealed token."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from schemas.asking.ask import Ask, Reply

__all__ = ["to_stored_ask"]

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def to_stored_ask(raw: msgspec.Raw, sealed: str | None) -> msgspec.Raw:
    """Returns the JSON text of `schemas.log.Data.ask` for the text of a validated ask.

    The values keep the source's text, digits included; line ends between them become spaces. Fields of the ask or of
    its `reply` that attn does not know are left out, and of a repeated field all but the last. `sealed`: the text that
    replaces `reply.token`; None if the reply has none.
    """
    members = _known_members(raw, Ask.model_fields.keys())
    if "reply" in members:
        reply = _known_members(members["reply"], Reply.model_fields.keys())
        reply.pop("token", None)
        if sealed is not None:
            reply["token"] = msgspec.Raw(_encode(sealed))
        members["reply"] = msgspec.Raw(_encode(reply))
    return msgspec.Raw(_encode(members).replace(b"\n", b" ").replace(b"\r", b" "))


def _known_members(raw: msgspec.Raw, names: Collection[str]) -> dict[str, msgspec.Raw]:
    return {name: member for name, member in _decode_members(raw).items()
            if name in names and bytes(member) != b"null"}
