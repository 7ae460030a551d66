"""Names the calls of the emulated endpoint; the sandbox counts and selects by these names."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Operation(StrEnum):
    """One of the endpoint's calls; equal to its plain string."""

    LIST = "list"
    UPSERT = "upsert"
    DELETE = "delete"
    OTHER = "other"


OPERATION_OF_METHOD: Final = {
    "GET": Operation.LIST,
    "PUT": Operation.UPSERT,
    "DELETE": Operation.DELETE,
}
