"""Builds the service's answers; quota and request id headers are added when they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

STATUS_CODES_URL: Final = (
    "https://developer.bigcommerce.com/api-docs/getting-started/api-status-codes"
)
JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"
HTML_TYPE: Final = "text/html; charset=UTF-8"


class Answer(msgspec.Struct, frozen=True):
    """One answer: status, body and the headers that only this answer has.

    `shows_quota` is False where the service omits the `X-Rate-Limit` headers.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    shows_quota: bool = True
    headers: tuple[tuple[str, str], ...] = ()


class RefusalError(Exception):
    """Ends a request with an ErrorResponse; raised by the parsers, answered by `resources`."""

    def __init__(self, status: int, title: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(status, title)
        self.answer = error_answer(status, title, errors)


def error_answer(
    status: int,
    title: str | None = None,
    errors: Mapping[str, str] | None = None,
    *,
    shows_quota: bool = True,
    content_type: str = JSON_TYPE,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Return an answer with the service's ErrorResponse as its body."""
    body = msgspec.json.encode(
        {
            "status": status,
            "title": HTTPStatus(status).phrase if title is None else title,
            "type": STATUS_CODES_URL,
            "errors": dict(errors or {}),
        }
    )
    return Answer(status, body, content_type, shows_quota, headers)


def html_answer(status: int, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return the answer of a proxy in front of the service."""
    phrase = HTTPStatus(status).phrase
    body = (
        f"<html>\r\n<head><title>{status} {phrase}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {phrase}</h1></center>\r\n<hr><center>nginx</center>\r\n"
        "</body>\r\n</html>\r\n"
    )
    return Answer(status, body.encode(), HTML_TYPE, headers=headers)
