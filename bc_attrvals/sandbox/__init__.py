"""An emulated store over real HTTP, for tests, demonstrations and benchmarks.

In: HTTP requests of any client, and a test's controls (seeds, faults, quirks, quota). Out: the
service's answers, and a log of the requests. README.md beside this file is the reference.

A request for the store passes, in this order:

- `connections`: a plain request is parsed by `heads`, another one by aiohttp;
- `server`: is it the store's, or a control?
- `request_handler`: address, token, `quota`, calls in flight, `faults`, latency; `request_log`;
- `database_thread`: what blocks, long jobs in a thread, short writes together in the loop;
- `resources`: the calls of the three resources, on what `query_strings` and `body_checks` let pass;
- `rows`, `listing` and `definitions`: the tables of the `database`;
- `answers` and `fault_answers`.

`emulated_store` is the store as a test sees it, `threaded_sandbox` the same without an event loop.
`control` serves it as JSON: `control_input` checks, `control_handlers` has the routes, `row_search`
finds, `openapi` describes. `listeners` opens the ports, with `certificates` and `proxy`.

It may import aiohttp, attrs, msgspec, multidict and trustme, and nothing of the client: a shared
decoder would hide a shared mistake.
"""

from bc_attrvals.sandbox.definitions import StoredAttribute, StoredCustomer
from bc_attrvals.sandbox.emulated_store import Addresses
from bc_attrvals.sandbox.faults import ActiveFault, Fault, FaultKind, Faults
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import Window
from bc_attrvals.sandbox.request_log import RecordedRequest, RequestLog
from bc_attrvals.sandbox.row_search import RowPage, RowQuery
from bc_attrvals.sandbox.rows import SeedRow, StoredRow
from bc_attrvals.sandbox.server import Sandbox
from bc_attrvals.sandbox.threaded_sandbox import ThreadedSandbox

__all__ = [
    "ActiveFault",
    "Addresses",
    "Fault",
    "FaultKind",
    "Faults",
    "Operation",
    "Quirks",
    "RecordedRequest",
    "RequestLog",
    "RowPage",
    "RowQuery",
    "Sandbox",
    "SeedRow",
    "StoredAttribute",
    "StoredCustomer",
    "StoredRow",
    "ThreadedSandbox",
    "Window",
]
