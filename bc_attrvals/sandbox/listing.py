"""Answers listings from the rows: total, page and links, quick at hundreds of thousands of rows.

There is no cursor in the protocol, only page numbers, so a deep page would walk over all rows
before it. Two things are remembered per filter until rows come or go: how many match, and which row
ends each page that was answered. The next page starts there. Runs in the database thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

import attrs
import msgspec

from bc_attrvals.sandbox.filters import ListQuery, RowFilter
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.rows import RowStore

_ID_DIGITS: Final = 10
_REMEMBERED_FILTERS: Final = 64
# Above this share of the rows, walking all of them in order beats looking them up and sorting.
_DENSE_SHARE: Final = 1 / 8
# An odd factor modulo 2^32 gives each id another key, so the order is total.
_SHUFFLE_KEY: Final = "(id * 2654435761 & 4294967295)"
_RELATIONS: Final = {
    "inclusive": {"is": "=", "min": ">=", "max": "<="},
    "exclusive": {"is": "=", "min": ">", "max": "<"},
}


@attrs.define
class _Remembered:
    """What is known of one filter's matches at one version of the rows."""

    version: tuple[int, int]
    total: int
    is_dense: bool
    # Offsets in ascending order, from 0, and the order key of the row before each.
    offsets: list[int] = attrs.field(factory=list)
    keys: list[int] = attrs.field(factory=list)

    def start(self, offset: int) -> tuple[int, int | None]:
        """Return the nearest known offset at or before this one, and its key."""
        place = bisect_right(self.offsets, offset) - 1
        return (0, None) if place < 0 else (self.offsets[place], self.keys[place])

    def learn(self, offset: int, key: int) -> None:
        place = bisect_right(self.offsets, offset)
        if place == 0 or self.offsets[place - 1] != offset:
            self.offsets.insert(place, offset)
            self.keys.insert(place, key)


class Lister:
    """Makes the bodies of listings from one RowStore."""

    def __init__(self, rows: RowStore, quirks: Quirks, attribute_names: Mapping[int, str]) -> None:
        """Take the rows to list."""
        self._rows = rows
        self._quirks = quirks
        self._attribute_names = dict(attribute_names)
        self._remembered: OrderedDict[RowFilter, _Remembered] = OrderedDict()
        self._order_key = _SHUFFLE_KEY if quirks.order == "shuffled" else "id"
        self._direction: Literal["ASC", "DESC"] = "DESC" if quirks.order == "id_desc" else "ASC"
        if quirks.order == "shuffled":
            rows.connection.execute(
                f"CREATE INDEX IF NOT EXISTS by_shuffle ON attribute_values ({_SHUFFLE_KEY})"
            )
        zone = "" if quirks.zoneless_dates else "Z"
        self._item = f"""json_object(
            'id', id, 'attribute_id', attribute_id, '{quirks.value_field}', value,
            'customer_id', customer_id,
            'date_created', strftime('%Y-%m-%dT%H:%M:%S{zone}', date_created, 'unixepoch'),
            'date_modified', strftime('%Y-%m-%dT%H:%M:%S{zone}', date_modified, 'unixepoch'))"""

    def body(self, query: ListQuery) -> tuple[bytes, int]:
        """Return the JSON of the page, and how many rows are on it."""
        conditions, bound = self._where(query.row_filter)
        known = self._recall(query.row_filter, conditions, bound)
        total_pages = -(-known.total // query.limit)
        page = query.page
        if not known.total or (self._quirks.clamp_pages and page > total_pages):
            page = max(1, total_pages)
        offset = (page - 1) * query.limit
        text, count = "[]", 0
        if offset < known.total:
            text, count = self._select(known, conditions, bound, offset, query.limit)
        pagination: dict[str, object] = {
            "total": known.total,
            "count": count,
            "per_page": query.limit,
            "current_page": page,
            "total_pages": total_pages,
        }
        if not self._quirks.omit_links:
            pagination["links"] = _links(query, page, total_pages)
        meta = msgspec.json.encode({"pagination": pagination})
        return b"".join((b'{"data":', text.encode(), b',"meta":', meta, b"}")), count

    def _recall(
        self, row_filter: RowFilter, conditions: list[str], bound: list[str | float]
    ) -> _Remembered:
        rows = self._rows
        follows = rows.modification_version if row_filter.follows_modification else 0
        version = (rows.membership_version, follows)
        known = self._remembered.get(row_filter)
        if known is None or known.version != version:
            total = self._count(conditions, bound)
            whole = total
            if not row_filter.is_empty:
                empty = self._recall(RowFilter(), [], [])
                whole = empty.total
            known = _Remembered(version, total, total >= whole * _DENSE_SHARE)
            self._remembered[row_filter] = known
        self._remembered.move_to_end(row_filter)
        if len(self._remembered) > _REMEMBERED_FILTERS:
            self._remembered.popitem(last=False)
        return known

    def _count(self, conditions: list[str], bound: list[str | float]) -> int:
        where = _where_clause(conditions)
        statement = f"SELECT count(*) FROM attribute_values{where}"  # noqa: S608 - no values in it
        (count,) = self._rows.connection.execute(statement, bound).fetchone()
        return int(count)

    def _select(
        self,
        known: _Remembered,
        conditions: list[str],
        bound: list[str | float],
        offset: int,
        limit: int,
    ) -> tuple[str, int]:
        known_offset, known_key = known.start(offset)
        bound = list(bound)
        if known_key is not None:
            relation = ">" if self._direction == "ASC" else "<"
            conditions = [*conditions, f"{self._order_key} {relation} ?"]
            bound.append(known_key)
        index = ""
        if known.is_dense:
            index = " INDEXED BY by_shuffle" if self._quirks.order == "shuffled" else " NOT INDEXED"
        last = "max" if self._direction == "ASC" else "min"
        statement = f"""
            SELECT json_group_array({self._item}), count(*), {last}(order_key) FROM (
                SELECT *, {self._order_key} AS order_key FROM attribute_values{index}
                {_where_clause(conditions)}
                ORDER BY {self._order_key} {self._direction} LIMIT ? OFFSET ?
            )
        """  # noqa: S608 - placeholders and constants
        bound += [limit, offset - known_offset]
        text, count, key = self._rows.connection.execute(statement, bound).fetchone()
        if count == limit:
            known.learn(offset + limit, key)
        return text, count

    def _where(self, row_filter: RowFilter) -> tuple[list[str], list[str | float]]:
        conditions: list[str] = []
        bound: list[str | float] = []
        for column, ids in (
            ("customer_id", row_filter.customer_ids),
            ("attribute_id", row_filter.attribute_ids),
            ("attribute_id", self._named(row_filter.name)),
        ):
            if ids is not None and len(ids) == 1:
                # Equality keeps an index in order of id, which IN does not.
                conditions.append(f"{column} = ?")
                bound.append(ids[0])
            elif ids is not None:
                conditions.append(f"{column} IN (SELECT value FROM json_each(?))")  # noqa: S608
                bound.append(msgspec.json.encode(ids).decode())
        for date in row_filter.dates:
            relation = _RELATIONS[self._quirks.date_bounds][date.relation]
            conditions.append(f"{date.column} {relation} ?")
            bound.append(date.moment_s)
        return conditions, bound

    def _named(self, name: str | None) -> tuple[int, ...] | None:
        """Return the ids with this name; an attribute without one is called `attribute_<id>`."""
        if name is None:
            return None
        ids = [key for key, given in self._attribute_names.items() if given == name]
        number = name.removeprefix("attribute_")
        if number != name and number.isdecimal() and len(number) <= _ID_DIGITS:
            default_id = int(number)
            if default_id not in self._attribute_names and name == f"attribute_{default_id}":
                ids.append(default_id)
        return tuple(ids)


def _where_clause(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _links(query: ListQuery, page: int, total_pages: int) -> dict[str, str]:
    def link(number: int) -> str:
        rest = f"&{query.filter_query}" if query.filter_query else ""
        return f"?page={number}&limit={query.limit}{rest}"

    links: dict[str, str] = {}
    if page > 1:
        links["previous"] = link(page - 1)
    links["current"] = link(page)
    if page < total_pages:
        links["next"] = link(page + 1)
    return links
