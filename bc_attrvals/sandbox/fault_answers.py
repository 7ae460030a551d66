"""Turns a fault into the answer that the client gets: an error, or a success that misleads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from bc_attrvals.sandbox.answers import PROBLEM_TYPE, Answer, error_answer, html_answer
from bc_attrvals.sandbox.faults import Fault, FaultKind

_NOTHING: Final = Answer(200, b'{"data":[],"meta":{}}')
_ERRORS: Final = {"errors": [{"status": 500, "title": "The request could not be completed."}]}
_PARTS: Final = {"data": [], "errors": [{"status": 500}], "meta": {"total": 0}}


def _rows_without(*fields: str, instead: str | None = None) -> Callable[[Answer], Answer]:
    """Return a function that drops fields of an answer's rows, or sets them to `instead`."""

    def change(answer: Answer) -> Answer:
        if not answer.body:
            return answer
        content: Any = msgspec.json.decode(answer.body)
        for row in content.get("data", ()):
            for field in fields:
                if instead is None:
                    row.pop(field, None)
                else:
                    row[field] = instead
        return Answer(answer.status, msgspec.json.encode(content))

    return change


_MISLEADING: Final[Mapping[FaultKind, Callable[[Answer], Answer]]] = {
    FaultKind.HTML_BODY: lambda _: html_answer(200),
    FaultKind.ERRORS_BODY: lambda _: Answer(200, msgspec.json.encode(_ERRORS)),
    FaultKind.EMPTY_OBJECT: lambda _: Answer(200, b"{}"),
    FaultKind.ACCEPTED: lambda _: Answer(202),
    FaultKind.NO_CONTENT: lambda _: Answer(204),
    FaultKind.MULTI_STATUS: lambda _: Answer(207, msgspec.json.encode(_PARTS)),
    FaultKind.NULL_DATA: lambda _: Answer(200, b'{"data":null,"meta":{}}'),
    FaultKind.ROWS_WITHOUT_ID: _rows_without("id"),
    FaultKind.ROWS_WITHOUT_DATES: _rows_without("date_created", "date_modified", instead=""),
}


# The errors that are more than their status.
_ERROR_ANSWERS: Final[Mapping[FaultKind, Callable[..., Answer]]] = {
    FaultKind.BAD_GATEWAY: partial(html_answer, 502),
    FaultKind.PROBLEM_JSON: partial(error_answer, 500, content_type=PROBLEM_TYPE),
    FaultKind.STORE_SUSPENDED: partial(error_answer, 503, "The store is suspended."),
    # Without the rate headers: that is the sign of load, in contrast to a spent quota (BigCommerce
    # guide, API rate limits).
    FaultKind.STORE_UNDER_LOAD: partial(error_answer, 429, shows_quota=False),
    FaultKind.FORBIDDEN: partial(
        error_answer, 403, "You don't have a required scope to access the endpoint"
    ),
}


def wrong_answer(fault: Fault, right: Answer | None) -> Answer:
    """Return the answer of a fault that has one; `right` is that of an applied request, or None."""
    if fault.kind in _MISLEADING:
        return _MISLEADING[fault.kind](right or _NOTHING)
    headers: tuple[tuple[str, str], ...] = ()
    if fault.retry_after_s is not None:
        text = str(fault.retry_after_s)
        headers = (("Retry-After", text), ("X-Retry-After", text))
    answer = _ERROR_ANSWERS.get(fault.kind) or partial(error_answer, int(fault.kind.value))
    return answer(headers=headers)
