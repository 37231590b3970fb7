"""Text of the keys with which sources send events over HTTP, and what a key may do (CONTRACT §8). Pure."""

from __future__ import annotations

from streams.runtime.secret_texts import ENTROPY_BYTES, KEYS, NewSecret, secret_digest

__all__ = ["ENTROPY_BYTES", "PREFIX", "NewKey", "covers_source", "key_digest", "key_id_of", "looks_like_key", "new_key"]

PREFIX = KEYS.prefix
NewKey = NewSecret
new_key = KEYS.new
looks_like_key = KEYS.looks_like
key_id_of = KEYS.id_of
key_digest = secret_digest


def covers_source(scope: str | None, source: str) -> bool:
    """Returns whether a key with this scope may send events of `source`: the scope itself, or one below it
    (`/pipelines` covers `/pipelines/deploy`, not `/pipelines2`). None covers every source."""
    return scope is None or source == scope or source.startswith(scope if scope.endswith("/") else scope + "/")
