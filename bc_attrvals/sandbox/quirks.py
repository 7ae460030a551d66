"""The table of quirks: what nobody could verify about the service, and what faulty proxies do.

Each default is the documented behaviour, or else the likeliest one. A client has to work with every
setting, so tests change them one by one. A quirk is one line here, and a few lines where it acts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import attrs
import msgspec


def _quirk(
    default: object, says: str, allowed: str, test: Callable[[Any], bool], choices: object = None
) -> Any:  # noqa: ANN401 - as attrs.field
    """Return a field; `test` decides which values it takes, and `allowed` says so in words."""

    def check(instance: object, attribute: attrs.Attribute[object], value: object) -> None:
        del instance
        if not test(value):
            raise ValueError(f"{attribute.name} must be {allowed}, not {value!r}")

    metadata = {"says": says, "choices": choices}
    return attrs.field(default=default, validator=check, metadata=metadata)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flag(default: bool, says: str) -> Any:  # noqa: ANN401 - as attrs.field
    return _quirk(
        default, says, "true or false", lambda value: isinstance(value, bool), (False, True)
    )


def _choice(choices: tuple[object, ...], says: str) -> Any:  # noqa: ANN401 - as attrs.field
    """Return a field that takes one of the choices; the first is the default."""
    return _quirk(
        choices[0],
        says,
        f"one of {', '.join(map(str, choices))}",
        lambda value: value in choices and not isinstance(value, bool),
        choices,
    )


def _whole(default: int | None, says: str) -> Any:  # noqa: ANN401 - as attrs.field
    """Return a field that takes a whole number from 1 up; None too if that is the default."""
    return _quirk(
        default,
        says,
        "a whole number from 1 up" + (" or null" if default is None else ""),
        lambda value: (value is None and default is None) or (_is_whole(value) and value >= 1),
    )


def _seconds(says: str) -> Any:  # noqa: ANN401 - as attrs.field
    return _quirk(
        (),
        says,
        "a list of whole seconds",
        lambda value: isinstance(value, tuple) and all(map(_is_whole, value)),
    )


class _ProbeFact(msgspec.Struct):
    settled: bool
    value: Any = None


class _ProbeFile(msgspec.Struct):
    format: Literal["bc_attrvals probe 1"]
    facts: dict[str, _ProbeFact]


@attrs.frozen(kw_only=True)
class Quirks:
    """Unverified or faulty behaviours, one field each; `Quirks.described()` explains them all."""

    # Listings
    order: Literal["id", "id_desc", "shuffled", "shifting"] = _choice(
        ("id", "id_desc", "shuffled", "shifting"),
        "Order of attribute values: shuffled follows no column; shifting differs from page to page",
    )
    max_limit: int = _whole(250, "Largest page")
    over_limit: Literal["refuse", "clamp"] = _choice(
        ("refuse", "clamp"), "A larger page: refused with 413, or cut to the largest"
    )
    clamp_pages: bool = _flag(False, "A page past the last answers the last page, not an empty one")
    total_pages: Literal["right", "of_asked_limit", "of_whole_store"] = _choice(
        ("right", "of_asked_limit", "of_whole_store"),
        "total_pages counted by the page size asked for, or over all rows of the store",
    )
    current_page: Literal["right", "always_1", "from_0"] = _choice(
        ("right", "always_1", "from_0"), "current_page in answers"
    )
    omit_links: bool = _flag(False, "Pagination without links")
    date_bounds: Literal["inclusive", "exclusive"] = _choice(
        ("inclusive", "exclusive"), "Whether :min and :max include the moment they name"
    )
    ignore_filters: bool = _flag(False, "GET applies page and limit and no filter")
    drop_query: bool = _flag(False, "A proxy loses the whole query; DELETE then deletes nothing")
    encoded_dates: bool = _flag(True, "Percent-encoded dates are accepted")
    compact_offsets: bool = _flag(True, "Offsets without a colon, such as -0400, are accepted")
    # Rows in answers
    value_field: Literal["attribute_value", "value"] = _choice(
        ("attribute_value", "value"), "Name of the value in answers; older references say value"
    )
    zoneless_dates: bool = _flag(False, "Dates in answers have no Z")
    # Upserts
    max_items: int = _whole(10, "Most items in one PUT")
    batch_by: Literal["rows", "customers"] = _choice(("rows", "customers"), "What max_items counts")
    batch_limit_status: Literal[413, 422] = _choice(
        (413, 422), "A larger PUT: 413, or 422 titled 'Max batch size allowed is N'"
    )
    refusal_status: Literal[422, 400, 409, 423, 500] = _choice(
        (422, 400, 409, 423, 500), "Status that refuses a PUT with a bad item"
    )
    error_style: Literal["indexed", "field", "empty"] = _choice(
        ("indexed", "field", "empty"), "How that refusal names the item: field has no index"
    )
    store_good_items_of_refused_batch: bool = _flag(
        False, "The good items of a refused PUT are stored"
    )
    omit_unchanged: bool = _flag(False, "A PUT's answer omits rows that changed nothing")
    touch_unchanged: bool = _flag(False, "A PUT of an equal value moves date_modified")
    answer_order: Literal["given", "reversed"] = _choice(
        ("given", "reversed"), "Order of the rows in a PUT's answer"
    )
    trim_values: bool = _flag(False, "Values are stored without blanks around them")
    check_value_types: bool = _flag(
        False, "A value that its attribute's type cannot hold is refused"
    )
    clock_lags_s: tuple[int, ...] = _seconds(
        "PUTs take their dates from clocks this many seconds behind, in turn"
    )
    # Deletes
    max_delete_ids: int | None = _whole(None, "Most ids in one DELETE")
    delete_limit_status: Literal[413, 414, 400, 422] = _choice(
        (413, 414, 400, 422), "Status that refuses a larger DELETE"
    )
    # Customers and attributes
    case_sensitive_emails: bool = _flag(False, "email:in regards upper and lower case")
    max_emails: int | None = _whole(None, "Most addresses in one email:in; more: 422")
    max_new_attributes: int | None = _whole(None, "Most attributes in one POST; more: 422")
    unique_attribute_names: bool = _flag(True, "A second attribute of the same name is refused")
    attributes_pagination: bool = _flag(True, "The list of attributes has pagination")
    # Headers and limits
    reset_granularity_ms: int = _whole(1, "Step that X-Rate-Limit-Time-Reset-Ms is rounded down to")
    rate_headers: bool = _flag(True, "Answers show the quota; hidden, it still counts")
    request_id: bool = _flag(True, "Answers have X-Request-Id")
    abandoned_keeps_slot: bool = _flag(
        False, "A request whose client went away stays in flight until it is applied"
    )

    def changed(self, changes: Mapping[str, object]) -> Self:
        """Return a copy with other settings; raises ValueError that begins with the quirk's name.

        Lists stand for tuples, as in JSON and TOML.
        """
        for name in changes:
            if name not in QUIRK_NAMES:
                close = difflib.get_close_matches(name, QUIRK_NAMES, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"{name} is not a quirk{meant}")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in changes.items()
        }
        return attrs.evolve(self, **given)

    @classmethod
    def parse(cls, lines: tuple[str, ...], base: Self | None = None) -> Self:
        """Read lines such as `order=shuffled`, `max_limit=100` or `omit_links`.

        Other quirks are those of `base`. Raises ValueError that names the quirk.
        """
        changes: dict[str, object] = {}
        for line in lines:
            name, equals, text = (part.strip() for part in line.partition("="))
            if name in changes:
                raise ValueError(f"{name} is given twice")
            changes[name] = _value_of(text) if equals else True
        return (base or cls()).changed(changes)

    @classmethod
    def from_probe(cls, file: str | os.PathLike[str]) -> Self:
        """Return the quirks of a store that `bc-attrvals probe` settled, from its JSON file.

        `facts` in it maps names to `{"settled": bool, "value": ...}`; facts that are no quirks, and
        those not settled, are left out. Raises ValueError for another file or a value that a quirk
        does not take, and OSError where the file can't be read.
        """
        try:
            content = msgspec.json.decode(Path(file).read_bytes(), type=_ProbeFile)
            facts = content.facts.items()
            settled = {name: fact.value for name, fact in facts if fact.settled}
            return cls().changed({name: settled[name] for name in QUIRK_NAMES if name in settled})
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{os.fspath(file)}: {error}") from None

    @staticmethod
    def described() -> list[dict[str, object]]:
        """Return each quirk's name, default, choices (None if open) and explanation."""
        return [
            {
                "name": field.name,
                "default": field.default,
                "choices": field.metadata["choices"],
                "says": field.metadata["says"],
            }
            for field in attrs.fields(Quirks)
        ]


QUIRK_NAMES: Final = tuple(field.name for field in attrs.fields(Quirks))
_WORDS: Final = {"yes": True, "no": False, "none": None}


def _value_of(text: str) -> object:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
