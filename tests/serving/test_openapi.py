"""The OpenAPI page against the server: what is generated from it is answered as it says, never by an unforeseen error."""

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.running import Server

OPERATIONS = {
    "POST /v1/predict", "GET /metrics", "GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/stats",
    "POST /v2/repository/index", "POST /v2/models/{model}/infer", "GET /v2/models/{model}",
    "GET /v2/models/{model}/ready", "GET /v2/models/{model}/config", "GET /v2/models/{model}/stats",
    "POST /v2/models/{model}/versions/{version}/infer", "GET /v2/models/{model}/versions/{version}",
    "GET /v2/models/{model}/versions/{version}/ready", "GET /v2/models/{model}/versions/{version}/config",
    "GET /v2/models/{model}/versions/{version}/stats",
}  # fmt: skip


# A schema cannot say that a shape and its data fit, that a file is a video, or that a header is not looked at.
UNSAYABLE = [positive_data_acceptance, negative_data_rejection]
KNOWN: dict[str, Callable[[Server], str]] = {
    "model": lambda server: "framegate",
    "version": lambda server: server.version,
}


@pytest.fixture(scope="module")
def schema(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_route_stands_in_it(schema: Any) -> None:
    found = {operation.ok().label for operation in schema.get_all_operations()}
    assert found >= OPERATIONS, OPERATIONS - found
    assert all("summary" in entry or "description" in entry for entry in _entries(schema)), "each says what it is"


def test_head_is_answered_wherever_get_is(server: Server) -> None:
    names = {"{model}": "framegate", "{version}": server.version}
    paths = [label.removeprefix("GET ") for label in OPERATIONS if label.startswith("GET ")]
    for path in [*paths, "/", "/page.css", "/page.js", "/openapi.json"]:
        for name, value in names.items():
            path = path.replace(name, value)
        got, head = server.get(path), server.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert server.ask("HEAD", "/v2/models/nobody").status_code == 404
    assert server.ask("HEAD", "/v1/predict").status_code == 405


def test_nothing_is_answered_by_a_list_of_details(schema: Any) -> None:
    assert [entry for entry in _entries(schema) if "422" in entry["responses"]] == []
    predict = schema.raw_schema["paths"]["/v1/predict"]["post"]
    assert [one["name"] for one in predict["parameters"]] == ["top"]


def test_the_page_says_how_a_file_is_sent_and_answered(schema: Any) -> None:
    predict = schema.raw_schema["paths"]["/v1/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/octet-stream"}
    answer = predict["responses"]["200"]
    assert set(answer["content"]) == {"application/json", "application/x-ndjson"}
    assert answer["content"]["application/json"]["schema"]["items"]["$ref"].endswith("/SpanOfTime")
    assert set(answer["headers"]) == {"Framegate-Version"}
    assert set(predict["responses"]) == {"200", "400", "401", "403", "413", "415", "421", "503"}


def test_every_route_may_refuse_whom_it_does_not_know(schema: Any) -> None:
    assert all({"401", "403", "421"} <= set(entry["responses"]) for entry in _entries(schema))


def _entries(schema: Any) -> list[dict[str, Any]]:
    paths = schema.raw_schema["paths"].values()
    return [entry for path in paths for method, entry in path.items() if method in ("get", "post")]


@pytest.mark.slow
@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_what_is_generated_from_it_is_answered_as_it_says(schema: Any, server: Server, label: str) -> None:
    method, path = label.split()
    operation = schema[path][method]

    cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @hypothesis.settings(
        max_examples=25, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    @hypothesis.given(case=cases, known=st.booleans())
    def run(case: Any, known: bool) -> None:
        if known:  # else nearly every name would be one of no model
            case.path_parameters.update({key: KNOWN[key](server) for key in case.path_parameters})
        case.call_and_validate(excluded_checks=UNSAYABLE)

    run()
    assert "Traceback" not in server.text
