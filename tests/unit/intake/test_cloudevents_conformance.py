"""Samples of CloudEvents' conformance project (tests/data/cloudevents), and the examples of its HTTP binding.

attn does not support the samples' event types, so the tests stop at the binding: attributes and data as a worker reads
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from api.intake.acceptance import EventRefused, Gate
from api.intake.http_binding import SentEvent, binary_event, mode_of, split_batch
from streams.core.normalise import EventLimits

DATA = next(path for path in Path(__file__).parents if path.name == "tests") / "data" / "cloudevents"


class Scenario(NamedTuple):
    """One scenario with one of its examples: headers and body of the request, attributes, and data."""

    headers: dict[str, str]
    body: str
    attributes: dict[str, str]
    data: Any


def scenarios() -> Iterator[Scenario]:
    text = (DATA / "http-protocol-binding.feature").read_text()
    for part in text.split("Scenario Outline:")[1:]:
        request, data = (re.sub(r"^ {8}", "", block, flags=re.MULTILINE).strip()
                         for block in re.findall(r'"""\n(.*?)"""', part, re.DOTALL))
        table, examples = part.split("Examples:")
        rows = dict(re.findall(r"^ *\| +(\S+) +\| +(.*?) +\|$", table, re.MULTILINE))
        del rows["key"]
        types = [line.strip(" |") for line in examples.strip().splitlines()[1:]]
        for content_type in types:
            head, _, body = request.replace("<contentType>", content_type).partition("\n\n")
            headers = dict(Parser().parsestr(head.partition("\n")[2]))
            yield Scenario({name.lower(): value for name, value in headers.items()}, body, {
                name: value.replace("<contentType>", content_type) for name, value in rows.items()}, json.loads(data))


SCENARIOS = list(scenarios())


def read(headers: dict[str, str], body: bytes) -> tuple[dict[str, Any], Any]:
    """Returns attributes and data of a request's event, as a worker reads them from the source record."""
    mode = mode_of(headers.get("content-type", ""), "ce-specversion" in headers)
    if mode == "structured":
        envelope = json.loads(body)
        return {name: value for name, value in envelope.items() if name != "data"}, envelope["data"]
    event = binary_event([(name.encode(), value.encode()) for name, value in headers.items()], body)
    named = {name.removeprefix("ce_"): value.decode() for name, value in event.headers}
    named["datacontenttype"] = named.pop("content-type")
    return named, event.value


def test_all_scenarios_are_read() -> None:
    assert len(SCENARIOS) == 4
    assert {mode_of(scenario.headers["content-type"], "ce-id" in scenario.headers) for scenario in SCENARIOS} == {
        "binary", "structured"}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=range(4))
def test_scenario(scenario: Scenario) -> None:
    attributes, data = read(scenario.headers, scenario.body.encode())
    assert attributes == scenario.attributes
    assert (json.loads(data) if isinstance(data, bytes) else data) == scenario.data


def samples() -> list[dict[str, Any]]:
    documents = []
    for name in ("v1_minimum.yaml", "v1.yaml"):
        documents += [document for document in yaml.load_all((DATA / name).read_text(), yaml.BaseLoader) if document]
    return documents


def encode(text: str) -> str:
    """Percent-encodes a header value by the binding's rule, byte by byte: space, quote, percent, and all but U+0021 to
    U+007E."""
    return "".join(
        char if "!" <= char <= "~" and char not in '"%' else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in text)


@pytest.mark.parametrize("sample", samples(), ids=lambda doc: doc["ContextAttributes"]["id"] + doc.get("Mode", ""))
def test_sample(sample: dict[str, Any]) -> None:
    attributes = dict(sample["ContextAttributes"])
    extensions = attributes.pop("Extensions", {})
    content_type = attributes.pop("datacontenttype", "application/json")
    attributes |= extensions
    headers = {f"ce-{name}": encode(value) for name, value in attributes.items()} | {"content-type": content_type}
    data = sample["Data"].encode()
    assert read(headers, data) == (attributes | {"datacontenttype": content_type}, data)


def test_all_samples_are_read() -> None:
    assert len(samples()) == 8


@pytest.mark.parametrize("sample", samples(), ids=lambda doc: doc["ContextAttributes"]["id"] + doc.get("Mode", ""))
@pytest.mark.parametrize("binary", [True, False])
def test_attn_understands_the_envelope_and_refuses_the_type(sample: dict[str, Any], binary: bool) -> None:
    """A structured sample, and a binary one with JSON data, are refused for their type, not for their form."""
    attributes = dict(sample["ContextAttributes"])
    attributes |= attributes.pop("Extensions", {})
    media = attributes.pop("datacontenttype", "application/json")
    if binary:
        headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
        event = SentEvent(sample["Data"].encode(), headers)
    else:
        event = SentEvent(json.dumps(attributes | {"datacontenttype": media, "data": sample["Data"]}).encode(), [])
    with pytest.raises(EventRefused) as refused:
        Gate("ws", None, EventLimits(), None).accept(event, binary)
    is_json = media.startswith("application/json") or not binary
    assert str(refused.value).startswith("type: " if is_json else "not JSON")
    assert refused.value.status == 400


def test_the_example_of_percent_encoding() -> None:
    assert encode("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    for value in (
        "Euro%20%E2%82%AC%20%F0%9F%98%80", "%45uro%20%e2%82%ac%20%f0%9f%98%80", '"Euro %E2%82%AC %F0%9F%98%80"',
    ):
        assert read({"ce-specversion": "1.0", "ce-x": value, "content-type": "text/plain"}, b"")[0]["x"] == "Euro € 😀"


def test_the_examples_of_the_batch_format() -> None:
    """Two events and none, as the JSON format shows them (section 4.2)."""
    first = b'{"specversion" : "1.0", "id" : "B234-1234-1234", "data_base64" : "... base64 encoded string ..."}'
    second = b'{"specversion" : "1.0", "id" : "C234-1234-1234", "data" : {"appinfoA" : "abc", "appinfoC" : true}}'
    assert split_batch(b"[\n  " + first + b",\n  " + second + b"\n]", 10) == [first, second]
    assert split_batch(b"[]", 10) == []
