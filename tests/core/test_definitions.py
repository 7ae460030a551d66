"""Definitions of attributes and customers."""

from __future__ import annotations

from bc_attrvals import Attribute


def test_a_definition_is_plain_json() -> None:
    assert Attribute(1, "Tier", "string").to_dict() == {
        "id": 1,
        "name": "Tier",
        "type": "string",
        "date_created": None,
        "date_modified": None,
    }
