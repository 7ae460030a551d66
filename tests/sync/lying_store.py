"""A store over raw HTTP that lies in its listings and in its answers to writes."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from tests.raw_server import Connection, RawRequest, answer, page_body, row, rows_body

#: (customer, attribute)
Key = tuple[int, int]


@attrs.frozen(kw_only=True)
class Lies:
    """What is not so; by default nothing."""

    ignores: frozenset[str] = frozenset()
    #: Positions of a listing that never come.
    hidden: frozenset[int] = frozenset()
    repeats_page: int | None = None
    #: Pages after the first have its rows again, under the ids of the rows that follow them.
    renumbers: bool = False
    page_cap: int = 250
    total_added: int = 0
    total_pages: Literal["right", "one", "none", "many"] = "right"
    current_page: Literal["right", "one", "zero"] = "right"
    null_value: bool = False
    put: Literal["honest", "html", "empty", "nothing", "trims"] = "honest"
    delete: Literal["honest", "html", "errors", "accepted"] = "honest"


@attrs.define
class LyingStore:
    """Rows by id; what was sent stands in `deleted` and `written`."""

    rows: dict[int, tuple[Key, str]]
    lies: Lies = Lies()
    deleted: set[int] = attrs.field(factory=set)
    written: set[Key] = attrs.field(factory=set)
    calls: int = 0
    #: Further rows of each listing, as they are answered.
    odd_rows: list[dict[str, Any]] = attrs.field(factory=list)

    @classmethod
    def holding(cls, values: dict[Key, str], lies: Lies) -> LyingStore:
        return cls(dict(enumerate(values.items(), 1)), lies)

    async def script(self, request: RawRequest, connection: Connection) -> None:
        self.calls += 1
        method = {"GET": self._list, "PUT": self._put, "DELETE": self._delete}[request.method]
        await connection.say(method(request))

    def _list(self, request: RawRequest) -> bytes:
        lies, query = self.lies, request.query
        found = [
            row(number, *key, value)
            for number, (key, value) in sorted(self.rows.items())
            if all(
                name not in query or name in lies.ignores or str(one) in query[name].split(",")
                for name, one in zip(("customer_id:in", "attribute_id:in"), key, strict=True)
            )
        ]
        found += self.odd_rows
        if lies.null_value and found:
            found[-1]["attribute_value"] = None
        per_page = min(int(query["limit"]), lies.page_cap)
        page = request.page if lies.repeats_page is None else lies.repeats_page
        shown = found[(page - 1) * per_page : page * per_page]
        first = (page - 1) * per_page
        shown = [one for place, one in enumerate(shown, first) if place not in lies.hidden]
        if lies.renumbers and page > 1:
            shown = [one | {"id": one["id"] + 1} for one in found[: len(shown)]]
        pages = -(-len(found) // per_page)
        return answer(
            page_body(
                shown,
                total=max(0, len(found) + lies.total_added),
                per_page=per_page,
                page={"right": page, "one": 1, "zero": page - 1}[lies.current_page],
                total_pages={"right": pages, "one": 1, "none": 0, "many": 999}[lies.total_pages],
            )
        )

    def _put(self, request: RawRequest) -> bytes:
        echoes: list[dict[str, Any]] = []
        for item in request.items:
            key, value = (item["customer_id"], item["attribute_id"]), item["value"]
            self.written.add(key)
            if self.lies.put == "nothing":
                continue
            if self.lies.put == "trims":
                value = value.strip()
            number = next((one for one, (held, _) in self.rows.items() if held == key), None)
            number = max(self.rows, default=0) + 1 if number is None else number
            self.rows[number] = (key, value)
            echoes.append(row(number, *key, value))
        body = {"html": b"<html>ok</html>", "empty": b'{"data": [], "meta": {}}'}
        return answer(body.get(self.lies.put, rows_body(echoes)))

    def _delete(self, request: RawRequest) -> bytes:
        ids = {int(one) for one in request.query["id:in"].split(",")}
        self.deleted |= ids
        if self.lies.delete == "html":
            return answer(b"<html>ok</html>")
        if self.lies.delete == "errors":
            return answer(b'{"errors": ["no"]}')
        if self.lies.delete == "accepted":
            return answer(b"", 202)
        for one in ids:
            self.rows.pop(one, None)
        return answer(b"", 204)
