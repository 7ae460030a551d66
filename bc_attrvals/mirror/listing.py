"""Lists parts of the mirror completely, and drops the rows that the listing did not show.

Pure. A part that fits a page is listed by one answer, which is a snapshot. The mirror has at least
as many rows of a range of the past as the store, so it is known where to cut. Larger parts are
listed by page numbers only where cutting costs more, and are cut if their pages do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from bc_attrvals.mirror.inquiry import Inquiry, Steps, UnprovenError
from bc_attrvals.mirror.parts import Node, Part, join, pages
from bc_attrvals.mirror.questions import Answer, Failure, SeenRow

#: Pages asked for at once, and pages of a listing by page numbers. It bounds the rows in memory.
_MOST_PAGES_HELD: Final = 64
#: Ranges of a page each are preferred if they take at most one read more for so many pages.
_PAGES_PER_MORE_READ: Final = 32
#: How often a part that can't be cut is listed.
_MOST_PASSES: Final = 8


def list_parts(inquiry: Inquiry, nodes: Sequence[Node]) -> Steps[None]:
    """List all nodes completely, and drop what is not shown.

    Raises `UnprovenError` for a part that can't be cut and that no pass lists completely.
    """
    planned: list[Node] = []
    for node in join(nodes):
        planned += yield from _plan(inquiry, node)
    while planned:
        cut_again: list[Node] = []
        for wave in _waves(inquiry, planned):
            for part in (yield from _list_wave(inquiry, wave)):
                cuts = list(_cut(inquiry, part, inquiry.page_size, may_overlap=True))
                if len(cuts) > 1:
                    cut_again += cuts
                else:
                    yield from _list_again(inquiry, part)
        planned = cut_again


def _plan(inquiry: Inquiry, node: Node) -> Steps[list[Node]]:
    """Return a node as ranges of a page each, or in larger ones where that costs too much more."""
    ranges = list(_cut(inquiry, node.part, inquiry.page_size, may_overlap=True))
    if len(ranges) == 1 or inquiry.is_moving:
        return ranges
    by_numbers = pages(node.stored, inquiry.page_size)
    reads = sum(pages(one.rows, inquiry.page_size) for one in ranges)
    if reads - by_numbers <= by_numbers // _PAGES_PER_MORE_READ and (
        yield from inquiry.can_count([one.part for one in ranges])
    ):
        return ranges
    size = -(-node.rows // pages(by_numbers, _MOST_PAGES_HELD))
    return list(_cut(inquiry, node.part, size, may_overlap=False))


def _waves(inquiry: Inquiry, nodes: Iterable[Node]) -> Iterator[list[Part]]:
    """Yield parts that are listed at once."""
    wave: list[Part] = []
    held = 0
    for node in nodes:
        count = pages(node.rows, inquiry.page_size)
        if wave and held + count > _MOST_PAGES_HELD:
            yield wave
            wave, held = [], 0
        wave.append(node.part)
        held += count
    if wave:
        yield wave


def _list_wave(inquiry: Inquiry, parts: Sequence[Part]) -> Steps[list[Part]]:
    """List parts, all first pages at once and then all others; return those not complete."""
    first = yield from inquiry.ask([inquiry.listing_question(part, 1) for part in parts])
    for answer in first:
        if len(answer.rows) < min(answer.total, inquiry.page_size):
            # The service gives smaller pages than it was asked for.
            inquiry.page_size = max(1, len(answer.rows))
    pages_of = [[answer] for answer in first]
    waiting = [
        (index, number)
        for index, answer in enumerate(first)
        for number in range(2, pages(answer.total, inquiry.page_size) + 1)
    ]
    for start in range(0, len(waiting), _MOST_PAGES_HELD):
        wave = waiting[start : start + _MOST_PAGES_HELD]
        answers = yield from inquiry.ask(
            [inquiry.listing_question(parts[index], number) for index, number in wave]
        )
        for (index, _), answer in zip(wave, answers, strict=True):
            pages_of[index].append(answer)
    incomplete = []
    for part, answers in zip(parts, pages_of, strict=True):
        if not (yield from _settle_if_complete(inquiry, part, answers)):
            incomplete.append(part)
    return incomplete


def _cut(inquiry: Inquiry, part: Part, size: int, *, may_overlap: bool) -> Iterator[Node]:
    """Yield a part in ranges of at most so many rows of the mirror, or of one second.

    A range is longer, unless it `may_overlap`, where it could not be told apart from the next one:
    a listing would show rows of both.
    """
    mirror = inquiry.mirror
    rest, rows = part, mirror.count(part)
    while rows > size:
        last = mirror.created_at(rest, size) - 1
        if last < rest.first or not mirror.count(attrs.evolve(rest, last=last)):
            last += 1
        while last < rest.last and not (may_overlap or inquiry.is_clear(rest, last)):
            last += 1
        piece = attrs.evolve(rest, last=last)
        count = mirror.count(piece)
        yield Node(piece, count, count)
        rest, rows = attrs.evolve(rest, first=piece.last + 1), rows - count
    if rows:
        yield Node(rest, rows, rows)


def _list_again(inquiry: Inquiry, part: Part) -> Steps[None]:
    """List a part that can't be cut until a pass over it is complete."""
    for _ in range(_MOST_PASSES):
        if not (yield from _list_wave(inquiry, [part])):
            return
    raise UnprovenError(Failure.KEPT_CHANGING)


def _settle_if_complete(inquiry: Inquiry, part: Part, answers: Sequence[Answer]) -> Steps[bool]:
    """Settle a part if all answers report one total, and as many different rows came."""
    rows: dict[int, SeenRow] = {row.id: row for answer in answers for row in answer.rows}
    if {answer.total for answer in answers} != {len(rows)}:
        return False
    yield from inquiry.settle(part, rows.values())
    return True
