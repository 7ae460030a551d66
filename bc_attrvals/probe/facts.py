"""The facts that a probe settles, and the document that keeps them: see `core.probe_file`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bc_attrvals.core.probe_file import PROBE_FORMAT
from bc_attrvals.errors import BCAttrValsError

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
    "repeated_keys": "Of equal keys in one PUT is stored",
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
    "clock_lags_s": "Clocks of date_modified lag by s",
    "delete_status": "Answer to a DELETE",
    "max_delete_ids": "Most ids in one DELETE",
    "delete_limit_status": "Status that refuses a larger DELETE",
    "case_sensitive_emails": "email:in regards case",
    "max_emails": "Most addresses in email:in",
    "attributes_pagination": "Attributes have pagination",
    "max_new_attributes": "Most attributes in one POST",
    "unique_attribute_names": "Names of attributes are unique",
    "rate_headers": "Answers show the quota",
    "quota": "Calls in a window of ms",
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
    calls: int
    largest: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as it stands in the file."""
        found: dict[str, object] = {
            "settled": self.settled,
            "value": self.value,
            "how": self.how,
            "calls": self.calls,
        }
        return found if self.largest is None else {**found, "largest": self.largest}


class Facts:
    """The facts so far. Each is recorded once."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def settle(self, name: str, value: Value, how: str, *, largest: int | None = None) -> None:
        """Record what was observed, and how."""
        self._note(name, Fact(True, value, how, 0, largest))

    def leave(self, name: str, why: str) -> None:
        """Record why a fact is not settled."""
        self._note(name, Fact(False, None, why, 0))

    def _note(self, name: str, fact: Fact) -> None:
        assert name in FACTS
        assert name not in self._facts
        self._facts[name] = fact

    def close(self, names: Iterable[str], why: str, calls: int) -> None:
        """End a question: the names without an answer get the reason, all of them the calls."""
        for name in names:
            if name not in self._facts:
                self.leave(name, why)
            self._facts[name] = attrs.evolve(self._facts[name], calls=calls)

    def value(self, name: str) -> Value:
        """Return a settled value; None where there is none."""
        fact = self._facts.get(name)
        return None if fact is None else fact.value

    def all(self) -> dict[str, Fact]:
        """Return all facts in the order of the table."""
        return {name: self._facts[name] for name in FACTS if name in self._facts}

    def document(self, **about: object) -> dict[str, object]:
        """Return the content of the file; `about` says of which probe."""
        facts = {name: fact.to_dict() for name, fact in self.all().items()}
        return {"format": PROBE_FORMAT, **about, "facts": facts}
