"""The file ATTN_ENDPOINTS: accepted fields, refusals with their error, and errors without secrets."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.endpoints import EndpointsError, EndpointsFile, load_endpoints, parse_endpoints

RAW = bytes(range(32))
HMAC = "whsec_" + base64.b64encode(RAW).decode()
SEED = "whsk_" + base64.b64encode(RAW).decode()
PUBLIC = Ed25519PrivateKey.from_private_bytes(RAW).public_key().public_bytes_raw()
PAIR = "whsk_" + base64.b64encode(RAW + PUBLIC).decode()


def entry(**fields: str) -> str:
    given = {"name": '"pay"', "url": '"https://pay.example.com/attn"', "secrets": f'["{HMAC}"]'} | fields
    return "[[endpoint]]\n" + "".join(f"{name} = {value}\n" for name, value in given.items() if value)


def test_all_fields() -> None:
    text = entry(secrets=f'["{HMAC}", "{SEED}", "{PAIR}"]', headers='{ Authorization = "Bearer x y" }', timeout="2.5",
                 allow_private="true", workspaces='["ws_01"]') + entry(name='"b"', timeout="3")
    endpoints = parse_endpoints(text)
    first = endpoints["pay"]
    assert first.hmac_keys == (RAW,)
    assert [key.private_bytes_raw() for key in first.ed25519_keys] == [RAW, RAW]
    assert first.headers == (("Authorization", "Bearer x y"),)
    assert (first.timeout, first.allow_private, first.workspaces) == (2.5, True, frozenset({"ws_01"}))
    assert (endpoints["b"].timeout, endpoints["b"].allow_private, endpoints["b"].workspaces) == (3.0, False, None)
    assert first.host == "pay.example.com"


def test_an_endpoint_of_one_tenant_is_unknown_to_others() -> None:
    endpoints = parse_endpoints(entry(workspaces='["ws_01"]') + entry(name='"all"'))
    assert endpoints.find("pay", "ws_01") is not None
    assert endpoints.find("pay", "ws_02") is None
    assert endpoints.find("all", "ws_02") is not None
    assert endpoints.find("none", "ws_01") is None


def test_the_plural_reads_as_well() -> None:
    assert list(parse_endpoints(entry().replace("[[endpoint]]", "[[endpoints]]"))) == ["pay"]
    with pytest.raises(EndpointsError, match='endpoint 1 "pay", field url'):
        parse_endpoints(entry(url='"x"').replace("[[endpoint]]", "[[endpoints]]"))
    with pytest.raises(EndpointsError, match="key endpoints"):
        parse_endpoints(entry() + entry(name='"b"').replace("[[endpoint]]", "[[endpoints]]"))


def test_an_empty_file_has_no_endpoints() -> None:
    assert len(parse_endpoints("")) == 0


@pytest.mark.parametrize("url", [
    "ftp://a.example/", "//a.example/", "https://", "https:///x", "https://u:p@a.example/", "https://u@a.example/",
    "https://a.example/#x", "https://a.example/a b", "https://a.example:0/", "https://a.example:70000/",
    "https://a.example:x/", "https://%61.example/", "http://%31%32%37.0.0.1/", "http://[fe80::1%25eth0]/",
    "https://a.example\\\\@b.example/",
    "https://[::1/", "https://münchen.example/", "file:///etc/passwd", "", "a.example",
    "https://a.example/" + "x" * 2048, "https://a.example/\\u0000", "https://a.example/\\n",
])
def test_refused_urls(url: str) -> None:
    with pytest.raises(EndpointsError, match='endpoint 1 "pay", field url'):
        parse_endpoints(entry(url=f'"{url}"'))


@pytest.mark.parametrize(("fields", "text"), [
    ({"name": ""}, "endpoint 1, field name: Field required"),
    ({"name": '"a b"'}, 'endpoint 1 "a b", field name'),
    ({"secrets": "[]"}, "field secrets"),
    ({"secrets": '["hello"]'}, 'endpoint 1 "pay", secret 1: must begin with whsec_'),
    ({"secrets": f'["{HMAC}", "whsec_###"]'}, 'endpoint 1 "pay", secret 2: is not base64'),
    ({"secrets": '["whsec_c2hvcnQ="]'}, "has 5 bytes; an HMAC secret has 16 to 64"),
    ({"secrets": '["whsk_c2hvcnQ="]'}, "has 5 bytes; an ed25519 key has 32"),
    ({"secrets": f'["whsk_{base64.b64encode(RAW + RAW).decode()}"]'}, "does not belong to the private key"),
    ({"timeout": "0"}, "field timeout"), ({"timeout": "61"}, "field timeout"), ({"timeout": "nan"}, "field timeout"),
    ({"timeout": '"5"'}, "field timeout"), ({"allow_private": '"yes"'}, "field allow_private"),
    ({"workspaces": "[]"}, "field workspaces"), ({"colour": "1"}, "field colour: Extra inputs"),
    ({"headers": '{ Host = "x" }'}, "must not set host"), ({"headers": '{ "Webhook-Id" = "x" }'}, "webhook-id"),
    ({"headers": '{ "a b" = "x" }'}, "no HTTP header name"), ({"headers": '{ a = "x", A = "y" }'}, "each header once"),
    ({"headers": '{ a = "x\\r\\nHost: y" }'}, "printable ASCII"), ({"headers": '{ a = "" }'}, "printable ASCII"),
])
def test_refused_fields(fields: dict[str, str], text: str) -> None:
    with pytest.raises(EndpointsError) as caught:
        parse_endpoints(entry(**fields))
    assert text in str(caught.value)


def test_names_are_unique() -> None:
    with pytest.raises(EndpointsError, match='endpoint 2 "pay": another endpoint has this name'):
        parse_endpoints(entry() + entry())


SECRET = "c2VjcmV0LXZhbHVlLXRoYXQtbm9ib2R5LW1heS1zZWU"


@pytest.mark.parametrize("text", [
    entry(secrets=f'["{SECRET}"]'), entry(secrets=f'["whsec_{SECRET}!"]'), entry(secrets=f'"whsec_{SECRET}"'),
    entry(secrets=f'["whsk_{SECRET}AAAA"]'), entry(secrets=f'["whsec_{SECRET}", 5]'),
    entry(headers=f'{{ Authorization = "{SECRET}\\n" }}'), entry(headers=f'"{SECRET}"'),
    entry(headers=f'{{ Host = "{SECRET}" }}'), entry(secrets=f'["whsec_{SECRET}'),
    entry(secrets=f'["whsec_{SECRET}"] x'), f'"whsec_{SECRET}" = 1', entry() + f"whsec_{SECRET} = 1\n",
    f'endpoint = "{SECRET}"', f"endpoint = [\"{SECRET}\"]", entry(url=f'"https://u:{SECRET}@a.example/"'),
])
def test_errors_show_no_secret(text: str, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(text)
    with pytest.raises(EndpointsError) as caught:
        load_endpoints(path)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_repr_shows_no_secret() -> None:
    endpoint = parse_endpoints(entry(secrets=f'["{HMAC}", "{SEED}"]', headers=f'{{ a = "{SECRET}" }}'))["pay"]
    assert HMAC[6:20] not in repr(endpoint)
    assert repr(RAW)[2:20] not in repr(endpoint)
    assert SECRET not in repr(endpoint)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(EndpointsError):
        parse_endpoints(text)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(EndpointsError, match="cannot read"):
        load_endpoints(tmp_path / "none.toml")
    with pytest.raises(EndpointsError, match="cannot read"):
        load_endpoints(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(EndpointsError, match="not UTF-8"):
        load_endpoints(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(EndpointsError, match="more than 1048576 bytes"):
        load_endpoints(tmp_path / "large.toml")


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "endpoints.toml", [0.0]

    def replace(text: str) -> None:
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", path)
        now[0] += 10.0

    replace(entry())
    file = EndpointsFile(path, lambda: now[0])
    assert list(file.current()) == ["pay"]
    replace(entry() + entry(name='"b"'))
    assert list(file.current()) == ["pay", "b"]
    replace(entry(url='"ftp://x/"'))
    assert list(file.current()) == ["pay", "b"]
    assert file.problem is not None
    assert "field url" in file.problem
    path.unlink()
    now[0] += 10.0
    assert list(file.current()) == ["pay", "b"]
    replace(entry(name='"c"'))
    assert list(file.current()) == ["c"]
    assert file.problem is None


def test_without_a_file_there_are_no_endpoints() -> None:
    assert len(EndpointsFile(None).current()) == 0
