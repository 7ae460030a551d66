"""A user's mistakes, each of which a type checker has to find."""

from __future__ import annotations

from bc_attrvals import AttributeValueUpsert, Store


async def main(store: Store) -> None:
    AttributeValueUpsert(customer_id="5", attribute_id=1, value="gold")
    AttributeValueUpsert(5, 1, 7)
    await store.attribute_values.upsert([(5, 1, "gold")])
    await store.attribute_values.delete(["1"])
    found = await store.attribute_values.get(5, 1)
    print(found.value)
