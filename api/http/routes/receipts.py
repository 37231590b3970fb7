"""Routes of receipts: the signed receipt of a decision, and the public keys that verify it (CONTRACT §7)."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api.contract.asking.receipts import receipt_payload
from api.contract.errors import NO_STORE, ApiError
from api.contract.responses.base import responses_of
from api.contract.responses.receipts import KeySet, Receipt
from api.edge.services import Edge
from api.http.dependencies import CurrentCaller, CurrentEdge
from api.readmodel import listing
from api.readmodel.indexes import DECISIONS, TIME
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from schemas.asking.question import DecisionRow
from schemas.views import ItemRow, decode_row
from streams.core.domain.keys import item_key

__all__ = ["router"]

router = APIRouter(tags=["decisions"])

KEYS_PATH = "/.well-known/attn-decision-keys.json"
_JOSE, _KEY_SET = "application/jose+json", "application/jwk-set+json"
MAX_SCANNED = 10_000  # decisions of a reader that are searched for one of the item
_KEY_SET_SECONDS = 300  # for which caches may keep the keys: a new key is published before it signs

Id = Annotated[str, Path(max_length=2000)]


@router.get(KEYS_PATH, responses={200: {"model": KeySet, "content": {_KEY_SET: {}}}})
async def get_keys(edge: CurrentEdge) -> Response:
    """Returns the public keys that verify receipts, as a JWK set (RFC 7517). Needs no authentication."""
    headers = {"cache-control": f"public, max-age={_KEY_SET_SECONDS}", "access-control-allow-origin": "*"}
    return Response(edge.receipt_signer.jwks, 200, headers, _KEY_SET)


@router.get("/api/v1/inbox/{item:id}/decision/receipt", responses=responses_of(Receipt, 404))
async def get_receipt(
    edge: CurrentEdge, caller: CurrentCaller, item: Id,
    decision: Annotated[str | None, Query(
        max_length=200, description="Id of an earlier decision of the item. Default: the newest one.")] = None,
) -> Response:
    """Returns the signed receipt of a decision of the item: a JWS (RFC 7515, JSON serialisation, alg EdDSA) whose
    payload is canonical JSON."""
    workspace = await edge.workspace(caller.reader)
    row = _decision_of(workspace, caller.reader, item, decision)
    if row is None and decision is None and workspace.has_item(item):
        workspace = await edge.workspace(caller.reader, DECISIONS)
        row = _newest_of(workspace, caller.reader, item)
    if row is None:
        raise ApiError(404, "not found")
    if not edge.receipt_signer.can_sign:
        raise ApiError(503, "no key signs receipts here: set ATTN_RECEIPT_KEYS", {"retry-after": "60"})
    # In a thread: the canonical JSON of the largest question takes 40 ms.
    receipt = await run_in_threadpool(_sign, edge, row, workspace.item(item_key(item)[2:]))
    headers = {**NO_STORE, "content-disposition": f'attachment; filename="{row.id}.receipt.json"'}
    return Response(receipt, 200, headers, _JOSE)


def _sign(edge: Edge, row: DecisionRow, item: ItemRow | None) -> bytes:
    settings = edge.settings
    return edge.receipt_signer.sign(
        receipt_payload(row, item, settings.receipt_issuer, settings.log_partitions))


def _decision_of(workspace: Workspace, reader: Reader, item: str, decision: str | None) -> DecisionRow | None:
    """Returns the row of a decision of the item if the reader may see it. `decision` None: the newest such one."""
    if decision is None:
        row = workspace.item(item_key(item)[2:])
        made = row.question.decision if row is not None and row.question is not None else None
        if made is None:
            return None
        decision = made.id
    found = _row_of(workspace, decision)
    return found if found is not None and found.item == item and _may_see(reader, found) else None


def _newest_of(workspace: Workspace, reader: Reader, item: str) -> DecisionRow | None:
    """Returns the newest decision of the item that the reader may see, if it is among the reader's MAX_SCANNED newest.

    The item asks another question by now, or its newest decision is for other readers.
    """
    name = item_key(item)[2:]
    for key in islice(listing.decisions(workspace, reader), MAX_SCANNED):
        raw = workspace.rows[b"c:" + key[TIME.size:]]
        if name in raw:
            row = decode_row(b"c:", raw)
            if isinstance(row, DecisionRow) and row.item == item:
                return row
    return None


def _row_of(workspace: Workspace, decision: str) -> DecisionRow | None:
    key = b"c:" + decision.encode("utf-8", "surrogatepass")
    raw = workspace.rows.get(key)
    row = decode_row(key, raw) if raw is not None else None
    return row if isinstance(row, DecisionRow) and row.ws == workspace.workspace_id else None


def _may_see(reader: Reader, row: DecisionRow) -> bool:
    return reader.can_see(row.target_user_id, row.target_role) or any(vote.user == reader.user for vote in row.actors)
