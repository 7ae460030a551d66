"""Describes the control routes: a short list for people, and OpenAPI for tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from bc_attrvals.sandbox.control_handlers import PREFIX, Route

PATH: Final = "/openapi.json"
_NUMBER: Final = "{number}"


def listed(routes: Iterable[Route]) -> dict[str, object]:
    """Return each route with what it does, its query and an example of its body."""
    return {
        "page": "GET /",
        "openapi": f"GET {PREFIX}{PATH}",
        "routes": [
            {
                "route": f"{route.method} {PREFIX}{route.path}",
                "says": route.says,
                **({"query": says} if (says := _says(route)) else {}),
                **({} if route.body is None else {"body": route.example}),
            }
            for route in routes
        ],
        "errors": {"error": {"field": "rows[0].value", "message": "what is wrong"}},
    }


def described(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the routes."""
    table = tuple(routes)
    typed = [route for route in table if route.body is not None]
    schemas, components = msgspec.json.schema_components(
        [route.body for route in typed], ref_template="#/components/schemas/{name}"
    )
    bodies = dict(zip(map(id, typed), schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for route in table:
        responses = {
            "200": {"description": "Done", **_json({"type": "object"})},
            "400": {"description": "Bad input", **_json(_ERROR)},
        }
        if _NUMBER in route.path:
            responses["404"] = {"description": "No such number", **_json(_ERROR)}
        described_route: dict[str, object] = {
            "summary": route.says,
            "parameters": _parameters(route),
            "responses": responses,
        }
        if route.body is not None:
            described_route["requestBody"] = _json(bodies[id(route)], route.example)
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = described_route
    return {
        "openapi": "3.1.0",
        "info": {"title": "bc_attrvals sandbox: control routes", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            "required": ["field", "message"],
        }
    },
    "required": ["error"],
}


def _json(schema: object, example: object = None) -> dict[str, object]:
    content = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"content": {"application/json": content}}


def _says(route: Route) -> dict[str, str]:
    """Return what each parameter of the query takes."""
    return {
        name: schema["description"]
        for name, schema in _schema(route).get("properties", {}).items()
        if name != "number"
    }


def _schema(route: Route) -> dict[str, Any]:
    return next(iter(msgspec.json.schema(route.query)["$defs"].values()))


def _parameters(route: Route) -> list[dict[str, object]]:
    schema = _schema(route)
    return [
        {
            "name": name,
            "in": "path" if f"{{{name}}}" in route.path else "query",
            "description": of_one["description"],
            # As text: ids have commas between.
            "schema": {"type": "integer" if name == "number" else "string"},
            "required": name in schema.get("required", ()),
        }
        for name, of_one in schema.get("properties", {}).items()
    ]
