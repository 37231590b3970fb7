"""Encodes the records of the topic `decisions`: opens the reply token, signs for the endpoint that the ask names."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from schemas.asking.decision_event import DecisionEvent, ReplyTo, encode_decision
from schemas.scalars import SECOND, parse_timestamp
from schemas.settings import Settings
from streams.core.sealing import Sealer, SealError
from streams.delivery.endpoints import EndpointsFile
from streams.delivery.signing import signature_headers, webhook_id
from streams.kafka.producer import Headers
from streams.runtime.keys import seal_keys

__all__ = ["DecisionEncoder"]

log = logging.getLogger(__name__)

_CONTENT_TYPE = ("content-type", b"application/cloudevents+json; charset=UTF-8")


class DecisionEncoder:
    """Opens tokens with ATTN_SEAL_KEYS, signs with the keys of ATTN_ENDPOINTS.

    The same event gives the same bytes and headers: a record that is written again after a crash is a true repeat.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError if a key is invalid, EndpointsError if the file of endpoints is."""
        keys = seal_keys(settings)
        self._sealer = Sealer(keys) if keys else None
        self._endpoints = EndpointsFile(settings.endpoints)

    def encode(self, events: Sequence[DecisionEvent]) -> list[tuple[bytes, bytes | None, Headers]]:
        """Returns key, value and headers of each record."""
        return [self._encode(event) for event in events]

    def _encode(self, event: DecisionEvent) -> tuple[bytes, bytes, Headers]:
        event = replace(event, data=replace(event.data, reply=self._opened(event)))
        value = encode_decision(event)
        headers = [_CONTENT_TYPE]
        to = event.data.reply.to if event.data.reply is not None else None
        endpoint = self._endpoints.current().find(to, event.workspaceid) if to is not None else None
        if endpoint is not None:
            message = webhook_id(event.data.decision, event.type.removeprefix("decision."))
            signed = signature_headers(endpoint, message, parse_timestamp(event.data.decided_at) // SECOND, value)
            headers += [(name, text.encode()) for name, text in signed.items()]
        return event.workspaceid.encode(), value, headers

    def _opened(self, event: DecisionEvent) -> ReplyTo | None:
        """Returns the reply with its token in the clear. A token that no key opens is left out, and `error` says so:
        the other decisions of the partition must not wait for an operator."""
        reply = event.data.reply
        if reply is None or reply.token is None:
            return reply
        try:
            if self._sealer is None:
                raise SealError("ATTN_SEAL_KEYS lists no key, and there is no ATTN_JWT_SECRET to derive one from")
            question = [event.workspaceid, event.data.source, event.subject, event.data.question.id]
            return ReplyTo(reply.to, self._sealer.open(reply.token, question))
        except SealError as error:
            log.error("decision %s of workspace %s goes out without its reply token: %s",
                      event.data.decision, event.workspaceid, error)
            return ReplyTo(reply.to, None, str(error))
