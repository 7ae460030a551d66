"""The table of the control routes: each explained, and its example is a body it takes."""

from __future__ import annotations

import msgspec

from bc_attrvals.sandbox import Sandbox
from bc_attrvals.sandbox.control_handlers import Handlers
from bc_attrvals.sandbox.control_input import read_body
from bc_attrvals.sandbox.control_routes import routes_of


def test_every_route_is_explained_and_stands_once() -> None:
    routes = routes_of(Handlers(Sandbox()))
    assert len({(route.method, route.path) for route in routes}) == len(routes)
    for route in routes:
        assert route.says[0].isupper()
        assert (route.method == "GET") <= (route.body is None)


def test_every_example_is_a_body_of_its_route() -> None:
    typed = [route for route in routes_of(Handlers(Sandbox())) if route.body is not None]
    assert len(typed) > 10
    for route in typed:
        decoded = read_body(msgspec.json.encode(route.example), route.body)
        assert msgspec.to_builtins(decoded)
