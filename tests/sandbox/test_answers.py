"""The bodies of errors."""

from __future__ import annotations

import json

from bc_attrvals.sandbox.answers import RefusalError, error_answer, html_answer


def test_an_error_has_the_services_four_fields() -> None:
    answer = error_answer(404)
    content = json.loads(answer.body)
    assert content.pop("type").startswith("https://developer.bigcommerce.com/")
    assert content == {"status": 404, "title": "Not Found", "errors": {}}


def test_a_refusal_keeps_its_errors() -> None:
    answer = RefusalError(422, "Refused.", {"0.data": "missing"}).answer
    content = json.loads(answer.body)
    assert (answer.status, content["title"]) == (422, "Refused.")
    assert content["errors"] == {"0.data": "missing"}


def test_a_proxy_answers_html() -> None:
    answer = html_answer(502, (("Retry-After", "3"),))
    assert answer.content_type.startswith("text/html")
    assert b"502 Bad Gateway" in answer.body
    assert answer.headers == (("Retry-After", "3"),)
