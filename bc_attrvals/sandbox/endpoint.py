"""Applies one request to the rows and returns the answer: no HTTP, no faults, no limits.

Blocks on SQLite, so all of it runs in the sandbox's one database thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import attrs
import msgspec

from bc_attrvals.sandbox.answers import Answer, RefusalError
from bc_attrvals.sandbox.filters import parse_delete_query, parse_list_query
from bc_attrvals.sandbox.listing import Lister
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.rows import RowStore, StoredRow, UpsertResult
from bc_attrvals.sandbox.upserts import parse_upsert_body, refusal

_DELETED: Final = Answer(204)


@attrs.frozen
class Applied:
    """An answer, and how many rows or ids the request was about."""

    answer: Answer
    item_count: int


class Endpoint:
    """The three calls of the endpoint on one RowStore. To be made and used in one thread only."""

    def __init__(
        self,
        database: str,
        *,
        quirks: Quirks,
        attribute_names: Mapping[int, str],
        wall_clock: Callable[[], float],
    ) -> None:
        """Open the rows."""
        self.rows = RowStore(database, wall_clock)
        self._quirks = quirks
        self._zone = "" if quirks.zoneless_dates else "Z"
        self._lister = Lister(self.rows, quirks, attribute_names)

    def close(self) -> None:
        """Close the rows."""
        self.rows.close()

    def apply(
        self, operation: Operation, raw_query: str, body: bytes, unknown_customers: frozenset[int]
    ) -> Applied:
        """Apply a request; what the service would refuse comes back as its refusal."""
        try:
            if operation is Operation.LIST:
                return self._list(raw_query)
            if operation is Operation.UPSERT:
                return self._upsert(body, unknown_customers)
            return self._delete(raw_query)
        except RefusalError as refused:
            return Applied(refused.answer(), 0)

    def _list(self, raw_query: str) -> Applied:
        quirks = self._quirks
        query = parse_list_query(
            raw_query,
            max_limit=quirks.max_limit,
            over_limit=quirks.over_limit,
            encoded_dates=quirks.encoded_dates,
        )
        body, count = self._lister.body(query)
        return Applied(Answer(200, body), count)

    def _upsert(self, body: bytes, unknown_customers: frozenset[int]) -> Applied:
        good, bad = parse_upsert_body(body)
        result = self.rows.upsert(
            good,
            bad[0] if bad else None,
            unknown_customers=unknown_customers,
            store_good_items=self._quirks.store_good_items_of_refused_batch,
        )
        item_count = len(good) + len(bad)
        if result.bad is not None:
            return Applied(refusal(result.bad, self._quirks.error_style).answer(), item_count)
        answered = {"data": self._echo(result), "meta": {}}
        return Applied(Answer(200, msgspec.json.encode(answered)), item_count)

    def _delete(self, raw_query: str) -> Applied:
        ids = parse_delete_query(raw_query, max_ids=self._quirks.max_delete_ids)
        if ids:
            self.rows.delete(ids)
        return Applied(_DELETED, len(ids))

    def _echo(self, result: UpsertResult) -> list[dict[str, int | str]]:
        rows = result.rows
        if self._quirks.omit_unchanged:
            rows = [row for row in rows if row.id in result.changed_ids]
        if self._quirks.answer_order == "reversed":
            rows = rows[::-1]
        return [self._item(row) for row in rows]

    def _item(self, row: StoredRow) -> dict[str, int | str]:
        return {
            "id": row.id,
            "attribute_id": row.attribute_id,
            self._quirks.value_field: row.value,
            "customer_id": row.customer_id,
            "date_created": _date(row.date_created_s) + self._zone,
            "date_modified": _date(row.date_modified_s) + self._zone,
        }


@lru_cache(maxsize=4096)
def _date(moment_s: int) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
