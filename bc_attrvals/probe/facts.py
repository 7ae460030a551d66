"""The facts that a probe settles; `core.probe_file` says how a file holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.probe.sizes import Largest

Value = str | int | bool | list[int] | dict[str, str] | dict[str, int] | None

#: Every fact, and what is asked. Names that are quirks of the sandbox have the quirk's values.
FACTS: Final[Mapping[str, str]] = {
    "drop_query": "The query is lost on its way",
    "ignore_filters": "Filters are ignored",
    "order": "Order of a listing",
    "max_limit": "Largest page",
    "over_limit": "A larger page",
    "clamp_pages": "A page past the last has rows",
    "total": "What total counts",
    "total_pages": "What total_pages counts",
    "current_page": "current_page in answers",
    "omit_links": "Pagination without links",
    "date_bounds": "Bounds of date filters",
    "encoded_dates": "Percent-encoded dates are accepted",
    "compact_offsets": "Offsets such as -0400 are accepted",
    "value_field": "Name of the value in answers",
    "zoneless_dates": "Dates in answers have no zone",
    "max_items": "Most items in one PUT",
    "batch_by": "What a PUT's limit counts",
    "batch_limit_status": "Status that refuses a larger PUT",
    "repeated_keys": "Which of equal keys in a PUT is stored",
    "refusal_status": "Status that refuses a bad item",
    "error_style": "How a refusal names the item",
    "bad_items_named": "Bad items named, of several",
    "bad_values": "Answers to bad values",
    "store_good_items_of_refused_batch": "Good items of a refused PUT are stored",
    "omit_unchanged": "An answer omits what did not change",
    "touch_unchanged": "An equal write moves date_modified",
    "answer_order": "Order of a PUT's answer",
    "trim_values": "Blanks around values are removed",
    "empty_value": "An empty value",
    "numbers": "Numbers in values",
    "dates": "Dates in values",
    "characters": "Other characters in values",
    "check_value_types": "Values of a wrong type are refused",
    "clock_lags_s": "Lags of the clocks of date_modified, in s",
    "delete_status": "Answer to a DELETE",
    "max_delete_ids": "Most ids in one DELETE",
    "delete_limit_status": "Status that refuses a larger DELETE",
    "case_sensitive_emails": "email:in is case-sensitive",
    "max_emails": "Most addresses in email:in",
    "attributes_pagination": "Attributes have pagination",
    "max_new_attributes": "Most attributes in one POST",
    "unique_attribute_names": "Names of attributes are unique",
    "rate_headers": "Answers show the quota",
    "quota": "Calls allowed, and the window in ms",
    "reset_granularity_ms": "Steps of Time-Reset-Ms",
    "wait_headers": "Headers of a 429",
    "request_id": "Answers have X-Request-Id",
    "abandoned_keeps_slot": "An abandoned PUT keeps its slot",
}


class Unsettled(BCAttrValsError):  # noqa: N818 - an outcome of a question
    """Why a question has no answer."""


@attrs.frozen
class Fact:
    """What was observed, or why nothing was; `calls` were spent on the question."""

    settled: bool
    value: Value
    how: str
    calls: int = 0
    largest: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as it stands in the file."""
        return attrs.asdict(self, filter=lambda field, value: field.name != "largest" or value)


class Facts:
    """The facts so far. Each is recorded once."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def settle(self, name: str, value: Value, how: str, *, largest: int | None = None) -> None:
        """Record what was observed, and how."""
        self._note(name, Fact(True, value, how, largest=largest))

    def settle_as(self, name: str, meanings: Mapping[Any, Value], seen: object, how: str) -> None:
        """Record what was seen by its meaning; raise `Unsettled` with `how` if it has none."""
        if seen not in meanings:
            raise Unsettled(how)
        self.settle(name, meanings[seen], how)

    def settle_largest(self, name: str, found: Largest, what: str) -> str:
        """Record the largest number of the same `what` in a call; return how larger ones ended."""
        how = f"{found.size} times the same {what} were accepted"
        if found.was_refused:
            how += f", more were answered {found.status}"
        self.settle(name, found.size if found.was_refused else None, how, largest=found.size)
        return how

    def leave(self, name: str, why: str) -> None:
        """Record why a fact is not settled."""
        self._note(name, Fact(False, None, why))

    def _note(self, name: str, fact: Fact) -> None:
        assert name in FACTS
        assert name not in self._facts
        self._facts[name] = fact

    def close(self, names: Iterable[str], why: str, calls: int = 0) -> None:
        """End a question: the names without an answer get the reason, all of them the calls."""
        for name in names:
            if name not in self._facts:
                self.leave(name, why)
            self._facts[name] = attrs.evolve(self._facts[name], calls=calls)

    def value(self, name: str) -> Value:
        """Return a settled value; None where there is none."""
        fact = self._facts.get(name)
        return None if fact is None else fact.value

    def number(self, name: str, default: int) -> int:
        """Return a settled number, or the default where there is none."""
        value = self.value(name)
        return value if isinstance(value, int) else default

    def all(self) -> dict[str, Fact]:
        """Return all facts in the order of the table."""
        return {name: self._facts[name] for name in FACTS if name in self._facts}
