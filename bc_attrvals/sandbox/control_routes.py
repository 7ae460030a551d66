"""The table of the control routes: what each takes, what it does, and an example of its body.

`control` dispatches by this table, and `openapi` describes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

from bc_attrvals.sandbox import control_bodies as bodies
from bc_attrvals.sandbox.control_handlers import Call, Handlers
from bc_attrvals.sandbox.operations import Operation

_ROW: Final = {"customer_id": 7, "attribute_id": 1, "value": "gold"}
_FAULT: Final = {"kind": "503", "operation": "list", "probability": 0.05}
_CUSTOMERS: Final = {"customers": {"7": "ann@example.org"}}
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
    query: Mapping[str, str] = attrs.field(factory=dict)
    body: Any = None
    example: object = None

    @property
    def says(self) -> str:
        """What the route does."""
        return (self.handler.__doc__ or "").rstrip(".")


def routes_of(handlers: Handlers) -> tuple[Route, ...]:
    """Return the routes of one store's handlers."""
    ids = "ids with commas between"
    paged = {"page": "from 1", "limit": f"1 to {bodies.MOST_ROWS_PAGE:,}, 50 by default"}
    rows = {"customer_id": ids, "attribute_id": ids, "value": "a part of the value", **paged}
    log = {
        "after": "a sequence number",
        "limit": f"1 to {bodies.MOST_LOGGED:,}, 100 by default",
        "operation": f"one of {', '.join(Operation)}",
    }
    fault: Any = str | bodies.FaultBody
    rejected = {"customer_ids": [8]}
    settings = {"quota": 450, "quirks": {"order": "shuffled"}, **_CUSTOMERS}
    script = {"faults": ["503", None], "operation": "list"}
    return (
        Route("GET", "/state", handlers.state),
        Route("GET", "/rows", handlers.rows, rows),
        Route("POST", "/rows", handlers.add_rows, body=bodies.RowsBody, example={"rows": [_ROW]}),
        Route(
            "PUT", "/rows", handlers.replace_rows, body=bodies.RowsBody, example={"rows": [_ROW]}
        ),
        Route("DELETE", "/rows", handlers.delete_rows, {"id": ids}),
        Route("GET", "/customers", handlers.customers),
        Route(
            "POST",
            "/customers",
            handlers.add_customers,
            body=bodies.CustomersBody,
            example=_CUSTOMERS,
        ),
        Route(
            "PUT",
            "/customers",
            handlers.replace_customers,
            body=bodies.CustomersBody,
            example=_CUSTOMERS,
        ),
        Route("DELETE", "/customers", handlers.delete_customers, {"id": ids}),
        Route("GET", "/attributes", handlers.attributes),
        Route(
            "POST",
            "/attributes",
            handlers.add_attributes,
            body=bodies.AttributesBody,
            example=_ATTRIBUTES,
        ),
        Route(
            "PUT",
            "/attributes",
            handlers.replace_attributes,
            body=bodies.AttributesBody,
            example=_ATTRIBUTES,
        ),
        Route("GET", "/rejected-customers", handlers.rejected),
        Route(
            "POST",
            "/rejected-customers",
            handlers.reject,
            body=bodies.RejectedBody,
            example=rejected,
        ),
        Route(
            "PUT",
            "/rejected-customers",
            handlers.set_rejected,
            body=bodies.RejectedBody,
            example=rejected,
        ),
        Route("GET", "/faults", handlers.faults),
        Route("POST", "/faults", handlers.add_fault, body=fault, example="503=5%,operation=list"),
        Route("PUT", "/faults", handlers.set_faults, body=list[fault], example=[_FAULT, "429=10%"]),
        Route("DELETE", "/faults", handlers.clear_faults),
        Route("DELETE", "/faults/{number}", handlers.end_fault),
        Route("POST", "/faults/script", handlers.script, body=bodies.ScriptBody, example=script),
        Route("GET", "/quirks", handlers.quirks),
        Route(
            "PATCH",
            "/quirks",
            handlers.change_quirks,
            body=dict[str, Any],
            example={"order": "shuffled"},
        ),
        Route(
            "PUT",
            "/quirks",
            handlers.set_quirks,
            body=dict[str, Any],
            example={"max_limit": 100, "omit_links": True},
        ),
        Route("GET", "/requests", handlers.requests, log),
        Route("DELETE", "/requests", handlers.clear_requests),
        Route(
            "PUT",
            "/latency",
            handlers.set_latency,
            body=bodies.LatencyBody,
            example={"latency_ms": 80},
        ),
        Route(
            "PUT",
            "/quota",
            handlers.set_quota,
            body=bodies.QuotaBody,
            example={"quota": 150, "spend": 10},
        ),
        Route(
            "PUT", "/settings", handlers.set_settings, body=bodies.SettingsBody, example=settings
        ),
        Route(
            "POST",
            "/reset",
            handlers.reset,
            body=bodies.ResetBody,
            example={"only": ["rows", "log"]},
        ),
    )
