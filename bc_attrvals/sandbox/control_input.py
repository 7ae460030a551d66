"""Checks the bodies and queries of the control routes; errors name the field.

Unknown fields are refused, so that a typing error in another language's test suite shows.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from bc_attrvals.sandbox.body_checks import MAX_VALUE_CHARACTERS
from bc_attrvals.sandbox.definitions import AttributeSeeds, CustomerSeeds
from bc_attrvals.sandbox.faults import Fault
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.query_strings import MAX_ID
from bc_attrvals.sandbox.quirks import QUIRK_NAMES, Quirks

# Parameters that hold several ids.
_LISTS: Final = frozenset({"id", "customer_id", "attribute_id"})
_PLACE: Final = re.compile(r"(?s)(?P<message>.*?)(?: - at (?:`key` in )?`(?P<place>[^`]*)`)?")
_WRONG_FIELD: Final = re.compile(
    r"(?s)Object (?P<wrong>contains unknown|missing required) field `(?P<field>.*)`"
)

T = TypeVar("T", bound=Struct)

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Ids = Annotated[list[Id], Meta(max_length=100_000)]
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799)] | Annotated[datetime, Meta(tz=True)]
Units = Annotated[int, Meta(ge=0, le=999_999_999)]
Sequence = Annotated[int, Meta(ge=0, le=10**15)]
_IDS_MESSAGE: Final = "must be positive 32-bit integers with commas between"
_OPERATIONS_SAY: Final = Meta(description=f"one of {', '.join(Operation)}")
_IDS_SAY: Final = Meta(description="ids with commas between")
IdList = Annotated[tuple[Id, ...], _IDS_SAY]
AnyIds = Annotated[tuple[Id, ...] | None, _IDS_SAY]


class BadControlError(Exception):
    """A control request is refused; `field` names its bad part."""

    def __init__(self, field: str, message: str, status: int = 400) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message
        self.status = status


class NoQuery(Struct, forbid_unknown_fields=True):
    """No parameters."""


class IdsQuery(Struct, forbid_unknown_fields=True):
    """Ids to delete; they are required, so nothing deletes all."""

    id: IdList


class FaultQuery(Struct, forbid_unknown_fields=True):
    """The number of a fault, from the path."""

    number: Annotated[Sequence, Meta(description="as GET /sandbox/faults shows it")]


class RowsQuery(Struct, forbid_unknown_fields=True):
    """Which rows to show."""

    customer_ids: AnyIds = msgspec.field(name="customer_id", default=None)
    attribute_ids: AnyIds = msgspec.field(name="attribute_id", default=None)
    value: Annotated[str, Meta(max_length=255, description="a part of the value")] = ""
    page: Annotated[int, Meta(ge=1, le=10**9, description="from 1")] = 1
    limit: Annotated[int, Meta(ge=1, le=1_000, description="1 to 1,000, 50 by default")] = 50


class LogQuery(Struct, forbid_unknown_fields=True):
    """Which requests to show."""

    after: Annotated[Sequence, Meta(description="a sequence number")] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000, description="1 to 1,000, 100 by default")] = 100
    operation: Annotated[Operation | None, _OPERATIONS_SAY] = None


class RowBody(Struct, forbid_unknown_fields=True):
    """A row to insert; dates are UNIX seconds or ISO 8601 with a zone."""

    customer_id: Id
    attribute_id: Id
    value: Annotated[str, Meta(max_length=MAX_VALUE_CHARACTERS)]
    date_created: Moment | None = None
    date_modified: Moment | None = None

    def seed_row(
        self,
    ) -> tuple[int, int, str] | tuple[int, int, str, int | datetime, int | datetime]:
        """Return the row as `Sandbox.seed` takes it."""
        created = self.date_modified if self.date_created is None else self.date_created
        if created is None:
            return self.customer_id, self.attribute_id, self.value
        modified = created if self.date_modified is None else self.date_modified
        return self.customer_id, self.attribute_id, self.value, created, modified


class RowsBody(Struct, forbid_unknown_fields=True):
    """The rows to insert."""

    rows: list[RowBody]


class ResetBody(Struct, forbid_unknown_fields=True):
    """The parts to reset; all by default."""

    only: list[str] | None = None


class FaultBody(Struct, forbid_unknown_fields=True):
    """A fault; its fields are those of `Fault`."""

    kind: str
    probability: float = 1.0
    operation: str | None = None
    times: int | None = None
    after: int = 0
    retry_after_s: int | None = None
    delay_s: float = 0.0
    applied: bool | None = None

    def fault(self) -> Fault:
        """Return the checked fault; raises ValueError."""
        return Fault(**msgspec.structs.asdict(self))


class ScriptBody(Struct, forbid_unknown_fields=True):
    """The faults of the next requests, null for a healthy one."""

    faults: list[str | FaultBody | None]
    operation: Operation | None = None


class LatencyBody(Struct, forbid_unknown_fields=True):
    """The latency of all calls."""

    latency_ms: float


class QuotaBody(Struct, forbid_unknown_fields=True):
    """The units of a window, null for no limit; units that another app spends now."""

    quota: Units | UnsetType | None = UNSET
    spend: Units = 0


class RejectedBody(Struct, forbid_unknown_fields=True):
    """Customers that do not exist, by id."""

    customer_ids: Ids


class AttributeBody(Struct, forbid_unknown_fields=True):
    """An attribute to define; without an id it gets the next one."""

    name: str
    type: str
    id: Id | None = None


Customers = dict[Id, str] | list[str]
Attributes = dict[str, str] | list[AttributeBody]


class CustomersBody(Struct, forbid_unknown_fields=True):
    """Customers to define: addresses by id, or addresses that get the next ids."""

    customers: Customers


class AttributesBody(Struct, forbid_unknown_fields=True):
    """Attributes to define: types by name, or objects with a name, a type and perhaps an id."""

    attributes: Attributes


class SettingsBody(Struct, forbid_unknown_fields=True):
    """Settings that can be changed while the sandbox runs; those left out stay as they are.

    `quirks` changes the quirks named. `faults`, `customers` and `attributes` replace all others.
    """

    store_hash: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    access_token: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    quota: Units | UnsetType | None = UNSET
    latency_ms: float | UnsetType = UNSET
    max_concurrent_puts: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    quirks: dict[str, Any] | UnsetType = UNSET
    faults: list[str | FaultBody] | UnsetType = UNSET
    customers: Customers | UnsetType = UNSET
    attributes: Attributes | UnsetType = UNSET


def customer_seeds(given: Customers | UnsetType | None) -> CustomerSeeds | None:
    """Return customers as `Sandbox` takes them; None if none are given."""
    return None if isinstance(given, UnsetType) else given


def attribute_seeds(given: Attributes | UnsetType | None) -> AttributeSeeds | None:
    """Return attributes as `Sandbox` takes them; None if none are given."""
    if isinstance(given, list):
        return [
            (one.name, one.type) if one.id is None else (one.name, one.type, one.id)
            for one in given
        ]
    return None if isinstance(given, UnsetType) else given


def read_quirks(base: Quirks, changes: dict[str, Any], field: str = "") -> Quirks:
    """Return changed quirks; raises BadControlError that names the quirk."""
    try:
        return base.changed(changes)
    except (ValueError, TypeError) as error:
        name = str(error).partition(" ")[0].strip("'")
        inner = name if name in changes or name in QUIRK_NAMES else ""
        raise BadControlError(f"{field}.{inner}".strip("."), str(error)) from None


def read_body(body: bytes, kind: Any) -> Any:  # noqa: ANN401 - what msgspec takes and returns
    """Decode a body, an empty one as `{}`; raises BadControlError that names the field.

    `kind` is a Struct, or another type that msgspec decodes.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadControlError("", f"the body is not JSON: {error}") from None


def _refused(text: str) -> BadControlError:
    match = _PLACE.fullmatch(text)
    message, place = (match["message"], match["place"] or "") if match else (text, "")
    field = place.removeprefix("$").removeprefix(".")
    if named := _WRONG_FIELD.fullmatch(message):
        field = f"{field}.{named['field']}".removeprefix(".")
        message = "missing" if named["wrong"].startswith("missing") else "unknown field"
    return BadControlError(field, message)


def read_fault(given: str | FaultBody, field: str) -> Fault:
    """Return the fault of a line or of an object."""
    try:
        return Fault.parse(given) if isinstance(given, str) else given.fault()
    except ValueError as error:
        raise BadControlError(_field_of(field, str(error)), str(error)) from None


def _field_of(field: str, message: str) -> str:
    """Return the field that a fault's error begins with, under the one given."""
    name = message.partition(" ")[0]
    if message.startswith("unknown fault kind"):
        name = "kind"
    elif message.startswith("unknown operation"):
        name = "operation"
    inner = name if name in FaultBody.__struct_fields__ else ""
    return f"{field}.{inner}".strip(".")


def read_query(raw: str, kind: type[T], **from_path: str) -> T:
    """Decode a query, and what the path names; refuses unknown and repeated parameters."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        if name in found:
            raise BadControlError(name, "given twice")
        found[name] = value
    given = {
        name: [part.strip() for part in value.split(",")] if name in _LISTS else value
        for name, value in {**found, **from_path}.items()
        if value.strip() or name not in kind.__struct_encode_fields__
    }
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        refused = _refused(str(error))
        name, bracket, _ = refused.field.partition("[")
        message = _IDS_MESSAGE if bracket else refused.message
        raise BadControlError(name, message) from None
