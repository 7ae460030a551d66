"""An emulated store over real HTTP, for tests, demonstrations and benchmarks.

In: HTTP requests of any client, and a test's controls (seeds, faults, quirks, quota). Out: the
service's answers, and a log of the requests. README.md beside this file is the reference.

Order of the modules, from the bottom: operations, quirks and answers; queries and bodies, which
parse; database, definitions and rows, which store; listing and endpoint, which apply; faults,
limits, requests_log, wire and worker; service, which handles requests; emulation, the store as a
test sees it; control*, the same as JSON; tls, proxy and listeners, which open ports; server and
threaded, which serve.

It may import aiohttp, attrs, msgspec, multidict and trustme, and nothing of the client: a shared
decoder would hide a shared mistake.
"""

from bc_attrvals.sandbox.browsing import RowPage, RowQuery
from bc_attrvals.sandbox.definitions import StoredAttribute, StoredCustomer
from bc_attrvals.sandbox.emulation import Addresses
from bc_attrvals.sandbox.faults import ActiveFault, Fault, FaultKind, Faults
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import Window
from bc_attrvals.sandbox.requests_log import RecordedRequest, RequestLog
from bc_attrvals.sandbox.rows import SeedRow, StoredRow
from bc_attrvals.sandbox.server import Sandbox
from bc_attrvals.sandbox.threaded import ThreadedSandbox

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
