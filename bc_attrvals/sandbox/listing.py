"""Answers listings: total, page and links, quick at hundreds of thousands of rows.

The service has page numbers and no cursor (BigCommerce reference, Get All Customer Attribute
Values), so a deep page would walk over all rows before it. Two facts are kept for each filter until
rows are inserted or deleted: how many rows match, and which row ends each page that was answered.
The next page starts there. Blocks on SQLite.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from bc_attrvals.sandbox.database import Database, json_list
from bc_attrvals.sandbox.definitions import email_key
from bc_attrvals.sandbox.query_strings import Condition, ListQuery
from bc_attrvals.sandbox.quirks import Quirks

_REMEMBERED_FILTERS: Final = 64
# Above this share of the rows, walking over all in order is faster than look-up and sort.
_DENSE_SHARE: Final = 1 / 8
# An odd factor modulo 2^32 gives each id another key, so the order is total.
_SHUFFLE_FACTOR: Final = 2654435761
_SHUFFLE_KEY: Final = f"(id * {_SHUFFLE_FACTOR} & 4294967295)"
# An odd step in the range of the keys, so that the orders of near pages differ.
_SHIFT: Final = 1_640_531_527

_LIKE: Final = "LIKE ? ESCAPE '\\'"
_RELATIONS: Final = {
    "inclusive": {"is": "= ?", "min": ">= ?", "max": "<= ?", "like": _LIKE},
    "exclusive": {"is": "= ?", "min": "> ?", "max": "< ?", "like": _LIKE},
}


class _Remembered(msgspec.Struct):
    """What is known of one filter's matches at one version of the rows."""

    version: tuple[int, int]
    total: int
    is_dense: bool
    # Offsets in ascending order, from 0, and the order key of the row before each.
    offsets: list[int] = msgspec.field(default_factory=list)
    keys: list[int] = msgspec.field(default_factory=list)

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
    """Makes the bodies of the attribute values' listings."""

    def __init__(
        self, database: Database, quirks: Quirks, ids_named: Callable[[str], tuple[int, ...]]
    ) -> None:
        """List these rows; `ids_named` returns the attributes of a name."""
        self._database = database
        self._quirks = quirks
        self._ids_named = ids_named
        self._remembered: OrderedDict[tuple[Condition, ...], _Remembered] = OrderedDict()
        self._order_key = _SHUFFLE_KEY if quirks.order == "shuffled" else "id"
        self._direction: Literal["ASC", "DESC"] = "DESC" if quirks.order == "id_desc" else "ASC"
        if quirks.order == "shuffled":
            database.connection.execute(
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
        conditions = tuple(self._resolved(one) for one in query.conditions)
        known = self._recall(conditions)
        whole = self._recall(()).total
        page = shown_page(query, known.total, self._quirks)
        offset = (page - 1) * query.limit
        text, count = "[]", 0
        if offset < known.total:
            text, count = self._select(known, conditions, page, query.limit)
        pagination = paginate(query, page, (known.total, count, whole), self._quirks)
        meta = msgspec.json.encode({"pagination": pagination})
        return b"".join((b'{"data":', text.encode(), b',"meta":', meta, b"}")), count

    def _resolved(self, condition: Condition) -> Condition:
        """Return a condition on the attribute's id for one on its name."""
        if condition.column != "name":
            return condition
        return Condition("attribute_id", "in", self._ids_named(str(condition.operand)))

    def _recall(self, conditions: tuple[Condition, ...]) -> _Remembered:
        database = self._database
        # Changing a value can move its row in or out of a filter on date_modified.
        follows = any(condition.column == "date_modified" for condition in conditions)
        version = (database.membership_version, database.modification_version if follows else 0)
        known = self._remembered.get(conditions)
        if known is None or known.version != version:
            database.index({condition.column for condition in conditions})
            where, bound = where_clause(conditions, self._quirks)
            total = database.count("attribute_values", where, bound)
            whole = self._recall(()).total if conditions else total
            known = _Remembered(version, total, total >= whole * _DENSE_SHARE)
            self._remembered[conditions] = known
        self._remembered.move_to_end(conditions)
        if len(self._remembered) > _REMEMBERED_FILTERS:
            self._remembered.popitem(last=False)
        return known

    def _select(
        self, known: _Remembered, conditions: tuple[Condition, ...], page: int, limit: int
    ) -> tuple[str, int]:
        offset = (page - 1) * limit
        where, bound = where_clause(conditions, self._quirks)
        order_key, known_offset = self._order_key, 0
        if self._quirks.order == "shifting":
            # Each page shifts the order, so rows are repeated and missed.
            order_key = f"((id * {_SHUFFLE_FACTOR} + {page * _SHIFT}) & 4294967295)"
        else:
            known_offset, known_key = known.start(offset)
            if known_key is not None:
                relation = ">" if self._direction == "ASC" else "<"
                where += f" {'AND' if where else 'WHERE'} {order_key} {relation} ?"
                bound.append(known_key)
        index = ""
        if known.is_dense:
            index = " INDEXED BY by_shuffle" if self._quirks.order == "shuffled" else " NOT INDEXED"
        last = "max" if self._direction == "ASC" else "min"
        statement = f"""
            SELECT json_group_array({self._item}), count(*), {last}(order_key) FROM (
                SELECT *, {order_key} AS order_key FROM attribute_values{index}{where}
                ORDER BY {order_key} {self._direction} LIMIT ? OFFSET ?
            )
        """  # noqa: S608 - placeholders and constants
        bound += [limit, offset - known_offset]
        text, count, key = self._database.connection.execute(statement, bound).fetchone()
        if count == limit and self._quirks.order != "shifting":
            known.learn(offset + limit, key)
        return text, count


def shown_page(query: ListQuery, total: int, quirks: Quirks) -> int:
    """Return the page to answer; an empty list is on page 1."""
    last = -(-total // query.limit)
    return max(1, last) if not total or (quirks.clamp_pages and query.page > last) else query.page


def paginate(
    query: ListQuery, page: int, counts: tuple[int, int, int], quirks: Quirks
) -> dict[str, object]:
    """Return the pagination; `counts` are the matches, the rows on the page, the whole store's."""
    total, count, whole = counts
    divided = {
        "right": (total, query.limit),
        "of_asked_limit": (total, query.asked_limit),
        "of_whole_store": (whole, query.limit),
    }
    rows, size = divided[quirks.total_pages]
    total_pages = -(-rows // size)
    pagination: dict[str, object] = {
        "total": total,
        "count": count,
        "per_page": query.limit,
        "current_page": {"right": page, "always_1": 1, "from_0": page - 1}[quirks.current_page],
        "total_pages": total_pages,
    }
    if not quirks.omit_links:
        pagination["links"] = _links(query, page, total_pages)
    return pagination


def where_clause(
    conditions: tuple[Condition, ...], quirks: Quirks
) -> tuple[str, list[str | float]]:
    """Return the WHERE clause, empty for no condition, and what is bound to its placeholders."""
    parts: list[str] = []
    bound: list[str | float] = []
    for condition in conditions:
        column, operand = condition.column, condition.operand
        if column == "email" and not quirks.case_sensitive_emails and isinstance(operand, tuple):
            column, operand = "email_key", tuple(email_key(str(one)) for one in operand)
        if not isinstance(operand, tuple):
            relation = _RELATIONS[quirks.date_bounds][condition.relation]
            parts.append(f"{column} {relation}")
            bound.append(f"%{_escaped(str(operand))}%" if condition.relation == "like" else operand)
        elif len(operand) == 1:
            # Equality keeps an index in order of id, which IN does not.
            parts.append(f"{column} = ?")
            bound.append(operand[0])
        else:
            parts.append(f"{column} IN (SELECT value FROM json_each(?))")  # noqa: S608
            bound.append(json_list(operand))
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), bound


def _escaped(text: str) -> str:
    r"""Return text for LIKE … ESCAPE '\'."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return text


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
