"""What a reconciliation asks the store and the mirror, and the steps that it returns.

Pure data, between `reconcile.py` and the refresh that sends the questions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import attrs

from bc_attrvals.mirror.parts import Part


@attrs.frozen
class Bounds:
    """Whether `date_created:min` and `:max` include their own second; None is not known.

    BigCommerce reference, Get Customer Attribute Values, does not say it.
    """

    min_inclusive: bool | None = None
    max_inclusive: bool | None = None

    @property
    def are_known(self) -> bool:
        """True when both are known."""
        return self.min_inclusive is not None and self.max_inclusive is not None


@attrs.frozen
class Question:
    """One page of a listing; a `limit` of 1 is for the total.

    `minimum` and `maximum` are `date_created:min` and `:max` in UNIX seconds, to be sent as they
    are; a minimum of None is left out. `attribute_ids` of None leaves that filter out. Pages count
    from 1.
    """

    attribute_ids: tuple[int, ...] | None
    minimum: int | None
    maximum: int
    page: int
    limit: int


class SeenRow(NamedTuple):
    """A row that an answer showed. `created` is its `date_created` in UNIX seconds."""

    id: int
    attribute_id: int
    created: int


@attrs.frozen
class Answer:
    """The total that an answer reported, and the rows that it showed, for a `limit` of 1 too."""

    total: int
    rows: Sequence[SeenRow] = ()


@attrs.frozen
class Ask:
    """Send these questions, at once or in any order; give the answers to `advance` in their order.

    Take the rows of the answers into the mirror first.
    """

    questions: tuple[Question, ...]


@attrs.frozen
class Drop:
    """Drop the mirror's rows of `part` that are not in `keep`, before the next `advance`.

    A complete listing of the part showed the rows of `keep` and no others. So each drop is right
    by itself, and may be committed at once.
    """

    part: Part
    keep: frozenset[int]


@attrs.frozen
class Done:
    """Each part of the mirror equalled the store's at some moment since the start.

    `deficit` is the largest number of rows by which the store's count of a part was above the
    mirror's. It is 0 unless the mirror lacked rows, or the service's counts are wrong. Such parts
    were listed; but gains and losses of other parts may have cancelled out.
    """

    deficit: int = 0


class Failure(enum.Enum):
    """Why the mirror could not be proven equal. What was dropped before is right."""

    KEPT_CHANGING = "a part that can't be cut by date_created kept changing while it was listed"
    OUTSIDE_OF_FILTER = "the service answered rows outside of the filter it was asked for"
    TOO_MANY_READS = "the service's counts and listings did not agree in a bounded number of reads"


@attrs.frozen
class Failed:
    """The mirror could not be proven equal."""

    reason: Failure


Step: TypeAlias = Ask | Drop | Done | Failed


class MirrorCounts(Protocol):
    """What the mirror holds at the moment of the call."""

    def attribute_ids(self) -> Iterable[int]:
        """Return the ids of the attributes that it has rows of."""
        ...

    def count(self, part: Part) -> int:
        """Return how many rows it has of a part."""
        ...

    def created_at(self, part: Part, index: int) -> int:
        """Return the `date_created` of a row, in UNIX seconds.

        `index` is the row's place by ascending `date_created`, from 0, and below the part's count.
        """
        ...
