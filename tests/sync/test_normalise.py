"""Values that the store keeps in another form: compared in it, and counted apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, InvalidInputError, Store
from bc_attrvals.sandbox import Quirks, Sandbox
from tests.conftest import make_store

FIRST = AttributeValueFilter(attribute_id_in=[1])


@pytest.fixture
async def trimming() -> AsyncIterator[Sandbox]:
    async with Sandbox(quota=None, quirks=Quirks(trim_values=True)) as running:
        yield running


def padded(count: int) -> list[AttributeValueUpsert]:
    return [AttributeValueUpsert(one, 1, f" v{one} ") for one in range(1, count + 1)]


@pytest.mark.parametrize("journalled", [False, True])
async def test_what_the_store_alters_is_counted_apart_and_is_no_failure(
    trimming: Sandbox, tmp_path: Path, journalled: bool
) -> None:
    journal = tmp_path / "scores.db" if journalled else None
    plain = [AttributeValueUpsert(one, 1, "x") for one in range(100, 120)]
    async with make_store(trimming) as store:
        report = await store.attribute_values.sync(
            [*padded(30), *plain], scope=FIRST, prune=True, journal=journal
        )
        assert (report.altered, report.created, report.failed, report.ok) == (30, 20, 0, True)
        again = await store.attribute_values.sync(
            [*padded(30), *plain], scope=FIRST, prune=True, journal=journal
        )
        assert (again.altered, again.unchanged) == (30, 20)


async def test_normalised_values_are_written_once_and_expected(trimming: Sandbox) -> None:
    async with make_store(trimming) as store:

        async def sync(values: list[AttributeValueUpsert]) -> tuple[int, int, int, int]:
            report = await store.attribute_values.sync(
                values, scope=FIRST, prune=True, normalise=str.strip
            )
            return report.created, report.updated, report.altered, report.unchanged

        assert await sync(padded(30)) == (30, 0, 0, 0)
        writes = trimming.calls["upsert"]
        assert await sync(padded(30)) == (0, 0, 0, 30)
        assert await sync(
            [AttributeValueUpsert(item.customer_id, 1, item.value.strip()) for item in padded(30)]
        ) == (0, 0, 0, 30)
        assert trimming.calls["upsert"] == writes
        assert await sync([AttributeValueUpsert(1, 1, " other "), *padded(30)[1:]]) == (0, 1, 0, 29)


async def test_a_form_that_the_store_does_not_keep_is_altered(trimming: Sandbox) -> None:
    async with make_store(trimming) as store:
        report = await store.attribute_values.sync(padded(3), normalise=str.upper)
    assert (report.altered, report.created + report.written) == (3, 0)


async def test_what_is_sent_is_the_value_itself(sandbox: Sandbox, store: Store) -> None:
    await store.attribute_values.sync(padded(3), normalise=str.strip)
    assert set((await sandbox.values()).values()) == {" v1 ", " v2 ", " v3 "}


@pytest.mark.parametrize("result", [None, 7, b"x", "\ud83d"])
async def test_a_result_that_is_no_text_is_refused_with_its_place(
    sandbox: Sandbox, store: Store, result: Any
) -> None:
    def normalise(value: str) -> Any:
        return result if value == " v2 " else value

    with pytest.raises(InvalidInputError, match="normalise") as caught:
        await store.attribute_values.sync(padded(3), normalise=normalise)
    assert (caught.value.field, caught.value.place) == ("normalise", "desired[1]")
    assert not sandbox.requests


async def test_an_error_of_the_function_comes_before_anything_is_sent(
    sandbox: Sandbox, store: Store
) -> None:
    def normalise(value: str) -> str:
        raise LookupError(value)

    with pytest.raises(LookupError):
        await store.attribute_values.sync(padded(3), normalise=normalise)
    assert not sandbox.requests
