"""The queue of waiting requests, and which of them is next. Pure: no clock, no event loop.

Refused requests go first, then interactive ones, then bulk ones. If an urgent and a bulk request
compete, one grant in eight goes to bulk, so that bulk jobs never stop. Among bulk flows the one
served longest ago is next, however many requests each has queued.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Flow

#: Of this many contested grants in a row, the last one goes to bulk.
_BULK_SHARE: Final = 8


class Waiting(msgspec.Struct, eq=False):
    """One request that waits."""

    operation: Operation
    flow: Flow
    is_bulk: bool
    # Whether it waits for its flow's turn: bulk, and not refused before.
    takes_turns: bool = False
    # Whether it has left the queue, granted or cancelled; it is dropped when its turn comes.
    is_gone: bool = False


class _Line(msgspec.Struct, eq=False):
    """The waiting requests of one operation."""

    refused: deque[Waiting] = msgspec.field(default_factory=deque)
    interactive: deque[Waiting] = msgspec.field(default_factory=deque)
    bulk: dict[Flow, deque[Waiting]] = msgspec.field(default_factory=dict)
    # Flows that wait, the one served longest ago first; turns differ, so flows never compare.
    turns: list[tuple[int, int, Flow]] = msgspec.field(default_factory=list)
    # The requests that wait, and the bulk requests among them.
    count: int = 0
    bulk_count: int = 0

    def first_urgent(self) -> Waiting | None:
        for queue in (self.refused, self.interactive):
            while queue and queue[0].is_gone:
                queue.popleft()
            if queue:
                return queue[0]
        return None

    def first_flow(self) -> Flow | None:
        while self.turns:
            flow = self.turns[0][2]
            waiting = self.bulk[flow]
            while waiting and waiting[0].is_gone:
                waiting.popleft()
            if waiting:
                return flow
            heapq.heappop(self.turns)
            del self.bulk[flow]
        return None


class FairQueue:
    """The waiting requests of all operations, in the order in which they are granted."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._lines = {operation: _Line() for operation in operations}
        self._turn = 0
        self._urgent_in_a_row = 0
        #: How many requests wait.
        self.count = 0

    def count_of(self, operation: Operation) -> int:
        """Return how many requests of an operation wait."""
        return self._lines[operation].count

    def bulk_count_of(self, operation: Operation) -> int:
        """Return how many bulk requests of an operation wait; refused ones are not counted."""
        return self._lines[operation].bulk_count

    def flow_count_of(self, operation: Operation) -> int:
        """Return how many bulk flows have requests of an operation that wait."""
        return len(self._lines[operation].bulk)

    def served(self, flow: Flow) -> None:
        """Note a grant to a flow. Call it for each grant, also for requests that did not wait."""
        self._turn += 1
        flow.turn = self._turn

    def add(self, waiting: Waiting, *, was_refused: bool = False) -> None:
        """Put a request into the queue; a refused one goes before all others."""
        line = self._lines[waiting.operation]
        if was_refused:
            line.refused.append(waiting)
        elif not waiting.is_bulk:
            line.interactive.append(waiting)
        else:
            waiting.takes_turns = True
            line.bulk_count += 1
            if waiting.flow in line.bulk:
                line.bulk[waiting.flow].append(waiting)
            else:
                line.bulk[waiting.flow] = deque([waiting])
                heapq.heappush(line.turns, (waiting.flow.turn, id(waiting.flow), waiting.flow))
        line.count += 1
        self.count += 1

    def leave(self, waiting: Waiting) -> None:
        """Take out a request that no longer waits."""
        if waiting.is_gone:
            return
        waiting.is_gone = True
        line = self._lines[waiting.operation]
        line.count -= 1
        self.count -= 1
        line.bulk_count -= waiting.takes_turns

    def all(self) -> list[Waiting]:
        """Return all waiting requests."""
        return [
            waiting
            for line in self._lines.values()
            for queue in (line.refused, line.interactive, *line.bulk.values())
            for waiting in queue
            if not waiting.is_gone
        ]

    def next(self, may_go: Callable[[Operation, bool], bool]) -> Waiting | None:
        """Take out the next request that may go; None if there is none.

        `may_go(operation, is_bulk)` returns whether such a request can be granted now.
        """
        urgent: Waiting | None = None
        bulk: tuple[_Line, Flow] | None = None
        for operation, line in self._lines.items():
            if not line.count:
                continue
            first = line.first_urgent()
            if (
                first is not None
                and (urgent is None or (line.refused and first is line.refused[0]))
                and may_go(operation, False)
            ):
                urgent = first
            flow = line.first_flow()
            if (
                flow is not None
                and (bulk is None or flow.turn < bulk[1].turn)
                and may_go(operation, True)
            ):
                bulk = (line, flow)
        if urgent is not None and bulk is not None:
            self._urgent_in_a_row += 1
            if self._urgent_in_a_row >= _BULK_SHARE:
                self._urgent_in_a_row = 0
                urgent = None
        if urgent is None and bulk is not None:
            line, flow = bulk
            heapq.heappop(line.turns)
            queue = line.bulk[flow]
            urgent = queue.popleft()
            self.leave(urgent)
            if queue:
                # Behind all flows served so far, because it is served now.
                heapq.heappush(line.turns, (self._turn + 1, id(flow), flow))
            else:
                del line.bulk[flow]
        elif urgent is not None:
            self.leave(urgent)
        return urgent
