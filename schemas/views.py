"""The rows of the view: the values of the compacted topic `attn.views`, one row a record (DESIGN: Topics).

A key's first two bytes name its row. Keys carry digests, not names, so they are short, opaque and never need escaping:

    i:{item}                item (also one that is hidden: known of, never shown)
    m:{item}:{user}         mark: this user dismissed or snoozed this item
    d:{draft}               draft
    p:{digest}              preferences of one user in one workspace
    a:{digest}              something done that counts as activity, kept for the activity window
    g:{digest}              group of failed runs that may be an incident    (of the fold only)
    q:{digest}              proofs of one case                              (of the fold only)
    o:{digest}              what became of a command with a key of its caller's, for a day   (of the fold only)
    k:{digest}              how many of those a user has                     (of the fold only)
    e:{partition}:{cursor}  digests of the events a pack brought             (of the fold only)
    ~:{partition}           position: the last record of each batch; with it the batch is complete
    f:{partition}           fence: from here on another worker writes     (between batches, part of none)

Batches end with the position row; a reader applies rows up to it, the last of a key, and then is at its cursor. Rows
of a batch whose end never came (its writer died on the way) need nothing of a reader: whoever claims the partition next
writes the right ones first, in a batch with a position. Nor do fences: dropping what waits when one comes would
be wrong, as compaction may have taken the position that those rows had. A batch that leads to a position the reader
has already, or one before it, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from schemas.log import Data, Widget
from schemas.versions import versioned_decoder

__all__ = [
    "CURSOR_BITS", "ActivityRow", "Close", "DraftEditor", "DraftRow", "FenceRow", "GroupMember", "GroupRow", "ItemRow",
    "KeysRow", "MarkRow", "OutcomeRow", "PositionRow", "PreferencesRow", "ProofsRow", "Row", "SeenRow", "Stamp",
    "apply_changes", "cursor_of", "decode_row", "decode_row_or_none", "encode_row", "fence_key", "position_key",
]

# To be raised by what an older worker would lose or take for something else when it reads rows to go on from, or an
# older edge would show wrongly. The position row says which version its partition's rows may be of.
VIEW_VERSION = 1

# A cursor is a state of the view: position << CURSOR_BITS. Between two states a feed numbers its frames in the low
# bits, so that a reader cut off between two frames of one batch resumes with the very next one. A batch yields at most
# 3 frames a row of the largest window (1000), plus three: fewer than 4096. 41 bits are left for the position in what
# JavaScript holds exactly (2**53).
CURSOR_BITS = 12

ItemState = Literal["hidden", "unread", "read", "resolved"]


def cursor_of(position: int) -> int:
    return position << CURSOR_BITS


class Stamp(NamedTuple):
    """Orders events of one subject: event time in microseconds, then the event's digest. Every worker derives the same
    order (law 2)."""

    time: int
    digest: str


class Close(NamedTuple):
    """How an item was closed: event time in microseconds, digest, resolved action, and the user who did it."""

    time: int
    digest: str
    action: str
    by: str | None

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.time, self.digest)


class ItemRow(Struct, omit_defaults=True, kw_only=True):
    """One source row as the view knows it. Times in microseconds. `rev` is the position of the pack that changed it."""

    id: str
    ws: str
    kind: str
    source_id: str
    rev: int = 0
    state: ItemState = "hidden"
    data: Data = msgspec.field(default_factory=Data)  # what it shows
    priority: str = "normal"
    blocking: bool = False
    target_user_id: str | None = None
    target_role: str | None = None
    band: int = 2  # 0 urgent, 1 high, 2 normal, 3 low: the priority, raised once overdue
    overdue: bool = False
    created_at: int = 0  # when it last opened: the start of the newest period in which it is or was open
    due_at: int = 0
    updated_at: int = 0
    read_at: int | None = None
    read_by: str | None = None
    resolved_at: int | None = None
    resolved_by: str | None = None
    resolved_action: str | None = None
    incident: str | None = None  # the open incident that stands for this run; it leaves the list meanwhile
    clusters: list[str] = []
    members: list[str] = []
    count: int = 0  # of an incident: how many members are open
    surge: int = 0  # goes up when it reopens or its priority rises: a mark made before no longer holds
    wake: int | None = None  # when the clock next changes this row
    # Of the fold only:
    periods: list[int] = []
    base: Stamp | None = None  # of the opening event whose data the item shows
    over: dict[str, Stamp] = {}  # field -> stamp of the update that set it after `base`
    closed: Close | None = None  # the newest close
    group: str | None = None  # key of the group row its run belongs to
    superseded: int | None = None  # of a proof: when the case's next proof came
    done: list[str] = []
    touched: int = 0  # the log's clock when it last changed

    @property
    def is_open(self) -> bool:
        return self.state == "unread" or self.state == "read"

    @property
    def is_listed(self) -> bool:
        """In the ranked list of those who may see it (their own marks aside)."""
        return self.is_open and self.incident is None


class MarkRow(Struct, omit_defaults=True):
    """A user put an item away. It holds while the item's `surge` is still the one of then."""

    ws: str
    item: str
    user: str
    surge: int
    until: int | None = None
    rev: int = 0
    wake: int | None = None


class DraftEditor(Struct, omit_defaults=True):
    type: Literal["user", "ai"]
    id: str
    name: str | None
    at: int


class DraftRow(Struct, omit_defaults=True, kw_only=True):
    ws: str
    draft_id: str
    rev: int = 0
    title: str | None = None
    cluster: str | None = None
    stack: str | None = None
    owner: str | None = None
    touched_at: int = 0  # newest edit
    ai_at: int = 0  # newest edit by an AI
    done_at: int = 0  # newest commit or discard
    editors: list[DraftEditor] = []
    stamps: dict[str, Stamp] = {}  # field -> stamp of the event that set it
    touched: int = 0
    wake: int | None = None

    @property
    def in_progress(self) -> bool:
        return self.touched_at > self.done_at

    @property
    def has_ai_edits(self) -> bool:
        return self.ai_at > self.done_at


class PreferencesRow(Struct, omit_defaults=True):
    ws: str
    user: str
    pinned_clusters: list[str] = []
    widgets: list[Widget] = []
    rev: int = 0


class ActivityRow(Struct, omit_defaults=True, kw_only=True):
    """A session completed, a plan approved, an action confirmed or declined within the activity window."""

    ws: str
    id: str
    type: str
    at: int
    item: str  # empty: nothing opened it
    kind: str
    target_user_id: str | None = None
    target_role: str | None = None
    title: str | None = None
    cluster: str | None = None
    case_id: str | None = None
    session_id: str | None = None
    by: str | None = None
    rev: int = 0
    wake: int | None = None


class GroupMember(Struct, omit_defaults=True):
    """What a group knows of one failed run."""

    cluster: str
    periods: list[int]
    priority: str
    blocking: bool
    due_at: int
    title: str
    action: str | None = None
    by: str | None = None


class GroupRow(Struct, omit_defaults=True):
    ws: str
    key: str
    members: dict[str, GroupMember] = {}
    regroup: list[str] = []
    held: tuple[int, int] | None = None  # a time it was on (since, at least until), for members no longer remembered
    touched: int = 0
    wake: int | None = None


class ProofsRow(Struct, omit_defaults=True):
    """The proofs of a case by time: (time attached, proof id), oldest first, the newest MAX_PROOFS of them."""

    ws: str
    proofs: list[tuple[int, str]] = []
    touched: int = 0
    wake: int | None = None


class OutcomeRow(Struct, kw_only=True, omit_defaults=True):
    """The outcome of a command that carried an Idempotency-Key; `asked` is a digest of what it asked for. `body` is the
    answer, or a JSON string from which the answer is made again (streams.core.fold.outcomes)."""

    ws: str
    request_digest: str = msgspec.field(name="asked")
    status: int
    body: msgspec.Raw
    wake: int
    user: str | None = None  # whose `k:` row counts it


class KeysRow(Struct):
    """How many outcomes of a user are kept. A day after the newest one there is none left: then the row goes, whatever
    it says (a worker of before does not count down)."""

    ws: str
    user: str
    count: int = 0
    wake: int = 0


class SeenRow(Struct):
    """Digests of the events one pack brought: base64 of DIGEST_BYTES each, joined."""

    ids: str
    wake: int


class PositionRow(Struct):
    """`next`: the log offset to fold next, `part`: how many entries of that pack are folded already (a pack that
    changes more than one batch can hold is folded in parts).

    `next + shift` is the position. It grows with every batch and never goes back, even where the log did (a broker
    lost its tail): `shift` grows by one a part, and jumps when the log fell back; `incarnation` counts the broker's
    lives as far as the operator knows of them.
    """

    next: int
    clock: int = 0
    shift: int = 0
    part: int = 0
    incarnation: int = 0
    v: int = VIEW_VERSION

    @property
    def position(self) -> int:
        return self.next + self.shift


class FenceRow(Struct):
    """Who folds the partition from here on: its `instance`, the broker's count of owners, and since when."""

    by: str
    epoch: int
    at: int


Row = (
    ItemRow | MarkRow | DraftRow | PreferencesRow | ActivityRow | GroupRow | ProofsRow | SeenRow | PositionRow
    | FenceRow | OutcomeRow | KeysRow
)

ROW_TYPES: dict[bytes, type[Row]] = {
    b"i:": ItemRow, b"m:": MarkRow, b"d:": DraftRow, b"p:": PreferencesRow, b"a:": ActivityRow, b"g:": GroupRow,
    b"q:": ProofsRow, b"e:": SeenRow, b"~:": PositionRow,
    b"f:": FenceRow, b"o:": OutcomeRow, b"k:": KeysRow,
}
_DECODERS: dict[bytes, Callable[[bytes], Row]] = {
    prefix: msgspec.json.Decoder(row).decode for prefix, row in ROW_TYPES.items()
}
# The position speaks for all rows of its partition: whoever reads one of a newer version goes no further.
_DECODERS[b"~:"] = versioned_decoder("a view in attn.views", VIEW_VERSION, msgspec.json.Decoder(PositionRow).decode)

encode_row = msgspec.json.Encoder().encode


def decode_row(key: bytes, value: bytes) -> Row:
    """The row of a key. KeyError: no such kind of row; msgspec.DecodeError: not such a row; UnsupportedVersion: a
    position of a newer attn's view."""
    return _DECODERS[key[:2]](value)


def decode_row_or_none(key: bytes, value: bytes | None) -> Row | None:
    """Returns `decode_row` of a value that may be absent; None for None."""
    return None if value is None else decode_row(key, value)


def position_key(partition: int) -> bytes:
    return b"~:%d" % partition


def fence_key(partition: int) -> bytes:
    return b"f:%d" % partition


def apply_changes(rows: MutableMapping[bytes, bytes], changes: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Applies upserts and deletes of a compacted topic to `rows`, in order: a value replaces, None deletes."""
    for key, value in changes:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
