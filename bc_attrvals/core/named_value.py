"""A value to store whose customer may be an e-mail address and whose attribute may be a name.

Bulk writes and syncs accept it in place of `AttributeValueUpsert`. `value_text` alone turns numbers
and dates into the strings that the service stores.
"""

from __future__ import annotations

import numbers
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeAlias

import attrs

from bc_attrvals.core.arguments import check_encodes
from bc_attrvals.core.models import (
    MAX_VALUE_CHARACTERS,
    AttributeValueUpsert,
    check_id,
    check_value,
)
from bc_attrvals.errors import AttributeTypeError, InvalidInputError

#: The values of a `NamedValue`. numpy's integers and floats count as int and float.
Value: TypeAlias = str | int | float | Decimal | date | datetime

#: The longest e-mail address and the longest attribute name (BigCommerce reference, Create a
#: Customer Attribute).
_MAX_NAME_CHARACTERS = 255
#: Integers of this many bits have more digits than a value may have characters.
_MOST_BITS = 1_024

_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")


class AttributeType(StrEnum):
    """The type of an attribute's definition (BigCommerce reference, Customer Attributes)."""

    STRING = "string"
    NUMBER = "number"
    DATE = "date"


@attrs.frozen
class NamedValue:
    """One value to store: created if the customer has none for the attribute, else replaced.

    `customer` is an id or an e-mail address, `attribute` an id or a name, `value` a string, a
    finite number, a date or a datetime. All stay as they were given; `text` is the string that is
    sent. Addresses are compared without case and surrounding blanks. Names are compared exactly.

    Raises `InvalidInputError`, whose `field` names what is wrong.
    """

    customer: int | str
    attribute: int | str
    value: Value

    def __attrs_post_init__(self) -> None:
        """Check all fields; numpy's integers become plain ids."""
        if isinstance(self.customer, str):
            check_address(self.customer)
        else:
            object.__setattr__(self, "customer", check_id(self.customer, "customer"))
        if isinstance(self.attribute, str):
            check_attribute_name(self.attribute)
        else:
            object.__setattr__(self, "attribute", check_id(self.attribute, "attribute"))
        check_value(value_text(self.value))

    @property
    def key(self) -> tuple[int | str, int | str]:
        """(customer, attribute), as given."""
        return (self.customer, self.attribute)

    @property
    def text(self) -> str:
        """The string that is sent."""
        return value_text(self.value)


#: An input item of bulk writes and syncs.
Item: TypeAlias = AttributeValueUpsert | NamedValue


def value_text(value: object) -> str:
    """Return a value as the string that is sent, without loss of precision.

    A string is returned unchanged. A float becomes the shortest decimal that reads back to it,
    without exponent: `12.0` is `12`. A Decimal keeps its digits, without exponent. Minus zero is
    zero. A date is `2024-05-14`, a datetime `2024-05-14T09:34:00Z`. A datetime with a time zone is
    converted to UTC, and one without gets no `Z`. The form of numbers and dates is not documented.

    Raises `InvalidInputError` for a number that is not finite and for any other type, including
    booleans.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat()
        try:
            return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        except OverflowError:
            message = "value is outside of the years 1 to 9999 in UTC"
            raise InvalidInputError(message, field="value") from None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, numbers.Integral | float | Decimal):
        message = f"value must be a string, a number or a date, not {type(value).__name__}"
        raise InvalidInputError(message, field="value")
    return _number_text(value)


def _number_text(number: numbers.Integral | float | Decimal) -> str:
    if isinstance(number, numbers.Integral):
        integer = int(number)
        # Python refuses to convert integers of several thousand digits to text.
        exact = Decimal(integer) if integer.bit_length() < _MOST_BITS else Decimal("Infinity")
    else:
        # float's repr() is the shortest text that reads back to it; numpy's repr() is not.
        exact = Decimal(float.__repr__(number)) if isinstance(number, float) else number
        if not exact.is_finite():
            raise InvalidInputError(f"value must be a finite number, not {number}", field="value")
    if not exact.is_finite() or abs(exact.adjusted()) > MAX_VALUE_CHARACTERS:
        message = f"value is a number of more than {MAX_VALUE_CHARACTERS} digits"
        raise InvalidInputError(message, field="value")
    if not exact:
        exact = exact.copy_abs()
    text = format(exact, "f")
    return text.removesuffix(".0") if isinstance(number, float) else text


def check_address(address: object, field: str = "customer", place: str | None = None) -> str:
    """Return an e-mail address without surrounding blanks.

    Raises `InvalidInputError` for one without `@`, with a comma (which separates the values of
    `email:in`), with a control character, or longer than 255 characters.
    """
    if not isinstance(address, str):
        message = f"{field} must be an e-mail address, not {type(address).__name__}"
        raise InvalidInputError(message, field=field, place=place)
    stripped = address.strip()
    if not stripped:
        problem = "is empty"
    elif len(stripped) > _MAX_NAME_CHARACTERS:
        problem = f"has {len(stripped)} characters, at most {_MAX_NAME_CHARACTERS} are allowed"
    elif not stripped.isprintable():
        problem = f"holds a control character: {stripped[:40]!r}"
    elif "," in stripped:
        problem = f"holds a comma: {stripped[:40]!r}"
    elif not all(stripped.partition("@")):
        problem = f"must have a name, @ and a domain: {stripped[:40]!r}"
    else:
        return stripped
    raise InvalidInputError(f"the e-mail address {problem}", field=field, place=place)


def address_key(address: str) -> str:
    """Return the form in which addresses are compared: lower case, no surrounding blanks."""
    return address.strip().lower()


def check_attribute_name(name: object, field: str = "attribute", place: str | None = None) -> str:
    """Return an attribute's name unchanged. Raises `InvalidInputError` for an impossible one."""
    if not isinstance(name, str):
        problem = f"must be a str, not {type(name).__name__}"
    elif not name.strip():
        problem = "is empty"
    elif len(name) > _MAX_NAME_CHARACTERS:
        problem = f"has {len(name)} characters, at most {_MAX_NAME_CHARACTERS} are allowed"
    else:
        check_encodes(name, field)
        return name
    raise InvalidInputError(f"the attribute's name {problem}", field=field, place=place)


def check_type(item: NamedValue, kind: AttributeType | str, name: str) -> None:
    """Raise `AttributeTypeError` if an attribute's type can't hold a value.

    The service does not document the forms. A number must have digits, at most one point and an
    optional exponent. A date must begin with an ISO date. Any value can be a string. A type that is
    not known here holds any value.
    """
    value = item.value
    if kind == AttributeType.NUMBER:
        fits = isinstance(value, int | float | Decimal) or (
            isinstance(value, str) and _NUMBER.fullmatch(value.strip()) is not None
        )
    elif kind == AttributeType.DATE:
        fits = isinstance(value, date) or (isinstance(value, str) and _is_date(value.strip()))
    else:
        return
    if not fits:
        message = f"the attribute {name!r} is a {kind}, which can't hold {item.text[:80]!r}"
        raise AttributeTypeError(message, name=name)


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
