"""The table of the control routes: what each takes, what it does, and an example of its body.

`control` dispatches by this table, and `openapi` describes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

from bc_attrvals.sandbox import control_input as bodies
from bc_attrvals.sandbox.control_handlers import Call, Handlers
from bc_attrvals.sandbox.operations import Operation

_ROW: Final = {"customer_id": 7, "attribute_id": 1, "value": "gold"}
_FAULT: Final = {"kind": "503", "operation": "list", "probability": 0.05}
_CUSTOMERS: Final = {"customers": {"7": "ann@example.org"}}
_QUIRK: Final = {"order": "shuffled"}
_ATTRIBUTES: Final = {"attributes": {"Tier": "string", "Shoe size": "number"}}

Handler = Callable[[Call], Awaitable[object]]


@attrs.frozen
class Route:
    """One route; `path` is below `/sandbox`.

    `query` explains the parameters. `body` is the type of the JSON body, None for none, and
    `example` one of it.
    """

    method: str
    path: str
    handler: Handler
    body: Any = None
    example: object = None
    query: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def says(self) -> str:
        """What the route does."""
        return (self.handler.__doc__ or "").rstrip(".")


def routes_of(handlers: Handlers) -> tuple[Route, ...]:
    """Return the routes of one store's handlers."""
    to = handlers
    ids = "ids with commas between"
    paged = {"page": "from 1", "limit": f"1 to {bodies.MOST_ROWS_PAGE:,}, 50 by default"}
    rows = {"customer_id": ids, "attribute_id": ids, "value": "a part of the value", **paged}
    log = {
        "after": "a sequence number",
        "limit": f"1 to {bodies.MOST_LOGGED:,}, 100 by default",
        "operation": f"one of {', '.join(Operation)}",
    }
    fault: Any = str | bodies.FaultBody
    faults: Any = list[fault]
    line = "503=5%,operation=list"
    quirks: Any = dict[str, Any]
    some_rows = {"rows": [_ROW]}
    rejected = {"customer_ids": [8]}
    settings = {"quota": 450, "quirks": _QUIRK, **_CUSTOMERS}
    script = {"faults": ["503", None], "operation": "list"}
    return (
        Route("GET", "/state", to.state),
        Route("GET", "/rows", to.rows, query=rows),
        Route("POST", "/rows", to.add_rows, bodies.RowsBody, some_rows),
        Route("PUT", "/rows", to.replace_rows, bodies.RowsBody, some_rows),
        Route("DELETE", "/rows", to.delete_rows, query={"id": ids}),
        Route("GET", "/customers", to.customers),
        Route("POST", "/customers", to.add_customers, bodies.CustomersBody, _CUSTOMERS),
        Route("PUT", "/customers", to.replace_customers, bodies.CustomersBody, _CUSTOMERS),
        Route("DELETE", "/customers", to.delete_customers, query={"id": ids}),
        Route("GET", "/attributes", to.attributes),
        Route("POST", "/attributes", to.add_attributes, bodies.AttributesBody, _ATTRIBUTES),
        Route("PUT", "/attributes", to.replace_attributes, bodies.AttributesBody, _ATTRIBUTES),
        Route("GET", "/rejected-customers", to.rejected),
        Route("POST", "/rejected-customers", to.reject, bodies.RejectedBody, rejected),
        Route("PUT", "/rejected-customers", to.set_rejected, bodies.RejectedBody, rejected),
        Route("GET", "/faults", to.faults),
        Route("POST", "/faults", to.add_fault, fault, line),
        Route("PUT", "/faults", to.set_faults, faults, [_FAULT, "429=10%"]),
        Route("DELETE", "/faults", to.clear_faults),
        Route("DELETE", "/faults/{number}", to.end_fault),
        Route("POST", "/faults/script", to.script, bodies.ScriptBody, script),
        Route("GET", "/quirks", to.quirks),
        Route("PATCH", "/quirks", to.change_quirks, quirks, _QUIRK),
        Route("PUT", "/quirks", to.set_quirks, quirks, {"max_limit": 100, "omit_links": True}),
        Route("GET", "/requests", to.requests, query=log),
        Route("DELETE", "/requests", to.clear_requests),
        Route("PUT", "/latency", to.set_latency, bodies.LatencyBody, {"latency_ms": 80}),
        Route("PUT", "/quota", to.set_quota, bodies.QuotaBody, {"quota": 150, "spend": 10}),
        Route("PUT", "/settings", to.set_settings, bodies.SettingsBody, settings),
        Route("POST", "/reset", to.reset, bodies.ResetBody, {"only": ["rows", "log"]}),
    )
