"""The reference model: the inbox for a set of source events and a clock, written from the contract.

It imports no code of attn. It is not incremental: it computes every answer from all events, so their order of arrival
has no effect. Simplicity is more important than speed. Times are microseconds since the epoch, as `us` reads them.

    model = Model(lines)                      # lines: dicts {"topic", "key", "value"} or their JSON
    view = model.at(clock)["ws_01"]           # View of one workspace
    view.ranked(Reader("u1", "OWNER"))        # open items in order; also .counts, .activity, .drafts, .crewship
"""

from support.model.model import Model
from support.model.types import EPOCH, HOUR, Draft, Event, Item, Reader, us
from support.model.view import View

__all__ = ["EPOCH", "HOUR", "Draft", "Event", "Item", "Model", "Reader", "View", "us"]
