"""`FoldContext`: what a handler of the fold may read and change: rows, settings, clock, revision and facts."""

from __future__ import annotations

from schemas.asking.decision_event import DecisionEvent
from schemas.asking.question import Question
from schemas.facts import FACT_VERSION, Fact, Outcome
from schemas.views import ItemRow
from streams.core.config import FoldConfig
from streams.core.fold.state import RowCache

__all__ = ["FoldContext"]


class FoldContext:
    """The rows and facts of one partition while a pack, or a part of one, is folded.

    `state`: the partition's rows; handlers read and change rows there. `config`: the settings of the fold.
    `revision`: the position of the pack or part, stored as `rev` of each row it changes. `log_clock`: the newest
    append time in the log, in microseconds; the only clock of the fold (law 1). `facts`: emitted since the last
    durable batch; `decisions`: the records of the topic `decisions` since then, with sealed tokens. `asked`: items
    whose question or decision may have changed, with the question before, since the last `record_changes`.
    """

    def __init__(self, state: RowCache, config: FoldConfig) -> None:
        self.state = state
        self.config = config
        self.revision = 0
        self.log_clock = 0
        self.facts: list[Fact | Outcome] = []
        self.decisions: list[DecisionEvent] = []
        self.asked: list[tuple[ItemRow, Question | None]] = []
        self._next_index = 0

    def start_part(self, revision: int, log_clock: int) -> None:
        """Sets the position and the clock for a pack or a part of one; fact indexes start at 0 again."""
        self.revision, self.log_clock, self._next_index = revision, log_clock, 0

    def emit(self, fact: Fact | Outcome) -> None:
        """Appends a fact and sets its id: the revision and the fact's index within it."""
        fact.pos, fact.index, fact.v = self.revision, self._next_index, FACT_VERSION
        self._next_index += 1
        self.facts.append(fact)

    def note_question(self, row: ItemRow, before: Question | None) -> None:
        """Notes that the row's question may have changed; its decision's row follows (`streams.core.fold.asking`)."""
        if row.question is not before or (before is not None and before.decision is not None):
            self.asked.append((row, before))
