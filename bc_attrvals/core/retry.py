"""Decides if and when a failed request is sent again: (error, tries so far) → wait or give up."""

from __future__ import annotations

import math
from random import Random
from typing import Final

import attrs

from bc_attrvals.core.arguments import between
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import (
    APIError,
    BCAttrValsError,
    CertificateError,
    DecodeError,
    InvalidInputError,
    StoreStateError,
    StoreSuspendedError,
    TransportError,
    UnconfirmedError,
)

# 408 is a server's own timeout; after 501 and 505 this request can never succeed.
_TIMEOUT: Final = 408
_NEVER_RETRIED: Final = frozenset({501, 505})
#: The row may be locked by another request, which passes soon; after a few tries it is not that.
_CONFLICTS: Final = frozenset({409, 423})
_CONFLICT_ATTEMPTS: Final = 3
#: Tries of a part of a refused call, because the whole call was already tried `attempts` times.
_PART_ATTEMPTS: Final = 2


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    good = isinstance(value, int | float) and not isinstance(value, bool)
    # Full jitter draws from 0 to the bound, so an infinite bound would wait for ever.
    if not good or not 0 < value < math.inf:
        message = f"{attribute.name} must be a finite number above 0, not {value!r}"
        raise InvalidInputError(message, field=attribute.name)


@attrs.frozen
class RetryPolicy:
    """How often a request is sent, and how long it waits in between.

    `attempts` counts all tries of one request, the first included. Before try n+1 the wait is
    drawn evenly from 0 to min(`cap_s`, `base_s` * 2**(n-1)) seconds ("full jitter"), for writes
    and deletes `write_factor` times that (BigCommerce guide, API rate limits). Waiting for quota
    uses no tries, even with `attempts=1`: the request waits as long as a 429 asks for. After 429s
    that name no time, it is sent up to four times for each try, with back-off. `asyncio.timeout`
    limits such waits. These are retried: lost connections, timeouts, 408, 5xx (except 501, 505 and
    a suspended store), a 2xx whose body can't be read, and 409 and 423 up to two times. All calls
    of the resource are idempotent, so a call that may have been applied is sent again.
    """

    attempts: int = attrs.field(default=6, validator=between(1))
    base_s: float = attrs.field(default=0.25, validator=_positive)
    cap_s: float = attrs.field(default=20.0, validator=_positive)
    write_factor: float = attrs.field(default=2.0, validator=_positive)

    def delay_s(
        self, error: BCAttrValsError, attempt: int, operation: Operation, random: Random
    ) -> float | None:
        """Return the seconds to wait after try `attempt` (from 1) has failed; None to give up."""
        if attempt >= self._attempts_at(error):
            return None
        factor = 1.0 if operation is Operation.READ else self.write_factor
        return backoff_s(attempt, self.base_s * factor, self.cap_s * factor, random)

    def for_parts(self) -> RetryPolicy:
        """Return the policy for parts of a refused call, with fewer tries after an API error."""
        return _PartPolicy(self.attempts, self.base_s, self.cap_s, self.write_factor)

    def _attempts_at(self, error: BCAttrValsError) -> int:
        """Return how many tries there are in all if one ends with this error."""
        if isinstance(error, APIError) and error.status in _CONFLICTS:
            return min(self.attempts, _CONFLICT_ATTEMPTS)
        # An answer that does not confirm a DELETE is treated like one that can't be read.
        again = is_retryable(error) or isinstance(error, UnconfirmedError)
        return self.attempts if again else 1


class _PartPolicy(RetryPolicy):
    __slots__ = ()

    def _attempts_at(self, error: BCAttrValsError) -> int:
        attempts = super()._attempts_at(error)
        return min(attempts, _PART_ATTEMPTS) if isinstance(error, APIError) else attempts


def backoff_s(count: int, base_s: float, cap_s: float, random: Random) -> float:
    """Return seconds drawn evenly from 0 to the bound that doubles with each count (from 1)."""
    # The exponent is limited so that the float does not overflow after many failures.
    return random.random() * min(cap_s, base_s * 2.0 ** min(count - 1, 60))


def is_retryable(error: BCAttrValsError) -> bool:
    """Return whether the request may succeed if it is sent again."""
    if isinstance(error, StoreSuspendedError):
        return False
    if isinstance(error, APIError):
        is_server_error = error.status >= 500 and error.status not in _NEVER_RETRIED
        return is_server_error or error.status == _TIMEOUT
    if isinstance(error, TransportError):
        return error.retryable
    return isinstance(error, DecodeError)


def ends_job(error: BCAttrValsError) -> bool:
    """Return whether an error ends a whole job, because no later request could succeed.

    These are 401 (wrong token), 403 (missing scope), 404 (wrong store), a suspended store, a closed
    Store, an untrusted certificate, and a redirect, which is not followed with the token.
    """
    if isinstance(error, StoreSuspendedError | StoreStateError | CertificateError):
        return True
    if not isinstance(error, APIError):
        return False
    return error.status in {401, 403, 404} or 300 <= error.status < 400
