"""Reading answers: pages and rows in every spelling, refusals and their words."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from random import Random

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bc_attrvals.core.models import AttributeValue, Page, Pagination
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.core.responses import (
    SUCCESS,
    decode_page,
    decode_rows,
    error_from_answer,
    indexes_named,
)
from bc_attrvals.errors import (
    APIError,
    AuthenticationError,
    DecodeError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StoreSuspendedError,
    UnprocessableError,
)
from tests.core.answers import (
    ABSENT,
    DEPTHS,
    ROW,
    UNKNOWN,
    VALUE,
    damaged,
    examples,
    odd,
    page_body,
    row,
    rows_body,
)

# --- answers in order ------------------------------------------------------------------------


def test_a_recorded_page_is_read() -> None:
    assert decode_page(page_body(ROW)) == Page([VALUE], Pagination(1, 50, 1, 1, 1))


def test_the_rows_of_a_write_are_read() -> None:
    assert decode_rows(rows_body(ROW, row(id=42))) == [VALUE, attrs.evolve(VALUE, id=42)]


@pytest.mark.parametrize("meta", [{}, None, [], {"pagination": None}, "absent"])
def test_the_meta_of_a_write_does_not_matter(meta: object) -> None:
    document = {"data": [ROW]} if meta == "absent" else {"data": [ROW], "meta": meta}
    assert decode_rows(json.dumps(document).encode()) == [VALUE]


def test_an_empty_listing_has_no_pages() -> None:
    page = decode_page(page_body(total=0, count=0, total_pages=0, links=ABSENT))
    assert page == Page([], Pagination(0, 50, 1, 0, 0))


@pytest.mark.parametrize("count", [ABSENT, None])
def test_the_count_of_a_page_may_be_missing(count: object) -> None:
    assert decode_page(page_body(ROW, count=count)).pagination.count is None


def test_answers_in_order_never_meet_the_careful_converter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bc_attrvals.core.fallback_decoding", None)
    assert decode_page(page_body(ROW, row(date_created="2024-10-24T06:32:20+02:00"))).data == [
        VALUE,
        VALUE,
    ]
    assert decode_rows(rows_body(ROW, row(new={"a": [1]}), row(date_created=None)))
    with pytest.raises(ImportError):
        decode_rows(rows_body(row(id="1")))


@pytest.mark.parametrize("before", [[], [ROW], [row(date_created=None)]])
@pytest.mark.parametrize(
    "changes",
    [
        {"date_created": "2024-10-24T06:32:20+02:00"},
        {"date_modified": "2024-10-25T03:00:00-02:00"},
        {"date_created": None, "date_modified": "2024-10-25T03:00:00-02:00"},
        {"date_created": "2024-10-24T06:32:20+02:00", "date_modified": None},
    ],
)
def test_each_date_of_each_row_is_in_utc(
    changes: dict[str, object], before: list[dict[str, object]]
) -> None:
    last = decode_rows(rows_body(*before, row(**changes)))[-1]
    for name, expected in (
        ("date_created", VALUE.date_created),
        ("date_modified", VALUE.date_modified),
    ):
        moment = getattr(last, name)
        if changes.get(name, "") is None:
            assert moment is None
        else:
            assert moment == expected
            assert moment.utcoffset() == timedelta(0)


# --- older and odder spellings ---------------------------------------------------------------


@pytest.mark.parametrize("read", [decode_rows, lambda body: decode_page(body).data])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attribute_value": ABSENT, "value": "blue"}, VALUE),
        ({"value": "red"}, VALUE),
        ({"new": [{"a": None}], "": 1}, VALUE),
        ({"date_created": "2024-10-24T04:32:20"}, VALUE),
        ({"date_created": "2024-10-24T04:32:20.000Z"}, VALUE),
        ({"date_created": "2024-10-24T04:32:20+00:00"}, VALUE),
        ({"date_created": "2024-10-24T10:02:20+05:30"}, VALUE),
        ({"date_created": "2024-10-23T23:32:20-05:00"}, VALUE),
        ({"date_created": None}, attrs.evolve(VALUE, date_created=None)),
        ({"date_created": ABSENT}, attrs.evolve(VALUE, date_created=None)),
        ({"date_modified": None}, attrs.evolve(VALUE, date_modified=None)),
        ({"attribute_value": ""}, attrs.evolve(VALUE, attribute_value="")),
    ],
)
def test_every_spelling_the_service_has_used_is_read(
    read: Callable[[bytes], list[AttributeValue]],
    changes: dict[str, object],
    expected: AttributeValue,
) -> None:
    body = page_body(row(**changes), ROW)
    assert read(body) == [expected, VALUE]


@pytest.mark.parametrize(
    "date", ["2024-10-24T04:32:20", "2024-10-24T04:32:20Z", "2024-10-24T10:02:20+05:30"]
)
def test_dates_mean_the_same_wherever_the_machine_stands(elsewhere: None, date: str) -> None:
    # An older spelling takes the careful path.
    older = row(date_created=date, attribute_value=ABSENT, value="blue")
    assert decode_rows(rows_body(row(date_created=date))) == [VALUE]
    assert decode_rows(rows_body(older)) == [VALUE]


@pytest.mark.parametrize(
    ("date", "is_read"),
    [
        ("0001-01-01T00:00:00+05:00", False),
        ("0001-01-01T05:00:00+05:00", True),
        ("0001-01-01T00:00:00-05:00", True),
        ("0001-01-01T00:00:00Z", True),
        ("9999-12-31T23:00:00-05:00", False),
        ("9999-12-31T18:59:59-05:00", True),
        ("9999-12-31T23:00:00+05:00", True),
        ("9999-12-31T23:00:00Z", True),
        (r"000\u0031-01-01T00:00:00+05:00", False),
        (r"999\u0039-12-31T23:00:00-05:00", False),
    ],
)
@pytest.mark.parametrize("read", [decode_rows, lambda body: decode_page(body).data])
@pytest.mark.parametrize("field", ["date_created", "date_modified"])
def test_a_date_outside_of_the_calendar_in_utc_is_refused_and_its_neighbours_are_not(
    date: str, is_read: bool, read: Callable[[bytes], list[AttributeValue]], field: str
) -> None:
    body = page_body(ROW, row(**{field: "DATE"})).replace(b"DATE", date.encode())
    if is_read:
        assert getattr(read(body)[1], field).utcoffset() == timedelta(0)
        return
    with pytest.raises(DecodeError, match="outside of the years 1 to 9999") as caught:
        read(body)
    assert caught.value.place == f"$.data[1].{field}"


def test_a_row_with_an_offset_is_like_one_without_wherever_it_is_looked_at() -> None:
    bodies = (rows_body(row(date_created="2024-10-24T06:32:20+02:00")), rows_body(ROW))
    east, utc = (decode_rows(body)[0] for body in bodies)
    assert (east, hash(east)) == (utc, hash(utc))
    assert repr(east) == repr(utc)
    assert east.to_dict() == utc.to_dict()
    assert UpsertOutcome(utc.to_upsert(), OutcomeStatus.STORED, east).to_dict()["stored"] == (
        utc.to_dict()
    )
    doubles = [pickle.loads(pickle.dumps(east)), copy.deepcopy(east), attrs.evolve(east)]
    for one in [east, *doubles]:
        assert repr(one) == repr(utc)
        assert attrs.asdict(one) == attrs.asdict(utc)
        assert str(one.date_created) == "2024-10-24 04:32:20+00:00"


def test_one_date_with_an_offset_does_not_change_the_rows_beside_it() -> None:
    other = row(id=42, date_created=None, date_modified="2024-10-25T04:00:00-01:00")
    assert decode_rows(rows_body(ROW, other, ROW)) == [
        VALUE,
        attrs.evolve(VALUE, id=42, date_created=None),
        VALUE,
    ]


# --- errors ----------------------------------------------------------------------------------


def error_of(status: int, body: bytes = b"") -> APIError:
    return error_from_answer(status, body, request_id="r-1", method="PUT", path="/stores/x/v3")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (300, APIError),
        (302, APIError),
        (400, APIError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, APIError),
        (408, APIError),
        (413, PayloadTooLargeError),
        (418, APIError),
        (422, UnprocessableError),
        (429, RateLimitError),
        (499, APIError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (507, ServerError),
        (599, ServerError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"title":"t"}', b'{"title', b"null", b"\xff"])
def test_each_status_has_its_class_whatever_the_body(
    status: int, cls: type[APIError], body: bytes
) -> None:
    error = error_of(status, body)
    assert type(error) is cls
    assert error.status == status
    assert (error.request_id, error.method, error.path) == ("r-1", "PUT", "/stores/x/v3")
    assert error.title


def test_a_recorded_refusal_is_read_with_its_field_errors() -> None:
    error = error_of(
        422,
        json.dumps(
            {
                "status": 422,
                "title": "Set customer attribute values failed.",
                "type": "https://developer.bigcommerce.com/api-docs/getting-started/api-status-codes",
                "errors": {"0.data": "missing attribute value"},
            }
        ).encode(),
    )
    assert error.title == "Set customer attribute values failed."
    assert error.errors == {"0.data": "missing attribute value"}


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ({"title": "Gone", "detail": "no"}, "Gone"),
        ({"detail": "only this"}, "only this"),
        ({"message": "only that"}, "only that"),
        ({"title": "", "detail": "said here"}, "said here"),
        ({"title": None, "message": "said there"}, "said there"),
        ({"title": 5}, "(no readable error body)"),
        ({"title": "  \n "}, "(no readable error body)"),
        ({"title": ["x"]}, "(no readable error body)"),
        ({}, "(no readable error body)"),
        ({"errors": ["only here"]}, "(no title)"),
        (["title"], "title"),
        (["of one", "of another"], "of one; of another"),
        (["a text", 7], "a text"),
        ("title", "title"),
        ([{"status": 400, "message": "as version 2 does"}], "as version 2 does"),
        ({"error": "a proxy's"}, "a proxy's"),
        ({"detail": [{"loc": ["body", 0], "msg": "a validator's"}]}, "a validator's"),
        ({"detail": {"message": "one of its own"}}, "one of its own"),
        ({"error": 7, "detail": []}, "(no readable error body)"),
        ({"error": {"code": 7, "message": "a gateway's"}}, "a gateway's"),
        ({"error": [{"message": "the first"}, {"message": "the second"}]}, "the first"),
        ({"error": "invalid_token", "error_description": "It has expired."}, "It has expired."),
        ({"error": True}, "(no readable error body)"),
        ({"error": {"error": {"error": 7}}}, "(no readable error body)"),
        ([], "(no readable error body)"),
        ([[]], "(no readable error body)"),
        (None, "(no readable error body)"),
    ],
)
def test_the_title_is_what_the_service_says_wherever_it_says_it(
    document: object, title: str
) -> None:
    assert error_of(400, json.dumps(document).encode()).title == title


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"upstream connect error\nreset", "upstream connect error"),
        (b"  Rate limit\texceeded\r\n", "Rate limit exceeded"),
        (b"caf\xe9 closed", "caf\ufffd closed"),
        (b"<html>no</html>", "(no readable error body)"),
        (b'{"title": "cut', "(no readable error body)"),
        (b'[{"title": "cut', "(no readable error body)"),
        (b"X-Auth-Token: s3cret", "(no readable error body)"),
        (b" \n ", "(no readable error body)"),
    ],
)
def test_the_first_line_of_a_text_is_its_reason(body: bytes, title: str) -> None:
    assert error_of(502, body).title == title


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({}, {}),
        ([], {}),
        (None, {}),
        ("bad", {}),
        ({".customer_create": "no"}, {".customer_create": "no"}),
        ({"0.data": ["a", "b"]}, {"0.data": '["a","b"]'}),
        ({"0.data": {"code": 1}}, {"0.data": '{"code":1}'}),
        ({"0.data": None}, {"0.data": "null"}),
        ({"0.data": 10**40}, {"0.data": "1" + 40 * "0"}),
        (["no", {"code": 1}], {"errors[0]": "no", "errors[1]": '{"code":1}'}),
    ],
)
def test_field_errors_of_any_shape_become_lines(errors: object, expected: dict[str, str]) -> None:
    body = json.dumps({"title": "t", "errors": errors}).encode()
    assert error_of(422, body).errors == expected


HOSTILE = "a\x00b\x1b[31m\nc\r\td\u2028e\u202ef\x7fg\x85h\u200bi"


def test_control_characters_are_cleaned_from_all_that_is_said() -> None:
    body = json.dumps({"title": HOSTILE, "errors": {HOSTILE: HOSTILE, "1.x": [HOSTILE]}}).encode()
    error = error_of(422, body)
    assert str(error).isprintable()
    assert error.title.isprintable()
    for key, text in error.errors.items():
        assert key.isprintable()
        assert text.isprintable()
    assert error.title.split() == ["a", "b", "[31m", "c", "d", "e", "f", "g", "h", "i"]


def test_a_flood_of_words_is_cut() -> None:
    errors = {f"{index}.data" + "k" * 10_000: "v" * 10_000 for index in range(500)}
    error = error_of(422, json.dumps({"title": "t" * 10_000, "errors": errors}).encode())
    assert len(error.title) == 200
    assert len(error.errors) == 50
    assert max(map(len, error.errors)) <= 200
    assert max(map(len, error.errors.values())) <= 200


@pytest.mark.parametrize(
    "title",
    [
        "The store is suspended",
        "The store is suspended.",
        "the store is suspended (billing)",
        "THE STORE IS SUSPENDED",
        "  The store is suspended",
    ],
)
def test_a_suspended_store_is_known_by_its_title(title: str) -> None:
    error = error_of(503, json.dumps({"title": title}).encode())
    assert type(error) is StoreSuspendedError


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (503, "Service unavailable"),
        (503, "Perhaps the store is suspended"),
        (503, "The store"),
        (500, "The store is suspended"),
        (403, "The store is suspended"),
    ],
)
def test_no_other_answer_is_taken_for_a_suspended_store(status: int, title: str) -> None:
    error = error_of(status, json.dumps({"title": title}).encode())
    assert not isinstance(error, StoreSuspendedError)


def test_a_redirect_says_why_it_is_not_followed() -> None:
    for status in (300, 301, 308, 399):
        title = error_of(status, b"<html>moved</html>").title
        assert title.startswith("redirect, which is not followed")
        assert "token must not travel" in title
    assert "redirect" not in error_of(400, b"<html>moved</html>").title
    assert error_of(302, b'{"title":"Found"}').title == "Found"


@examples(300)
@given(
    st.integers(300, 599),
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(["title", "detail", "message", "errors"]), UNKNOWN).map(
        lambda document: json.dumps(document).encode()
    ),
)
@example(500, b'{"title":"\\u0000","errors":{"a":1e400}}')
@example(500, b'{"title":"x","errors":{"a":1e300}}')
def test_no_body_of_an_error_hides_its_status(status: int, body: bytes) -> None:
    error = error_of(status, body)
    assert error.status == status
    assert str(error).isprintable()
    assert error.title.strip()


def test_no_json_in_an_errors_place_hides_its_status() -> None:
    random = Random(8)
    for _ in range(3_000):
        names = random.sample(["title", "detail", "message", "errors"], random.randint(1, 4))
        body = json.dumps({name: odd(random) for name in names}).encode()
        error = error_of(422, body)
        assert str(error).isprintable()
        assert error.title.strip()


def test_damaged_error_bodies_never_hide_the_status() -> None:
    random = Random(11)
    body = json.dumps(
        {"title": "Set customer attribute values failed.", "errors": {"0.data": "ø", "1.x": [1]}}
    ).encode()
    for _ in range(3_000):
        error = error_of(422, damaged(random, body))
        assert type(error) is UnprocessableError
        assert str(error).isprintable()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deeply_nested_refusals_keep_their_status(
    depth: int, opening: bytes, closing: bytes
) -> None:
    nested = opening * depth + b"1" + closing * depth
    assert error_of(422, b'{"title":"x","errors":{"0.data":' + nested + b"}}").status == 422
    assert error_of(422, nested).status == 422


def test_only_a_2xx_is_a_success() -> None:
    assert [status for status in range(100, 600) if status in SUCCESS] == list(range(200, 300))


# --- which items are named -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "indexes"),
    [
        (["0.data"], [0]),
        (["9.data"], [9]),
        (["10.data"], []),
        (["12.x"], []),
        (["999.x"], []),
        (["1"], [1]),
        (["1."], [1]),
        (["01.x"], [1]),
        (["0.a", "0.b"], [0]),
        (["7.x", "3.y", "3.z"], [3, 7]),
        ([".customer_create"], []),
        ([""], []),
        (["."], []),
        (["x.0"], []),
        (["data"], []),
        (["0data"], []),
        (["0[data]"], []),
        (["-1.x"], []),
        (["+1.x"], []),
        ([" 1.x"], []),
        (["1 .x"], []),
        (["1\n"], []),
        (["1\n.x"], []),
        (["1e0.x"], []),
        (["٣.x"], []),
        (["³.x"], []),
        (["0001.x"], []),
        (["9" * 5_000 + ".x"], []),
        ([".customer_create", "2.value", "99.x"], [2]),
        ([], []),
    ],
)
def test_which_items_the_keys_of_a_refusal_name(keys: list[str], indexes: list[int]) -> None:
    assert indexes_named(dict.fromkeys(keys, "bad"), 10) == indexes


@examples(100)
@given(
    st.dictionaries(st.text(max_size=8) | st.from_regex(r"\A[0-9]{1,4}\.?"), st.just("")),
    st.integers(0, 12),
)
def test_only_items_of_the_call_are_ever_named_and_each_once(keys: list[str], count: int) -> None:
    named = indexes_named(dict.fromkeys(keys, ""), count)
    assert named == sorted(set(named))
    assert all(0 <= index < count for index in named)


@pytest.mark.parametrize("decode", [decode_page, decode_rows])
@pytest.mark.parametrize("date", ["2024-02-30T00:00:00Z", 7, "soon"])
def test_no_error_drags_along_what_can_not_be_pickled(
    decode: Callable[[bytes], object], date: object
) -> None:
    # Dask pickles errors with all that was handled when they were raised.
    row = {
        "id": 1,
        "customer_id": 1,
        "attribute_id": 1,
        "attribute_value": "",
        "date_created": date,
    }
    with pytest.raises(DecodeError) as caught:
        decode(json.dumps({"data": [row], "meta": {}}).encode())
    error: BaseException | None = caught.value
    while error is not None:
        assert not isinstance(error, BaseExceptionGroup)
        error = error.__cause__ or error.__context__
