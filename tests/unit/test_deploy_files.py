"""Dockerfile, manifests and docs/deploy.md name what exists. No container engine is needed: they are read, not run."""

import argparse
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from framegate.cli import Parser, serve
from framegate.serve.guard import OPEN
from framegate.serve.keys import parse as parse_keys
from framegate.serve.metrics import Metrics
from framegate.serve.predict import ADMITTED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text("utf-8")
IMAGE = "framegate:0.1.0"
ENGINES_OWN = {"--read-only", "--health-cmd"}  # options of docker and kubectl that the page's prose may name


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="framegate serve", allow_abbrev=False)
    serve.arguments(made)
    return made


def parsed(words: list[str]) -> argparse.Namespace:
    """As the command parses them; a wrong one ends the test."""
    return parser().parse_args(words)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, the rest), lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def last(instruction: str) -> str:
    """Of the stage that ships."""
    return [rest for name, rest in dockerfile() if name == instruction][-1]


def entry() -> list[str]:
    """The arguments of `framegate serve` that the image brings itself."""
    words = json.loads(last("ENTRYPOINT"))
    assert words[:2] == ["framegate", "serve"]
    return words[2:]


def manifests() -> dict[str, dict]:
    found = [one for block in blocks("yaml") for one in yaml.safe_load_all(block)]
    return {one["kind"]: one for one in found if "kind" in one}


def container() -> dict:
    return manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


# --- the image ------------------------------------------------------------------------------------


def test_the_dockerfile_has_known_instructions_and_two_stages() -> None:
    names = [name for name, _ in dockerfile()]
    known = {
        "FROM",
        "ENV",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert set(names) <= known
    assert names.count("FROM") == 2 and names[0] == "FROM"


def test_the_image_is_not_root_and_ends_as_the_server_does() -> None:
    user, group = last("USER").split(":")
    assert int(user) > 0 and int(group) > 0
    assert f"useradd --uid {user} --gid {group}" in last("RUN")
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_images_command_is_understood_and_needs_keys() -> None:
    found = parsed(entry() + json.loads(last("CMD")))
    assert (found.host, str(found.keys), str(found.bundle)) == ("0.0.0.0", "/keys/keys", "/models/shipped")
    assert last("EXPOSE").split() == [str(found.port), str(found.grpc_port)]
    assert not found.insecure


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for _, rest in (one for one in dockerfile() if one[0] == "COPY" and "--from" not in one[1]):
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            last_word = [rule for rule in ignored if fnmatch(source, rule.lstrip("!"))][-1]
            assert last_word.startswith("!"), f"{source} is ignored by {last_word}"


def test_the_image_gets_no_data_models_or_keys() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line for line in ignored if line.startswith("!")} == {
        "!pyproject.toml",
        "!constraints.txt",
        "!README.md",
        "!src",
    }


def test_the_image_installs_extras_that_exist_pinned() -> None:
    command = next(rest for name, rest in dockerfile() if name == "RUN" and "pip install" in rest)
    extras = re.search(r'"\.\[([\w,]+)\]"', command)
    assert extras and "-c constraints.txt" in command
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known) - {"train", "dev"}
    pinned = {re.split(r"[=; ]", line)[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for extra in extras[1].split(","):
        for wanted in known[extra]:
            assert re.split(r"[^a-z0-9-]", wanted)[0] in pinned, wanted


@pytest.fixture
def health() -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """A port, and a list whose one entry says what it answers and hears."""
    answers: list[tuple[int, str]] = [(200, "")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[0] = (answers[0][0], self.path)
            self.send_response(answers[0][0])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port, answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (401, False)])
def test_the_health_check_says_whether_it_is_ready(
    health: tuple[int, list[tuple[int, str]]], status: int, healthy: bool
) -> None:
    port, answers = health
    answers[0] = (status, "")
    assert (checked(port) == 0) is healthy
    assert answers[0][1] == "/v2/health/ready"


def test_the_health_check_fails_where_nothing_listens() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    assert checked(port) != 0


def checked(port: int) -> int:
    """Exit code of the image's health check, asked on another port."""
    command = json.loads(last("HEALTHCHECK").split(" CMD ")[1])
    assert command[:2] == ["python", "-c"] and str(parsed([]).port) in command[2]
    code = command[2].replace(str(parsed([]).port), str(port))
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


# --- the page -------------------------------------------------------------------------------------


def command_lines() -> list[list[str]]:
    """The arguments of every `framegate serve`, and of every container of ours, on the page."""
    found = []
    for block in blocks("bash") + blocks("ini"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = shlex.split(line, comments=True)
            ends = next((n for n, word in enumerate(words) if word in (">", ">>", "|", "&&", ";")), len(words))
            words = words[:ends]
            for n, word in enumerate(words[1:], 1):
                if word == "serve" and words[n - 1].endswith("framegate"):
                    found.append(words[n + 1 :])
            if words[:2] == ["docker", "run"]:
                found.append(entry() + words[words.index(IMAGE) + 1 :])
    return [*found, entry() + container()["args"]]


def test_the_page_shows_command_lines() -> None:
    assert len(command_lines()) >= 5


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_command_line_of_the_page_is_understood(words: list[str]) -> None:
    found = parsed(words)
    assert found.host == "127.0.0.1" or found.keys, "the server would refuse it"


def test_the_image_is_built_by_the_name_that_runs() -> None:
    assert f"docker build -t {IMAGE} ." in PAGE
    assert container()["image"] == IMAGE


def test_uploads_fit_into_the_tmpdir_of_the_examples() -> None:
    docker = next(words for words in command_lines() if "--workers" in words)
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    sizes = [
        (docker, re.search(r"size=(\d+)g", PAGE)),
        (entry() + container()["args"], re.search(r"(\d+)Gi", pod["volumes"][-1]["emptyDir"]["sizeLimit"])),
    ]
    for words, size in sizes:
        found = parsed(words)
        assert size and ADMITTED * found.max_uploads * found.max_upload_mb * found.workers <= 1024 * (
            int(size[1]) - 0.5
        )


def test_every_option_in_the_pages_prose_exists() -> None:
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    named = set(re.findall(r"`(--[a-z-]+)", prose))
    known = {option for action in parser()._actions for option in action.option_strings}
    assert len(named) > 8
    assert named <= known | ENGINES_OWN


def test_yaml_blocks_are_what_they_say() -> None:
    assert set(manifests()) == {"Secret", "Deployment", "Service"}
    for block in blocks("yaml"):
        assert all(isinstance(one, dict) for one in yaml.safe_load_all(block))


def test_the_pod_is_the_images_user_and_cannot_write_but_to_tmp() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == int(last("USER").split(":")[0])
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {"/tmp"}
    assert all(mount["name"] in volumes for mount in mounts.values())
    assert f"TMPDIR={'/tmp'}" in last("ENV")


def test_the_pods_keys_come_from_the_secret() -> None:
    secret, found = manifests()["Secret"], parsed(entry() + container()["args"])
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    volume = next(one for one in pod["volumes"] if one["name"] == "keys")["secret"]
    assert volume["secretName"] == secret["metadata"]["name"]
    assert volume["defaultMode"] & 0o007 == 0
    assert str(found.keys).removeprefix("/keys/") in secret["stringData"]
    assert parse_keys(secret["stringData"]["keys"], "secret")


def test_probes_and_service_name_ports_and_paths_that_are_there() -> None:
    found = parsed(entry() + container()["args"])
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": found.port, "grpc": found.grpc_port}
    probes = {name: probe["httpGet"] for name, probe in container().items() if name.endswith("Probe")}
    assert (
        probes["readinessProbe"]["path"] == "/v2/health/ready" and probes["livenessProbe"]["path"] == "/v2/health/live"
    )
    assert all(probe["path"] in OPEN and probe["port"] in ports for probe in probes.values()), "open without a key"
    service = manifests()["Service"]["spec"]
    assert {port["targetPort"] for port in service["ports"]} == set(ports)
    assert service["selector"] == manifests()["Deployment"]["spec"]["template"]["metadata"]["labels"]


def test_whoever_stops_it_waits_longer_than_the_end_takes() -> None:
    found = parsed(entry() + container()["args"])
    end_s = found.lag_s + 2 * found.drain_s + 5
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    waits = [pod["terminationGracePeriodSeconds"]]
    waits += [
        int(given)
        for given in re.findall(r"TimeoutStopSec=(\d+)|--stop-timeout (\d+)", PAGE)
        for given in given
        if given
    ]
    assert len(waits) == 3 and min(waits) > end_s


def test_every_metric_of_the_page_exists() -> None:
    exposed = set(re.findall(r"^# TYPE (\w+)", Metrics().text().decode(), re.M))
    named = set(re.findall(r"\bframegate_[a-z_]+", PAGE))
    assert len(named) > 5
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= exposed


def test_every_alert_has_a_name_and_a_rule() -> None:
    groups = next(one for block in blocks("yaml") for one in yaml.safe_load_all(block) if "groups" in one)
    rules = [rule for group in groups["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert rule["expr"].count("(") == rule["expr"].count(")") and re.fullmatch(r"\d+[smh]", rule["for"])
