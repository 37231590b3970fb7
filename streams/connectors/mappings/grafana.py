"""Maps the webhook of Grafana Alerting to events of one item per alert or per group of alerts. Pure.

The payload is that of Alertmanager with more fields: `orgId`, and per alert `values`, `dashboardURL`, `panelURL`,
`silenceURL`. The options are those of Alertmanager; an item of Grafana asks only if `ask = true`, because attn has no
connector that brings an acknowledgement to Grafana.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from streams.connectors.mappings.alertmanager import AlertOptions, map_delivery
from streams.connectors.mappings.mapped import MAX_BODY, Mapped, clip, code_block, link_of, need_object

__all__ = ["GrafanaOptions", "events_of"]

_MAX_VALUES = 50


class GrafanaOptions(AlertOptions):
    """Options of a hook for Grafana."""

    ask: bool = Field(False, description="whether an item asks to acknowledge it")
    source: str = Field("/grafana", min_length=1, max_length=1000, description="`source` of the events")
    name: str = Field("Grafana", description="name of the sender that items show")


def events_of(payload: Any, options: GrafanaOptions = GrafanaOptions()) -> Mapped:  # noqa: B008 - frozen
    """Returns the events of a delivery. An alert that cannot be mapped is a problem, and the others have their events.

    Raises MappingError if the payload as a whole is no delivery.
    """
    body = need_object(payload, "")
    mapped = map_delivery(body, options)
    if options.per == "alert":
        for index, event in zip(mapped.indexes, mapped.events, strict=True):
            if "data" in event and "title" in event["data"]:
                _add_values(event["data"], body["alerts"][index])
    return mapped


def _add_values(data: dict[str, Any], alert: dict[str, Any]) -> None:
    """Adds what Grafana measured, and its link for a silence, to the body and the payload of an item."""
    given = alert.get("values")
    values = {clip(name, 100): value for name, value in list(given.items())[:_MAX_VALUES]
              if isinstance(value, int | float)} if isinstance(given, dict) else {}
    silence = link_of(alert.get("silenceURL"))
    if values:
        data["payload"]["values"] = values
        lines = "\n".join(f"{name} = {value}" for name, value in sorted(values.items()))
        data["body_md"] = clip(data["body_md"], MAX_BODY // 2) + "\n\n" + code_block(clip(lines, MAX_BODY // 2))
    if silence is not None:
        data["payload"]["silenceURL"] = silence
