"""The circuit breaker ends a job when the service stops answering, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.cli.breaker import CircuitBreaker, NoAnswerError
from bc_attrvals.errors import ServerError


def test_thirty_values_in_a_row_open_it() -> None:
    breaker = CircuitBreaker()
    breaker.note(answered=500)
    breaker.note(unanswered=29)
    assert not breaker.is_open
    breaker.check()
    breaker.note(unanswered=1)
    assert breaker.is_open
    reason = ServerError(503, "busy")
    with pytest.raises(
        NoAnswerError, match=r"no answer for 30 values in a row.*503 busy"
    ) as caught:
        breaker.check(reason)
    assert caught.value.__cause__ is reason


def test_a_job_that_never_got_an_answer_ends_in_an_error() -> None:
    breaker = CircuitBreaker()
    breaker.check()
    breaker.note(unanswered=3)
    assert not breaker.is_open
    with pytest.raises(NoAnswerError):
        breaker.check()


def test_an_answer_closes_the_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.note(unanswered=29)
        breaker.note(answered=1)
    assert not breaker.is_open
    breaker.check()


@given(st.lists(st.booleans(), max_size=200))
def test_it_counts_the_last_row(ends: list[bool]) -> None:
    breaker = CircuitBreaker()
    for answered in ends:
        breaker.note(answered=int(answered), unanswered=int(not answered))
    row = next((place for place, one in enumerate(reversed(ends)) if one), len(ends))
    assert breaker.is_open == (row >= 30)
