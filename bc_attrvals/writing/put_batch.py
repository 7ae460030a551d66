"""Sends one PUT for `put_batch`, and reads the rows back if its answer can't be read.

Between the resource above and the calls below. A refused PUT is not split into parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Key
from bc_attrvals.core.responses import Response, decode_rows
from bc_attrvals.errors import DecodeError
from bc_attrvals.reading.unordered import read_back
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import Worker
from bc_attrvals.writing.confirming import confirmed_by, filter_of, rows_by_key

#: The most PUTs if no answer can be read and the store does not hold the items.
_MOST_SENDINGS: Final = 2


async def put_rows(
    calls: Calls, items: Sequence[AttributeValueUpsert], worker: Worker
) -> list[AttributeValue]:
    """Return the rows that a PUT echoes, or those read back if the echo can't be read.

    Raises `DecodeError` if the store does not hold the items after a second PUT, and what the calls
    raise.
    """
    # Of equal keys in one call, the store has to hold the last value.
    last: dict[Key, AttributeValueUpsert] = {item.key: item for item in items}
    sent = 0
    while True:
        answer: Response | None = None
        try:
            answer = await calls.put(items, worker)
            return decode_rows(answer.body)
        except DecodeError as error:
            if answer is not None:
                error.status, error.request_id = answer.status, answer.request_id
            unread = error
        sent += 1
        found, failure = await read_back(calls, filter_of(items))
        _, rows, left = confirmed_by(last.values(), rows_by_key(found))
        if not left:
            return rows
        if failure is not None:
            raise failure
        if sent == _MOST_SENDINGS:
            unread.attempts = max(sent, unread.attempts)
            raise unread
