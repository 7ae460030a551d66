"""Sends one PUT for `put_batch`, and reads back what its answer does not tell.

Between the resource above and the calls below. The raw call: nothing is taken apart.
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

#: How often the items are sent where no answer can be read and the store does not hold them.
_MOST_SENDINGS: Final = 2


async def put_rows(
    calls: Calls, items: Sequence[AttributeValueUpsert], worker: Worker
) -> list[AttributeValue]:
    """Return the rows that a PUT echoes; where they can't be read, those that the store holds.

    Raises `DecodeError` where the store does not hold the items after a second sending, and what
    the calls raise.
    """
    # Of equal keys in one call, the last is what the store is to hold.
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
