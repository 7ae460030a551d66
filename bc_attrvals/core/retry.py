"""Whether and when a failed request is sent again: (error, tries so far) → wait or give up."""

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

# 408 is a server's own timeout; 501 and 505 say that this request can never succeed.
_TIMEOUT: Final = 408
_NEVER_RETRIED: Final = frozenset({501, 505})
#: Another request held the row. That passes soon, or it is not what the answer means.
_CONFLICTS: Final = frozenset({409, 423})
_CONFLICT_ATTEMPTS: Final = 3
#: Tries of a part of a refused call, whose whole was tried as often as the policy says.
_PART_ATTEMPTS: Final = 2


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    good = isinstance(value, int | float) and not isinstance(value, bool)
    # Without end, a wait is for ever: full jitter draws from 0 to the bound.
    if not good or not 0 < value < math.inf:
        message = f"{attribute.name} must be a finite number above 0, not {value!r}"
        raise InvalidInputError(message, field=attribute.name)


@attrs.frozen
class RetryPolicy:
    """How often a request is sent, and how long it waits in between.

    `attempts` counts all tries of one request, the first included. Before try n+1 the wait is
    drawn evenly from 0 to min(`cap_s`, `base_s` * 2**(n-1)) seconds ("full jitter"), for writes
    and deletes `write_factor` times that (BigCommerce guide, API rate limits). Waiting for quota
    uses no tries: with `attempts=1`, too, a 429 that says when to come back is waited out, and one
    that does not is sent up to four times for each try, with back-off. `asyncio.timeout` bounds
    such waits. Retried are lost connections, timeouts, 408, 5xx (but 501, 505 and a suspended
    store), a 2xx whose body can't be read, and up to two times 409 and 423. All calls of the
    resource are idempotent, so one that may have been applied is sent again.
    """

    attempts: int = attrs.field(default=6, validator=between(1))
    base_s: float = attrs.field(default=0.25, validator=_positive)
    cap_s: float = attrs.field(default=20.0, validator=_positive)
    write_factor: float = attrs.field(default=2.0, validator=_positive)

    def delay_s(
        self, error: BCAttrValsError, attempt: int, operation: Operation, random: Random
    ) -> float | None:
        """Return the seconds to wait after try `attempt` (from 1) failed; None to give up."""
        if attempt >= self._attempts_at(error):
            return None
        factor = 1.0 if operation is Operation.READ else self.write_factor
        return backoff_s(attempt, self.base_s * factor, self.cap_s * factor, random)

    def for_parts(self) -> RetryPolicy:
        """Return the policy for parts of a refused call: an answer that repeats is believed."""
        return _PartPolicy(self.attempts, self.base_s, self.cap_s, self.write_factor)

    def _attempts_at(self, error: BCAttrValsError) -> int:
        """Return how many tries there are in all, where one ended with this error."""
        if isinstance(error, APIError) and error.status in _CONFLICTS:
            return min(self.attempts, _CONFLICT_ATTEMPTS)
        # An answer to a DELETE that proves nothing is like one that can't be read.
        again = is_retryable(error) or isinstance(error, UnconfirmedError)
        return self.attempts if again else 1


class _PartPolicy(RetryPolicy):
    __slots__ = ()

    def _attempts_at(self, error: BCAttrValsError) -> int:
        attempts = super()._attempts_at(error)
        return min(attempts, _PART_ATTEMPTS) if isinstance(error, APIError) else attempts


def backoff_s(count: int, base_s: float, cap_s: float, random: Random) -> float:
    """Return seconds drawn evenly from 0 to the bound that doubles with each count (from 1)."""
    # The exponent is held down so that no float overflows, however long the trouble lasts.
    return random.random() * min(cap_s, base_s * 2.0 ** min(count - 1, 60))


def is_retryable(error: BCAttrValsError) -> bool:
    """Return whether an error says nothing of the request, which may succeed if sent again."""
    if isinstance(error, StoreSuspendedError):
        return False
    if isinstance(error, APIError):
        is_server_error = error.status >= 500 and error.status not in _NEVER_RETRIED
        return is_server_error or error.status == _TIMEOUT
    if isinstance(error, TransportError):
        return error.retryable
    return isinstance(error, DecodeError)


def ends_job(error: BCAttrValsError) -> bool:
    """Return whether an error ends a whole job, because nothing sent after it could succeed.

    401 (wrong token), 403 (missing scope), 404 (wrong store), a suspended store, a closed Store, a
    certificate that is not trusted, and a redirect: what stands there is not the service, and the
    token is not sent on.
    """
    if isinstance(error, StoreSuspendedError | StoreStateError | CertificateError):
        return True
    if not isinstance(error, APIError):
        return False
    return error.status in {401, 403, 404} or 300 <= error.status < 400
