"""Reads JOBS.toml, the description of a fleet, and checks it before anything starts.

`[defaults]` holds fields for all jobs, each `[[jobs]]` those of one. Paths are relative to the
file. An error names the file and the field. The file holds no secret: `token_env` and `proxy_env`
name variables.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click

from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import check_id
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.fleet import EnvironmentVariable, FileSource, Job
from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.layout import file_format

_NEEDED: Final = ("store_hash", "token_env", "source")
_FORMATS: Final = ("csv", "jsonl", "parquet")
#: The fields of the file that are a `FileSource`'s as they are.
_SOURCE: Final = {field.name for field in attrs.fields(FileSource)} - {"path"}
_MOST_BITS: Final = 64
#: The fields of the file that are a `Job`'s as they are, by its names.
_JOB: Final = {
    **{one: one for one in ("store_hash", "prune", "allow_empty", "trust_env", "name")},
    "url": "base_url",
}
#: The fields of the file for those of `Job` and `FileSource`.
_OURS: Final = {
    "base_url": "url",
    "access_token": "token_env",
    "scope": "attribute_ids",
    "proxy": "proxy_env",
}


def read_jobs(path: str, *, shared_quota: EnvironmentVariable | None) -> list[Job]:
    """Return the jobs of a file. Raises `FileError` for the first bad field."""
    defaults, tables = _tables(path)
    jobs: list[Job] = []
    folder = Path(path).parent
    place = f"{path}: defaults"
    try:
        _check(defaults)
        for index, table in enumerate(tables):
            place = f"{path}: jobs[{index}]"
            _check(table)
            jobs.append(_job({**defaults, **table}, folder, shared_quota))
    except InvalidInputError as error:
        field = error.field or ""
        raise FileError(f"{place}.{_OURS.get(field, field)}: {error}") from None
    _check_together(path, jobs)
    return jobs


def _tables(path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        # Some editors write a byte order mark.
        document = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: no TOML: {error}") from None
    except ValueError:
        # Python's own limit, which tomllib does not catch.
        raise FileError(f"{path}: it holds an integer of too many digits") from None
    except RecursionError:
        raise FileError(f"{path}: it is nested too deeply") from None
    defaults, tables = document.get("defaults", {}), document.get("jobs", [])
    unknown = min(document.keys() - {"defaults", "jobs"}, default=None)
    try:
        _need(unknown is None, f"{unknown}: unknown; there are [defaults] and [[jobs]]")
        _need(isinstance(tables, list) and tables, "jobs: there must be at least one [[jobs]]")
        _need(isinstance(defaults, dict), "defaults: must be a table")
        for index, table in enumerate(tables):
            _need(isinstance(table, dict), f"jobs[{index}]: must be a table")
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    return defaults, tables


def _need(good: object, problem: str) -> None:
    if not good:
        raise ValueError(problem)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a string, not empty")
    _need("\0" not in value, "must not hold the character NUL")
    return value


def _variable(value: object) -> None:
    _need("=" not in _text(value), "must be the name of a variable")


def _encoding(value: object) -> None:
    try:
        # Some codecs are found and read no text. `InputFile.text` refuses them in the same way.
        "x".encode(_text(value), "backslashreplace")
    except (LookupError, UnicodeError):
        raise ValueError("is an unknown encoding") from None


def _columns(value: object) -> None:
    good = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    _need(good, "must be a table of strings")


def _attributes(value: object) -> None:
    if not isinstance(value, dict) or not value:
        raise ValueError("must be a table of attribute ids or names by column")
    for one in value.values():
        _need(one != "", "has an empty name")
        if not isinstance(one, str):
            _id(one)


def _ids(value: object) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of ids, not empty")
    for one in value:
        _id(one)


def _id(value: object) -> None:
    # Python refuses to format a longer one in an error.
    long = isinstance(value, int) and value.bit_length() > _MOST_BITS
    _need(not long, "holds a number of too many digits")
    check_id(value, "id")


#: What each field must be; raises ValueError.
_FIELDS: Final[Mapping[str, Callable[[object], object]]] = {
    **dict.fromkeys(("name", "store_hash", "url", "source", "journal", "mirror"), _text),
    **dict.fromkeys(("customer_column", "email_column"), _text),
    **dict.fromkeys(("token_env", "proxy_env"), _variable),
    **dict.fromkeys(
        ("prune", "allow_empty", "whole_store", "attributes_by_header", "trust_env"),
        lambda value: _need(isinstance(value, bool), "must be true or false"),
    ),
    "format": lambda value: _need(
        _text(value) in _FORMATS, f"must be one of {', '.join(_FORMATS)}"
    ),
    "encoding": _encoding,
    "delimiter": lambda value: _need(len(_text(value)) == 1, "must be one character"),
    "columns": _columns,
    "attributes": _attributes,
    **dict.fromkeys(("attribute_ids", "customer_ids"), _ids),
}


def _check(table: Mapping[str, Any]) -> None:
    """Check names and types."""
    for field, value in table.items():
        if field not in _FIELDS:
            raise InvalidInputError("unknown field", field=field)
        try:
            _FIELDS[field](value)
        except ValueError as error:
            raise InvalidInputError(str(error), field=field) from None


def _job(table: Mapping[str, Any], folder: Path, shared_quota: EnvironmentVariable | None) -> Job:
    for field in _NEEDED:
        if field not in table:
            raise InvalidInputError("missing", field=field)
    path = folder / table["source"]
    _check_place("source", path.is_file, f"{path} is no file")
    try:
        file_format(table["source"], table.get("format"))
    except FileError as error:
        raise InvalidInputError(str(error), field="format") from None
    source = FileSource(
        # Workers may have another working directory.
        path=str(path.resolve()),
        **{field: value for field, value in table.items() if field in _SOURCE},
    )
    return Job(
        access_token=EnvironmentVariable(table["token_env"]),
        source=source,
        scope=_scope(table),
        journal=_database("journal", table, folder),
        mirror=_database("mirror", table, folder),
        shared_quota=shared_quota,
        proxy=EnvironmentVariable(table["proxy_env"]) if "proxy_env" in table else None,
        **{ours: table[field] for field, ours in _JOB.items() if field in table},
    )


def _database(field: str, table: Mapping[str, Any], folder: Path) -> str | None:
    """Return the path of a database that a job may make."""
    if field not in table:
        return None
    path = folder / table[field]
    _check_place(field, path.parent.is_dir, f"{path.parent} is no directory")
    _check_place(field, lambda: not path.is_dir(), f"{path} is a directory")
    return str(path.resolve())


def _check_place(field: str, is_good: Callable[[], bool], problem: str) -> None:
    try:
        good = is_good()
    except OSError as error:
        # Such as a name that is too long.
        raise InvalidInputError(error.strerror or str(error), field=field) from None
    if not good:
        raise InvalidInputError(problem, field=field)


def _scope(table: Mapping[str, Any]) -> AttributeValueFilter | None:
    attribute_ids, customer_ids = table.get("attribute_ids"), table.get("customer_ids")
    whole, given = table.get("whole_store"), attribute_ids or customer_ids
    if whole and given:
        message = "does not go with attribute_ids or customer_ids"
        raise InvalidInputError(message, field="whole_store")
    if table.get("prune") and not (whole or given):
        message = "needs attribute_ids, customer_ids or whole_store = true, which say where"
        raise InvalidInputError(message, field="prune")
    scope = AttributeValueFilter(attribute_id_in=attribute_ids, customer_id_in=customer_ids)
    return scope if whole or given else None


def _check_together(path: str, jobs: list[Job]) -> None:
    names = [job.name for job in jobs]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"the same as of jobs[{names.index(name)}]"
            raise FileError(f"{path}: jobs[{index}].name: {message}")
    inputs = [("this file", path)]
    databases: list[tuple[str, str | None]] = []
    for index, job in enumerate(jobs):
        if isinstance(job.source, FileSource):
            inputs.append((f"jobs[{index}].source", job.source.path))
        databases.append((f"jobs[{index}].journal", job.journal))
        databases.append((f"jobs[{index}].mirror", job.mirror))
    try:
        check_paths(inputs, [], databases)
    except click.UsageError as error:
        raise FileError(f"{path}: {error.message}") from None
