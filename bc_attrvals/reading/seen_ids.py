"""The set of the row ids that a listing has returned, exact and in little memory.

Pure. Rows come in pages, mostly by ascending id. A page of neighbouring ids is kept as one run: a
few bytes for each id, or none if no id is missing. Ids in any other order are also kept exactly,
and cost more time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from struct import pack
from typing import Final, Protocol, TypeAlias

from bc_attrvals.core.models import MAX_ROW_ID

#: A run is a `range` if it has no gaps, else an array of ascending ids.
_Run: TypeAlias = "range | array[int]"

#: The most ids of an array; a longer one is cut in two. It limits what an insertion moves.
_RUN_SIZE: Final = 2_048


class HasId(Protocol):
    """A row, whole or in part."""

    @property
    def id(self) -> int:
        """Its id; one that can't be read is 0."""


class SeenIds:
    """A set of positive 64-bit ids, kept as ordered runs that do not overlap."""

    __slots__ = ("_count", "_firsts", "_runs")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        # The first id of each run.
        self._firsts: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_ascending(self, rows: Sequence[HasId]) -> bool:
        """Add the ids of rows if they ascend and none of the set lies between them.

        Returns whether they were added. This is the fast path for the pages of most listings.
        """
        last = 0
        for row in rows:
            one = row.id
            if one <= last:
                return False
            last = one
        if not last or last > MAX_ROW_ID:
            return not last
        first = rows[0].id
        place = bisect_right(self._firsts, last)
        if place and self._runs[place - 1][-1] >= first:
            return False
        if last - first == len(rows) - 1:
            self._insert_run(place, range(first, last + 1))
        else:
            self._insert_run(place, _array_of([row.id for row in rows]))
        self._count += len(rows)
        return True

    def add(self, ids: Iterable[int]) -> set[int]:
        """Add ids, and return those that are new.

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
            self._insert_run(place, _run_of(ordered))
        else:
            new = {one for one in ordered if self._insert(one)}
        self._count += len(new)
        return new

    def _insert_run(self, place: int, run: _Run) -> None:
        """Add ids that lie between two runs."""
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
        """Add one id; return False if it is not new."""
        place = bisect_right(self._firsts, one)
        run = self._runs[place - 1] if place else None
        if run is None or run[-1] < one:
            self._insert_run(place, range(one, one + 1))
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


def _run_of(ordered: list[int]) -> _Run:
    first, last = ordered[0], ordered[-1]
    has_gaps = last - first >= len(ordered)
    return _array_of(ordered) if has_gaps else range(first, last + 1)


def _array_of(ordered: list[int]) -> array[int]:
    # `array("q", ordered)` takes twice as long.
    return array("q", pack(f"{len(ordered)}q", *ordered))
