"""Answers are read as they are, odd ones too."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import DecodeError
from bc_attrvals.core.responses import Response
from bc_attrvals.probe.answers import read_listing, read_rows, style_of

ROW = {
    "id": 1,
    "customer_id": 7,
    "attribute_id": 2,
    "attribute_value": "v",
    "date_created": "2024-05-14T09:34:00Z",
    "date_modified": "2024-05-14T09:34:00",
}


def answer(content: object, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Response(status, CIMultiDictProxy(CIMultiDict()), body)


def test_a_row_keeps_how_it_was_spelt() -> None:
    (row,) = read_rows(answer({"data": [ROW]}))
    moment = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)
    assert (row.id, row.key, row.value) == (1, (7, 2), "v")
    assert (row.created, row.modified) == (moment, moment)
    assert (row.value_field, row.has_zone) == ("attribute_value", False)
    older = {**ROW, "value": "w", "date_modified": "yesterday"}
    del older["attribute_value"]
    (row,) = read_rows(answer({"data": [older]}))
    assert (row.value, row.value_field, row.modified, row.has_zone) == ("w", "value", None, True)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff", [], {"data": None}, {"data": [3]}, {"errors": {}}]
)
def test_what_is_no_list_of_rows_is_refused(content: object) -> None:
    with pytest.raises(DecodeError, match=r"\$\.data"):
        read_listing(answer(content))


@pytest.mark.parametrize("change", [{"id": "1"}, {"attribute_value": None}, {"customer_id": None}])
def test_a_row_without_ids_or_value_is_refused_with_its_place(change: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match=r"\$\.data\[1\]"):
        read_rows(answer({"data": [ROW, {**ROW, **change}]}))


def test_pagination_may_be_missing_or_odd() -> None:
    for meta in ({}, {"meta": None}, {"meta": {"pagination": []}}):
        assert read_listing(answer({"data": [], **meta})).pagination == {}
    odd = {"pagination": {"total": True, "count": "3", "per_page": 5}}
    listing = read_listing(answer({"data": [], "meta": odd}))
    assert [listing.number(one) for one in ("total", "count", "per_page")] == [None, None, 5]


@pytest.mark.parametrize(
    ("errors", "style"),
    [
        ({"1.data": "x"}, "indexed"),
        ({".customer_create": "x"}, "field"),
        ({"7.data": "x"}, "field"),
        ({}, "empty"),
    ],
)
def test_the_style_of_a_refusal(errors: dict[str, str], style: str) -> None:
    assert style_of(answer({"title": "no", "errors": errors}, 422), 2) == style


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"title": "cut o', b"[]", b"\xff"])
def test_a_refusal_without_a_body_that_can_be_read_has_no_style(body: bytes) -> None:
    assert style_of(answer(body, 422), 2) == "no body"
