"""Sizes of calls are learnt from refusals, once."""

from __future__ import annotations

import pytest

from bc_attrvals import APIError, Limits, PayloadTooLargeError, ServerError, UnprocessableError
from bc_attrvals.scheduling.learnt_sizes import LearntSizes


def test_a_refused_page_size_is_learnt_once() -> None:
    sizes = LearntSizes(Limits(page_size=250))
    assert sizes.lower_page(250, PayloadTooLargeError(413, "too large"))
    assert sizes.page == 50


@pytest.mark.parametrize(
    ("limit", "error"),
    [(10, PayloadTooLargeError(413, "too large")), (250, ServerError(500, "limit"))],
)
def test_an_error_that_refuses_no_size_of_a_page_teaches_none(limit: int, error: APIError) -> None:
    sizes = LearntSizes(Limits(page_size=limit))
    assert not sizes.lower_page(limit, error)
    assert sizes.page == limit


def test_a_page_size_is_lowered_to_the_default_and_then_by_halves() -> None:
    sizes = LearntSizes(Limits(page_size=250))
    found = []
    while sizes.lower_page(sizes.page, PayloadTooLargeError(413, "too large")):
        found.append(sizes.page)
    assert found == [50, 25, 12, 10]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("limit must be at most 100", 100),
        ("limit 250 is above 20", 20),
        ("limit must be from 1 to 200", 200),
        ("limit must be at least 1", 50),
    ],
)
def test_the_page_size_that_a_refusal_names_is_taken_at_once(text: str, size: int) -> None:
    sizes = LearntSizes(Limits(page_size=250))
    assert sizes.lower_page(250, UnprocessableError(422, "invalid", {"limit": text}))
    assert sizes.page == size


def test_two_refused_puts_in_a_row_without_a_bad_item_lower_the_batch() -> None:
    sizes = LearntSizes(Limits())
    sizes.infer_batch(10, 5)
    sizes.accept(10)
    sizes.infer_batch(10, 5)
    assert sizes.batch == 10
    sizes.infer_batch(10, 5)
    assert (sizes.batch, sizes.doubts(10)) == (5, True)


def test_the_size_of_a_refused_put_is_doubted_until_one_of_that_size_is_stored() -> None:
    sizes = LearntSizes(Limits())
    assert sizes.doubts(10)
    sizes.accept(10)
    assert not sizes.doubts(10)


def test_after_a_wrong_guess_no_size_is_doubted() -> None:
    sizes = LearntSizes(Limits())
    sizes.blame_items()
    assert not sizes.doubts(10)
