"""Health, metadata, configuration and statistics, as tritonclient asks for them."""

from typing import Any

import numpy as np

from tests.contract.conftest import INVALID, UNKNOWN, Client


def told(answer: Any, client: Client) -> Any:
    """The answer as plain data: gRPC writes int64 as text and leaves out what is empty."""
    return _numbers(answer) if not client.is_http else answer


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else value


def as_data(client: Client) -> dict[str, bool]:
    return {} if client.is_http else {"as_json": True}


def named(listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in listed}


def config_of(client: Client, **more: Any) -> Any:
    found = told(client.connection.get_model_config(client.server.model, **more, **as_data(client)), client)
    return found if client.is_http else found["config"]


def test_the_server_is_live_and_ready(client: Client) -> None:
    assert client.connection.is_server_live() is True and client.connection.is_server_ready() is True


def test_the_server_says_what_it_can(client: Client) -> None:
    found = client.connection.get_server_metadata(**as_data(client))
    assert found["name"] and found["version"]
    assert {"sequence", "binary_tensor_data", "model_configuration", "statistics"} <= set(found["extensions"])


def test_the_model_is_ready_under_its_name_and_version_only(client: Client) -> None:
    ready, model = client.connection.is_model_ready, client.server.model
    assert ready(model) is True and ready(model, client.server.version) is True
    assert ready("nobody") is False and ready(model, "9") is False


def test_metadata_names_every_tensor_with_its_batch_axis(client: Client) -> None:
    raw = client.connection.get_model_metadata(client.server.model, **as_data(client))
    assert raw["name"] == client.server.model and client.server.version in raw["versions"] and raw["platform"]
    found = told(raw, client)
    frame, logits = named(found["inputs"])["frame"], named(found["outputs"])["logits"]
    assert (frame["datatype"], frame["shape"]) == ("UINT8", [-1, 16, 16, 3])
    assert (logits["datatype"], logits["shape"]) == ("FP32", [-1, 3])


def test_metadata_of_a_version_is_that_of_the_model(client: Client) -> None:
    model, ask = client.server.model, client.connection.get_model_metadata
    one = ask(model, client.server.version, **as_data(client))
    assert named(one["inputs"])["frame"] == named(ask(model, **as_data(client))["inputs"])["frame"]


def test_the_config_allows_sixteen_frames_and_keeps_sequences(client: Client) -> None:
    found = config_of(client)
    assert (found["name"], found["max_batch_size"]) == (client.server.model, 16)
    frame, logits = named(found["input"])["frame"], named(found["output"])["logits"]
    assert (frame["data_type"], frame["dims"]) == ("TYPE_UINT8", [16, 16, 3])
    assert (logits["data_type"], logits["dims"]) == ("TYPE_FP32", [3])
    assert found["sequence_batching"]["max_sequence_idle_microseconds"] > 0
    assert config_of(client, model_version=client.server.version) == found


def test_statistics_count_what_was_answered_and_what_was_not(client: Client, sequence_id: int) -> None:
    def counted() -> tuple[int, int, int]:
        asked = client.connection.get_inference_statistics(client.server.model, **as_data(client))
        (one,) = (one for one in asked["model_stats"] if one["version"] == client.server.version)
        of = {name: int(one["inference_stats"].get(name, {}).get("count", 0)) for name in ("success", "fail")}
        return int(one.get("inference_count", 0)), of["success"], of["fail"]

    before = counted()
    client.whole(np.zeros((3, 16, 16, 3), np.uint8), sequence_id)
    after = counted()
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 3, 0]


def test_statistics_of_all_models_have_ours(client: Client) -> None:
    found = client.connection.get_inference_statistics(**as_data(client))["model_stats"]
    assert (client.server.model, client.server.version) in {(one["name"], one["version"]) for one in found}


def test_an_unknown_model_has_neither_metadata_nor_config(client: Client) -> None:
    for ask in (client.connection.get_model_metadata, client.connection.get_model_config):
        with client.refused(UNKNOWN, "unknown model: 'nobody'"):
            ask("nobody")


def test_an_unknown_version_has_neither_metadata_nor_config(client: Client) -> None:
    for ask in (client.connection.get_model_metadata, client.connection.get_model_config):
        with client.refused(UNKNOWN, "unknown model: 'framegate' version 9"):
            ask(client.server.model, "9")


def test_an_unknown_model_or_version_has_no_statistics(client: Client) -> None:
    with client.refused(INVALID, "requested model 'nobody' is not available"):
        client.connection.get_inference_statistics("nobody")
    with client.refused(INVALID, "requested model version is not available for model 'framegate'"):
        client.connection.get_inference_statistics(client.server.model, "9")
