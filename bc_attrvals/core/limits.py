"""How much may be under way at once, and how much goes into a call."""

from __future__ import annotations

import os
from typing import Any, Final, Literal, Self

import attrs

from bc_attrvals.core.arguments import between
from bc_attrvals.errors import InvalidInputError

#: "Limit of 10 customers per call" (reference of PUT); rows is the safe reading.
MAX_BATCH_SIZE: Final = 10
#: The largest `limit` of the service's general guide.
MAX_PAGE_SIZE: Final = 250


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

    `coalesce_ms`: concurrent `upsert` calls of a few items share PUTs. One that comes while another
    is under way waits so long for more, unless a batch is full or the others have ended; where all
    `writes` are in use it waits for one of them. A lone call waits for nothing; 0 shares nothing.
    """

    reads: int = attrs.field(default=10, validator=between(1))
    writes: int = attrs.field(default=3, validator=between(1))
    deletes: int = attrs.field(default=3, validator=between(1))
    batch_size: int = attrs.field(default=10, validator=between(1, MAX_BATCH_SIZE))
    batch_by: Literal["rows", "customers"] = attrs.field(
        default="rows", validator=_rows_or_customers
    )
    page_size: int = attrs.field(default=250, validator=between(1, MAX_PAGE_SIZE))
    delete_size: int = attrs.field(default=50, validator=between(1))
    reserve: int = attrs.field(default=0, validator=between(0))
    coalesce_ms: int = attrs.field(default=10, validator=between(0, 1_000))
    max_response_bytes: int = attrs.field(default=8 * 2**20, validator=between(1024))

    @classmethod
    def from_probe(cls, file: str | os.PathLike[str]) -> Self:
        """Return the limits that `bc-attrvals probe` found at a store, by its JSON file.

        `page_size`, `batch_size`, `batch_by` and `delete_size` are set, as far as they are settled
        there, and no larger than these may be; the rest are the defaults. `attrs.evolve` changes
        one. Raises `InvalidInputError` for another file, and OSError where it can't be read.
        """
        # Here, so that a Store does not load what only this reads.
        from bc_attrvals.core.probe_file import read_probe_file

        facts = read_probe_file(file)
        found: dict[str, Any] = {}
        for field, name, most in (
            ("page_size", "max_limit", MAX_PAGE_SIZE),
            ("batch_size", "max_items", MAX_BATCH_SIZE),
            ("delete_size", "max_delete_ids", None),
        ):
            largest = facts[name].largest if name in facts else None
            if largest is not None:
                found[field] = largest if most is None else min(largest, most)
        if "batch_by" in facts:
            found["batch_by"] = facts["batch_by"].value
        return cls(**found)
