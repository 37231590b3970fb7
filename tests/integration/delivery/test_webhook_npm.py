"""Verifies webhook signatures in JavaScript, with the npm package `standardwebhooks` (v1) and Node's crypto (v1a)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from streams.delivery.endpoints import parse_endpoints
from streams.delivery.signing import public_keys, signature_headers

PACKAGE = "standardwebhooks@1.1.1"
CHECK = r"""
const { Webhook } = require("standardwebhooks");
const { createPublicKey, verify } = require("node:crypto");
const messages = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const DER = Buffer.from("302a300506032b6570032100", "hex");  // an ed25519 key in SubjectPublicKeyInfo

function verifies(message) {
  const { body, headers, secret, publicKey } = message;
  if (secret) {
    try { new Webhook(secret).verify(body, headers); return true; } catch { return false; }
  }
  const raw = Buffer.from(publicKey.replace("whpk_", ""), "base64");
  const key = createPublicKey({ key: Buffer.concat([DER, raw]), format: "der", type: "spki" });
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  return headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"))
    .some((one) => verify(null, signed, key, Buffer.from(one.slice(4), "base64")));
}
console.log(JSON.stringify(messages.map(verifies)));
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node and npm")
    directory = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), PACKAGE]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    return directory


@pytest.mark.timeout(180)
def test_node_verifies_every_key_and_no_other(package: Path) -> None:
    raws = [bytes([number]) * 32 for number in range(1, 5)]
    hmacs = ["whsec_" + base64.b64encode(raw).decode() for raw in raws[:2]]
    seeds = ["whsk_" + base64.b64encode(raw).decode() for raw in raws[2:]]
    listed = json.dumps([*hmacs, *seeds])
    endpoint = parse_endpoints(f'[[endpoint]]\nname = "a"\nurl = "https://a.example/"\nsecrets = {listed}\n')["a"]
    body = json.dumps({"type": "decision.made", "data": {"comment": "schön \U0001f600", "n": 1}}, ensure_ascii=False)
    headers = signature_headers(endpoint, "dec_0123", int(time.time()), body.encode())
    good = [{"secret": secret} for secret in hmacs] + [{"publicKey": key} for key in public_keys(endpoint)]
    bad = [{"secret": "whsec_" + base64.b64encode(b"x" * 32).decode()}, {"publicKey": "whpk_" + public_keys(
        parse_endpoints('[[endpoint]]\nname = "b"\nurl = "https://b.example/"\nsecrets = '
                        f'["whsk_{base64.b64encode(b"y" * 32).decode()}"]\n')["b"])[0].removeprefix("whpk_")}]
    message = {"body": body, "headers": headers}
    messages = [message | key for key in good + bad]
    messages += [message | {"body": body + " "} | key for key in good]
    messages += [message | {"headers": headers | {"webhook-id": "dec_9"}} | key for key in good]
    done = subprocess.run(
        ["node", "-e", CHECK], cwd=package, input=json.dumps(messages), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True] * 4 + [False] * (2 + 4 + 4)
