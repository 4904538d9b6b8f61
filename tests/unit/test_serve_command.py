"""`framegate serve` refuses options that nothing could be done with, before anything is opened."""

from pathlib import Path

import pytest

from framegate.cli import main
from framegate.serve import workers
from framegate.serve.limits import Limits


@pytest.fixture(autouse=True)
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The settings that a server would have been started with."""
    found: list[object] = []
    monkeypatch.setattr(workers, "supervise", lambda settings, stopped: found.append(settings))
    return found


def refused(*words: str) -> str:
    """The one line that the command ends with; its exit code is 1."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", *words])
    assert isinstance(caught.value.code, str) and "\n" not in caught.value.code
    return caught.value.code


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--port", "70000"], "--port is 70000; expected 0 to 65535"),
        (["--port", "-1"], "--port is -1; expected 0 to 65535"),
        (["--grpc-port", "70000"], "--grpc-port is 70000; expected 0 to 65535, or -1 for no gRPC"),
        (["--grpc-port", "-2"], "--grpc-port is -2; expected 0 to 65535, or -1 for no gRPC"),
        (["--name", "a/b"], "--name 'a/b': use 1 to 64 letters, digits, '.', '_' or '-'"),
        (["--name", ""], "--name '': use 1 to 64 letters, digits, '.', '_' or '-'"),
        (["--name", ".."], "--name '..': use 1 to 64 letters, digits, '.', '_' or '-', and not dots alone"),
        (["--name", "stats"], "--name stats: /v2/models/stats is the statistics of all models; choose another"),
        (["--new-key", ""], "key name '': use 1 to 64 letters, digits, '.', '_' or '-'"),
    ],
)
def test_a_wrong_option_is_refused_in_a_line(words: list[str], text: str, supervised: list[object]) -> None:
    assert refused(*words).startswith(f"error: {text}")
    assert supervised == []


def test_a_file_of_ports_that_cannot_be_written_is_refused(tmp_path: Path, supervised: list[object]) -> None:
    assert f"--ports-file {tmp_path}: a folder; name a file in it" in refused("--ports-file", str(tmp_path))
    file = tmp_path / "none" / "ports.json"
    assert f"there is no folder {file.parent}" in refused("--ports-file", str(file))
    assert supervised == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refused("--port", "-1", "--grpc-port", "-2", "--name", "")
    assert told.count("expected") == 2 and "--name" in told


@pytest.mark.parametrize(("given", "port"), [("-1", None), ("0", 0), ("65535", 65535)])
def test_what_can_be_is_taken(tmp_path: Path, given: str, port: int | None, supervised: list[object]) -> None:
    main(["serve", "--grpc-port", given, "--name", "net-1.0_b", "--ports-file", str(tmp_path / "ports.json")])
    (settings,) = supervised
    assert (settings.grpc_port, settings.name) == (port, "net-1.0_b")  # type: ignore[attr-defined]


def test_the_help_says_whole_numbers_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    assert f"default: {Limits().max_pixels}" in told and "e+" not in told
