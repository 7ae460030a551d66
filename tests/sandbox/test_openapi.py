"""The lists of the control routes, for people and for tools."""

from __future__ import annotations

from tests.sandbox.api import Control, running


async def test_the_list_of_routes_has_examples_that_work() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        listed = (await ask("GET", "/sandbox")).json["routes"]
        for route in listed:
            method, path = route["route"].split()
            number = sandbox.faults.add("500,operation=other")
            query = "?id=1" if method == "DELETE" and "id" in route.get("query", {}) else ""
            path = path.replace("{number}", str(number)) + query
            body = route.get("body")
            assert (await ask(method, path, body)).status == 200, route
            assert route["says"]
        assert len(listed) > 25


async def test_the_openapi_description_has_every_route_and_body() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        listed = (await ask("GET", "/sandbox")).json["routes"]
        described = (await ask("GET", "/sandbox/openapi.json")).json
        assert (await ask("POST", "/sandbox/openapi.json")).status == 405
    routes = [
        f"{method.upper()} {path}" for path, found in described["paths"].items() for method in found
    ]
    assert sorted(routes) == sorted(route["route"] for route in listed)
    body = described["paths"]["/sandbox/rows"]["post"]["requestBody"]["content"]
    reference = body["application/json"]["schema"]["$ref"]
    assert reference.removeprefix("#/components/schemas/") in described["components"]["schemas"]


async def test_the_description_names_each_status_and_what_a_deletion_needs() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        paths = (await ask("GET", "/sandbox/openapi.json")).json["paths"]
        assert (await ask("DELETE", "/sandbox/faults/9")).status == 404
        assert (await ask("DELETE", "/sandbox/rows")).status == 400
    assert "404" in paths["/sandbox/faults/{number}"]["delete"]["responses"]
    assert "404" not in paths["/sandbox/faults"]["delete"]["responses"]
    assert paths["/sandbox/rows"]["delete"]["parameters"][0]["required"]
    assert not any(one["required"] for one in paths["/sandbox/rows"]["get"]["parameters"])
