"""`Limits`: requests at once, and the sizes of calls."""

from __future__ import annotations

import os
from typing import Any, Final, Literal, Self

import attrs

from bc_attrvals.core.arguments import between
from bc_attrvals.errors import InvalidInputError

#: "Limit of 10 customers per call" (BigCommerce reference, Upsert Customer Attribute Values). It is
#: not documented whether rows are meant, so rows are counted by default.
MAX_BATCH_SIZE: Final = 10
#: The largest `limit` (BigCommerce guide, Filtering).
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
    most 250), `delete_size` ids in a DELETE (the service's limit is not documented). `reserve` is
    how many calls of each quota window are left to other apps of the store; one call a window is
    always made. `max_response_bytes` limits one answer, after decompression.

    `batch_by` is what `batch_size` counts in bulk writes: "rows", or "customers" with all their
    rows among the next 2,000 in one call. The service allows "10 customers per call" (BigCommerce
    reference, Upsert Customer Attribute Values), which may mean rows. If a call with more rows is
    refused and no item is to blame, all later calls of the Store count rows.

    `coalesce_ms` lets concurrent `upsert` calls of a few items share PUTs. A call that comes while
    another is under way waits this long for more, unless a batch is full or the others have ended.
    If all `writes` are in use, it waits until one is free. A single call does not wait. With 0, no
    calls share PUTs.
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

        It sets `page_size`, `batch_size`, `batch_by` and `delete_size` if they are settled in the
        file, up to the largest values allowed here; the rest are the defaults. `attrs.evolve`
        changes a field. Raises `InvalidInputError` for a file of another kind, and OSError if it
        can't be read.
        """
        # Imported here, because a Store does not need it.
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
