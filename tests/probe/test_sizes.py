"""The largest size is found, in few tries."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals.core.responses import Response
from bc_attrvals.probe.sizes import Largest, largest_taken


def answer(status: int) -> Response:
    return Response(status, CIMultiDictProxy(CIMultiDict()), b"")


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.integers(1, 300), min_size=1, unique=True).map(sorted), st.integers(0, 400))
def test_the_largest_is_found_in_a_bounded_number_of_tries(sizes: list[int], limit: int) -> None:
    tried: list[int] = []

    async def send(size: int) -> Response:
        tried.append(size)
        return answer(200 if size <= limit else 413)

    found = asyncio.run(largest_taken(sizes, send))
    is_refused = limit < sizes[-1]
    assert found == Largest(min(limit, sizes[-1]), is_refused, 413 if is_refused else 200)
    assert len(tried) == len(set(tried)) <= len(sizes) + 9


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.integers(2, 300), min_size=1, unique=True).map(sorted), st.integers(1, 400))
def test_a_size_that_the_answer_names_ends_the_search(sizes: list[int], limit: int) -> None:
    tried: list[int] = []

    async def send(size: int) -> Response:
        tried.append(size)
        return answer(200)

    found = asyncio.run(largest_taken(sizes, send, lambda size, _: min(size, limit)))
    assert found == Largest(min(limit, sizes[-1]), limit < sizes[-1])
    assert len(tried) <= len(sizes)
