"""A row as the mirror's tables hold it, and the conditions of a filter."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.replica import MIRRORS
from bc_attrvals.mirror.replica_schema import cells_of, micro_of, row_of, where
from bc_attrvals.sync.database import open_temporary

from .fake_store import moment

quick = settings(deadline=None, derandomize=True)

MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
TEXTS = st.text(max_size=255)


@quick
@given(
    value=TEXTS,
    created=MOMENTS,
    modified=MOMENTS,
    ids=st.tuples(*[st.integers(1, 2**31 - 1)] * 3),
)
def test_a_row_is_kept_as_it_is(
    value: str, created: datetime, modified: datetime, ids: tuple[int, int, int]
) -> None:
    row = AttributeValue(*ids, value, created, modified)
    assert row_of(cells_of(row)) == row
    replica = open_temporary(MIRRORS)
    replica.take([row])
    assert replica.find(row.customer_id, row.attribute_id) == row
    replica.connection.close()


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        (None, [1, 2, 3, 4]),
        (AttributeValueFilter(), [1, 2, 3, 4]),
        (AttributeValueFilter(customer_id_in=[2, 3, 9]), [2, 3]),
        (AttributeValueFilter(customer_id_in=[2, 3], attribute_id_in=[7]), []),
        (AttributeValueFilter(customer_id_in=[]), []),
        (AttributeValueFilter(date_created=moment(2)), [2]),
        (AttributeValueFilter(date_created_min=moment(2), date_modified_max=moment(13)), [2, 3]),
        (AttributeValueFilter(date_created_max=moment(3)), [1, 2, 3]),
        (AttributeValueFilter(date_modified=moment(14)), [4]),
    ],
)
def test_a_filter_by_ids_and_dates(filter: AttributeValueFilter | None, ids: list[int]) -> None:
    replica = open_temporary(MIRRORS)
    replica.take(
        [
            # Within a second, as it may be stored.
            AttributeValue(one, one, 1, "x", moment(one).replace(microsecond=5), moment(one + 10))
            for one in (1, 2, 3, 4)
        ]
    )
    assert [row.id for row in replica.next_rows(filter, (0, 0, 0), 9)] == ids
    assert replica.count(filter) == len(ids)
    replica.connection.close()


def test_the_conditions_of_a_filter_are_bound_and_not_written() -> None:
    conditions, bound = where(AttributeValueFilter([5, 7], date_created_min=moment(3)))
    assert conditions.count("?") == len(bound) == 2
    assert bound == ["[5,7]", micro_of(moment(3))]
