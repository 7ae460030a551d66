"""Finds the largest size of a call that is accepted, in few calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs

from bc_attrvals.core.responses import SUCCESS, Response


@attrs.frozen
class Largest:
    """The largest size that is accepted, 0 for none, and the status that refused a larger one.

    The status is that of a success where the answer named a smaller size.
    """

    size: int
    was_refused: bool = False
    status: int = 200


async def largest_taken(
    sizes: Sequence[int],
    send: Callable[[int], Awaitable[Response]],
    named: Callable[[int, Response], int] = lambda size, _: size,
) -> Largest:
    """Send calls of ascending sizes up to the first that is refused, and then halve the gap.

    `named` returns the size that the answer to an accepted call names as the largest.
    """
    low, high, status, taken = 0, 0, 200, 0

    async def take(size: int) -> int:
        nonlocal status
        answer = await send(size)
        if answer.status in SUCCESS:
            return named(size, answer)
        status = answer.status
        return 0

    for size in sizes:
        high, taken = size, await take(size)
        if taken != size:
            break
        low = size
    else:
        return Largest(low)
    while not taken and high - low > 1:
        middle = (low + high) // 2
        taken = await take(middle)
        if taken == middle:
            low, taken = middle, 0
        else:
            high = middle
    return Largest(taken or low, True, status)
