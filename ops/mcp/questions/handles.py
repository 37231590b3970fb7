"""Names of questions and notices: every id follows from what the caller asked, so the server stores nothing. Pure.

    subject   ask_ + 26 characters    from source, question, context, options, form, who and reference of the call
    handle    subject + _ + 10 hex    one question on this subject; it is the `id` of its ask

A subject can be asked again once its question is final. The next handle follows from how the question before it ended.
Two calls with the same arguments, or the same call after a crash, therefore name the same question, and no answer is
taken for that of a later question.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["event_id", "first_handle", "next_handle", "notice_subject", "question_subject", "subject_of"]

NOTICE_SECONDS = 3600  # the same notice in the same period counts once

_HANDLE = re.compile(r"(ask_[a-z2-7]{26})_[0-9a-f]{10}|(note_[a-z2-7]{26})", re.ASCII)


def question_subject(source: str, identity: Mapping[str, Any]) -> str:
    """Returns the subject of a question of `source`. `identity`: the arguments that make it this question."""
    return "ask_" + _digest(source, identity)


def notice_subject(source: str, identity: Mapping[str, Any], now: float) -> str:
    """Returns the subject of a notice, which is also its handle. `now`: Unix time in seconds."""
    return "note_" + _digest(source, {"notice": dict(identity), "period": int(now // NOTICE_SECONDS)})


def first_handle(subject: str) -> str:
    return next_handle(subject, "")


def next_handle(subject: str, ended: str) -> str:
    """Returns the handle of the question that follows one on the same subject. `ended`: how that one ended."""
    return f"{subject}_{hashlib.sha256(f'{subject}|{ended}'.encode()).hexdigest()[:10]}"


def subject_of(handle: str) -> str | None:
    """Returns the subject that a handle names; None if the text is no handle."""
    match = _HANDLE.fullmatch(handle)
    return (match[1] or match[2]) if match is not None else None


def event_id(handle: str, happened: str) -> str:
    """Returns the id of the event that says what happened to a question: a repeat of it changes nothing."""
    return f"{handle}.{happened}"


def _digest(source: str, identity: Mapping[str, Any]) -> str:
    text = json.dumps([source, identity], sort_keys=True, separators=(",", ":"))
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:26]
