"""Finds the rows of a mirror that are gone from the store, by counts and few listings.

Pure: the mirror's counts × the store's answers → the next questions, rows to drop, or the end. The
refresh sends the questions; an index counts the mirror's rows, and the replica drops them.

The mirror holds every row of the store up to a second of the past, and rows that are gone. A past
range of `date_created` only loses rows. So:

- A count equal to the mirror's proves the mirror's part equal at that moment.
- A complete listing shows which rows of its part are gone. Nothing else drops a row.
- A count that follows by subtraction guides the search and proves nothing. All that was passed over
  for it is counted again in the next round, and searched again if it still differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bc_attrvals.mirror.inquiry import LEARNING_READS, Inquiry, Steps, UnprovenError
from bc_attrvals.mirror.listing import list_parts
from bc_attrvals.mirror.narrowing import narrow
from bc_attrvals.mirror.parts import BEGINNING, Part, hull, pages
from bc_attrvals.mirror.questions import Answer, Ask, Bounds, Done, Failed, MirrorCounts, Step

#: Reads above those of listing anew, on a store at rest.
SPARE_READS: Final = 14
#: One read more than listing anew for so many pages: cuts between seconds leave pages part empty.
_PAGES_PER_SPARE_READ: Final = 32
#: Rounds before all that is unproven is listed.
_MOST_ROUNDS: Final = 4
#: Reads in multiples of `most_reads`. Only answers that contradict each other reach it.
_MOST_READS_FACTOR: Final = 6


def most_reads(stored: int, page_size: int, *, bounds_known: bool = True) -> int:
    """Return the reads that a reconciliation takes at most while no other client deletes.

    Those of listing the `stored` rows anew, a thirty-second more, and `SPARE_READS`;
    `LEARNING_READS` more if the bounds are not known.
    """
    anew = pages(stored, page_size)
    learning = 0 if bounds_known else LEARNING_READS
    return anew + anew // _PAGES_PER_SPARE_READ + SPARE_READS + learning


class Reconciliation:
    """One search for the rows that are gone.

    `until` is the last second to search, in UNIX seconds. No row can be created any more at or
    before second `until + 1`, and the mirror holds every row of the store up to there. `bounds`
    are those that an earlier reconciliation of the same store has proven.
    """

    def __init__(
        self, mirror: MirrorCounts, *, until: int, page_size: int, bounds: Bounds | None = None
    ) -> None:
        attribute_ids = tuple(sorted(mirror.attribute_ids()))
        rows = mirror.count(Part(attribute_ids, BEGINNING, until))
        self._inquiry = Inquiry(
            mirror,
            until=until,
            page_size=page_size,
            bounds=bounds or Bounds(),
            most_asked=_MOST_READS_FACTOR * most_reads(rows, page_size, bounds_known=False),
        )
        self._steps: Steps[Done] = _reconcile(self._inquiry)
        self._has_begun = False
        self._expected = 0
        self._end: Done | Failed | None = None

    @property
    def asked(self) -> int:
        """Questions answered so far."""
        return self._inquiry.asked

    @property
    def bounds(self) -> Bounds:
        """What is known of the bounds by now."""
        return self._inquiry.bounds

    def advance(self, answers: Sequence[Answer] = ()) -> Step:
        """Return the next step, given the answers of the last one if that was an `Ask`.

        `Done` and `Failed` end the reconciliation, and are returned by each further call. Raises
        ValueError unless there are as many answers as there were questions, and RuntimeError after
        an error of the mirror.
        """
        if self._end is not None:
            return self._end
        if len(answers) != self._expected:
            raise ValueError(f"{self._expected} answers were expected, not {len(answers)}")
        try:
            step = self._steps.send(answers) if self._has_begun else next(self._steps)
        except StopIteration as stop:
            if stop.value is None:
                raise RuntimeError("the reconciliation was ended by an error") from None
            done: Done = stop.value
            self._end = done
            return done
        except UnprovenError as error:
            self._end = Failed(error.reason)
            return self._end
        self._has_begun = True
        self._expected = len(step.questions) if isinstance(step, Ask) else 0
        return step


def _reconcile(inquiry: Inquiry) -> Steps[Done]:
    for number in range(_MOST_ROUNDS):
        inquiry.unproven = [part for part in inquiry.unproven if inquiry.mirror.count(part)]
        if not inquiry.unproven:
            return Done(inquiry.deficit)
        # The second round counts what the first passed over, and mostly finds it equal.
        inquiry.is_moving = number > 0
        yield from _round(inquiry, inquiry.widened(hull(inquiry.unproven)))
    yield from list_parts(inquiry, [inquiry.node(part) for part in inquiry.unproven])
    return Done(inquiry.deficit)


def _round(inquiry: Inquiry, whole: Part) -> Steps[None]:
    """Count a part, and search it if the count differs."""
    before = inquiry.spent
    root = inquiry.node(whole)
    nodes = [root]
    can_narrow = root.rows > inquiry.page_size and (yield from inquiry.can_count([whole]))
    if can_narrow:
        yield from inquiry.count(nodes)
        if not root.surplus:
            return
        inquiry.limit = before + pages(root.stored, inquiry.page_size) + SPARE_READS
        nodes = yield from narrow(inquiry, root)
    yield from list_parts(inquiry, nodes)
