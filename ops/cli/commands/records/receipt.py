"""`attn receipt`: verifies receipts of decisions without a server, and lists the public keys of this installation."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import config
from ops.cli.options import DataDir
from ops.errors import UserError
from schemas.settings import Settings
from streams.core.canonical_json import canonical_json, read_exact
from streams.core.receipts import InvalidReceipt, ReceiptSigner, UnknownKey, read_key_set, verify_receipt
from streams.runtime.keys import receipt_keys, retired_receipt_keys

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Verify receipts of decisions, and list the keys that verify them.")

_MAX_BYTES = 4 << 20  # of a receipt or a key set
_TIMEOUT = 10.0  # seconds, to fetch a key set
_INVALID, _USAGE, _UNKNOWN_KEY = 1, 2, 3  # exit codes
# Control characters and marks that reorder text: a terminal would interpret them.
_CONTROLS = {code: f"\\u{code:04x}" for code in (
    *range(0x7F, 0xA0), 0x061C, *range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A))}
_NOT_VERIFIED = (
    "that the source applied the decision: the receipt only repeats what the source had reported by then",
    "what happened after the receipt was issued: a later receipt of the same decision may have another state",
    "that the people did it themselves: attn signs who was signed in, the people sign nothing",
    "that the keys are those of the issuer: get them over a connection that you trust",
)

Receipt = Annotated[str, typer.Argument(metavar="FILE", help="The receipt; - is stdin.", show_default=False)]
Keys = Annotated[str, typer.Option(
    "--keys", metavar="FILE_OR_URL", show_default=False,
    help="JWK set with the keys of the issuer, or its URL, such as "
         "https://attn.example.com/.well-known/attn-decision-keys.json. Default: the keys of the settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object with the result and the payload.")]


@app.command()
def verify(file: Receipt, keys: Keys = "", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Verify a receipt, and print what it states, what was verified, and what was not.

    Exit codes: 0 the signature is valid; 1 it is not, or the document is no receipt; 2 wrong usage, or a file that
    cannot be read; 3 none of the keys is the one of the receipt.
    """
    known = _keys_of(keys) if keys else _own_keys(config.load_settings(data_dir=data_dir))
    document = _read(file)
    try:
        payload, key = verify_receipt(document, known)
        stated = _payload(payload)
    except UnknownKey as error:
        _refuse(str(error), _UNKNOWN_KEY, as_json)
    except InvalidReceipt as error:
        _refuse(str(error), _INVALID, as_json)
    question = _question_verified(stated)
    if question is False:
        _refuse("the digest is not that of the question in the receipt", _INVALID, as_json)
    if as_json:
        head = {"valid": True, "key": key, "question_verified": question is True, "not_verified": _NOT_VERIFIED}
        typer.echo(json.dumps(head)[:-1] + f', "payload": {payload.decode()}}}')
        return
    for line in _report(stated, key, question is True):
        typer.echo(line)


@app.command(name="keys")
def keys_command(data_dir: DataDir = None) -> None:
    """Print the public keys of the settings as a JWK set, as the edges publish them.

    To retire a private key, replace its entry in ATTN_RECEIPT_KEYS by `pub:` and the `x` of its public key.
    """
    settings = config.load_settings(data_dir=data_dir)
    signer = ReceiptSigner(receipt_keys(settings), retired_receipt_keys(settings))
    if not signer.keys:
        raise UserError("no receipt keys: set ATTN_RECEIPT_KEYS or ATTN_JWT_SECRET, or pass a --data-dir", _USAGE)
    typer.echo(json.dumps(json.loads(signer.jwks), indent=2))


def _own_keys(settings: Settings) -> dict[str, bytes]:
    keys = ReceiptSigner(receipt_keys(settings), retired_receipt_keys(settings)).keys
    if not keys:
        raise UserError("no keys to verify with: pass --keys, or set ATTN_RECEIPT_KEYS", _USAGE)
    return keys


def _keys_of(name: str) -> dict[str, bytes]:
    """Returns the keys of a file or a URL. Raises UserError if they cannot be read."""
    text = _fetch(name) if name.startswith(("http://", "https://")) else _read(name)
    try:
        keys = read_key_set(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} {error}", _USAGE) from None
    if not keys:
        raise UserError(f"{name} has no Ed25519 key", _USAGE)
    return keys


def _fetch(url: str) -> bytes:
    import httpx  # imported here: it takes 0.1 s, which a file needs not

    text = b""
    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as response:
            if response.status_code != 200:
                raise UserError(f"{url}: HTTP status {response.status_code}, 200 is expected", _USAGE)
            for chunk in response.iter_bytes():
                text += chunk
                if len(text) > _MAX_BYTES:
                    raise UserError(f"{url}: more than {_MAX_BYTES} bytes", _USAGE)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"cannot fetch {url}: {error or type(error).__name__}", _USAGE) from None
    return text


def _read(name: str) -> bytes:
    try:
        if name == "-":
            text = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {name}: {reason}", _USAGE) from None
    if len(text) > _MAX_BYTES:
        raise UserError(f"{name} has more than {_MAX_BYTES} bytes", _USAGE)
    return text


def _refuse(reason: str, code: int, as_json: bool) -> Any:
    if as_json:
        typer.echo(json.dumps({"valid": False, "error": reason}))
        raise typer.Exit(code)
    raise UserError(f"not verified: {reason}", code)


def _payload(text: bytes) -> dict[str, Any]:
    """Returns the signed statement. Raises InvalidReceipt if it has a form that this version does not know."""
    try:
        stated = read_exact(text)
        if stated["type"] != "attn.decision-receipt" or str(stated["v"]) != "1":
            raise ValueError("only version 1 is supported")
        missing = {"decision", "question", "actors", "fence", "workspace"} - stated.keys()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidReceipt(f"the signature is valid, but the payload has an unknown form: {error}") from None
    if missing:
        raise InvalidReceipt(f"the signature is valid, but the payload lacks {', '.join(sorted(missing))}")
    return dict(stated)


def _question_verified(stated: dict[str, Any]) -> bool | None:
    """Returns whether the digest is that of the question in the receipt; None if only the digest is there."""
    question = stated["question"]
    if "shown" not in question:
        return None
    return bool(hashlib.sha256(canonical_json(question["shown"])).hexdigest() == question["digest"])


def _report(stated: dict[str, Any], key: str, has_question: bool) -> Iterator[str]:
    """Yields what the receipt states, what was verified, and what was not."""
    decision, question, fence = stated["decision"], stated["question"], stated["fence"]
    chosen = "none, the question expired"
    if "option" in decision:
        chosen = f"{_text(decision['option'])} ({decision['does']})"
    yield f"receipt of {_text(decision['id'])}, issued by {_text(stated['issuer'])} at {stated['issued_at']}"
    yield f"  question: {_text(question.get('title'))} ({stated['kind']}) in workspace {_text(stated['workspace'])}"
    yield f"  asked by: {_text(question['source'])}, subject {_text(question['subject'])}"
    yield f"  answer: {chosen}, made at {decision['made_at']}"
    for name in ("comment", "form", "args", "edited"):
        if name in decision:
            yield f"  {name}: {_text(decision[name])}"
    for actor in stated["actors"]:
        yield f"  {_text(actor['user'])} ({actor['role']}) at {actor['at']}: {_text(actor['vote'])}"
    yield f"  state: {decision['state']} since {decision['state_since']}" + (
        f", reason {_text(decision['reason'])}" if "reason" in decision else "")
    yield f"  fence: partition {fence['partition']}, offset {fence['offset']} of attn.log"
    yield f"verified: the signature, by key {key}"
    if has_question:
        yield f"verified: the digest {question['digest']} is that of the question in the receipt"
    else:
        yield f"not verified: the question itself, of which the receipt has only the digest {_text(question['digest'])}"
    for what in _NOT_VERIFIED:
        yield f"not verified: {what}"


def _text(value: Any) -> str:
    """Returns a value as JSON that a terminal shows as it is."""
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return (json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text).translate(_CONTROLS)
