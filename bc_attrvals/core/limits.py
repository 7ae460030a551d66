"""How much may be under way at once, and how much goes into a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import attrs

from bc_attrvals.errors import InvalidInputError

__all__ = ["MAX_BATCH_SIZE", "MAX_PAGE_SIZE", "Limits"]

#: "Limit of 10 customers per call" (reference of PUT); rows is the safe reading.
MAX_BATCH_SIZE: Final = 10
#: The largest `limit` of the service's general guide.
MAX_PAGE_SIZE: Final = 250


def _between(
    low: int, high: int | None = None
) -> Callable[[object, attrs.Attribute[int], int], None]:
    def check(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        del instance
        good = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not good or (high is not None and value > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            message = f"{attribute.name} must be an int {bounds}, not {value!r}"
            raise InvalidInputError(message, field=attribute.name)

    return check


def _rows_or_customers(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    del instance
    if value not in ("rows", "customers"):
        message = f'{attribute.name} must be "rows" or "customers", not {value!r}'
        raise InvalidInputError(message, field=attribute.name)


@attrs.frozen(kw_only=True)
class Limits:
    """Requests at once per operation, sizes of calls, and what is left to other apps.

    `reads`, `writes` and `deletes` are requests at once; the service allows three PUTs
    at once per store. `batch_size` is items in a PUT (at most 10), `page_size` rows in a page (at
    most 250), `delete_size` ids in a DELETE (the service's most is not documented). `reserve` is
    how many calls of each quota window are left to other apps of the store; one call a window is
    always made. `max_response_bytes` bounds one answer, after decompression.

    `batch_by` says what `batch_size` counts in bulk writes: "rows", or "customers", all of whose
    rows go into one call. The reference allows "10 customers per call" (BigCommerce reference,
    Upsert Customer Attribute Values), which may mean rows; so the first call with more rows that is
    refused, and no item of it named, makes all later ones of the Store count rows.
    """

    reads: int = attrs.field(default=10, validator=_between(1))
    writes: int = attrs.field(default=3, validator=_between(1))
    deletes: int = attrs.field(default=3, validator=_between(1))
    batch_size: int = attrs.field(default=10, validator=_between(1, MAX_BATCH_SIZE))
    batch_by: Literal["rows", "customers"] = attrs.field(
        default="rows", validator=_rows_or_customers
    )
    page_size: int = attrs.field(default=250, validator=_between(1, MAX_PAGE_SIZE))
    delete_size: int = attrs.field(default=50, validator=_between(1))
    reserve: int = attrs.field(default=0, validator=_between(0))
    max_response_bytes: int = attrs.field(default=8 * 2**20, validator=_between(1024))
