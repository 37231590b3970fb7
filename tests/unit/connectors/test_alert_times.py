"""A delivery of Alertmanager and its API give one occurrence of an alert the same event id."""

from __future__ import annotations

import pytest

from streams.connectors.mappings.alertmanager import event_of_alert

# (time in a delivery, time in GET /api/v2/alerts) of one alert, as Alertmanager 0.35 returned them.
PAIRS = [
    ("2026-11-30T16:39:48.004549482Z", "2026-11-30T16:39:48.004Z"),
    ("2026-11-30T16:40:00.123999999Z", "2026-11-30T16:40:00.123Z"),
    ("2026-11-30T16:40:00Z", "2026-11-30T16:40:00.000Z"),
    ("2026-11-30T18:40:00.9999+02:00", "2026-11-30T16:40:00.999Z"),
]


@pytest.mark.parametrize(("pushed", "read"), PAIRS, ids=[read for _, read in PAIRS])
def test_a_delivery_and_the_api_name_an_occurrence_alike(pushed: str, read: str) -> None:
    alert = {"labels": {"alertname": "X"}, "fingerprint": "4a909fe0d56183dc", "annotations": {}, "generatorURL": ""}
    hook = event_of_alert(alert | {"status": "firing", "startsAt": pushed, "endsAt": "0001-01-01T00:00:00Z"})
    sweep = event_of_alert(alert | {"status": {"state": "active"}, "startsAt": read, "endsAt": "2026-11-30T16:44:48Z"})
    assert (hook["id"], hook["time"], hook["data"]["ask"]) == (sweep["id"], sweep["time"], sweep["data"]["ask"])
    ended = "2026-11-30T17:00:00Z"
    closes = [event_of_alert(alert | {"status": "resolved", "startsAt": at, "endsAt": ended}) for at in (pushed, read)]
    assert closes[0] == closes[1]
