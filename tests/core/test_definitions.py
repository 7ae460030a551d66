"""Definitions of attributes and customers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bc_attrvals import Attribute, Customer, DecodeError
from bc_attrvals.core.definitions import decode_attributes, decode_customers

PAGINATION = b'{"total":1,"count":1,"per_page":50,"current_page":1,"total_pages":1}'


def test_a_definition_is_plain_json() -> None:
    assert Attribute(1, "Tier", "string").to_dict() == {
        "id": 1,
        "name": "Tier",
        "type": "string",
        "date_created": None,
        "date_modified": None,
    }


def test_dates_of_a_definition_are_utc_with_or_without_a_zone() -> None:
    [one] = decode_attributes(
        b'{"data":[{"id":1,"name":"Tier","type":"string","date_created":"2024-10-24T04:32:20",'
        b'"date_modified":"2024-10-24T06:32:20+02:00","new":1}],"meta":{}}'
    ).data
    assert one.date_created == one.date_modified == datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC)
    dates = {name: one.to_dict()[name] for name in ("date_created", "date_modified")}
    assert set(dates.values()) == {"2024-10-24T04:32:20Z"}


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (b'{"id":1}', "$.data[0].email"),
        (b'{"id":1,"email":null}', "$.data[0].email"),
        (b'{"id":1,"email":"\\ud83d"}', "$.data[0].email"),
        (b'{"id":"1","email":"a@b"}', "$.data[0].id"),
        (b"[]", "$.data[0]"),
    ],
)
def test_a_customer_that_can_not_be_read_is_named_by_its_place(row: bytes, place: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_customers(b'{"data":[' + row + b'],"meta":{"pagination":' + PAGINATION + b"}}")
    assert caught.value.place == place


@pytest.mark.parametrize(
    "meta", [b"", b',"meta":{}', b',"meta":[]', b',"meta":{"pagination":null}']
)
def test_customers_without_a_total_are_refused_and_definitions_are_one_page(meta: bytes) -> None:
    """A page of customers without a total may lack some, and these would count as unknown."""
    with pytest.raises(DecodeError) as caught:
        decode_customers(b'{"data":[{"id":1,"email":"a@b"}]' + meta + b"}")
    assert caught.value.place == "$.meta.pagination"
    row = b'{"id":1,"name":"Tier","type":"string"}'
    assert decode_attributes(b'{"data":[' + row + b"]" + meta + b"}").total == 1


@pytest.mark.parametrize(
    "odd",
    [
        b'"first_name":null',
        b'"company":"\\ud83d"',
        b'"customer_group_id":"3"',
        b'"date_created":""',
        b'"date_created":"0001-01-01T00:00:00+05:00"',
        b'"date_modified":5',
    ],
)
def test_a_customer_is_read_though_a_field_that_no_look_up_needs_can_not_be(odd: bytes) -> None:
    row = b'{"id":1,"email":"a@b","last_name":"Doe",' + odd + b"}"
    page = decode_customers(b'{"data":[' + row + b'],"meta":{"pagination":' + PAGINATION + b"}}")
    assert page.data == [Customer(1, "a@b", last_name="Doe")]
    assert page.total == 1


def test_a_definition_is_read_without_a_date_that_can_not_be() -> None:
    row = b'{"id":1,"name":"Tier","type":"string","date_created":"","date_modified":"0000-00-00"}'
    assert decode_attributes(b'{"data":[' + row + b"]}").data == [Attribute(1, "Tier", "string")]
