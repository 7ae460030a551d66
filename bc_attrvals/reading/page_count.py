"""Counts the pages of one listing: which to ask for, which rows are new, whether it is complete.

Pure, and the same for all readers. The service has page numbers and no cursor, so only the rows of
the pages show whether a listing is complete. `total` is trusted while it does not change and the
rows agree with it. `per_page`, `current_page`, `total_pages` and `count` are not used: servers were
seen to cap the page and not the count, to count the pages of the whole store, and to number pages
from 0.
"""

from __future__ import annotations

from typing import Final, TypeVar

from bc_attrvals.core.models import MAX_ID, MAX_ROW_ID
from bc_attrvals.errors import ListingDriftError
from bc_attrvals.reading.seen_ids import HasId, SeenIds

#: Reading stops after this many pages in a row without a new row. It also stops after this many
#: pages beyond a total that does not change, once there are more rows than that total.
_MOST_STALE_PAGES: Final = 3
#: More pages without a new row are allowed as the total grows, because rows inserted in front push
#: the others to later pages: at most this many, or as many as had new rows.
_MOST_GROWN_PAGES: Final = 10
#: A listing takes at most `_MOST_TIMES_LONGER` times the pages of its first total, plus
#: `_MOST_PAGES_MORE`. Other clients that insert up to 7/8 of a page for each page read stay below.
_MOST_TIMES_LONGER: Final = 8
_MOST_PAGES_MORE: Final = 100
#: The most rows of a store: "customers can have a maximum of 50 customer attribute values"
#: (BigCommerce reference, Customer Attribute Values), and ids of customers are `int32`.
MOST_ROWS: Final = 50 * MAX_ID


R = TypeVar("R", bound=HasId)


class PageCount:
    """The pages of one query, counted from 1.

    A reader asks for the pages up to `last_page` in order, one or several at once, and gives each
    answer to `take`, in any order. It stops when `is_over`, or when no page is left, and then calls
    `check`. `limit` is the rows asked for in a page, and `size` the rows of a full one, 0 if it is
    unknown. A total above `most_rows`, which is more than the store can have for the query, ends
    the listing.

    A server with a correct total is asked only for the pages that its total needs. For any other
    server the calls are bounded. Reading goes on while pages have new rows, and stops after three
    without. If there are more rows than a total that does not change, three more pages are read in
    case it changes. A listing that others insert into takes up to 8 times the pages of its first
    total and 100 more; beyond that, the total grows faster than pages are read.
    """

    def __init__(self, limit: int, most_rows: int = MOST_ROWS, *, size: int = 0) -> None:
        self._limit = limit
        self._most_rows = most_rows
        #: The last page to ask for, by the answers so far.
        self.last_page = 1
        #: The latest total; None before the first answer.
        self.total: int | None = None
        #: Whether two answers had different totals.
        self.has_moved = False
        self._seen = SeenIds()
        self._without_id = 0
        self._taken = 0
        # The highest page that was answered, and whether it had new rows.
        self._highest = 0
        self._highest_has_news = False
        # The most rows of a page, taken as the size of a full one.
        self._size = size
        #: Whether an answer had fewer rows than its own total requires on its page.
        self.is_short_page = False
        # Pages with new rows, and pages in a row that should have had new rows and had none.
        self._news = 0
        self._stale = 0
        # Pages read beyond a total that does not change, once there were more rows than that.
        self._surplus_pages = 0
        self._most_pages = 0
        self._least_total = 0
        # Whether an answer had more rows than its own total.
        self._is_overfull = False
        #: Whether the answers contradict each other, so that further pages prove nothing.
        self.is_given_up = False

    def __repr__(self) -> str:
        return f"<PageCount {self.rows} rows of {self.total}, {self._taken} pages>"

    @property
    def rows(self) -> int:
        """How many different rows have come; each row with an unreadable id counts as one."""
        return len(self._seen) + self._without_id

    @property
    def page_size(self) -> int:
        """How many rows a full page has: the most seen, or `limit` before the first answer."""
        return self._size or self._limit

    @property
    def is_complete(self) -> bool:
        """True if the total never changed and as many different rows have come."""
        return not self.has_moved and self.rows == self.total

    @property
    def is_over(self) -> bool:
        """True if no further page is needed, pages under way included."""
        return self.is_given_up or self.is_complete

    def take(self, number: int, rows: list[R], total: int) -> list[R]:
        """Count one answer, and return its new rows.

        `number` is the page that was asked for, `total` the total of its answer.
        """
        brought = len(rows)
        has_news = brought > 0
        if not self._seen.add_ascending(rows):
            new = self._seen.add(row.id for row in rows if 0 < row.id <= MAX_ROW_ID)
            has_news = bool(new)
            rows = _first_of_each(rows, new)
            # Rows without an id can't be distinguished: they count, but are no reason to read on.
            self._without_id += sum(not 0 < row.id <= MAX_ROW_ID for row in rows)
        self._taken += 1
        self._size = max(self._size, brought)
        size = self.page_size
        expected = -(-total // size)
        self.is_short_page |= brought < min(size, total - (number - 1) * size)
        self.has_moved |= self.total is not None and total != self.total
        self._is_overfull |= brought > total
        self._least_total = total if self.total is None else min(total, self._least_total)
        self.total = total
        if has_news or number == 1:
            self._news += 1
            self._stale = 0
        elif number <= expected:
            self._stale += 1
            grown = (total - self._least_total) // size
            most = _MOST_STALE_PAGES + min(grown, max(_MOST_GROWN_PAGES, self._news))
            self.is_given_up = self._stale >= most
        # One answer contradicts itself, and the totals differ, so no total can be used.
        self.is_given_up |= (self._is_overfull and self.has_moved) or total > self._most_rows
        if self._taken == 1:
            self._most_pages = _MOST_TIMES_LONGER * expected + _MOST_PAGES_MORE
        elif number > expected and self.rows > total and not self.has_moved:
            self._surplus_pages += 1
            self.is_given_up |= self._surplus_pages >= _MOST_STALE_PAGES
        self._plan(number, expected, has_news=has_news)
        self.is_given_up |= self._most_pages <= self._taken < self.last_page
        return rows

    def check(self) -> None:
        """Raise `ListingDriftError` if the listing has ended and is not proven complete.

        A total that changed is not an error by itself, because inserts and deletes of others change
        it. It is one if an answer had fewer rows than its own total requires on its page.
        """
        if self.is_given_up or self._is_unproven:
            raise ListingDriftError(
                f"the listing brought {self.rows} different rows in {self._taken} pages; "
                f"its total says {self.total}"
            )

    @property
    def _is_unproven(self) -> bool:
        """Whether inserts and deletes of other clients can't explain the missing rows."""
        if self.total is None or self.is_complete:
            return False
        return not self.has_moved or (self.is_short_page and self.rows < self.total)

    def _plan(self, number: int, expected: int, *, has_news: bool) -> None:
        """Set `last_page`; `expected` is how many pages the latest total needs."""
        if number >= self._highest:
            self._highest = number
            self._highest_has_news = has_news
            self.last_page = expected
        else:
            # The answer of an earlier page shows no growth.
            self.last_page = min(self.last_page, max(expected, self._highest))
        if self._taken >= self.last_page and self._highest_has_news and self._is_unproven:
            self.last_page = self._highest + 1


def _first_of_each(rows: list[R], ids: set[int]) -> list[R]:
    """Return the first row of each of the ids, and all rows with an unreadable id."""
    first: list[R] = []
    for row in rows:
        if row.id in ids:
            ids.remove(row.id)
            first.append(row)
        elif not 0 < row.id <= MAX_ROW_ID:
            first.append(row)
    return first
