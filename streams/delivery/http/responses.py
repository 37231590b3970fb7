"""What the answer of a receiver means: accepted, refused, or failed and to be retried (CONTRACT §7). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

__all__ = [
    "MAX_ANSWER_BYTES", "MAX_REASON", "MAX_RETRY_AFTER", "REFUSED_STATUSES", "Result", "classify", "reason_of",
    "retry_after_seconds",
]

MAX_ANSWER_BYTES = 64 << 10  # of a refusal; more is not read
MAX_REASON = 500  # characters
MAX_RETRY_AFTER = 86_400.0  # seconds; a receiver that asks for more is tried again after a day
REFUSED_STATUSES = frozenset({409, 410, 422})
_THROTTLED = frozenset({429, 503})  # concern the endpoint, not one decision
_TEXT_KEYS = ("error", "detail", "message", "title")  # the contract's, then those of RFC 9457 and of common frameworks
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one attempt. `cause`: a short code for metrics. `reason`: one line for people.

    `retry_after`: seconds that the receiver asked to wait, at most a day. `throttles`: it asked so for all decisions.
    """

    kind: Literal["accepted", "refused", "failed"]
    cause: str
    reason: str = ""
    retry_after: float | None = None
    throttles: bool = False


def classify(status: int, retry_after: str | None = None, now: float = 0.0) -> Result:
    """Returns the result of a status without its body. `now`: seconds since the epoch, for dates in Retry-After."""
    if 200 <= status < 300:
        return Result("accepted", "2xx")
    if status in REFUSED_STATUSES:
        return Result("refused", str(status), f"HTTP {status}")
    if 300 <= status < 400:
        return Result("failed", "redirect", f"HTTP {status}: attn follows no redirects")
    wait = retry_after_seconds(retry_after, now)
    cause = "4xx" if 400 <= status < 500 else "5xx"
    return Result("failed", cause, f"HTTP {status}", wait, throttles=wait is not None and status in _THROTTLED)


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """Returns the wait of a `Retry-After` header in seconds, 0 to MAX_RETRY_AFTER; None if it has none.

    The value is a number of seconds or an HTTP date (RFC 9110 §10.2.3).
    """
    text = (value or "").strip()[:64]
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), MAX_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait), MAX_RETRY_AFTER)


def reason_of(status: int, content_type: str, body: bytes, secrets: tuple[str, ...] = ()) -> str:
    """Returns the receiver's reason in one line of at most MAX_REASON characters.

    That is `error` of a JSON object (or `detail`, `message`, `title`), else the text, else the status. `secrets` are
    removed: a receiver may repeat what it got, and the reason is stored and shown.
    """
    text = body.decode(errors="replace")
    found = _json_reason(text)
    if found is None and not re.search(r"html|xml|json|octet-stream", content_type, re.IGNORECASE):
        found = text
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            found = (found or "").replace(form, "(removed)")
    line = " ".join(_UNPRINTABLE.sub(" ", found or "").split())
    if len(line) > MAX_REASON:
        line = line[:MAX_REASON - 1] + "…"
    return line or f"HTTP {status}"


def _json_reason(text: str) -> str | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(parsed, str):
        return parsed
    if not isinstance(parsed, dict):
        return None
    for key in _TEXT_KEYS:
        value = parsed.get(key)
        if isinstance(value, dict):  # {"error": {"message": "..."}}
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return value
    return None
