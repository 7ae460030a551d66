"""`put_batch` where the answer of a PUT can't be read."""

from __future__ import annotations

import pytest

from bc_attrvals import DecodeError
from tests.probes import upserts
from tests.raw_server import Connection, RawRequest, answer, page_body, store_on


async def test_an_answer_that_is_never_read_is_named_by_its_status_and_request_id() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            number = len([one for one in server.requests if one.method == "PUT"])
            await connection.say(answer(b"<html>", headers={"X-Request-Id": f"put-{number}"}))
        else:
            await connection.say(
                answer(page_body([], total=0, per_page=250, page=1, total_pages=0))
            )

    async with store_on(script) as (store, server):
        with pytest.raises(DecodeError) as caught:
            await store.attribute_values.put_batch(upserts(2))
    assert [one.method for one in server.requests] == ["PUT", "GET"] * 2
    assert (caught.value.status, caught.value.request_id) == (200, "put-2")
