"""The asyncio client for BigCommerce customer attribute values.

Begin with `Store`. Its `attribute_values` reads, writes and syncs (`AttributeValues`), `attributes`
has the definitions, `customers` the addresses, and `mirror` an exact local copy. The module
`bc_attrvals.errors` has all that is raised, `bc_attrvals.events` what a Store reports.
"""

# The names are imported on first use: pytest loads this package's plugin in every project where the
# package is installed, and must not pay for the client, nor stumble over it, where no test uses it.
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bc_attrvals.attribute_values import AttributeValues
    from bc_attrvals.attributes import Attributes
    from bc_attrvals.core.definitions import Attribute, Customer
    from bc_attrvals.core.filters import AttributeValueFilter
    from bc_attrvals.core.limits import Limits
    from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Page, Pagination
    from bc_attrvals.core.named_value import AttributeType, NamedValue
    from bc_attrvals.core.outcomes import (
        DeleteReport,
        OutcomeStatus,
        PartialFailureError,
        UpsertOutcome,
        UpsertReport,
    )
    from bc_attrvals.core.rate_limit import QuotaSnapshot
    from bc_attrvals.core.requests import Operation
    from bc_attrvals.core.retry import RetryPolicy
    from bc_attrvals.core.sync_plan import ChangeKind, Reading, SyncChange, SyncPlan
    from bc_attrvals.customers import Customers
    from bc_attrvals.errors import (
        APIError,
        AttributeTypeError,
        AuthenticationError,
        BCAttrValsError,
        CertificateError,
        ConnectionFailedError,
        ConnectionLostError,
        DecodeError,
        FilterIgnoredError,
        HookError,
        InvalidInputError,
        JournalError,
        ListingDriftError,
        MirrorError,
        NotFoundError,
        PayloadTooLargeError,
        PermissionDeniedError,
        RateLimitError,
        RequestTimeoutError,
        RestoreError,
        ServerError,
        StoreStateError,
        StoreSuspendedError,
        TransportError,
        UnconfirmedError,
        UnknownAttributeError,
        UnknownCustomerError,
        UnprocessableError,
        UnresolvedError,
    )
    from bc_attrvals.events import (
        Event,
        JobEnded,
        JobStarted,
        ListingDriftSeen,
        MirrorFoundWrong,
        MirrorProgressed,
        QuotaExhausted,
        RequestAnswered,
        RequestRetrying,
        RequestSent,
        SharedQuotaLost,
        SharedQuotaRegained,
        SyncProgressed,
    )
    from bc_attrvals.mirror.mirror import Mirror
    from bc_attrvals.mirror.report import Change, Fault, FaultKind, RefreshReport
    from bc_attrvals.scheduling.quota import Priority, Quota
    from bc_attrvals.scheduling.scheduler import Statistics
    from bc_attrvals.store import Store, StoreView
    from bc_attrvals.sync.report import SyncReport
    from bc_attrvals.tables.arrow import from_arrow, to_arrow

__version__: str

__all__ = [
    "APIError",
    "Attribute",
    "AttributeType",
    "AttributeTypeError",
    "AttributeValue",
    "AttributeValueFilter",
    "AttributeValueUpsert",
    "AttributeValues",
    "Attributes",
    "AuthenticationError",
    "BCAttrValsError",
    "CertificateError",
    "Change",
    "ChangeKind",
    "ConnectionFailedError",
    "ConnectionLostError",
    "Customer",
    "Customers",
    "DecodeError",
    "DeleteReport",
    "Event",
    "Fault",
    "FaultKind",
    "FilterIgnoredError",
    "HookError",
    "InvalidInputError",
    "JobEnded",
    "JobStarted",
    "JournalError",
    "Limits",
    "ListingDriftError",
    "ListingDriftSeen",
    "Mirror",
    "MirrorError",
    "MirrorFoundWrong",
    "MirrorProgressed",
    "NamedValue",
    "NotFoundError",
    "Operation",
    "OutcomeStatus",
    "Page",
    "Pagination",
    "PartialFailureError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Priority",
    "Quota",
    "QuotaExhausted",
    "QuotaSnapshot",
    "RateLimitError",
    "Reading",
    "RefreshReport",
    "RequestAnswered",
    "RequestRetrying",
    "RequestSent",
    "RequestTimeoutError",
    "RestoreError",
    "RetryPolicy",
    "ServerError",
    "SharedQuotaLost",
    "SharedQuotaRegained",
    "Statistics",
    "Store",
    "StoreStateError",
    "StoreSuspendedError",
    "StoreView",
    "SyncChange",
    "SyncPlan",
    "SyncProgressed",
    "SyncReport",
    "TransportError",
    "UnconfirmedError",
    "UnknownAttributeError",
    "UnknownCustomerError",
    "UnprocessableError",
    "UnresolvedError",
    "UpsertOutcome",
    "UpsertReport",
    "from_arrow",
    "to_arrow",
]

#: Names of other modules than `errors` and `events`.
_NAMES_OF_MODULE = {
    "attribute_values": ("AttributeValues",),
    "attributes": ("Attributes",),
    "core.definitions": ("Attribute", "Customer"),
    "core.sync_plan": ("ChangeKind", "Reading", "SyncChange", "SyncPlan"),
    "core.filters": ("AttributeValueFilter",),
    "core.limits": ("Limits",),
    "core.models": ("AttributeValue", "AttributeValueUpsert", "Page", "Pagination"),
    "core.named_value": ("AttributeType", "NamedValue"),
    "core.outcomes": (
        "DeleteReport",
        "OutcomeStatus",
        "PartialFailureError",
        "UpsertOutcome",
        "UpsertReport",
    ),
    "core.rate_limit": ("QuotaSnapshot",),
    "core.requests": ("Operation",),
    "core.retry": ("RetryPolicy",),
    "customers": ("Customers",),
    "mirror.mirror": ("Mirror",),
    "mirror.report": ("Change", "Fault", "FaultKind", "RefreshReport"),
    "scheduling.quota": ("Priority", "Quota"),
    "sync.report": ("SyncReport",),
    "scheduling.scheduler": ("Statistics",),
    "store": ("Store", "StoreView"),
    "tables.arrow": ("from_arrow", "to_arrow"),
}
_MODULE_OF_NAME = {
    name: f"{__name__}.{'errors' if name.endswith('Error') else 'events'}" for name in __all__
} | {name: f"{__name__}.{module}" for module, names in _NAMES_OF_MODULE.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name, or one of the top modules, when it is first asked for."""
    if name in _MODULE_OF_NAME:
        found: object = getattr(import_module(_MODULE_OF_NAME[name]), name)
    elif name == "__version__":
        found = import_module(f"{__name__}.version").__version__
    elif name in {module.split(".")[1] for module in _MODULE_OF_NAME.values()}:
        found = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
