"""Keeps the customers and the attributes that attribute values refer to.

Blocks on SQLite. A store that never held a customer accepts values for any customer id, and
likewise for attributes: most tests need neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Final

import attrs

from bc_attrvals.sandbox.body_checks import (
    ATTRIBUTE_TYPES,
    MAX_NAME_CHARACTERS,
    BadItem,
    Indexed,
    NewAttribute,
    Refused,
    Renaming,
    UpsertItem,
)
from bc_attrvals.sandbox.database import Database, json_list
from bc_attrvals.sandbox.query_strings import MAX_ID

#: BigCommerce reference, Customer Attributes.
MAX_ATTRIBUTES: Final = 50
_MAX_EMAIL_CHARACTERS: Final = 255
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ID_DIGITS: Final = 10

#: Customers to define: addresses by id, or addresses that get the next ids.
CustomerSeeds = Mapping[int, str] | Iterable[str]
#: Attributes to define: types by name, which get the next ids, or (name, type[, id]).
AttributeSeeds = Mapping[str, str] | Iterable[tuple[str, str] | tuple[str, str, int]]


@attrs.frozen
class StoredAttribute:
    """One attribute's definition; the dates are UNIX seconds."""

    id: int
    name: str
    type: str
    date_created_s: int
    date_modified_s: int


@attrs.frozen
class StoredCustomer:
    """One customer; the dates are UNIX seconds."""

    id: int
    email: str
    date_created_s: int
    date_modified_s: int


@attrs.frozen
class Checked:
    """Customers and attributes to define, checked; an id of None gets the next one."""

    customers: tuple[tuple[int | None, str], ...] = ()
    attributes: tuple[tuple[int | None, str, str], ...] = ()


def check_definitions(
    customers: CustomerSeeds | None, attributes: AttributeSeeds | None
) -> Checked:
    """Check what to define; raises ValueError that begins with the field and names the place."""
    people: list[tuple[int | None, str]] = []
    if isinstance(customers, Mapping):
        people = [(_seed_id(key, f"customers[{key!r}]"), email) for key, email in customers.items()]
    elif customers is not None:
        people = [(None, email) for email in customers]
    for place, (_, email) in enumerate(people):
        if not isinstance(email, str) or not 3 <= len(email) <= _MAX_EMAIL_CHARACTERS:
            raise ValueError(f"customers: item {place} must be an address of 3 to 255 characters")
    kinds: list[tuple[int | None, str, str]] = []
    given = attributes.items() if isinstance(attributes, Mapping) else attributes or ()
    for place, seed in enumerate(given):
        name, kind, *rest = seed
        field = f"attributes: item {place}"
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise ValueError(f"{field} must have a name of 1 to {MAX_NAME_CHARACTERS} characters")
        if kind not in ATTRIBUTE_TYPES:
            raise ValueError(f"{field}: type must be one of {', '.join(ATTRIBUTE_TYPES)}")
        kinds.append((_seed_id(rest[0], field) if rest else None, name, kind))
    return Checked(tuple(people), tuple(kinds))


def _seed_id(number: object, field: str) -> int:
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_ID:
        return number
    raise ValueError(f"{field}: the id must be a positive 32-bit integer, not {number!r}")


class Definitions:
    """The customers and attributes of one store. Use it in one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection

    def define(self, checked: Checked, *, replace: Iterable[str] = ()) -> None:
        """Insert customers and attributes in one transaction; known ids and addresses are updated.

        An attribute without an id whose name exists with the same type stays as it is. `replace`
        names the tables, `customers` or `attributes`, whose other rows are deleted; attribute
        values stay. Raises ValueError, and changes nothing, if two customers have the same address,
        if a name exists with another type, or beyond 50 attributes.
        """
        now_s = self._database.now_s()
        with self._database.transaction():
            for table in replace:
                # The sequence stays, so that the store still knows that it has definitions.
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
            # Frees the addresses, so that two customers can swap them.
            self._connection.executemany(
                "UPDATE customers SET email_key = '#' || id WHERE id = ?",
                [(customer_id,) for customer_id, _ in checked.customers if customer_id is not None],
            )
            for customer_id, email in checked.customers:
                self._put_customer(customer_id, email, now_s)
            for attribute_id, name, kind in checked.attributes:
                self._put_attribute(attribute_id, name, kind, now_s)
            if checked.attributes and self._database.count("attributes") > MAX_ATTRIBUTES:
                raise ValueError(f"attributes: a store has at most {MAX_ATTRIBUTES}")
        self._database.note_change(membership=False)

    def delete_customers(self, ids: Iterable[int]) -> int:
        """Delete customers; their attribute values stay. Returns how many there were."""
        cursor = self._connection.execute(
            "DELETE FROM customers WHERE id IN (SELECT value FROM json_each(?))", (json_list(ids),)
        )
        self._database.note_change(membership=False)
        return cursor.rowcount

    def attributes(self) -> list[StoredAttribute]:
        """Return all attributes by ascending id."""
        statement = "SELECT id, name, type, date_created, date_modified FROM attributes ORDER BY id"
        return [StoredAttribute(*row) for row in self._connection.execute(statement)]

    def customers(self, ids: Iterable[int] | None = None) -> list[StoredCustomer]:
        """Return these customers, by default all, by ascending id."""
        where, bound = "", []
        if ids is not None:
            where, bound = "WHERE id IN (SELECT value FROM json_each(?))", [json_list(ids)]
        statement = f"""
            SELECT id, email, date_created, date_modified FROM customers {where} ORDER BY id
        """  # noqa: S608 - a constant
        return [StoredCustomer(*row) for row in self._connection.execute(statement, bound)]

    def ids_named(self, name: str) -> tuple[int, ...]:
        """Return the attributes of this name; an undefined one is called `attribute_<id>`."""
        found = self._connection.execute("SELECT id FROM attributes WHERE name = ?", (name,))
        ids = [row[0] for row in found]
        number = name.removeprefix("attribute_")
        if number != name and number.isdecimal() and len(number) <= _ID_DIGITS:
            default_id = int(number)
            if name == f"attribute_{default_id}" and not self._types((default_id,)):
                ids.append(default_id)
        return tuple(ids)

    def unknown(
        self, items: Indexed[UpsertItem], rejected: frozenset[int], *, check_types: bool
    ) -> Refused:
        """Return the items whose customer or attribute does not exist.

        `rejected` customers do not exist. `check_types` adds the items whose value is not of their
        attribute's type.
        """
        found: Refused = {}
        defined = self._database.last_ids()
        if "attributes" in defined:
            types = self._types({item.attribute_id for _, item in items})
            for index, item in items:
                kind = types.get(item.attribute_id)
                if kind is None:
                    found[index] = BadItem("attribute_id", "attribute does not exist")
                elif check_types and not _fits(item.value, kind):
                    found[index] = BadItem("value", f"is not a {kind}")
        if "customers" in defined or rejected:
            wanted = {item.customer_id for _, item in items}
            known = wanted - rejected
            if "customers" in defined:
                known &= {customer.id for customer in self.customers(wanted)}
            for index, item in items:
                if item.customer_id not in known:
                    found[index] = BadItem("customer_id", "customer does not exist")
        return found

    def create(
        self, items: Indexed[NewAttribute], *, unique_names: bool
    ) -> tuple[list[int], Refused]:
        """Create attributes in one transaction; returns their ids, or the first bad item."""
        names = {attribute.name for attribute in self.attributes()}
        room = MAX_ATTRIBUTES - self._database.count("attributes")
        for index, item in items:
            if unique_names and item.name in names:
                return [], {index: BadItem("name", "an attribute of this name exists")}
            if index >= room:
                return [], {index: BadItem("name", f"a store has at most {MAX_ATTRIBUTES}")}
            names.add(item.name)
        now_s = self._database.now_s()
        with self._database.transaction():
            ids = [self._insert_attribute(None, one.name, one.type, now_s) for _, one in items]
        self._database.note_change(membership=False)
        return ids, {}

    def rename(self, items: Indexed[Renaming], *, unique_names: bool) -> Refused:
        """Rename attributes in one transaction; returns the first bad item, if any."""
        names = {attribute.id: attribute.name for attribute in self.attributes()}
        for index, item in items:
            if item.id not in names:
                return {index: BadItem("id", "attribute does not exist")}
            others = [name for other, name in names.items() if other != item.id]
            if unique_names and item.name in others:
                return {index: BadItem("name", "an attribute of this name exists")}
            names[item.id] = item.name
        now_s = self._database.now_s()
        with self._database.transaction():
            self._connection.executemany(
                "UPDATE attributes SET name = ?, date_modified = ? WHERE id = ?",
                [(item.name, now_s, item.id) for _, item in items],
            )
        self._database.note_change(membership=False)
        return {}

    def delete_attributes(self, ids: Sequence[int]) -> None:
        """Delete attributes and values (BigCommerce reference, Delete Customer Attributes)."""
        bound = (json_list(ids),)
        with self._database.transaction():
            self._connection.execute(
                """DELETE FROM attribute_values WHERE attribute_id IN (
                    SELECT id FROM attributes WHERE id IN (SELECT value FROM json_each(?)))""",
                bound,
            )
            self._connection.execute(
                "DELETE FROM attributes WHERE id IN (SELECT value FROM json_each(?))", bound
            )
        self._database.note_change(membership=True)

    def _types(self, ids: Iterable[int]) -> dict[int, str]:
        statement = "SELECT id, type FROM attributes WHERE id IN (SELECT value FROM json_each(?))"
        return dict(self._connection.execute(statement, (json_list(ids),)).fetchall())

    def _insert_attribute(self, attribute_id: int | None, name: str, kind: str, now_s: int) -> int:
        cursor = self._connection.execute(
            """INSERT INTO attributes VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
            SET name = excluded.name, type = excluded.type, date_modified = excluded.date_modified
            RETURNING id""",
            (attribute_id, name, kind, now_s, now_s),
        )
        return int(cursor.fetchone()[0])

    def _put_attribute(self, attribute_id: int | None, name: str, kind: str, now_s: int) -> None:
        if attribute_id is None:
            found = self._connection.execute("SELECT type FROM attributes WHERE name = ?", (name,))
            known = {row[0] for row in found}
            if kind in known:
                return
            if known:
                raise ValueError(f"attributes: {name!r} exists with another type")
        self._insert_attribute(attribute_id, name, kind, now_s)

    def _put_customer(self, customer_id: int | None, email: str, now_s: int) -> None:
        key = email_key(email)
        found = self._connection.execute("SELECT id FROM customers WHERE email_key = ?", (key,))
        other = found.fetchone()
        if other is not None:
            if customer_id in (None, other[0]):
                customer_id = other[0]
            else:
                raise ValueError(f"customers: two have the address {email!r}")
        self._connection.execute(
            """INSERT INTO customers VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
            SET email = excluded.email, email_key = excluded.email_key,
            date_modified = excluded.date_modified""",
            (customer_id, email, key, now_s, now_s),
        )


def email_key(email: str) -> str:
    """Return the form in which addresses that differ in case alone are equal."""
    return email.casefold()


def _fits(value: str, kind: str) -> bool:
    """Return whether a type holds a value; the empty string fits all, as no value."""
    if not value or kind == "string":
        return True
    if kind == "number":
        return _NUMBER.fullmatch(value) is not None
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True
