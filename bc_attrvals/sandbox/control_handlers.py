"""Carries out the control routes: from checked input to JSON content.

`control_routes` has the table of them, and `control` reads and guards the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import attrs
from msgspec import UNSET, UnsetType

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
_LONGEST_SEARCH: Final = 255
_MOST_SEQUENCES: Final = 10**15


@attrs.frozen
class Call:
    """A checked request: the query's parameters, the decoded body, and the number in the path."""

    query: Mapping[str, str]
    body: Any = None
    number: str = ""


class Handlers:
    """One method a control route, on one store."""

    def __init__(self, store: EmulatedStore) -> None:
        """Control this store."""
        self._store = store

    async def state(self, call: Call) -> object:
        """Show counts, quota, calls in flight, faults and quirks."""
        del call
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

    async def rows(self, call: Call) -> object:
        """Show attribute values, filtered, by id."""
        wanted = bodies.read_row_query(call.query)
        if len(wanted.value) > _LONGEST_SEARCH:
            raise BadControlError("value", f"at most {_LONGEST_SEARCH} characters")
        page = await self._store.browse(wanted)
        return {
            "rows": [_row_json(row, page) for row in page.rows],
            "total": page.total,
            "page": wanted.page,
            "limit": wanted.limit,
            "pages": -(-page.total // wanted.limit),
        }

    async def add_rows(self, call: Call) -> object:
        """Insert values, past all limits."""
        return await self._insert(call, replace=False)

    async def replace_rows(self, call: Call) -> object:
        """Insert values and delete all others."""
        return await self._insert(call, replace=True)

    async def _insert(self, call: Call, *, replace: bool) -> object:
        read = await self._store.seed((row.seed_row() for row in call.body.rows), replace=replace)
        return {"inserted": read, "rows": await self._store.count()}

    async def delete_rows(self, call: Call) -> object:
        """Delete values."""
        return {"deleted": await self._store.delete_rows(_needed_ids(call, "rows"))}

    async def customers(self, call: Call) -> object:
        """Show the customers that are defined."""
        del call
        found = await self._store.customers()
        return {"customers": [{"id": one.id, "email": one.email} for one in found]}

    async def add_customers(self, call: Call) -> object:
        """Define customers; values then name only existing ones."""
        return await self._define(call, customers=call.body.customers)

    async def replace_customers(self, call: Call) -> object:
        """Define customers and delete all others."""
        return await self._define(call, customers=call.body.customers, replace=True)

    async def delete_customers(self, call: Call) -> object:
        """Delete customers."""
        ids = _needed_ids(call, "customers")
        return {"deleted": await self._store.delete_customers(ids)}

    async def attributes(self, call: Call) -> object:
        """Show the attributes that are defined."""
        del call
        found = await self._store.attributes()
        return {"attributes": [{"id": one.id, "name": one.name, "type": one.type} for one in found]}

    async def add_attributes(self, call: Call) -> object:
        """Define attributes; values then name only existing ones."""
        return await self._define(call, attributes=call.body.attributes)

    async def replace_attributes(self, call: Call) -> object:
        """Define attributes and delete all others; values stay."""
        return await self._define(call, attributes=call.body.attributes, replace=True)

    async def _define(
        self,
        call: Call,
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
        return await (self.attributes(call) if people is None else self.customers(call))

    async def rejected(self, call: Call) -> object:
        """Show the customers that are rejected."""
        del call
        return {"customer_ids": sorted(self._store.rejected_customers)}

    async def reject(self, call: Call) -> object:
        """Reject more customers in upserts."""
        self._store.reject_customers(call.body.customer_ids)
        return await self.rejected(call)

    async def set_rejected(self, call: Call) -> object:
        """Reject these and no others."""
        self._store.accept_customers()
        return await self.reject(call)

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

    async def faults(self, call: Call) -> object:
        """Show the faults in force, with numbers and hits."""
        del call
        return self._all_faults()

    async def add_fault(self, call: Call) -> object:
        """Add a fault: an object or a line."""
        number = self._store.faults.add(bodies.read_fault(call.body, ""))
        return {"number": number, **self._all_faults()}

    async def set_faults(self, call: Call) -> object:
        """Replace all faults."""
        self._replace_faults(_read_faults(call.body, ""))
        return self._all_faults()

    def _replace_faults(self, faults: list[Fault]) -> None:
        self._store.faults.clear()
        for fault in faults:
            self._store.faults.add(fault)

    async def clear_faults(self, call: Call) -> object:
        """End all faults and scripts."""
        del call
        self._store.faults.clear()
        return self._all_faults()

    async def end_fault(self, call: Call) -> object:
        """End one fault."""
        given = {"number": call.number}
        number = bodies.read_number(given, "number", 0, least=1, most=_MOST_SEQUENCES)
        if not self._store.faults.remove(number):
            raise BadControlError("number", "no fault in force has it", 404)
        return self._all_faults()

    async def script(self, call: Call) -> object:
        """Set the faults of the next requests."""
        operation = bodies.read_operation(call.body.operation)
        steps = [
            None if one is None else bodies.read_fault(one, f"faults[{index}]")
            for index, one in enumerate(call.body.faults)
        ]
        self._store.faults.script(steps, operation)
        return self._all_faults()

    async def quirks(self, call: Call) -> object:
        """Show and explain the quirks."""
        del call
        return {"quirks": attrs.asdict(self._store.quirks), "described": Quirks.described()}

    async def change_quirks(self, call: Call) -> object:
        """Change some quirks."""
        await self._store.set_quirks(bodies.read_quirks(self._store.quirks, call.body))
        return {"quirks": attrs.asdict(self._store.quirks)}

    async def set_quirks(self, call: Call) -> object:
        """Set these quirks and the defaults of others."""
        await self._store.set_quirks(bodies.read_quirks(Quirks(), call.body))
        return {"quirks": attrs.asdict(self._store.quirks)}

    async def requests(self, call: Call) -> object:
        """Show the newest requests, oldest first."""
        asked = call.query
        after = bodies.read_number(asked, "after", 0, least=0, most=_MOST_SEQUENCES)
        limit = bodies.read_number(asked, "limit", 100, least=1, most=bodies.MOST_LOGGED)
        operation = bodies.read_operation(asked.get("operation"))
        log = self._store.requests
        found = log.newest(limit, after=after, operation=operation)
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

    async def clear_requests(self, call: Call) -> object:
        """Delete the log."""
        del call
        self._store.requests.clear()
        return {"requests": [], "seen": self._store.requests.seen, "kept": 0}

    async def set_latency(self, call: Call) -> object:
        """Set the latency of all calls."""
        self._change_latency(call.body.latency_ms)
        return {"latency_ms": self._store.latency_ms}

    def _change_latency(self, latency_ms: float) -> None:
        try:
            self._store.latency_ms = latency_ms
        except ValueError as error:
            raise BadControlError("latency_ms", str(error)) from None

    async def set_quota(self, call: Call) -> object:
        """Set the quota; spend units as another app."""
        if not isinstance(call.body.quota, UnsetType):
            self._store.set_quota(call.body.quota)
        self._store.spend(call.body.spend)
        return {"quota": self._store.quota, "left": self._store.quota_left}

    async def set_settings(self, call: Call) -> object:
        """Change several settings at once, or none if one is bad."""
        body, store = call.body, self._store
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
                self._change_latency(body.latency_ms)
            await store.define(customers=people, attributes=kinds, replace=True)
        except ValueError as error:
            raise _of_field(error) from None
        if "quota" in given:
            store.set_quota(body.quota)
        for name in given.keys() & {"store_hash", "access_token", "max_concurrent_puts"}:
            setattr(store, name, given[name])
        if "quirks" in given:
            await store.set_quirks(quirks)
        if "faults" in given:
            self._replace_faults(faults)
        return await self.state(call)

    async def reset(self, call: Call) -> object:
        """Return to an empty, healthy store, or parts of it."""
        try:
            if call.body.only is None:
                await self._store.reset()
            else:
                await self._store.reset(call.body.only)
        except ValueError as error:
            raise BadControlError("only", str(error)) from None
        return await self.state(call)


def _needed_ids(call: Call, part: str) -> tuple[int, ...]:
    ids = bodies.read_ids(call.query, "id")
    if ids is None:
        raise BadControlError("id", f"missing; POST {PREFIX}/reset deletes all {part}")
    return ids


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
