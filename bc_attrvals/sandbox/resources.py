"""Applies one request to the stored rows and returns the answer: no HTTP, no faults, no limits.

Blocks on SQLite; `database_thread` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import Any, Final

import attrs
import msgspec
from msgspec import Struct

from bc_attrvals.sandbox.answers import Answer, RefusalError
from bc_attrvals.sandbox.body_checks import (
    CREATE_TITLE,
    RENAME_TITLE,
    VALUES_TITLE,
    Indexed,
    Refused,
    UpsertItem,
    parse_new_attributes,
    parse_renamings,
    parse_upserts,
    refusal,
)
from bc_attrvals.sandbox.database import Database
from bc_attrvals.sandbox.definitions import Definitions
from bc_attrvals.sandbox.listing import Lister, paginate, shown_page, where_clause
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.query_strings import (
    ATTRIBUTE_PARAMETERS,
    CUSTOMER_PARAMETERS,
    VALUE_PARAMETERS,
    Parameter,
    parse_delete_query,
    parse_list_query,
)
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.rows import Row, RowStore, Upserts

_DELETED: Final = Answer(204)
# A row of an answer, by the name that the value has there.
_SHOWN_ROWS: Final = {
    name: msgspec.defstruct(
        "ShownRow",
        ["id", "attribute_id", name, "customer_id", "date_created", "date_modified"],
    )
    for name in ("attribute_value", "value")
}
_ATTRIBUTE_COLUMNS: Final = "id, name, type, date_created, date_modified"
_CUSTOMER_COLUMNS: Final = "id, email, date_created, date_modified"


class Applied(Struct, frozen=True):
    """An answer, and how many rows or ids the request was about."""

    answer: Answer
    item_count: int


class Request(Struct, frozen=True):
    """The parts of a request that decide what is stored.

    `rejected_customers` count as missing, even if they are defined.
    """

    operation: Operation
    raw_query: str
    body: bytes
    rejected_customers: frozenset[int] = frozenset()


class ParsedUpserts(Struct):
    """The items of a PUT, or why the whole of it is refused."""

    good: Indexed[UpsertItem]
    refused: Refused
    refusal: Answer | None = None


class Resources:
    """The calls of the three resources on one database. Use it in one thread at a time."""

    def __init__(self, database: str, *, quirks: Quirks, wall_clock: Callable[[], float]) -> None:
        self.database = Database(database, wall_clock)
        self.rows = RowStore(self.database)
        self.definitions = Definitions(self.database)
        self._upserts = 0
        self._handlers: Mapping[Operation, Callable[[Request], Applied]] = {
            Operation.LIST: self._list,
            Operation.UPSERT: self._upsert,
            Operation.DELETE: partial(self._delete, self.rows.delete),
            Operation.LIST_ATTRIBUTES: self._list_attributes,
            Operation.CREATE_ATTRIBUTES: self._create_attributes,
            Operation.RENAME_ATTRIBUTES: self._rename_attributes,
            Operation.DELETE_ATTRIBUTES: partial(self._delete, self.definitions.delete_attributes),
            Operation.LIST_CUSTOMERS: self._list_customers,
        }
        self.set_quirks(quirks)

    def set_quirks(self, quirks: Quirks) -> None:
        """Follow other quirks from the next request on."""
        self._quirks = quirks
        self._date = _dates("" if quirks.zoneless_dates else "Z")
        self._lister = Lister(self.database, quirks, self.definitions.ids_named)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def apply(self, request: Request) -> Applied:
        """Apply a request; a refusal by the service's rules is an answer too."""
        try:
            return self._handlers[request.operation](request)
        except RefusalError as refused:
            return Applied(refused.answer, 0)

    def apply_together(self, requests: Sequence[Request]) -> list[Applied]:
        """Apply upserts and deletes in their order, and commit them to a file together."""
        if all(request.operation is Operation.UPSERT for request in requests):
            return self._upsert_together(requests)
        if len(requests) == 1 or self.database.is_in_memory:
            return [self.apply(request) for request in requests]
        with self.database.transaction():
            return [self.apply(request) for request in requests]

    def _list(self, request: Request) -> Applied:
        query = parse_list_query(request.raw_query, VALUE_PARAMETERS, self._quirks)
        body, count = self._lister.body(query)
        return Applied(Answer(200, body), count)

    def _upsert(self, request: Request) -> Applied:
        return self._upsert_together([request])[0]

    def _upsert_together(self, requests: Sequence[Request]) -> list[Applied]:
        parsed = [self._parse_upserts(request.body) for request in requests]
        upserts = self.rows.upserts(
            [(item.customer_id, item.attribute_id) for one in parsed for _, item in one.good]
        )
        applied = [
            self._upsert_parsed(upserts, one, request.rejected_customers)
            for one, request in zip(parsed, requests, strict=True)
        ]
        upserts.write()
        return applied

    def _parse_upserts(self, body: bytes) -> ParsedUpserts:
        try:
            good, refused = parse_upserts(body, self._quirks)
        except RefusalError as error:
            return ParsedUpserts([], {}, error.answer)
        if self._quirks.trim_values:
            for _, item in good:
                item.value = item.value.strip()
        return ParsedUpserts(good, refused)

    def _upsert_parsed(
        self, upserts: Upserts, parsed: ParsedUpserts, rejected: frozenset[int]
    ) -> Applied:
        if parsed.refusal is not None:
            return Applied(parsed.refusal, 0)
        quirks, good, refused = self._quirks, parsed.good, parsed.refused
        item_count = len(good) + len(refused)
        refused |= self.definitions.unknown(good, rejected, check_types=quirks.check_value_types)
        rows, changed_ids = upserts.upsert(
            good,
            refused,
            now_s=self._upsert_time_s(),
            store_good_items=quirks.store_good_items_of_refused_batch,
            touch_unchanged=quirks.touch_unchanged,
        )
        if refused:
            return Applied(refusal(VALUES_TITLE, refused, quirks).answer, item_count)
        return Applied(_answer({"data": self._echo(rows, changed_ids), "meta": {}}), item_count)

    def _upsert_time_s(self) -> int:
        """Return the date of an upsert; with `clock_lags_s` upserts take their clocks in turn."""
        lags_s = self._quirks.clock_lags_s or (0,)
        lag_s = lags_s[self._upserts % len(lags_s)]
        self._upserts += 1
        return self.database.now_s() - lag_s

    def _delete(self, remove: Callable[[Sequence[int]], object], request: Request) -> Applied:
        ids = parse_delete_query(request.raw_query, self._quirks)
        if ids:
            remove(ids)
        return Applied(_DELETED, len(ids))

    def _echo(self, rows: list[Row], changed_ids: Collection[int]) -> list[Struct]:
        if self._quirks.omit_unchanged:
            rows = [row for row in rows if row[0] in changed_ids]
        if self._quirks.answer_order == "reversed":
            rows = rows[::-1]
        shown, date = _SHOWN_ROWS[self._quirks.value_field], self._date
        return [
            shown(number, attribute_id, value, customer_id, date(made), date(changed))
            for number, customer_id, attribute_id, value, made, changed in rows
        ]

    def _dates(self, created_s: int, modified_s: int) -> dict[str, str]:
        return {"date_created": self._date(created_s), "date_modified": self._date(modified_s)}

    def _list_attributes(self, request: Request) -> Applied:
        rows, pagination = self._select(
            request, ("attributes", _ATTRIBUTE_COLUMNS), ATTRIBUTE_PARAMETERS
        )
        meta = {"pagination": pagination} if self._quirks.attributes_pagination else {}
        data = [self._attribute(*row) for row in rows]
        return Applied(_answer({"data": data, "meta": meta}), len(data))

    def _create_attributes(self, request: Request) -> Applied:
        good, refused = parse_new_attributes(request.body, self._quirks)
        ids: list[int] = []
        if not refused:
            unique = self._quirks.unique_attribute_names
            ids, refused = self.definitions.create(good, unique_names=unique)
        return self._changed_attributes(CREATE_TITLE, ids, refused)

    def _rename_attributes(self, request: Request) -> Applied:
        good, refused = parse_renamings(request.body)
        if not refused:
            unique = self._quirks.unique_attribute_names
            refused = self.definitions.rename(good, unique_names=unique)
        return self._changed_attributes(RENAME_TITLE, [item.id for _, item in good], refused)

    def _changed_attributes(self, title: str, ids: list[int], refused: Refused) -> Applied:
        if refused:
            return Applied(refusal(title, refused, self._quirks).answer, 0)
        found = {one.id: one for one in self.definitions.attributes()}
        data = [self._attribute(*attrs.astuple(found[one])) for one in dict.fromkeys(ids)]
        return Applied(_answer({"data": data, "meta": {}}), len(data))

    def _attribute(
        self, attribute_id: int, name: str, kind: str, created_s: int, modified_s: int
    ) -> dict[str, int | str]:
        dates = self._dates(created_s, modified_s)
        return {"id": attribute_id, "name": name, "type": kind, **dates}

    def _list_customers(self, request: Request) -> Applied:
        rows, pagination = self._select(
            request, ("customers", _CUSTOMER_COLUMNS), CUSTOMER_PARAMETERS
        )
        data = [self._customer(*row) for row in rows]
        return Applied(_answer({"data": data, "meta": {"pagination": pagination}}), len(data))

    def _customer(
        self, customer_id: int, email: str, created_s: int, modified_s: int
    ) -> dict[str, int | str]:
        return {
            "id": customer_id,
            "email": email,
            "first_name": "Customer",
            "last_name": str(customer_id),
            "company": "",
            "customer_group_id": 0,
            **self._dates(created_s, modified_s),
        }

    def _select(
        self, request: Request, source: tuple[str, str], parameters: Mapping[str, Parameter]
    ) -> tuple[list[tuple[Any, ...]], dict[str, object]]:
        """Return a page of a table by ascending id, and its pagination."""
        table, columns = source
        query = parse_list_query(request.raw_query, parameters, self._quirks)
        where, bound = where_clause(query.conditions, self._quirks)
        total = self.database.count(table, where, bound)
        whole = self.database.count(table) if where else total
        page = shown_page(query, total, self._quirks)
        statement = f"SELECT {columns} FROM {table}{where} ORDER BY id LIMIT ? OFFSET ?"  # noqa: S608
        bound += [query.limit, (page - 1) * query.limit]
        rows = self.database.connection.execute(statement, bound).fetchall()
        return rows, paginate(query, page, (total, len(rows), whole), self._quirks)


def _answer(content: object) -> Answer:
    return Answer(200, msgspec.json.encode(content))


@cache
def _dates(zone: str) -> Callable[[int], str]:
    """Return the function that formats UNIX seconds; answers repeat few dates."""

    @lru_cache(maxsize=4096)
    def date(moment_s: int) -> str:
        return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone

    return date
