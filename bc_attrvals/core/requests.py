"""Builds the one request of each operation: method, path with raw query, body.

The URLs are finished here, percent-encoding included; the session must send them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final
from urllib.parse import quote

import msgspec

from bc_attrvals.core.filters import (
    MAX_URL_BYTES,
    AttributeValueFilter,
    ListingQuery,
    parts_of,
    split_queries,
)
from bc_attrvals.core.models import AttributeValueUpsert

DEFAULT_BASE_URL: Final = "https://api.bigcommerce.com"

#: The whole URL of a DELETE stays below this; the limit of ids in a call is not documented.
MAX_DELETE_URL_BYTES: Final = 2_000

_PAGE_ROOM_BYTES: Final = len("&limit=250&page=1234567890")
_PLAIN: Final = frozenset({AttributeValueUpsert})


class Operation(StrEnum):
    """The three kinds of call, each with its own limit of requests at once."""

    # The `__hash__` of enums is written in Python, and slow: each request looks up several dicts.
    __hash__ = str.__hash__

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One call, ready to send. `path` includes the query; it has no secrets and may be logged."""

    operation: Operation
    method: str
    path: str
    body: bytes | None = None

    @property
    def resource(self) -> str:
        """The path without its query, as errors and log lines show it."""
        return self.path.partition("?")[0]

    @property
    def kind(self) -> str:
        """The path of the resource under a store's `/v3/`: see `Resource`."""
        return self.resource.partition("/v3/")[2]


class Resource(StrEnum):
    """The resources in use, by their paths under a store's `/v3/`."""

    ATTRIBUTE_VALUES = "customers/attribute-values"
    ATTRIBUTES = "customers/attributes"
    CUSTOMERS = "customers"


class RequestBuilder:
    """Builds the requests of one resource of a store.

    Store hash, base URL and resource determine the room that is left in a URL.
    """

    def __init__(
        self, store_hash: str, base_url: str, resource: Resource = Resource.ATTRIBUTE_VALUES
    ) -> None:
        self._path = f"/stores/{quote(store_hash, safe='')}/v3/{resource}"
        used_bytes = len(base_url.encode()) + len(self._path) + 1
        self._listing_room_bytes = MAX_URL_BYTES - used_bytes - _PAGE_ROOM_BYTES
        self._delete_room_bytes = MAX_DELETE_URL_BYTES - 1 - used_bytes - len("id:in=")
        self._encode = msgspec.json.Encoder().encode

    @property
    def resource(self) -> str:
        """The path of the resource, without a query."""
        return self._path

    def listing_queries(
        self, filter: AttributeValueFilter | None, spare_bytes: int = 0
    ) -> list[ListingQuery]:
        """Return the queries that list `filter` without overlap; see `split_queries`.

        `spare_bytes` is the room kept in each URL for more parameters.
        """
        return split_queries(filter, self._listing_room_bytes - spare_bytes)

    def page(self, query: str, page: int, limit: int) -> Request:
        """Return the GET of one page (from 1) of a query string."""
        joint = "&" if query else ""
        path = f"{self._path}?{query}{joint}limit={limit}&page={page}"
        return Request(Operation.READ, "GET", path)

    def queries_in(self, parameter: str, texts: Sequence[str], most: int) -> list[list[str]]:
        """Return percent-encoded texts in parts that each fit into one URL."""
        room_bytes = self._listing_room_bytes - len(parameter) - 1
        return list(parts_of(texts, room_bytes, most))

    def post(self, document: object) -> Request:
        """Return the POST of a JSON document. It is not idempotent."""
        return Request(Operation.WRITE, "POST", self._path, self._encode(document))

    def put(self, document: object) -> Request:
        """Return the PUT of a JSON document."""
        return Request(Operation.WRITE, "PUT", self._path, self._encode(document))

    def upsert(self, items: Sequence[AttributeValueUpsert]) -> Request:
        """Return the PUT of up to ten items; an `id` of None is left out."""
        if not _PLAIN.issuperset(map(type, items)):
            # The fields of a subclass must not be sent.
            items = [_plain(item) for item in items]
        return Request(Operation.WRITE, "PUT", self._path, self._encode(items))

    def deletes(self, ids: Sequence[int], most: int) -> Iterator[tuple[Request, int]]:
        """Yield DELETEs of at most `most` ids and a short URL, each with its count of ids."""
        for part in parts_of(map(str, ids), self._delete_room_bytes, most):
            path = f"{self._path}?id:in={','.join(part)}"
            yield Request(Operation.DELETE, "DELETE", path), len(part)


def _plain(item: AttributeValueUpsert) -> AttributeValueUpsert:
    return AttributeValueUpsert(item.customer_id, item.attribute_id, item.value, item.id)
