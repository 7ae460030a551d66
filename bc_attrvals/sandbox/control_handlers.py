"""The control routes: what each takes, an example of its body, and how it is carried out.

`control` reads and guards the requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

import attrs
import msgspec
from msgspec import UNSET, Struct, UnsetType

from bc_attrvals.sandbox import control_input as bodies
from bc_attrvals.sandbox.control_input import BadControlError
from bc_attrvals.sandbox.definitions import check_definitions
from bc_attrvals.sandbox.emulated_store import EmulatedStore
from bc_attrvals.sandbox.faults import Fault
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.request_log import RecordedRequest
from bc_attrvals.sandbox.row_search import RowPage, RowQuery
from bc_attrvals.sandbox.rows import StoredRow

PREFIX: Final = "/sandbox"
F = TypeVar("F", bound=Callable[..., Awaitable[object]])

_ROW: Final = {"customer_id": 7, "attribute_id": 1, "value": "gold"}
_FAULT: Final = {"kind": "503", "operation": "list", "probability": 0.05}
_FAULT_SHAPE: Any = str | bodies.FaultBody
_CUSTOMERS: Final = {"customers": {"7": "ann@example.org"}}
_QUIRK: Final = {"order": "shuffled"}
_ATTRIBUTES: Final = {"attributes": {"Tier": "string", "Shoe size": "number"}}


class Route(Struct, frozen=True):
    """One route; `path` is below `/sandbox`.

    `body` is the type of the JSON body, None for none, and `example` one of it. `query` has the
    parameters, and the number in the path.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[object]]
    body: Any
    example: object
    query: type[Struct]

    @property
    def says(self) -> str:
        """What the route does."""
        return (self.handler.__doc__ or "").rstrip(".")


#: The table of the routes: `control` dispatches by it, and `openapi` describes it.
ROUTES: Final[list[Route]] = []


def _route(
    method: str,
    path: str,
    body: Any = None,  # noqa: ANN401 - what msgspec decodes
    example: object = None,
    *,
    query: type[Struct] = bodies.NoQuery,
) -> Callable[[F], F]:
    """Add a handler to the table; it takes the body or the query, if the route has one."""

    def register(handler: F) -> F:
        ROUTES.append(Route(method, path, handler, body, example, query))
        return handler

    return register


class Handlers:
    """One method a control route, on one store."""

    def __init__(self, store: EmulatedStore) -> None:
        self._store = store

    @_route("GET", "/state")
    async def state(self) -> object:
        """Show counts, quota, calls in flight, faults and quirks."""
        store = self._store
        quota = store.quota
        stored = await store.browse(RowQuery(limit=0))
        return {
            "url": store.url,
            "store_hash": store.store_hash,
            "rows": stored.total,
            "rows_version": stored.version,
            "customers": stored.customers,
            "attributes": len(stored.names),
            "latency_ms": store.latency_ms,
            "quota": {
                "quota": quota,
                "left": store.quota_left,
                "window_ms": round(store.window_s * 1000),
                "reset_ms": None if quota is None else round(store.quota_reset_s * 1000),
            },
            "in_flight": {one.value: store.in_flight(one) for one in Operation},
            "peak_in_flight": {one.value: store.peak_in_flight(one) for one in Operation},
            "max_concurrent_puts": store.max_concurrent_puts,
            "requests": {"seen": store.requests.seen, "kept": len(store.requests)},
            "calls": {one.value: store.calls[one] for one in Operation},
            "statuses": {str(status): count for status, count in store.statuses.items()},
            **self._all_faults(),
            "rejected_customers": len(store.rejected_customers),
            "quirks": attrs.asdict(store.quirks),
        }

    @_route("GET", "/rows", query=bodies.RowsQuery)
    async def rows(self, asked: bodies.RowsQuery) -> object:
        """Show attribute values, filtered, by id."""
        wanted = RowQuery(**msgspec.structs.asdict(asked))
        page = await self._store.browse(wanted)
        return {
            "rows": [_row_json(row, page) for row in page.rows],
            "total": page.total,
            "page": wanted.page,
            "limit": wanted.limit,
            "pages": -(-page.total // wanted.limit),
        }

    @_route("POST", "/rows", bodies.RowsBody, {"rows": [_ROW]})
    async def add_rows(self, body: bodies.RowsBody) -> object:
        """Insert values, past all limits."""
        return await self._insert(body, replace=False)

    @_route("PUT", "/rows", bodies.RowsBody, {"rows": [_ROW]})
    async def replace_rows(self, body: bodies.RowsBody) -> object:
        """Insert values and delete all others."""
        return await self._insert(body, replace=True)

    async def _insert(self, body: bodies.RowsBody, *, replace: bool) -> object:
        read = await self._store.seed((row.seed_row() for row in body.rows), replace=replace)
        return {"inserted": read, "rows": await self._store.count()}

    @_route("DELETE", "/rows", query=bodies.IdsQuery)
    async def delete_rows(self, asked: bodies.IdsQuery) -> object:
        """Delete values."""
        return {"deleted": await self._store.delete_rows(asked.id)}

    @_route("GET", "/customers")
    async def customers(self) -> object:
        """Show the customers that are defined."""
        found = await self._store.customers()
        return {"customers": [{"id": one.id, "email": one.email} for one in found]}

    @_route("POST", "/customers", bodies.CustomersBody, _CUSTOMERS)
    async def add_customers(self, body: bodies.CustomersBody) -> object:
        """Define customers; values then name only existing ones."""
        return await self._define(customers=body.customers)

    @_route("PUT", "/customers", bodies.CustomersBody, _CUSTOMERS)
    async def replace_customers(self, body: bodies.CustomersBody) -> object:
        """Define customers and delete all others."""
        return await self._define(customers=body.customers, replace=True)

    @_route("DELETE", "/customers", query=bodies.IdsQuery)
    async def delete_customers(self, asked: bodies.IdsQuery) -> object:
        """Delete customers."""
        return {"deleted": await self._store.delete_customers(asked.id)}

    @_route("GET", "/attributes")
    async def attributes(self) -> object:
        """Show the attributes that are defined."""
        found = await self._store.attributes()
        return {"attributes": [{"id": one.id, "name": one.name, "type": one.type} for one in found]}

    @_route("POST", "/attributes", bodies.AttributesBody, _ATTRIBUTES)
    async def add_attributes(self, body: bodies.AttributesBody) -> object:
        """Define attributes; values then name only existing ones."""
        return await self._define(attributes=body.attributes)

    @_route("PUT", "/attributes", bodies.AttributesBody, _ATTRIBUTES)
    async def replace_attributes(self, body: bodies.AttributesBody) -> object:
        """Define attributes and delete all others; values stay."""
        return await self._define(attributes=body.attributes, replace=True)

    async def _define(
        self,
        *,
        customers: bodies.Customers | UnsetType = UNSET,
        attributes: bodies.Attributes | UnsetType = UNSET,
        replace: bool = False,
    ) -> object:
        people, kinds = bodies.customer_seeds(customers), bodies.attribute_seeds(attributes)
        try:
            await self._store.define(customers=people, attributes=kinds, replace=replace)
        except ValueError as error:
            raise _of_field(error) from None
        return await (self.attributes() if people is None else self.customers())

    @_route("GET", "/rejected-customers")
    async def rejected(self) -> object:
        """Show the customers that are rejected."""
        return {"customer_ids": sorted(self._store.rejected_customers)}

    @_route("POST", "/rejected-customers", bodies.RejectedBody, {"customer_ids": [8]})
    async def reject(self, body: bodies.RejectedBody) -> object:
        """Reject more customers in upserts."""
        self._store.reject_customers(body.customer_ids)
        return await self.rejected()

    @_route("PUT", "/rejected-customers", bodies.RejectedBody, {"customer_ids": [8]})
    async def set_rejected(self, body: bodies.RejectedBody) -> object:
        """Reject these and no others."""
        self._store.accept_customers()
        return await self.reject(body)

    def _all_faults(self) -> dict[str, object]:
        faults = self._store.faults
        return {
            "faults": [
                {
                    **attrs.asdict(active.fault),
                    "applied": active.fault.is_applied,
                    "number": active.number,
                    "seen": active.seen,
                    "hits": active.hits,
                }
                for active in faults.active
            ],
            "scripted": faults.scripted,
        }

    @_route("GET", "/faults")
    async def faults(self) -> object:
        """Show the faults in force, with numbers and hits."""
        return self._all_faults()

    @_route("POST", "/faults", _FAULT_SHAPE, "503=5%,operation=list")
    async def add_fault(self, body: str | bodies.FaultBody) -> object:
        """Add a fault: an object or a line."""
        number = self._store.faults.add(bodies.read_fault(body, ""))
        return {"number": number, **self._all_faults()}

    @_route("PUT", "/faults", list[_FAULT_SHAPE], [_FAULT, "429=10%"])
    async def set_faults(self, body: list[str | bodies.FaultBody]) -> object:
        """Replace all faults."""
        self._replace_faults(_read_faults(body, ""))
        return self._all_faults()

    def _replace_faults(self, faults: list[Fault]) -> None:
        self._store.faults.clear()
        for fault in faults:
            self._store.faults.add(fault)

    @_route("DELETE", "/faults")
    async def clear_faults(self) -> object:
        """End all faults and scripts."""
        self._store.faults.clear()
        return self._all_faults()

    @_route("DELETE", "/faults/{number}", query=bodies.FaultQuery)
    async def end_fault(self, asked: bodies.FaultQuery) -> object:
        """End one fault."""
        if not self._store.faults.remove(asked.number):
            raise BadControlError("number", "no fault in force has it", 404)
        return self._all_faults()

    @_route(
        "POST", "/faults/script", bodies.ScriptBody, {"faults": ["503", None], "operation": "list"}
    )
    async def script(self, body: bodies.ScriptBody) -> object:
        """Set the faults of the next requests."""
        steps = [
            None if one is None else bodies.read_fault(one, f"faults[{index}]")
            for index, one in enumerate(body.faults)
        ]
        self._store.faults.script(steps, body.operation)
        return self._all_faults()

    @_route("GET", "/quirks")
    async def quirks(self) -> object:
        """Show and explain the quirks."""
        return {"quirks": attrs.asdict(self._store.quirks), "described": Quirks.described()}

    @_route("PATCH", "/quirks", dict[str, Any], _QUIRK)
    async def change_quirks(self, body: dict[str, Any]) -> object:
        """Change some quirks."""
        await self._store.set_quirks(bodies.read_quirks(self._store.quirks, body))
        return {"quirks": attrs.asdict(self._store.quirks)}

    @_route("PUT", "/quirks", dict[str, Any], {"max_limit": 100, "omit_links": True})
    async def set_quirks(self, body: dict[str, Any]) -> object:
        """Set these quirks and the defaults of others."""
        await self._store.set_quirks(bodies.read_quirks(Quirks(), body))
        return {"quirks": attrs.asdict(self._store.quirks)}

    @_route("GET", "/requests", query=bodies.LogQuery)
    async def requests(self, asked: bodies.LogQuery) -> object:
        """Show the newest requests, oldest first."""
        log = self._store.requests
        found = log.newest(asked.limit, after=asked.after, operation=asked.operation)
        return {
            "requests": [self._request_json(one) for one in found],
            "seen": log.seen,
            "kept": len(log),
        }

    def _request_json(self, record: RecordedRequest) -> dict[str, object]:
        ended_s = record.ended_at_s
        return {
            "sequence": record.sequence,
            "method": record.method,
            "operation": record.operation.value,
            "path": self._without_token(record.path),
            "query": self._without_token(record.query_string),
            "status": record.status,
            "started_at": _iso(self._store.when(record.started_at_s), "milliseconds"),
            "duration_ms": (
                None if ended_s is None else round((ended_s - record.started_at_s) * 1000, 2)
            ),
            "open": ended_s is None,
            "fault": None if record.fault is None else record.fault.value,
            "item_count": record.item_count,
            "in_flight": record.in_flight,
            "request_id": record.request_id,
        }

    def _without_token(self, text: str) -> str:
        token = self._store.access_token
        for shape in (token, quote(token, safe="")):
            if shape:
                text = text.replace(shape, "***")
        return text

    @_route("DELETE", "/requests")
    async def clear_requests(self) -> object:
        """Delete the log."""
        self._store.requests.clear()
        return {"requests": [], "seen": self._store.requests.seen, "kept": 0}

    @_route("PUT", "/latency", bodies.LatencyBody, {"latency_ms": 80})
    async def set_latency(self, body: bodies.LatencyBody) -> object:
        """Set the latency of all calls."""
        self._change_latency(body.latency_ms)
        return {"latency_ms": self._store.latency_ms}

    def _change_latency(self, latency_ms: float) -> None:
        try:
            self._store.latency_ms = latency_ms
        except ValueError as error:
            raise BadControlError("latency_ms", str(error)) from None

    @_route("PUT", "/quota", bodies.QuotaBody, {"quota": 150, "spend": 10})
    async def set_quota(self, body: bodies.QuotaBody) -> object:
        """Set the quota; spend units as another app."""
        if not isinstance(body.quota, UnsetType):
            self._store.set_quota(body.quota)
        self._store.spend(body.spend)
        return {"quota": self._store.quota, "left": self._store.quota_left}

    @_route("PUT", "/settings", bodies.SettingsBody, {"quota": 450, "quirks": _QUIRK, **_CUSTOMERS})
    async def set_settings(self, body: bodies.SettingsBody) -> object:
        """Change several settings at once, or none if one is bad."""
        store = self._store
        given = {
            name: value
            for name in body.__struct_fields__
            if not isinstance(value := getattr(body, name), UnsetType)
        }
        quirks = bodies.read_quirks(store.quirks, given.get("quirks", {}), "quirks")
        faults = _read_faults(given.get("faults", []), "faults")
        people = bodies.customer_seeds(body.customers)
        kinds = bodies.attribute_seeds(body.attributes)
        try:
            check_definitions(people, kinds)
            if "latency_ms" in given:
                self._change_latency(given["latency_ms"])
            await store.define(customers=people, attributes=kinds, replace=True)
        except ValueError as error:
            raise _of_field(error) from None
        if "quota" in given:
            store.set_quota(given["quota"])
        for name in given.keys() & {"store_hash", "access_token", "max_concurrent_puts"}:
            setattr(store, name, given[name])
        if "quirks" in given:
            await store.set_quirks(quirks)
        if "faults" in given:
            self._replace_faults(faults)
        return await self.state()

    @_route("POST", "/reset", bodies.ResetBody, {"only": ["rows", "log"]})
    async def reset(self, body: bodies.ResetBody) -> object:
        """Return to an empty, healthy store, or parts of it."""
        try:
            if body.only is None:
                await self._store.reset()
            else:
                await self._store.reset(body.only)
        except ValueError as error:
            raise BadControlError("only", str(error)) from None
        return await self.state()


def _read_faults(given: list[str | bodies.FaultBody], field: str) -> list[Fault]:
    return [bodies.read_fault(one, f"{field}[{index}]") for index, one in enumerate(given)]


def _of_field(error: ValueError) -> BadControlError:
    """Return the refusal for an error that begins with a field and a colon."""
    field, _, message = str(error).partition(": ")
    return BadControlError(field, message)


def _row_json(row: StoredRow, page: RowPage) -> dict[str, object]:
    return {
        "id": row.id,
        "customer_id": row.customer_id,
        "email": page.emails.get(row.customer_id),
        "attribute_id": row.attribute_id,
        "attribute": page.names.get(row.attribute_id),
        "value": row.value,
        "date_created": _iso(row.date_created_s),
        "date_modified": _iso(row.date_modified_s),
    }


def _iso(moment_s: float, timespec: str = "seconds") -> str:
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
