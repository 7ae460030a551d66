"""The mirror's rows by attribute and second of `date_created`, in memory, 8 bytes a row.

Pure. A reconciliation counts with it and finds where to cut; the rows themselves stay in SQLite.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from bc_attrvals.mirror.ranges import Range

#: (attribute id, second of `date_created`): where a row stands in the index.
Place = tuple[int, int]


class CreatedIndex:
    """Sorted seconds for each attribute, made of the places of all rows in ascending order."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._seconds: dict[int, array[int]] = {}
        for attribute_id, second in places:
            seconds = self._seconds.get(attribute_id)
            if seconds is None:
                seconds = self._seconds[attribute_id] = array("q")
            seconds.append(second)

    def add(self, places: Iterable[Place]) -> None:
        """Add rows."""
        for attribute_id, second in places:
            insort(self._seconds.setdefault(attribute_id, array("q")), second)

    def remove(self, places: Iterable[Place]) -> None:
        """Remove rows that are there."""
        for attribute_id, second in places:
            seconds = self._seconds[attribute_id]
            del seconds[bisect_left(seconds, second)]

    def attribute_ids(self) -> tuple[int, ...]:
        """Return the attributes that have rows, in ascending order."""
        return tuple(sorted(one for one, seconds in self._seconds.items() if seconds))

    def count(self, range_: Range) -> int:
        """Return how many rows a range has."""
        return self._count(range_.attribute_ids, range_.first, range_.last)

    def created_at(self, range_: Range, index: int) -> int:
        """Return the second of the row that is `index`th (from 0) by ascending `date_created`."""
        found = [one for one in map(self._seconds.get, range_.attribute_ids) if one]
        if len(found) == 1:
            return found[0][bisect_left(found[0], range_.first) + index]
        first = max(range_.first, min(seconds[0] for seconds in found))
        last = min(range_.last, max(seconds[-1] for seconds in found))
        seconds = range(first, last + 1)

        def up_to(second: int) -> int:
            return self._count(range_.attribute_ids, range_.first, second)

        return seconds[bisect_right(seconds, index, key=up_to)]

    def _count(self, attribute_ids: Iterable[int], first: int, last: int) -> int:
        found = [one for one in map(self._seconds.get, attribute_ids) if one]
        return sum(max(0, bisect_right(one, last) - bisect_left(one, first)) for one in found)
