"""Parts of a mirror: attributes × seconds of `date_created`, and what it costs to read them.

Pure. `reconcile.py` decides with it which parts to count and which to list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

#: The first second of a part that has no lower bound.
BEGINNING: Final = -(2**62)


@attrs.frozen
class Part:
    """Rows of some attributes that were created from second `first` to second `last`.

    Seconds are UNIX seconds, both included. `attribute_ids` are in ascending order.
    """

    attribute_ids: tuple[int, ...]
    first: int
    last: int

    def meets(self, other: Part) -> bool:
        """Return whether a row can belong to both."""
        return (
            self.first <= other.last
            and other.first <= self.last
            and not set(self.attribute_ids).isdisjoint(other.attribute_ids)
        )


@attrs.define
class Node:
    """A part, the mirror's rows of it, and the rows that the store has by the last count."""

    part: Part
    rows: int
    stored: int
    is_divisible: bool = True

    @property
    def surplus(self) -> int:
        """The difference of the two counts."""
        return abs(self.rows - self.stored)


def subtract(part: Part, other: Part) -> list[Part]:
    """Return what of a part is outside of another, as parts that do not overlap."""
    if not part.meets(other):
        return [part]
    common = tuple(one for one in part.attribute_ids if one in other.attribute_ids)
    rest = tuple(one for one in part.attribute_ids if one not in other.attribute_ids)
    outside = []
    if rest:
        outside.append(attrs.evolve(part, attribute_ids=rest))
    if part.first < other.first:
        outside.append(Part(common, part.first, other.first - 1))
    if other.last < part.last:
        outside.append(Part(common, other.last + 1, part.last))
    return outside


def hull(parts: Sequence[Part]) -> Part:
    """Return the smallest part that contains all of the parts."""
    attribute_ids = {one for part in parts for one in part.attribute_ids}
    first = min(part.first for part in parts)
    return Part(tuple(sorted(attribute_ids)), first, max(part.last for part in parts))


def join(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with neighbours joined, so that no page is left part empty between them."""
    joined: list[Node] = []
    for node in sorted(nodes, key=lambda one: (one.part.attribute_ids, one.part.first)):
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.part.attribute_ids == node.part.attribute_ids
            and before.part.last + 1 == node.part.first
        ):
            whole = attrs.evolve(before.part, last=node.part.last)
            joined[-1] = Node(whole, before.rows + node.rows, before.stored + node.stored)
        else:
            joined.append(node)
    return joined


def pages(rows: int, page_size: int) -> int:
    """Return the reads that list so many rows. An empty listing takes one, too."""
    return max(1, -(-rows // page_size))


def expected_reads(node: Node, page_size: int) -> float:
    """Return the reads that find a node's surplus, if it is spread by chance over the node.

    The node is halved to the depth that costs least, and what then has a surplus is listed. Each
    node with a surplus costs one count: the other half's count follows by subtraction.
    """
    if not node.surplus:
        return 0.0
    least = float(pages(node.stored, page_size))
    counts = 0.0
    parts = 1
    while node.stored > page_size * parts:
        counts += _parts_hit(parts, node.surplus)
        if counts >= least:
            break
        parts *= 2
        listing = pages(-(-node.stored // parts), page_size)
        least = min(least, counts + _parts_hit(parts, node.surplus) * listing)
    return least


def _parts_hit(parts: int, rows: int) -> float:
    """Return the expected number of equal parts that hold one of the rows at least."""
    return parts * (1.0 - (1.0 - 1.0 / parts) ** rows)
