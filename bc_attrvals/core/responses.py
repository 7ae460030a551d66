"""Reads answers: status, headers and bytes become a page, rows, or a typed error.

msgspec decodes straight into the models. Answers that it refuses go to the cattrs converter of
`fallback_decoding.py`, which knows every spelling the service has used and names the place of a
fault. A property test checks that both agree on all answers that both accept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec
from multidict import CIMultiDictProxy, istr

from bc_attrvals.core.models import AttributeValue, BarePage, Key, Page, Pagination, page_of
from bc_attrvals.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StoreSuspendedError,
    UnprocessableError,
)

T = TypeVar("T")

#: The statuses of success.
SUCCESS: Final = range(200, 300)

_REQUEST_ID: Final = istr("X-Request-Id")


# A Struct, which is cheap to make, because one is made for each call.
class Response(msgspec.Struct, frozen=True):
    """One answer of the service, read whole; `headers` ignore the case of names."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        """The service's `X-Request-Id`, printable and cut to a line's length."""
        return request_id_of(self.headers)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the `X-Request-Id` of an answer, printable and cut to a line's length."""
    text = headers.get(_REQUEST_ID)
    if text is None:
        return None
    text = text[:100]
    if text.isprintable():
        return text
    # It is logged and printed, and may have lone surrogates from bytes that are not UTF-8.
    return "".join(c if c.isprintable() else "?" for c in text)


class _Meta(msgspec.Struct):
    pagination: Pagination


class _PageEnvelope(msgspec.Struct):
    data: list[AttributeValue]
    meta: _Meta


class Echo(msgspec.Struct, gc=False):
    """The fields of a PUT's answered row that confirm a stored value: id, key and value."""

    id: int
    customer_id: int
    attribute_id: int
    attribute_value: str

    @property
    def key(self) -> Key:
        """(customer_id, attribute_id)."""
        return (self.customer_id, self.attribute_id)


class _Data(msgspec.Struct, Generic[T], gc=False):
    data: list[T]


_PAGE_DECODER: Final = msgspec.json.Decoder(_PageEnvelope)
_ROWS_DECODER: Final = msgspec.json.Decoder(_Data[AttributeValue])
_ECHOES_DECODER: Final = msgspec.json.Decoder(_Data[Echo])

#: Errors of the fast path: its refusals, JSON that is nested too deeply, and dates outside of the
#: years 1 to 9999 in UTC.
REFUSALS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)


def decode_page(body: bytes) -> Page:
    """Read the answer of a GET. Raises `DecodeError` with the place of the first fault."""
    try:
        return _decode_page(body)
    except REFUSALS:
        from bc_attrvals.core.fallback_decoding import convert_page

        return convert_page(body)


def decode_bare_page(body: bytes) -> BarePage:
    """Read the answer of a GET for readers that do not need all of each row.

    A field that can't be read does not fail its row; see `BareRow`. Raises `DecodeError` for an
    answer that is not a page.
    """
    try:
        page = _decode_page(body)
    except REFUSALS:
        from bc_attrvals.core.fallback_decoding import convert_bare_page

        return convert_bare_page(body)
    return BarePage([*page.data], page.pagination)


def _decode_page(body: bytes) -> Page:
    envelope = _PAGE_DECODER.decode(body)
    return page_of(_checked(envelope.data, body), envelope.meta.pagination)


def decode_rows(body: bytes) -> list[AttributeValue]:
    """Read the answer of a PUT. Raises `DecodeError` with the place of the first fault."""
    try:
        return _checked(_ROWS_DECODER.decode(body).data, body)
    except REFUSALS:
        from bc_attrvals.core.fallback_decoding import convert_rows

        return convert_rows(body)


def decode_echoes(body: bytes) -> Sequence[Echo | AttributeValue]:
    """Read only the fields of a PUT's answer that confirm values, in a third of the time.

    Dates that are missing or can't be read do not matter. Otherwise raises as `decode_rows`.
    """
    try:
        return _ECHOES_DECODER.decode(body).data
    except REFUSALS:
        return decode_rows(body)


def decode_proofs(body: bytes) -> list[AttributeValue]:
    """Read the rows of a PUT's answer whose id, key and value can be read; leave out the others.

    For answers that `decode_rows` refuses. Dates that can't be read are None. Raises `DecodeError`
    for an answer without an array of rows.
    """
    from bc_attrvals.core.fallback_decoding import convert_proofs

    return convert_proofs(body)


def _checked(rows: list[AttributeValue], body: bytes) -> list[AttributeValue]:
    """Return the rows if UTC can express all their dates; raise `OverflowError` otherwise.

    UTC can't express some moments of the calendar's first day east of it, and of its last day west.
    """
    is_near_an_end = (b"+" in body and b"0001-01-01" in body) or b"9999-12-31" in body
    # The digits may be JSON escapes.
    if is_near_an_end or b"\\" in body:
        for row in rows:
            _ = row.date_created, row.date_modified
    return rows


_BY_STATUS: Final[dict[int, type[APIError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: PayloadTooLargeError,
    422: UnprocessableError,
    429: RateLimitError,
}

# Observed as "The store is suspended ..." (503); a retry can't help.
_SUSPENDED: Final = "the store is suspended"
_MOST_TITLE_CHARACTERS: Final = 200
_MOST_ERRORS: Final = 50
#: Members with the text of a refusal; `error` or `detail` may also be an object or list of these.
_WORDS: Final = ("title", "detail", "message", "error_description", "msg")


def error_from_answer(
    status: int, body: bytes, *, request_id: str | None, method: str, path: str
) -> APIError:
    """Return the typed error for an answer that is not a 2xx.

    The body may be JSON, problem+json, text, HTML, cut off or empty; the status is always kept.
    """
    title, errors = _read_error_body(body)
    if 300 <= status < 400:
        title = title or "redirect, which is not followed: the access token must not travel"
    title = title or ("(no title)" if errors else "(no readable error body)")
    cls = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    if status == 503 and title.lower().startswith(_SUSPENDED):
        cls = StoreSuspendedError
    return cls(status, title, errors, request_id, method, path)


def _read_error_body(body: bytes) -> tuple[str, dict[str, str]]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _line(_plain_text(body)), {}
    raw_errors = document.get("errors") if isinstance(document, dict) else None
    if isinstance(raw_errors, list):
        # This key is not one that `indexes_named` takes for an item.
        raw_errors = {f"errors[{index}]": text for index, text in enumerate(raw_errors)}
    errors: dict[str, str] = {}
    if isinstance(raw_errors, dict):
        for key, text in raw_errors.items():
            if len(errors) == _MOST_ERRORS:
                break
            errors[_line(key)] = _line(text)
    return _line(_reason(document)), errors


def _reason(document: object) -> str:
    """Return the text of a refusal by the service or by a proxy; a list is joined."""
    while not isinstance(document, str):
        if isinstance(document, list):
            if all(isinstance(text, str) for text in document):
                return "; ".join(document)
            # The form of version 2 of the service's API.
            document = document[0] if document else None
        elif isinstance(document, dict):
            words = [text for name in _WORDS if isinstance(text := document.get(name), str)]
            deeper = document.get("error") or document.get("detail")
            document = next((text for text in words if text.strip()), deeper)
        else:
            return ""
    return document


def _plain_text(body: bytes) -> str:
    """Return the first line of a text; "" for HTML, JSON that was cut off, or echoed headers."""
    text = body.decode(errors="replace").strip()
    line = text.partition("\n")[0]
    return "" if text[:1] in {"<", "{", "["} or "x-auth-token" in line.lower() else line


def _line(text: object) -> str:
    """Return one printable line: error texts come from outside, and are logged."""
    line = text if isinstance(text, str) else msgspec.json.encode(text).decode()
    clean = "".join(c if c.isprintable() else " " for c in line[:_MOST_TITLE_CHARACTERS])
    return clean.strip()


_INDEX_OF_KEY: Final = re.compile(r"(\d{1,3})(?:\.|\Z)", re.ASCII)


def indexes_named(errors: Mapping[str, str], count: int) -> list[int]:
    """Return the items (from 0) of a call of `count` that the keys `"<index>.<field>"` name.

    Keys without an index, such as `".customer_create"`, and indexes out of range name none.
    """
    matches = (_INDEX_OF_KEY.match(key) for key in errors)
    found = {int(match[1]) for match in matches if match}
    return sorted(index for index in found if index < count)
