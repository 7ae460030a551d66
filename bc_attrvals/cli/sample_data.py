"""Makes a realistic set of values, the same at every run: a CRM's data of a shop's customers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from random import Random

from bc_attrvals.core.models import AttributeValueUpsert

#: What the sample's attributes hold, by id.
ATTRIBUTES = {1: "orders", 2: "last order", 3: "mean basket", 4: "segment"}

_SEGMENTS = ("new", "regular", "Stammkunde, groß", 'VIP "gold"', "à réactiver", "お得意様", "")
_FIRST_DAY = date(2024, 1, 1)


def sample_values(count: int) -> Iterator[AttributeValueUpsert]:
    """Yield `count` values, four a customer, no key twice."""
    random = Random(20240514)  # noqa: S311 - the same at every run, on purpose
    customer_id = 0
    values: list[str] = []
    for place in range(count):
        if not values:
            # Customers are deleted in any shop, so ids have gaps.
            customer_id += random.choice((1, 1, 1, 2, 5))
            orders = int(random.expovariate(0.4)) + 1
            day = _FIRST_DAY + timedelta(days=random.randrange(500))
            basket = f"{random.lognormvariate(3.4, 0.6):.2f}"
            values = [str(orders), day.isoformat(), basket, random.choice(_SEGMENTS)]
        yield AttributeValueUpsert(customer_id, place % len(ATTRIBUTES) + 1, values.pop(0))
