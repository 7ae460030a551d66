"""Retry: which errors are tried again, after how long, and how often."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.requests import Operation
from bc_attrvals.core.retry import RetryPolicy, backoff_s, ends_job, is_retryable
from bc_attrvals.errors import (
    APIError,
    AuthenticationError,
    BCAttrValsError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StoreStateError,
    StoreSuspendedError,
    TransportError,
    UnconfirmedError,
    UnprocessableError,
)

LOST = ConnectionLostError("lost")

# Each error, whether the same request may succeed if sent again, and whether it ends a job.
ERRORS: list[tuple[BCAttrValsError, bool, bool]] = [
    (TransportError("x"), True, False),
    (ConnectionFailedError("refused"), True, False),
    (ConnectionFailedError("bad certificate", retryable=False), False, False),
    (ConnectionLostError("lost", may_have_been_applied=True), True, False),
    (RequestTimeoutError("slow"), True, False),
    (DecodeError("cut off", status=200), True, False),
    (APIError(400, "t"), False, False),
    (AuthenticationError(401, "t"), False, True),
    (PermissionDeniedError(403, "t"), False, True),
    (NotFoundError(404, "t"), False, True),
    (APIError(300, "t"), False, True),
    (APIError(302, "t"), False, True),
    (APIError(399, "t"), False, True),
    (APIError(405, "t"), False, False),
    (APIError(408, "t"), True, False),
    (APIError(409, "t"), False, False),
    (APIError(423, "t"), False, False),
    (PayloadTooLargeError(413, "t"), False, False),
    (UnprocessableError(422, "t"), False, False),
    # Waits of their own, that use no tries.
    (RateLimitError(429, "t"), False, False),
    (ServerError(500, "t"), True, False),
    (ServerError(501, "t"), False, False),
    (ServerError(502, "t"), True, False),
    (ServerError(503, "t"), True, False),
    (ServerError(504, "t"), True, False),
    (ServerError(505, "t"), False, False),
    (ServerError(507, "t"), True, False),
    (ServerError(520, "t"), True, False),
    (StoreSuspendedError(503, "The store is suspended"), False, True),
    (StoreStateError("closed"), False, True),
    (InvalidInputError("bad"), False, False),
    (ListingDriftError("moving"), False, False),
    (JournalError("held"), False, False),
    (UnconfirmedError("not there"), False, False),
    (BCAttrValsError("?"), False, False),
]


@pytest.mark.parametrize(("error", "again", "ends"), ERRORS, ids=lambda one: repr(one)[:30])
def test_what_is_tried_again_and_what_ends_a_job(
    error: BCAttrValsError, again: bool, ends: bool
) -> None:
    assert is_retryable(error) is again
    assert ends_job(error) is ends
    delay_s = RetryPolicy().delay_s(error, 1, Operation.READ, Random(1))
    is_conflict = isinstance(error, APIError) and error.status in {409, 423}
    assert (delay_s is not None) is (again or is_conflict or isinstance(error, UnconfirmedError))


def tries(policy: RetryPolicy, error: BCAttrValsError) -> int:
    """Return how often a request is sent that always ends with this error."""
    attempt = 1
    while policy.delay_s(error, attempt, Operation.WRITE, Random(1)) is not None:
        attempt += 1
    return attempt


@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_a_conflict_is_tried_three_times_at_most(attempts: int) -> None:
    """Another request that held the row is gone soon."""
    policy = RetryPolicy(attempts=attempts)
    for status in (409, 423):
        assert tries(policy, APIError(status, "t")) == min(attempts, 3)
    assert tries(policy, ServerError(500, "t")) == attempts
    # A DELETE that nothing confirms is sent again like any other without a good answer.
    assert tries(policy, UnconfirmedError("202")) == attempts


@pytest.mark.parametrize("attempts", [1, 2, 6])
def test_a_part_of_a_refused_call_is_tried_twice_where_the_service_answers(attempts: int) -> None:
    policy = RetryPolicy(attempts=attempts).for_parts()
    assert tries(policy, ServerError(500, "t")) == min(attempts, 2)
    assert tries(policy, APIError(409, "t")) == min(attempts, 2)
    assert tries(policy, UnprocessableError(422, "t")) == 1
    # The way to it says nothing of the items.
    assert tries(policy, LOST) == attempts


POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    base_s=st.floats(0.001, 100),
    cap_s=st.floats(0.001, 1_000),
    write_factor=st.floats(0.1, 10),
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(POLICIES, st.integers(1, 25), st.sampled_from(Operation), st.integers(0, 2**32))
def test_delays_keep_their_bounds_and_the_tries_their_number(
    policy: RetryPolicy, attempt: int, operation: Operation, seed: int
) -> None:
    delay_s = policy.delay_s(LOST, attempt, operation, Random(seed))
    if attempt >= policy.attempts:
        assert delay_s is None
        return
    factor = 1.0 if operation is Operation.READ else policy.write_factor
    bound_s = min(policy.cap_s, policy.base_s * 2 ** (attempt - 1)) * factor
    assert delay_s is not None
    assert 0 <= delay_s <= bound_s * (1 + 1e-9)


def delays(policy: RetryPolicy, attempt: int, operation: Operation) -> list[float]:
    random = Random(5)
    drawn = [policy.delay_s(LOST, attempt, operation, random) for _ in range(2_000)]
    return [one for one in drawn if one is not None]


@pytest.mark.parametrize(
    ("attempt", "bound_s"), [(1, 0.25), (2, 0.5), (3, 1.0), (7, 16.0), (8, 20.0)]
)
def test_delays_are_drawn_evenly_from_nothing_to_a_bound_that_doubles(
    attempt: int, bound_s: float
) -> None:
    drawn = delays(RetryPolicy(attempts=20), attempt, Operation.READ)
    assert len(drawn) == 2_000
    assert max(drawn) <= bound_s
    assert max(drawn) > 0.99 * bound_s
    assert min(drawn) < 0.01 * bound_s
    assert mean(drawn) == pytest.approx(bound_s / 2, rel=0.05)


@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.DELETE])
@pytest.mark.parametrize("attempt", [1, 4, 30])
def test_writes_and_deletes_wait_longer_than_reads(operation: Operation, attempt: int) -> None:
    """As the service's guide asks."""
    policy = RetryPolicy(attempts=50, write_factor=3.0)
    reads, others = delays(policy, attempt, Operation.READ), delays(policy, attempt, operation)
    assert others == pytest.approx([3.0 * one for one in reads])


def test_attempts_counts_all_tries_the_first_included() -> None:
    random = Random(1)
    for attempts in (1, 2, 6):
        policy = RetryPolicy(attempts=attempts)
        tries = 1
        while policy.delay_s(LOST, tries, Operation.READ, random) is not None:
            tries += 1
        assert tries == attempts


def test_trouble_without_end_overflows_nothing() -> None:
    random = Random(1)
    for count in (1, 61, 1_024, 10**9):
        assert 0 <= backoff_s(count, 0.25, 20.0, random) <= 20.0
    assert RetryPolicy(attempts=10**9).delay_s(LOST, 10**8, Operation.WRITE, random) is not None


def test_the_same_randomness_gives_the_same_delays() -> None:
    assert backoff_s(3, 1.0, 20.0, Random(9)) == backoff_s(3, 1.0, 20.0, Random(9))


def test_the_defaults_are_the_documented_ones() -> None:
    assert RetryPolicy() == RetryPolicy(attempts=6, base_s=0.25, cap_s=20.0, write_factor=2.0)


@pytest.mark.parametrize("name", ["base_s", "cap_s", "write_factor"])
@pytest.mark.parametrize("bad", [0, 0.0, -1, float("nan"), float("inf"), True, "1", None])
def test_seconds_and_factors_are_finite_numbers_above_zero(name: str, bad: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be a finite number") as caught:
        RetryPolicy(**{name: bad})  # type: ignore[arg-type]
    assert caught.value.field == name


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "1", None])
def test_there_is_at_least_one_try(bad: object) -> None:
    with pytest.raises(InvalidInputError, match="attempts must be an int of at least 1") as caught:
        RetryPolicy(attempts=bad)  # type: ignore[arg-type]
    assert caught.value.field == "attempts"
