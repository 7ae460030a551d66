"""An emulated store over real HTTP, for tests, demonstrations and benchmarks.

It imports nothing of the client, for a shared decoder would hide a shared mistake.
"""

from bc_attrvals.sandbox.browsing import RowPage, RowQuery
from bc_attrvals.sandbox.faults import ActiveFault, Fault, FaultKind, Faults
from bc_attrvals.sandbox.limits import Window
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.requests_log import RecordedRequest, RequestLog
from bc_attrvals.sandbox.rows import SeedRow, StoredRow
from bc_attrvals.sandbox.server import Sandbox
from bc_attrvals.sandbox.threaded import ThreadedSandbox

__all__ = [
    "ActiveFault",
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
    "StoredRow",
    "ThreadedSandbox",
    "Window",
]
