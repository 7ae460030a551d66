"""Paths and methods, and the names they are counted by."""

from __future__ import annotations

import pytest

from bc_attrvals.sandbox.operations import OPERATIONS, Operation, operation_of


@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [
        ("/customers/attribute-values", "PUT", Operation.UPSERT),
        ("/customers/attributes", "POST", Operation.CREATE_ATTRIBUTES),
        ("/customers", "GET", Operation.LIST_CUSTOMERS),
        ("/customers", "DELETE", Operation.OTHER),
        ("/customers/attribute-values", "PATCH", Operation.OTHER),
        ("/customers/attribute-valves", "GET", Operation.LIST),
    ],
)
def test_a_path_and_a_method_make_an_operation(
    path: str, method: str, operation: Operation
) -> None:
    assert operation_of(path, method) is operation


def test_every_operation_has_one_path_and_method() -> None:
    named = [operation for methods in OPERATIONS.values() for operation in methods.values()]
    assert sorted([*named, Operation.OTHER]) == sorted(Operation)
