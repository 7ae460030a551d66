"""Narrows a surplus of the mirror by counts to the parts that are worth listing.

Pure. A part is cut at its median second; one half is counted, and the other follows by
subtraction. The cost is bounded: a count is asked only while listing all that is left stays within
the limit of the round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import attrs

from bc_attrvals.mirror.inquiry import Inquiry, Steps
from bc_attrvals.mirror.parts import Node, Part, expected_reads, join, pages

#: Counts that look for clusters where a surplus is dense.
_EXPLORING_COUNTS: Final = 5
#: Further such counts for each that found a part equal.
_COUNTS_PER_FIND: Final = 2
#: Even with one row gone, halving costs as many reads as listing below so many pages.
_LEAST_PAGES_TO_EXPLORE: Final = 4
#: Groups of attributes that are counted at once.
_ATTRIBUTE_GROUPS: Final = 8
#: At the end of a round, one count of what was passed over.
_RESERVED_READS: Final = 1


def narrow(inquiry: Inquiry, root: Node) -> Steps[list[Node]]:
    """Return the parts of a root to list: all that have a surplus, as far as counts show."""
    nodes = yield from _by_attribute(inquiry, root)
    exploring = _EXPLORING_COUNTS
    while True:
        chosen, explored = _choose(inquiry, nodes, exploring)
        if not chosen:
            return nodes
        halves = [(node, pair) for node in chosen if (pair := _halves(inquiry, node))]
        if not halves:
            continue
        if not (yield from inquiry.can_count([one.part for _, pair in halves for one in pair])):
            return nodes
        exploring -= len(explored)
        yield from _count_halves(inquiry, halves)
        for node, pair in halves:
            children = _with_surplus(inquiry, pair)
            nodes = [one for one in nodes if one is not node] + children
            if len(children) < 2 and any(node is one for one in explored):
                exploring += _COUNTS_PER_FIND


def _choose(
    inquiry: Inquiry, nodes: Sequence[Node], exploring: int
) -> tuple[list[Node], list[Node]]:
    """Return the nodes to halve next, and those of them whose surplus is dense."""
    most = _affordable_counts(inquiry, nodes)
    # A few at once at first, so that the search goes deep before it goes wide: small parts are
    # soonest found equal, and each makes more counts affordable.
    most = min(most, max(1, most // 4))
    chosen: list[Node] = []
    explored: list[Node] = []
    for node in sorted(nodes, key=lambda one: one.stored):
        if len(chosen) >= most:
            break
        if _is_worth_halving(inquiry, node):
            chosen.append(node)
        elif _is_worth_exploring(inquiry, node) and len(explored) < exploring:
            explored.append(node)
            chosen.append(node)
    return chosen, explored


def _affordable_counts(inquiry: Inquiry, nodes: Iterable[Node]) -> int:
    """Return how many counts may be asked such that listing all nodes then keeps the limit.

    A count costs two reads at most: itself, and a page that is part empty because of the cut.
    """
    listing = sum(pages(node.stored, inquiry.page_size) for node in join(nodes))
    return (inquiry.limit - _RESERVED_READS - inquiry.spent - listing) // 2


def _is_worth_halving(inquiry: Inquiry, node: Node) -> bool:
    listing = pages(node.stored, inquiry.page_size)
    return node.is_divisible and expected_reads(node, inquiry.page_size) < listing


def _is_worth_exploring(inquiry: Inquiry, node: Node) -> bool:
    listing = pages(node.stored, inquiry.page_size)
    return node.is_divisible and listing >= _LEAST_PAGES_TO_EXPLORE


def _halves(inquiry: Inquiry, node: Node) -> tuple[Node, Node] | None:
    """Return a node cut at its median second, or None and mark it if all rows share a second."""
    part, mirror = node.part, inquiry.mirror
    if node.rows > 1:
        middle = mirror.created_at(part, node.rows // 2)
        before = mirror.count(attrs.evolve(part, last=middle - 1)) if middle > part.first else 0
        after = node.rows - before - mirror.count(attrs.evolve(part, first=middle, last=middle))
        if before and before >= after:
            return _pair(node, middle - 1, before)
        if after:
            return _pair(node, middle, node.rows - after)
    node.is_divisible = False
    return None


def _pair(node: Node, last: int, rows: int) -> tuple[Node, Node]:
    left, right = attrs.evolve(node.part, last=last), attrs.evolve(node.part, first=last + 1)
    return Node(left, rows, node.stored), Node(right, node.rows - rows, 0)


def _count_halves(
    inquiry: Inquiry, halves: Sequence[tuple[Node, tuple[Node, Node]]]
) -> Steps[None]:
    """Ask for the counts of the left halves, and subtract for the right ones."""
    yield from inquiry.count([left for _, (left, _) in halves])
    for node, (left, right) in halves:
        right.stored = _possible(right, node.stored - left.stored)


def _by_attribute(inquiry: Inquiry, root: Node) -> Steps[list[Node]]:
    """Return the root by groups of attributes if its surplus is then cheaper to find."""
    nodes: list[Node] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        groups = _attribute_groups(node.part)
        children: list[Node] | None = None
        if (
            1 < len(groups) < pages(node.stored, inquiry.page_size)
            and len(groups) <= _affordable_counts(inquiry, [*waiting, *nodes, node])
            and not _is_worth_halving(inquiry, node)
        ):
            children = yield from _count_groups(inquiry, node, groups)
        if children is None:
            nodes.append(node)
        else:
            waiting += children
    return nodes


def _attribute_groups(part: Part) -> list[Part]:
    ids = part.attribute_ids
    count = min(len(ids), _ATTRIBUTE_GROUPS)
    cuts = [len(ids) * index // count for index in range(count + 1)]
    return [attrs.evolve(part, attribute_ids=ids[start:end]) for start, end in pairwise(cuts)]


def _count_groups(inquiry: Inquiry, node: Node, groups: Sequence[Part]) -> Steps[list[Node] | None]:
    """Return the groups with a surplus, or None if they are no cheaper to search than the node."""
    if not (yield from inquiry.can_count(groups)):
        return None
    counted = [inquiry.node(part, node.stored) for part in groups[:-1]]
    yield from inquiry.count(counted)
    last = inquiry.node(groups[-1])
    last.stored = _possible(last, node.stored - sum(one.stored for one in counted))
    children = _with_surplus(inquiry, [*counted, last])
    expected = sum(expected_reads(child, inquiry.page_size) for child in children)
    return children if expected < expected_reads(node, inquiry.page_size) else None


def _possible(node: Node, stored: int) -> int:
    """Return a count that follows by subtraction, within what it can be if rows went meanwhile."""
    return max(0, min(node.rows, stored))


def _with_surplus(inquiry: Inquiry, nodes: Iterable[Node]) -> list[Node]:
    # A surplus of a part that is proven is of rows that went since.
    return [node for node in nodes if node.surplus and inquiry.is_unproven(node.part)]
