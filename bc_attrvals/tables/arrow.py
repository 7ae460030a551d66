"""Reads values from data frames and Parquet batches, and puts values into Arrow tables.

pyarrow is optional, and imported on first use. A data frame is any object with the Arrow C stream
interface: a pandas, polars or pyarrow table, a DuckDB relation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from types import ModuleType
from typing import Any, Final, TypeAlias

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue, value_text
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.tables.error_text import one_line
from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.layout import FIELDS, IDS, MOMENTS, Layout
from bc_attrvals.tables.rows import BadRow, Row, Table, entries

#: pyarrow has no type hints.
Untyped: TypeAlias = Any
#: What a place in a table is counted in.
UNIT: Final = "row"
_ALL_COLUMNS: Final = (*FIELDS, "id", *MOMENTS)
#: What a column must hold, and the types that do.
_TEXT: Final = ("string", "large_string", "string_view", "null")
_NAMES: Final = ("names and addresses are strings", _TEXT)
_IDS: Final = ("ids are integers", (*_TEXT, "integer", "floating", "decimal"))
_VALUES: Final = (
    "values are strings, numbers, booleans or dates",
    (*_IDS[1], "boolean", "date", "timestamp"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def from_arrow(
    table: object,
    *,
    columns: Mapping[str, str] | None = None,
    customer_column: str | None = None,
    email_column: str | None = None,
    attributes: Mapping[str, int | str] | None = None,
    attributes_by_header: bool = False,
) -> Iterator[AttributeValueUpsert | NamedValue]:
    """Yield the values of a data frame, to be given to `upsert` or `sync`.

    `table` has the Arrow C stream interface (`__arrow_c_stream__`). In long form it has the
    columns `customer_id` or `email`, `attribute_id` or `attribute`, and `value`; `columns` maps
    these names to other ones. In wide form, one row a customer, `customer_column` holds the id or
    `email_column` the address (`id:7` is the customer 7), and `attributes` maps columns to the id
    or name of their attribute; with `attributes_by_header` all other columns are attributes of
    their names. Ids may be whole floats. Numbers, booleans, dates and timestamps become strings
    without loss. Nulls of the wide form and blank rows are no values.

    Raises `InvalidInputError` at once for columns that are missing or of a wrong type, and from
    the iterator for a bad row, whose `place` is `row 3`. Needs the extra `parquet`.
    """
    layout = Layout(
        columns=columns or {},
        customer_column=customer_column,
        email_column=email_column,
        attributes=attributes or {},
        attributes_by_header=attributes_by_header,
    )
    arrow = pyarrow("the table")[0]
    if not hasattr(table, "__arrow_c_stream__"):
        message = f"table must have the Arrow C stream interface, not be {type(table).__name__}"
        raise InvalidInputError(message, field="table")
    reader = arrow.RecordBatchReader.from_stream(table)
    fitted = checked_layout(arrow, reader.schema, "the table", layout)
    rows = arrow_rows(arrow, reader, fitted)
    return _good(entries(Table(fitted, rows, UNIT)))


def _good(cells: Iterable[object]) -> Iterator[AttributeValueUpsert | NamedValue]:
    for cell in cells:
        if isinstance(cell, BadRow):
            message = f"column {cell.column}: {cell.message}"
            raise InvalidInputError(
                one_line(message, 300), field=cell.column, place=f"{UNIT} {cell.line}"
            )
        assert isinstance(cell, AttributeValueUpsert | NamedValue)
        yield cell


def to_arrow(values: Iterable[AttributeValue]) -> Untyped:
    """Return a `pyarrow.Table` of stored values, a row each.

    The columns are `customer_id`, `attribute_id`, `value`, `id`, `date_created` and
    `date_modified`. Ids are int64, dates UTC timestamps, which may be null. `values` is read to
    its end. Raises `InvalidInputError` without the extra `parquet`.
    """
    arrow = pyarrow("the table")[0]
    schema = arrow_schema(arrow, _ALL_COLUMNS, ids=IDS, moments=MOMENTS)
    rows = map(attrgetter(*_ALL_COLUMNS), values)
    return arrow.Table.from_batches([arrow_batch(arrow, schema, list(rows))])


def pyarrow(name: str) -> tuple[ModuleType, ModuleType]:
    """Return `pyarrow` and `pyarrow.parquet`; raise `FileError` for file `name` without them."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        reason = "Parquet needs pyarrow" if missing else f"pyarrow can't be loaded ({error})"
        message = f"{name}: {reason}; install it: pip install 'bc_attrvals[parquet]'"
        raise FileError(message) from None
    return pa, parquet


def arrow_schema(
    arrow: ModuleType, columns: Sequence[str], *, ids: Sequence[str], moments: Sequence[str] = ()
) -> Untyped:
    """Return a schema: `ids` are int64, `moments` UTC timestamps, all others strings."""
    types = {name: arrow.timestamp("us", tz="UTC") for name in moments}
    types |= {name: arrow.int64() for name in ids}
    return arrow.schema([(name, types.get(name, arrow.string())) for name in columns])


def arrow_batch(arrow: ModuleType, schema: Untyped, rows: Sequence[Sequence[object]]) -> Untyped:
    """Return rows as a record batch of a schema; None is null."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [arrow.array(cells, field.type) for cells, field in zip(columns, schema, strict=True)]
    return arrow.RecordBatch.from_arrays(arrays, schema=schema)


def checked_layout(arrow: ModuleType, schema: Untyped, name: str, layout: Layout) -> Layout:
    """Return the layout fitted to a schema.

    Raises `FileError` for columns that are missing, doubled or of a type that fits no cell.
    """
    layout = layout.resolved([one.strip() for one in schema.names], name)
    types = arrow.types
    places: list[tuple[str, Sequence[str]]] = [_NAMES if layout.by_email else _IDS]
    if layout.wide:
        places += [_VALUES] * len(layout.attributes)
    else:
        places += [_NAMES if layout.fields[1] == "attribute" else _IDS, _VALUES]
    for column, (words, kinds) in zip(layout.needed, places, strict=True):
        type_ = schema.types[_place(schema, column)]
        plain = type_.value_type if types.is_dictionary(type_) else type_
        checks = (getattr(types, f"is_{one}", None) for one in kinds)
        if not any(check is not None and check(plain) for check in checks):
            raise FileError(f"{name}: column {column}: is of type {type_}; {words}")
    return layout


def _place(schema: Untyped, column: str) -> int:
    # A name with a dot may bring columns that were not asked for, and names may have blanks.
    return [name.strip() for name in schema.names].index(column)


def arrow_rows(arrow: ModuleType, batches: Iterable[Untyped], layout: Layout) -> Iterator[Row]:
    """Yield (row number, the needed cells in their order) of record batches; None is null."""
    done = 0
    for batch in batches:
        cells = [
            _cells(arrow, batch.column(_place(batch.schema, column))) for column in layout.needed
        ]
        yield from enumerate(zip(*cells, strict=True), done + 1)
        done += batch.num_rows


def _cells(arrow: ModuleType, column: Untyped) -> Sequence[object]:
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    convert: Callable[[Untyped], object]
    if types.is_timestamp(column.type):
        # Python's datetimes have no nanoseconds, which pandas has.
        factor, zoned = _NANOSECONDS[column.type.unit], column.type.tz is not None
        column, convert = column.cast(arrow.int64()), lambda one: _moment(one * factor, zoned=zoned)
    elif types.is_float32(column.type) or types.is_float16(column.type):
        # The shortest decimal that reads back to a float of this width.
        column, convert = column.cast(arrow.string()), Decimal
    else:
        try:
            cells: list[object] = column.to_pylist()
        except (UnicodeDecodeError, OverflowError, ValueError):
            # Writers may store text that is not UTF-8, and dates beyond the year 9999.
            cells = [_cell(one) for one in column]
        return cells
    return [None if cell is None else convert(cell) for cell in column.to_pylist()]


def _cell(scalar: Untyped) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object)
    except (OverflowError, ValueError):
        return ValueError(_NO_MOMENT)


_NO_MOMENT: Final = "a date outside of the years 1 to 9999"


def _moment(nanoseconds: int, *, zoned: bool) -> str | ValueError:
    microseconds, rest = divmod(nanoseconds, 1_000)
    try:
        moment = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return ValueError(_NO_MOMENT)
    if not rest:
        return value_text(moment if zoned else moment.replace(tzinfo=None))
    digits = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{digits}{rest:03}{'Z' if zoned else ''}"
