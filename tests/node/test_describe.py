"""The document that describes the API: it is valid, and says what there is, no more and no less."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from gx.core import errors
from gx.node import problem, wire
from gx.node.api import Api
from tests.node.served import Served, recipe


@pytest.fixture(scope="module")
def document(shared: Served) -> dict[str, Any]:
    return shared.client.ask("GET", "/v1/openapi.json")


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert document["openapi"].startswith("3.1")


def test_it_lists_what_is_served_and_nothing_else(shared: Served, document: dict[str, Any]) -> None:
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    routes = [route for route in _starlette(shared.api).routes if isinstance(route, Route)]
    served = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert told == served
    assert len(told) == len(shared.api.endpoints)


def _starlette(api: Api) -> Starlette:
    """The application under what counts its requests."""
    cells = (cell.cell_contents for cell in api.app.__closure__ or ())
    return next(cell for cell in cells if isinstance(cell, Starlette))


def test_every_part_is_used_and_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


def test_whatever_is_refused_is_a_problem(served: Served) -> None:
    for answer in (
        served.post("/v1/runs", {}),
        served.http.post("/v1/runs", content=b"{"),
        served.http.post("/v1/runs", content=b"\xff\xfe"),
        served.http.post("/v1/query", content=b"[]"),
        served.post("/v1/query", {"sql": "SELECT"}),
        served.http.get("/v1/runs/none/watch"),
        served.http.get("/v1/runs/none/end"),
        served.post("/v1/runs/none/pause"),
        served.http.get("/v1/nowhere"),
        served.http.get("/"),
        served.http.delete("/v1/node"),
    ):
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/json", answer.url
        found = problem.decode(answer.content, problem.Problem)
        assert issubclass(getattr(errors, found.kind), errors.GxError)


def test_answers_are_what_the_document_says(served: Served, document: dict[str, Any]) -> None:
    import jsonschema

    def check(answer: httpx.Response, path: str, method: str) -> None:
        told = document["paths"][path][method]["responses"][str(answer.status_code)]["content"]
        ((kind, content),) = told.items()
        assert answer.headers["content-type"] == kind
        schema = content["schema"] | {"components": document["components"]}
        for line in answer.content.splitlines():
            jsonschema.validate(json.loads(line), schema)

    asked = msgspec.to_builtins(served.asked(recipe("described"), rows=2), enc_hook=str)
    started = served.post("/v1/runs", asked)
    check(started, "/v1/runs", "post")
    run = started.json()["run"]
    watched = served.http.get(f"/v1/runs/{run}/watch")
    assert problem.decode(watched.content.splitlines()[-1], wire.Frame).end is not None
    check(watched, "/v1/runs/{run}/watch", "get")
    for path in ("/v1/runs/{run}/end", "/v1/runs/{run}/asked", "/v1/stories/{run}"):
        check(served.http.get(path.format(run=run)), path.replace("stories/{run}", "stories/{subject}"), "get")
    for path in ("/v1/node", "/v1/log/verification", "/v1/openapi.json", "/v1/events"):
        check(served.http.get(path), path, "get")
    check(served.post("/v1/query", {"sql": "SELECT 1 AS one, [1] AS more"}), "/v1/query", "post")
    check(served.post("/v1/query", {"sql": "DROP TABLE events"}), "/v1/query", "post")
    check(served.post(f"/v1/runs/{run}/pause"), "/v1/runs/{run}/pause", "post")
