"""`attn receipt`, and the verifier program of docs/receipts.md, run unchanged from the page."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.edge.decisions import asking_item, decided
from support.processes.cli import attn_here

from api.contract.asking.receipts import receipt_payload
from streams.core.receipts import ReceiptSigner, public_key

ROOT = Path(__file__).parents[3]
SEED, OTHER = b"s" * 32, b"o" * 32
SIGNER = ReceiptSigner([SEED])
[VERIFIER] = re.findall(r"^```python\n(.+?)^```", (ROOT / "docs/receipts.md").read_text(), re.M | re.S)


def payload(**more: Any) -> bytes:
    item = asking_item()
    row = decided(item, ("ann", "bob"))
    return receipt_payload(row, item if more.pop("has_item", True) else None, "attn", 8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "keys.json").write_bytes(SIGNER.jwks)
    (tmp_path / "receipt.json").write_bytes(SIGNER.sign(payload()))
    return tmp_path


@contextmanager
def served(body: bytes, status: int = 200, **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/.well-known/attn-decision-keys.json"
        finally:
            server.shutdown()
            thread.join()


def test_a_receipt_is_verified_with_a_file_a_url_and_the_settings(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(SIGNER.jwks) as url:
        outputs = []
        for keys in (["--keys", "keys.json"], ["--keys", url], []):
            monkeypatch.setenv("ATTN_RECEIPT_KEYS", urlsafe_b64encode(SEED).decode() if not keys else "")
            assert attn_here("receipt", "verify", "receipt.json", *keys) == 0
            outputs.append(capsys.readouterr().out)
    assert len(set(outputs)) == 1
    lines = outputs[0].splitlines()
    assert f"verified: the signature, by key {next(iter(SIGNER.keys))}" in lines
    assert sum(line.startswith("verified: the digest") for line in lines) == 1
    assert any(line.startswith("not verified: that the source applied the decision") for line in lines)
    assert '  "bob" (OWNER) at 2026-05-20T12:01:00Z: "approve"' in lines


def test_a_receipt_without_the_question_says_that_only_the_digest_is_known(
    here: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "receipt.json").write_bytes(SIGNER.sign(payload(has_item=False)))
    assert attn_here("receipt", "verify", "receipt.json", "--keys", "keys.json") == 0
    out = capsys.readouterr().out
    assert "not verified: the question itself, of which the receipt has only the digest" in out
    assert "verified: the digest" not in out


def test_json_output_has_the_payload_with_all_digits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("receipt", "verify", "receipt.json", "--keys", "keys.json", "--json") == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert (result["valid"], result["question_verified"], result["payload"]) == (True, True, json.loads(payload()))
    assert '"n":12345678901234567890' in out
    (here / "receipt.json").write_bytes(b"{}")
    assert attn_here("receipt", "verify", "receipt.json", "--keys", "keys.json", "--json") == 1
    assert json.loads(capsys.readouterr().out)["valid"] is False


def changed_question() -> bytes:
    stated = json.loads(payload())
    stated["question"]["shown"]["title"] = "Deploy to staging?"
    return SIGNER.sign(json.dumps(stated).encode())


@pytest.mark.parametrize(("receipt", "code", "reason"), [
    (SIGNER.sign(payload())[:-30] + b'"}]}', 1, "not verified: the "),
    (ReceiptSigner([OTHER]).sign(payload()), 3, "not among the 1 given keys"),
    (b"\x00", 1, "is no receipt of attn"),
    (changed_question(), 1, "the digest is not that of the question in the receipt"),
    (SIGNER.sign(b"{}"), 1, "the signature is valid, but the payload has an unknown form"),
    (SIGNER.sign(b'{"type":"attn.decision-receipt","v":2}'), 1, "only version 1 is supported"),
    (SIGNER.sign(b'{"type":"attn.decision-receipt","v":1}'), 1, "the payload lacks actors, decision, fence"),
    (SIGNER.sign(b"[" * 100_000), 1, "unknown form"),
    (b" " * (5 << 20), 2, "has more than 4194304 bytes"),
])
def test_the_exit_code_names_the_failed_check(
    here: Path, capsys: pytest.CaptureFixture[str], receipt: bytes, code: int, reason: str,
) -> None:
    (here / "receipt.json").write_bytes(receipt)
    assert attn_here("receipt", "verify", "receipt.json", "--keys", "keys.json") == code
    printed = capsys.readouterr()
    assert reason in printed.err
    assert "verified: the signature" not in printed.out


def test_keys_that_cannot_be_read_are_wrong_usage(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "none.json").write_text('{"keys":[]}')
    (here / "wrong.json").write_text("no json")
    with served(b"", 302, location="http://127.0.0.1:1/") as moved, served(b"x" * (5 << 20)) as large:
        for source in ("missing.json", "none.json", "wrong.json", str(here), moved, large, "http://127.0.0.1:1/",
                      "http://[", "a\0b"):
            assert attn_here("receipt", "verify", "receipt.json", "--keys", source) == 2, source
            assert capsys.readouterr().err.startswith("attn: ")
    assert attn_here("receipt", "verify", "missing.json", "--keys", "keys.json") == 2
    assert attn_here("receipt", "verify", "receipt.json") == 2  # neither --keys nor ATTN_RECEIPT_KEYS
    assert "pass --keys" in capsys.readouterr().err


def test_a_receipt_can_come_from_stdin(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((here / "receipt.json").read_bytes())))
    assert attn_here("receipt", "verify", "-", "--keys", "keys.json") == 0


def test_text_of_a_receipt_does_not_control_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stated = json.loads(payload(has_item=False))
    stated["question"]["title"] = "a\x1b[2Jb\x9bc\u202ed\u2066e\nf"
    stated["decision"]["comment"] = "\x1b]0;x\x07\x85"
    (here / "receipt.json").write_bytes(SIGNER.sign(json.dumps(stated).encode()))
    assert attn_here("receipt", "verify", "receipt.json", "--keys", "keys.json") == 0
    out = capsys.readouterr().out
    assert not [char for char in out if not char.isprintable() and char != "\n"]


def test_keys_prints_what_the_edges_publish(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    public = urlsafe_b64encode(public_key(OTHER)).decode()
    monkeypatch.setenv("ATTN_RECEIPT_KEYS", f"{urlsafe_b64encode(SEED).decode()},pub:{public}")
    assert attn_here("receipt", "keys") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(ReceiptSigner([SEED], [public_key(OTHER)]).jwks)
    monkeypatch.setenv("ATTN_RECEIPT_KEYS", "")
    assert attn_here("receipt", "keys") == 2


def test_the_verifier_of_the_documentation_accepts_a_receipt_and_refuses_changed_ones(here: Path) -> None:
    lines = [line for line in VERIFIER.splitlines() if line.strip()]
    assert len(lines) <= 20
    (here / "verify.py").write_text(VERIFIER)

    def run(receipt: bytes, url: str) -> subprocess.CompletedProcess[str]:
        (here / "some.json").write_bytes(receipt)
        return subprocess.run(
            [sys.executable, "verify.py", "some.json", url], capture_output=True, text=True, check=False, cwd=here)

    good = (here / "receipt.json").read_bytes()
    with served(SIGNER.jwks) as url:
        for keys in (url, (here / "keys.json").as_uri()):
            done = run(good, keys)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == json.loads(payload())
    keys = (here / "keys.json").as_uri()
    document = json.loads(good)
    middle = len(document["payload"]) // 2
    letter = "A" if document["payload"][middle] != "A" else "B"
    document["payload"] = document["payload"][:middle] + letter + document["payload"][middle + 1:]
    for bad in (json.dumps(document).encode(), ReceiptSigner([OTHER]).sign(payload()), b"{}"):
        done = run(bad, keys)
        assert (done.returncode, done.stdout) == (1, "")
