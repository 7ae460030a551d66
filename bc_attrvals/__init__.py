"""bc_attrvals: the asyncio client for BigCommerce customer attribute values."""

from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.core.diff import Reading, SyncPlan
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Page, Pagination
from bc_attrvals.core.outcomes import DeleteReport, OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.quota import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import (
    APIError,
    AuthenticationError,
    BCAttrValsError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    NotFoundError,
    PartialFailureError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StoreStateError,
    StoreSuspendedError,
    TransportError,
    UnconfirmedError,
    UnprocessableError,
)
from bc_attrvals.events import (
    Event,
    ListingDriftSeen,
    QuotaExhausted,
    RequestAnswered,
    RequestRetrying,
    RequestSent,
    SyncProgressed,
)
from bc_attrvals.gate import Priority, Quota
from bc_attrvals.report import SyncReport
from bc_attrvals.scheduler import Statistics
from bc_attrvals.store import Store, StoreView

__all__ = [
    "APIError",
    "AttributeValue",
    "AttributeValueFilter",
    "AttributeValueUpsert",
    "AttributeValues",
    "AuthenticationError",
    "BCAttrValsError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "DecodeError",
    "DeleteReport",
    "Event",
    "InvalidInputError",
    "JournalError",
    "Limits",
    "ListingDriftError",
    "ListingDriftSeen",
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
    "RequestAnswered",
    "RequestRetrying",
    "RequestSent",
    "RequestTimeoutError",
    "RetryPolicy",
    "ServerError",
    "Statistics",
    "Store",
    "StoreStateError",
    "StoreSuspendedError",
    "StoreView",
    "SyncPlan",
    "SyncProgressed",
    "SyncReport",
    "TransportError",
    "UnconfirmedError",
    "UnprocessableError",
    "UpsertOutcome",
    "UpsertReport",
]
