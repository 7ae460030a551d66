"""Cuts a listing by `date_created` into parts that fit one answer each.

Pure. `modified_since.py` reads the parts. Whether a bound of the service includes its own second is
not documented, so a part is asked for with one second more at each end. Those rows count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import attrs


@attrs.frozen
class CreatedPart:
    """Rows created from second `first` to second `last`, both included; None is without a bound.

    `is_crowded` says that it does not fit one answer and can't be cut.
    """

    first: int | None = None
    last: int | None = None
    is_crowded: bool = False

    def count(self, created: Sequence[int]) -> int:
        """Return how many of some rows, in ascending order of seconds, an answer shows."""
        start = 0 if self.first is None else bisect_left(created, self.first - 1)
        end = len(created) if self.last is None else bisect_right(created, self.last + 1)
        return end - start


def cut(part: CreatedPart, created: Sequence[int], most: int) -> list[CreatedPart]:
    """Return a part in parts that show at most `most` of some rows each, unless they are crowded.

    `created` has the seconds of the rows in ascending order. The parts do not overlap.
    """
    parts: list[CreatedPart] = []
    rest = attrs.evolve(part, is_crowded=False)
    while rest.count(created) > most:
        start, own = 0, 0
        if rest.first is not None:
            start, own = bisect_left(created, rest.first - 1), bisect_left(created, rest.first)
        # The first second with a row of its own, and the last one up to which the rows fit.
        head = created[own] if own < len(created) else None
        last = created[start + most] - 2
        is_crowded = head is None or last < head
        if head is not None and is_crowded:
            # The next part shows few of these rows.
            last = head + 1
            while _rows_of(created, last) > most // 2:
                last += 1
        if head is None or (rest.last is not None and last >= rest.last):
            return [*parts, attrs.evolve(rest, is_crowded=is_crowded)]
        parts.append(CreatedPart(rest.first, last, is_crowded))
        rest = attrs.evolve(rest, first=last + 1)
    return [*parts, rest]


def _rows_of(created: Sequence[int], second: int) -> int:
    return bisect_right(created, second) - bisect_left(created, second)
