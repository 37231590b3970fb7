"""Keys of the settings: spellings of base64, the derived default, errors without the value, and the keys of each
process."""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
from base64 import b64encode, urlsafe_b64encode

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ops import config
from ops.cli import logging_setup
from ops.embedded import stack
from ops.errors import UserError
from ops.process.environment import cleaned
from schemas.settings import Settings
from streams.core.sealing import Sealer
from streams.runtime.keys import encode_key, receipt_key_list, receipt_keys, retired_receipt_keys, seal_keys

SECRET = "a secret of enough characters for HS256"
KEYS = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4)


def settings(**given: str | None) -> Settings:
    named = {name: SecretStr(value) for name, value in given.items() if value is not None}
    return Settings(_env_file=None, **named)  # type: ignore[arg-type, call-arg]


@given(KEYS, st.sampled_from([b64encode, urlsafe_b64encode]), st.booleans(), st.sampled_from([",", " , ", ",\n"]))
def test_keys_are_read_in_every_spelling_of_base64(keys: list[bytes], encode: object, padded: bool, comma: str) -> None:
    texts = [encode(key).decode() for key in keys]  # type: ignore[operator]
    text = comma.join(text if padded else text.rstrip("=") for text in texts)
    assert seal_keys(settings(seal_keys=text)) == keys
    assert receipt_keys(settings(receipt_keys=text, jwt_secret=SECRET)) == keys


def test_without_a_list_each_use_derives_a_key_of_its_own() -> None:
    derived = settings(jwt_secret=SECRET)
    assert seal_keys(derived) == [hmac.digest(SECRET.encode(), b"attn.seal-key.1", hashlib.sha256)]
    assert receipt_keys(derived) == [hmac.digest(SECRET.encode(), b"attn.receipt-key.1", hashlib.sha256)]
    assert Sealer(seal_keys(derived)).seal("t", ["ws"]).startswith("s1.")
    assert seal_keys(settings()) == receipt_keys(settings()) == []
    assert seal_keys(settings(seal_keys=" ", jwt_secret=SECRET)) == seal_keys(derived), (
        "an empty setting counts as unset")


@pytest.mark.parametrize("bad", [
    "short", ",", encode_key(bytes(31)), encode_key(bytes(33)), "é" * 43, "A" * 42 + " ", encode_key(bytes(32)) + "==",
    f"{encode_key(bytes(32))},", f"{encode_key(bytes(32))};{encode_key(bytes(32))}", "A" * 42 + "\u0661",
], ids=["short", "comma", "31", "33", "accents", "space", "padding", "last-comma", "semicolon", "digit"])
def test_an_invalid_key_is_named_by_its_setting_and_number_alone(bad: str, tmp_path: object) -> None:
    for name, read in (("seal_keys", seal_keys), ("receipt_keys", receipt_keys)):
        text = f"{encode_key(b'k' * 32)},{bad}"
        with pytest.raises(ValueError, match=f"^ATTN_{name.upper()}: key [23] is not 32 bytes in base64") as caught:
            read(settings(**{name: text}))
        assert all(part not in str(caught.value) for part in text.split(",") if part)
        with pytest.raises(UserError, match=f"ATTN_{name.upper()}: key [23]"):
            config.load_settings(data_dir=tmp_path, **{name: text})


def test_public_keys_are_listed_apart_and_seal_keys_have_none(tmp_path: object) -> None:
    seed, public = encode_key(b"s" * 32), encode_key(b"p" * 32)
    configured = settings(receipt_keys=f"{seed} , pub:{public}=,pub: {b64encode(b'q' * 32).decode()}")
    assert receipt_keys(configured) == [b"s" * 32]
    assert retired_receipt_keys(configured) == [b"p" * 32, b"q" * 32]
    passed = settings(receipt_keys=receipt_key_list(configured))
    assert (receipt_keys(passed), retired_receipt_keys(passed)) == (
        receipt_keys(configured), retired_receipt_keys(configured))
    assert stack._environment(configured)["ATTN_RECEIPT_KEYS"] == receipt_key_list(configured)
    assert receipt_key_list(settings()) == ""
    assert retired_receipt_keys(settings(jwt_secret=SECRET)) == []
    with pytest.raises(ValueError, match=r"^ATTN_SEAL_KEYS: key 2 is not 32 bytes"):
        seal_keys(settings(seal_keys=f"{seed},pub:{public}"))
    for bad in ("pub:", "pub:short", f"pub:pub:{public}", f"PUB:{public}"):
        with pytest.raises(UserError, match="ATTN_RECEIPT_KEYS: key 2"):
            config.load_settings(data_dir=tmp_path, receipt_keys=SecretStr(f"{seed},{bad}"))


def test_each_role_gets_the_keys_that_it_uses() -> None:
    given = dict.fromkeys(("ATTN_SEAL_KEYS", "attn_seal_keys", "ATTN_RECEIPT_KEYS", "ATTN_JWT_SECRET", "PATH"), "x")
    seal, receipt = {"ATTN_SEAL_KEYS", "attn_seal_keys"}, {"ATTN_RECEIPT_KEYS"}
    assert set(cleaned("worker", given)) == {"PATH"} | seal | receipt
    assert set(cleaned("edge", given)) == {"PATH", "ATTN_JWT_SECRET"} | receipt
    assert set(cleaned("deliver", given)) == {"PATH"}
    assert set(cleaned("history", given)) == set(cleaned("broker", given)) == {"PATH"}


def test_attn_up_passes_derived_keys_to_the_worker_which_has_no_secret() -> None:
    source = settings(jwt_secret=SECRET)
    env = cleaned("worker", {**stack._environment(source), "ATTN_JWT_SECRET": SECRET})
    worker = settings(seal_keys=env["ATTN_SEAL_KEYS"], receipt_keys=env["ATTN_RECEIPT_KEYS"])
    assert "ATTN_JWT_SECRET" not in env
    assert (seal_keys(worker), receipt_keys(worker)) == (seal_keys(source), receipt_keys(source))
    assert "ATTN_SEAL_KEYS" not in stack._environment(settings())


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("listed", [True, False])
def test_no_key_gets_into_a_log(log_format: str, listed: bool) -> None:
    first, other = bytes(range(224, 256)), b"\xfb" * 32
    texts = {"seal_keys": f"{b64encode(first).decode()}, {encode_key(other)}", "receipt_keys": encode_key(b"\xfa" * 32)}
    given = settings(**texts) if listed else settings(jwt_secret=SECRET)
    root, out = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    try:
        logging_setup.configure("worker", given.model_copy(update={"log_format": log_format}), out)
        forms = [form for key in (*seal_keys(given), *receipt_keys(given))
                 for form in (encode_key(key), b64encode(key).decode(), key.hex())]
        for form in forms:
            structlog.get_logger("attn.test").info(f"read {form} here", keys=form)
            logging.getLogger("other.library").warning("key %s", form)
        structlog.get_logger("attn.test").info("settings", seal_keys="x-y-z", receipt_keys=["p-q-r"])
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(False)
        structlog.reset_defaults()
    text = out.getvalue()
    assert forms
    assert not [form for form in (*forms, "x-y-z", "p-q-r") if form.rstrip("=") in text], text
