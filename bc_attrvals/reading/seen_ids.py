"""The ids of the rows that a listing has brought, exact and in little memory.

Pure. Rows come in pages, mostly by ascending id: a page of ids that lie together is kept as one
run, a few bytes an id or none where no id is missing. Ids in any other order are kept as exactly,
and cost more time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, TypeAlias

from bc_attrvals.core.models import MAX_ROW_ID

#: A run is a `range` where it has no gaps, else its ids ascending.
_Run: TypeAlias = "range | array[int]"

#: Ids of a run, after which the next one is begun or a run is cut in two: what an insertion moves.
_RUN_SIZE: Final = 2_048


class SeenIds:
    """A set of positive 64-bit ids. It holds runs of ids that do not overlap, in order."""

    __slots__ = ("_count", "_firsts", "_runs")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        # The first id of each run.
        self._firsts: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Iterable[int]) -> set[int]:
        """Add ids, and return those of them that were not there before.

        Raises `OverflowError` for an id that is not positive or has more than 64 bits.
        """
        ordered = sorted(ids)
        new = set(ordered)
        if not new:
            return new
        if len(new) < len(ordered):
            ordered = sorted(new)
        if ordered[0] < 1 or ordered[-1] > MAX_ROW_ID:
            raise OverflowError
        place = bisect_right(self._firsts, ordered[-1])
        if not place or self._runs[place - 1][-1] < ordered[0]:
            self._insert_run(place, ordered)
        else:
            new = {one for one in ordered if self._insert(one)}
        self._count += len(new)
        return new

    def _insert_run(self, place: int, ordered: list[int]) -> None:
        """Add ids that lie between two runs."""
        run: _Run
        if ordered[-1] - ordered[0] == len(ordered) - 1:
            run = range(ordered[0], ordered[-1] + 1)
        else:
            run = array("q", ordered)
        if place:
            before = self._runs[place - 1]
            if isinstance(before, range) and isinstance(run, range) and before.stop == run.start:
                self._runs[place - 1] = range(before.start, run.stop)
                return
            if isinstance(before, array) and len(before) + len(run) <= _RUN_SIZE:
                before.extend(run)
                return
        self._runs.insert(place, run)
        self._firsts.insert(place, run[0])

    def _insert(self, one: int) -> bool:
        """Add one id; return False when it was there."""
        place = bisect_right(self._firsts, one)
        run = self._runs[place - 1] if place else None
        if run is None or run[-1] < one:
            self._insert_run(place, [one])
            return True
        if isinstance(run, range):
            return False
        index = bisect_left(run, one)
        if run[index] == one:
            return False
        run.insert(index, one)
        if len(run) > _RUN_SIZE:
            middle = len(run) // 2
            self._runs[place - 1 : place] = [run[:middle], run[middle:]]
            self._firsts.insert(place, run[middle])
        return True
