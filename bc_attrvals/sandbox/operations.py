"""Names the calls of the emulated service; counts, faults and limits refer to these names."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Operation(StrEnum):
    """One call of the service; equal to its plain string.

    LIST, UPSERT and DELETE are the calls on attribute values.
    """

    LIST = "list"
    UPSERT = "upsert"
    DELETE = "delete"
    LIST_ATTRIBUTES = "list_attributes"
    CREATE_ATTRIBUTES = "create_attributes"
    RENAME_ATTRIBUTES = "rename_attributes"
    DELETE_ATTRIBUTES = "delete_attributes"
    LIST_CUSTOMERS = "list_customers"
    OTHER = "other"


#: The operation of each path below `/stores/{store_hash}/v3`, by method.
OPERATIONS: Final[Mapping[str, Mapping[str, Operation]]] = {
    "/customers/attribute-values": {
        "GET": Operation.LIST,
        "PUT": Operation.UPSERT,
        "DELETE": Operation.DELETE,
    },
    "/customers/attributes": {
        "GET": Operation.LIST_ATTRIBUTES,
        "POST": Operation.CREATE_ATTRIBUTES,
        "PUT": Operation.RENAME_ATTRIBUTES,
        "DELETE": Operation.DELETE_ATTRIBUTES,
    },
    "/customers": {"GET": Operation.LIST_CUSTOMERS},
}
#: Writes that the service lets in three at a time (BigCommerce reference, Upsert Customer
#: Attribute Values; Create a Customer Attribute).
BOUNDED_WRITES: Final = frozenset({Operation.UPSERT, Operation.CREATE_ATTRIBUTES})


def operation_of(path: str, method: str) -> Operation:
    """Return the operation of a path and method.

    An unknown path counts as one of the attribute values: it is most likely a mistyped one.
    """
    methods = OPERATIONS.get(path, OPERATIONS["/customers/attribute-values"])
    return methods.get(method, Operation.OTHER)
