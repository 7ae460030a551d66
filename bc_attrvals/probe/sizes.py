"""Finds the largest size of a call that is accepted, in few calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence


async def largest_taken(
    sizes: Sequence[int], take: Callable[[int], Awaitable[int]]
) -> tuple[int, bool]:
    """Return the largest size that is taken, and whether a larger one was refused.

    `sizes` are tried in ascending order up to the first refusal; the gap is then halved. `take`
    tries a size and returns it, 0 for a refusal, or a smaller size that the answer names as the
    largest. 0 is returned where no size is taken.
    """
    low, high, taken = 0, 0, 0
    for size in sizes:
        high, taken = size, await take(size)
        if taken != size:
            break
        low = size
    else:
        return low, False
    while not taken and high - low > 1:
        middle = (low + high) // 2
        taken = await take(middle)
        if taken == middle:
            low, taken = middle, 0
        else:
            high = middle
    return taken or low, True
