"""Rows of the view: the values of the compacted topic `attn.views`, one row per record (DESIGN: Topics).

The first two bytes of a key name the kind of row. Keys have digests instead of names: short, and never in need of
escapes.

    i:{item}                item, also a hidden one (known to the fold, shown to no user)
    m:{item}:{user}         mark: this user dismissed or snoozed this item
    d:{draft}               draft
    p:{digest}              preferences of one user in one workspace
    a:{digest}              activity entry, kept for the activity window
    g:{digest}              group of failed runs that may be an incident (fold only)
    q:{digest}              proofs of one case (fold only)
    o:{digest}              outcome of a command with an Idempotency-Key, kept for a day (fold only)
    k:{digest}              number of those outcomes of a user (fold only)
    c:{decision}            decision
    b:{digest}              batch of questions whose answers go out together (fold only)
    x:{key}                 key with which a source sends events over HTTP
    n:{digest}              number of the keys of a workspace (fold only)
    s:{session}:{digest}    session of a user in one workspace
    u:{digest}              ids of the sessions of a user in one workspace (fold only)
    l:{link}                link that signs in once
    r:{digest}              revoked bearer tokens: one, or those of a user
    v:{digest}              number of those of a workspace (fold only)
    e:{partition}:{cursor}  digests of the events and commands of a pack (fold only)
    ~:{partition}           position: the last record of each batch; it completes the batch
    f:{partition}           fence: another worker writes from here on (between batches)

A reader applies the rows of a batch up to its position row, and is then at that cursor. A batch without a position row
(its writer crashed) needs no handling: the next owner of the partition first writes those rows again, in a complete
batch. A fence must not discard the rows that wait: compaction may have removed the position row of their batch. A batch
whose position the reader already has, or an earlier one, changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, MutableMapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from schemas.asking.question import BatchRow, DecisionRow, Question
from schemas.log import Data, Widget
from schemas.scalars import HOUR
from schemas.versions import versioned_decoder

__all__ = [
    "CURSOR_BITS", "ActivityRow", "Close", "DraftEditor", "DraftRow", "FenceRow", "GroupMember", "GroupRow", "ItemRow",
    "KeysRow", "LinkRow", "MarkRow", "OutcomeRow", "PositionRow", "PreferencesRow", "ProofsRow", "RevocationCountRow",
    "RevocationRow", "Row", "SeenRow", "SessionRow", "SourceKeyCountRow", "SourceKeyRow", "Stamp", "UserSessionsRow",
    "apply_changes", "cursor_of", "decode_row", "decode_row_or_none", "encode_row", "fence_key", "position_key",
    "workspace_of",
]

# Raise it for a change that an older worker would lose or misinterpret when it loads rows, or an older edge would show
# wrongly. The position row has it for all rows of its partition. Version 2: questions, decisions, keys of sources.
# Version 3: sessions.
VIEW_VERSION = 3

# A cursor is position << CURSOR_BITS. The low bits number the frames of one batch, so a client that is disconnected
# between two frames resumes with the next one. A batch yields at most 3 frames per row of the largest window (1000),
# plus three: fewer than 4096. 41 bits remain for the position within JavaScript's exact integers (2**53).
CURSOR_BITS = 12

ItemState = Literal["hidden", "unread", "read", "decided", "resolved"]


def cursor_of(position: int) -> int:
    """Returns the cursor of a position."""
    return position << CURSOR_BITS


class Stamp(NamedTuple):
    """Total order of events (law 2): event time in microseconds, then the digest of the event or id of the command."""
    time: int
    digest: str


class Close(NamedTuple):
    """How an item was closed: stamp (time in microseconds, digest), resolved action, and the user who did it."""

    time: int
    digest: str
    action: str
    by: str | None

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.time, self.digest)


class ItemRow(Struct, omit_defaults=True, kw_only=True):
    """State of one item. Times in microseconds. `rev`: position of the pack that last changed the row."""

    id: str
    ws: str
    kind: str
    source_id: str
    rev: int = 0
    state: ItemState = "hidden"
    data: Data = msgspec.field(default_factory=Data)  # the data that the item shows
    priority: str = "normal"
    blocking: bool = False
    target_user_id: str | None = None
    target_role: str | None = None
    band: int = 2  # 0 urgent, 1 high, 2 normal, 3 low: the priority, raised once overdue
    overdue: bool = False
    created_at: int = 0  # start of the newest period in which it is or was open
    due_at: int = 0
    updated_at: int = 0
    read_at: int | None = None
    read_by: str | None = None
    resolved_at: int | None = None
    resolved_by: str | None = None
    resolved_action: str | None = None
    incident: str | None = None  # the open incident of this run; the run is not listed meanwhile
    clusters: list[str] = []
    members: list[str] = []
    count: int = 0  # of an incident: its open members
    surge: int = 0  # rises with each reopening or rise in priority; older marks no longer apply
    wake: int | None = None  # timer: when the log clock next changes this row
    source: str = ""  # of the opening event, if the item asks
    question: Question | None = None
    # For the fold only:
    attempts: int = 0  # decisions of earlier questions, of an item that asks nothing now
    periods: list[int] = []
    base: Stamp | None = None  # of the opening event whose data the item shows
    over: dict[str, Stamp] = {}  # field -> stamp of the update that set it after `base`
    closed: Close | None = None  # the newest close
    group: str | None = None  # key of the group row of this run
    superseded: int | None = None  # of a proof: time of the case's next proof
    done: list[str] = []
    touched: int = 0  # the log clock at the last change

    @property
    def is_open(self) -> bool:
        return self.state == "unread" or self.state == "read"

    @property
    def is_pending(self) -> bool:
        """Returns whether its source has not closed it: open, or decided and on the way to the source."""
        return self.state == "unread" or self.state == "read" or self.state == "decided"

    @property
    def is_listed(self) -> bool:
        """Returns whether it is in the ranked list of users who may see it, apart from their own marks."""
        return self.is_open and self.incident is None


class MarkRow(Struct, omit_defaults=True):
    """A user dismissed an item, or snoozed it until `until`. It applies while the item has the same `surge`."""

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
    """One completed session, approved plan, or confirmed or declined action within the activity window."""

    ws: str
    id: str
    type: str
    at: int
    item: str  # empty if no opening event of the item has arrived
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
    """Copy of the fields of one failed run that decide its incident."""

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
    held: tuple[int, int] | None = None  # outage (start, least end) proven by removed members
    touched: int = 0
    wake: int | None = None


class ProofsRow(Struct, omit_defaults=True):
    """The newest MAX_PROOFS proofs of a case as (time attached, proof id), oldest first."""

    ws: str
    proofs: list[tuple[int, str]] = []
    touched: int = 0
    wake: int | None = None


class OutcomeRow(Struct, kw_only=True, omit_defaults=True):
    """Outcome of a command with an Idempotency-Key. `asked`: digest of the request. `body`: the response body, or a
    JSON string from which it is rendered again (streams.core.fold.outcomes)."""

    ws: str
    request_digest: str = msgspec.field(name="asked")
    status: int
    body: msgspec.Raw
    wake: int
    user: str | None = None  # the user whose `k:` row counts it


class KeysRow(Struct):
    """Number of stored outcomes of a user. The row is deleted a day after the newest outcome, whatever its count:
    workers of an older attn do not count down."""

    ws: str
    user: str
    count: int = 0
    wake: int = 0


class SourceKeyRow(Struct, omit_defaults=True, kw_only=True):
    """A key with which a source sends events over HTTP (CONTRACT §8); fields as in schemas.log.CreateKey. The row is
    deleted when the key is revoked. `last_used`: begin of the newest hour in which it was used."""

    id: str
    ws: str
    digest: str
    name: str
    topics: tuple[str, ...]
    source: str | None = None
    expires_at: int | None = None
    created_at: int = 0
    created_by: str = ""
    last_used: int | None = None
    rev: int = 0
    wake: int | None = None


class SourceKeyCountRow(Struct):
    ws: str
    count: int = 0


class SessionRow(Struct, omit_defaults=True, kw_only=True, gc=False):
    """A session of a user in one workspace; fields as in schemas.log.OpenSession. A session that enters several
    workspaces has one row for each, with the same id and digest. The row is deleted when the session ends.

    `used_at`: begin of the newest hour in which it was used. `expires_at`: the absolute end.
    """

    id: str
    ws: str
    user: str
    role: str
    digest: str
    via: str
    created_at: int
    used_at: int
    expires_at: int
    idle: int
    name: str | None = None
    device: str = ""
    address: str = ""
    issuer: str | None = None
    issuer_sid: str | None = None
    subject: str | None = None
    auth_time: int | None = None
    acr: str | None = None
    refresh: str | None = None
    parent: str | None = None  # of a terminal's session: the one that let it in, with which it ends
    rev: int = 0
    wake: int | None = None

    @property
    def valid_until(self) -> int:
        """The end without further use. A use is known by its hour, so the idle time begins when that hour ends."""
        return min(self.expires_at, self.used_at + HOUR + self.idle)


class UserSessionsRow(Struct):
    """Ids of the sessions of a user in one workspace, the oldest first."""

    ws: str
    user: str
    sessions: list[str] = []


class LinkRow(Struct, omit_defaults=True, kw_only=True):
    """A link that signs `user` in once, until `expires_at`. The row is deleted by the sign-in.

    The link of a terminal has `parent`, the session that answered; its row stays after the answer, so that there is
    one answer and one sign-in. `closed`: `used` or `denied`."""

    id: str
    ws: str
    digest: str
    user: str
    role: str
    expires_at: int
    name: str | None = None
    parent: str | None = None
    closed: str | None = None
    rev: int = 0
    wake: int | None = None


class RevocationRow(Struct, omit_defaults=True, kw_only=True, gc=False):
    """Revoked bearer tokens of a workspace: that with this `jti`, or those of `user` issued before `before`. The row is
    deleted at `until`, when all of them have expired; without it the row stays."""

    ws: str
    at: int
    by: str
    jti: str | None = None
    user: str | None = None
    before: int | None = None
    until: int | None = None
    rev: int = 0
    wake: int | None = None


class RevocationCountRow(Struct):
    ws: str
    count: int = 0


class SeenRow(Struct):
    """Digests of the new events and commands of one pack: base64 of all, DIGEST_BYTES each."""

    ids: str
    wake: int


class PositionRow(Struct):
    """State of a partition. `next`: the log offset to fold next. `part`: entries of that pack that are already folded
    (a pack that changes more than one batch can hold is folded in parts).

    `next + shift` is the position. It grows with every batch and never decreases, even if the log was truncated:
    `shift` grows by one per part, and jumps after a truncation. `incarnation`: ATTN_INCARNATION at the last write.
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
    """Marks a new owner of the partition: its `instance`, the producer epoch, and the time in microseconds."""

    by: str
    epoch: int
    at: int


Row = (
    ItemRow | MarkRow | DraftRow | PreferencesRow | ActivityRow | GroupRow | ProofsRow | SeenRow | PositionRow
    | FenceRow | OutcomeRow | KeysRow | DecisionRow | BatchRow | SourceKeyRow | SourceKeyCountRow | SessionRow
    | UserSessionsRow | LinkRow | RevocationRow | RevocationCountRow
)

ROW_TYPES: dict[bytes, type[Row]] = {
    b"i:": ItemRow, b"m:": MarkRow, b"d:": DraftRow, b"p:": PreferencesRow, b"a:": ActivityRow, b"g:": GroupRow,
    b"q:": ProofsRow, b"e:": SeenRow, b"~:": PositionRow,
    b"f:": FenceRow, b"o:": OutcomeRow, b"k:": KeysRow, b"c:": DecisionRow, b"b:": BatchRow,
    b"x:": SourceKeyRow, b"n:": SourceKeyCountRow, b"s:": SessionRow, b"u:": UserSessionsRow, b"l:": LinkRow,
    b"r:": RevocationRow, b"v:": RevocationCountRow,
}
_DECODERS: dict[bytes, Callable[[bytes], Row]] = {
    prefix: msgspec.json.Decoder(row).decode for prefix, row in ROW_TYPES.items()
}
_DECODERS[b"~:"] = versioned_decoder("a view in attn.views", VIEW_VERSION, msgspec.json.Decoder(PositionRow).decode)

encode_row = msgspec.json.Encoder().encode


def decode_row(key: bytes, value: bytes) -> Row:
    """Returns the row of a key.

    Raises KeyError if the key has no known prefix, msgspec.DecodeError if the value is no such row, and
    UnsupportedVersion if a newer attn wrote the position row.
    """
    return _DECODERS[key[:2]](value)


def decode_row_or_none(key: bytes, value: bytes | None) -> Row | None:
    """Returns `decode_row` of a value that may be absent; None for None."""
    return None if value is None else decode_row(key, value)


class _WorkspaceField(Struct):
    ws: str


_decode_workspace = msgspec.json.Decoder(_WorkspaceField).decode
# The first fields of every row that names a workspace. A decoder takes twice as long, because it parses the whole row.
_match_workspace = re.compile(rb'\{(?:"id":"[^"\\]*",)?"ws":"([^"\\]*)"').match


def workspace_of(value: bytes) -> str:
    """Returns the workspace of an encoded row. Raises msgspec.ValidationError if the row names none."""
    match = _match_workspace(value)
    return match[1].decode() if match is not None else _decode_workspace(value).ws


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
