"""The sizes of batches, pages, DELETEs and look-ups that a Store has learnt from refusals."""

from __future__ import annotations

from typing import Final

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.refusals import SMALLEST_PAGE, is_of_page_size, page_size_named
from bc_attrvals.errors import APIError

#: The service's own default `limit` (BigCommerce guide, Filtering).
DEFAULT_PAGE_SIZE: Final = 50


class LearntSizes:
    """The sizes of calls: those of `Limits` at first, smaller once the service has refused them.

    A Store has one, so that each refusal is learnt once.
    """

    __slots__ = (
        "_blames_items",
        "_inferred",
        "accepted",
        "batch",
        "customers",
        "delete",
        "disregards_case",
        "look_up",
        "page",
    )

    def __init__(self, limits: Limits) -> None:
        self.page = limits.page_size
        self.batch = limits.batch_size
        #: Customers in a call, with all their rows; 0 if the batch size counts rows.
        self.customers = limits.batch_size if limits.batch_by == "customers" else 0
        #: The most rows of a PUT that the service has stored, as far as that is still believed.
        self.accepted = 0
        # How many PUTs in a row were refused, though no item was bad.
        self._inferred = 0
        # Whether a refusal that was taken for one of the size has turned out to be one of an item.
        self._blames_items = False
        self.delete = limits.delete_size
        #: The most addresses or ids of customers in one call; a URL may hold fewer.
        self.look_up = limits.page_size
        #: Whether an answer has shown that `email:in` ignores case.
        self.disregards_case = False

    def write_calls(self, values: int, customers: int) -> int:
        """Return how many calls it takes to write `values` values of `customers` customers."""
        return -(-customers // self.customers) if self.customers else -(-values // self.batch)

    def lower_page(self, limit: int, error: APIError) -> bool:
        """Lower the page size if an error refuses `limit`; return whether it does.

        Without a size that the error names, the default of the service is next, then halves of it.
        """
        if limit <= SMALLEST_PAGE or not is_of_page_size(error):
            return False
        guess = DEFAULT_PAGE_SIZE if limit > DEFAULT_PAGE_SIZE else max(SMALLEST_PAGE, limit // 2)
        self.page = min(self.page, page_size_named(error, limit) or guess)
        return True

    def lower_look_up(self, most: int) -> None:
        """Lower the customers in one look-up to `most`."""
        self.look_up = min(self.look_up, most)

    def lower_batch(self, size: int) -> None:
        """Lower the batch size to `size`, which counts rows from now on."""
        self.batch = max(1, min(self.batch, size))
        self.customers = 0

    def doubts(self, rows: int) -> bool:
        """Return whether a refusal of `rows` rows that names no reason may be one of their number.

        Not if as many rows have been stored, or if such a guess was wrong once.
        """
        return rows > self.accepted and not self._blames_items

    def blame_items(self) -> None:
        """Note that a refusal was one of an item, though the size was doubted."""
        self._blames_items = True

    def infer_batch(self, refused: int, accepted: int) -> None:
        """Note that a refused PUT of so many rows was stored in parts, of `accepted` rows at most.

        No item was bad. The second such PUT in a row shows that its size was refused.
        """
        self._inferred += 1
        if self._inferred > 1:
            self.lower_batch(accepted)
        self.accepted = min(self.accepted, refused - 1)

    def accept(self, rows: int) -> None:
        """Note that a PUT of more rows than `accepted` was stored."""
        self.accepted, self._inferred = rows, 0

    def lower_delete(self, size: int) -> None:
        """Lower the ids in one DELETE to `size`."""
        self.delete = max(1, min(self.delete, size))
