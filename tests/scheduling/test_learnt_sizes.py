"""Sizes of calls are learnt from refusals, once."""

from __future__ import annotations

import pytest

from bc_attrvals import APIError, Limits, PayloadTooLargeError, ServerError
from bc_attrvals.scheduling.learnt_sizes import LearntSizes


def test_a_refused_page_size_is_learnt_once() -> None:
    sizes = LearntSizes(Limits(page_size=250))
    assert sizes.lower_page(250, PayloadTooLargeError(413, "too large"))
    assert sizes.page == 50


@pytest.mark.parametrize(
    ("limit", "error"),
    [(20, PayloadTooLargeError(413, "too large")), (250, ServerError(500, "limit"))],
)
def test_an_error_that_refuses_no_size_of_a_page_teaches_none(limit: int, error: APIError) -> None:
    sizes = LearntSizes(Limits(page_size=limit))
    assert not sizes.lower_page(limit, error)
    assert sizes.page == limit
