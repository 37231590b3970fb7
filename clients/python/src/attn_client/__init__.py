"""Client of attn: asks people, waits for their answers, reads the feed of an inbox."""

from attn_client.client import AsyncAttn
from attn_client.errors import (
    AttnError,
    EventRejected,
    Expired,
    Forbidden,
    NoAnswer,
    Replaced,
    RequestFailed,
    Unauthorized,
    Unavailable,
    Withdrawn,
)
from attn_client.feed import Feed
from attn_client.fold import EMPTY, Frame, Inbox, apply
from attn_client.questions import Action, Actor, Answer, Option, Question
from attn_client.sync import Attn

__all__ = [
    "EMPTY", "Action", "Actor", "Answer", "AsyncAttn", "Attn", "AttnError", "EventRejected", "Expired", "Feed",
    "Forbidden", "Frame", "Inbox", "NoAnswer", "Option", "Question", "Replaced", "RequestFailed", "Unauthorized",
    "Unavailable", "Withdrawn", "apply",
]
