"""cameras.yaml and sources: what they mean, and everything that can be wrong with them."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract import ConfigError
from framegate.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from framegate.watch.address import mask, parse_address
from framegate.watch.cameras import Camera, check_labels, find_cameras
from framegate.watch.output import NOT_POSTED

DOCS = Path(__file__).parents[2] / "docs/watch.md"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "cameras.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def refused(sources: list[str], **keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        find_cameras(sources, keys)
    return str(caught.value)


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "live"),
    [
        ("rtsp://10.0.0.7/stream1", "network", True),
        ("RTSPS://me:pw@cam.local:322/s", "network", True),
        ("https://cam/video", "network", True),
        ("device:2", "device", True),
        ("/dev/video0", "device", True),
        ("films/a.mp4", "file", False),
        ("C:/films/a.mp4", "file", False),
    ],
)
def test_a_source_is_a_file_a_device_or_a_stream(text: str, kind: str, live: bool) -> None:
    address = parse_address(text)
    assert (address.kind, address.live) == (kind, live)


def test_a_device_is_named_by_its_number() -> None:
    assert parse_address("device:2").target == "/dev/video2"


@pytest.mark.parametrize(
    "text", ["rtps://cam/x", "file:///etc/passwd", "concat://a|b", "ftp://h/x", "tcp://h:1", "udp://h:1"]
)
def test_no_other_scheme_is_opened(text: str) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        parse_address(text)


@pytest.mark.parametrize("text", ["rtsp://", "rtsp:///path", "http://me:pw@/x", "http://host:notaport/x", ""])
def test_a_source_without_a_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("port", ["99999", "notaport", "-1"])
def test_a_port_that_there_is_not_is_named_as_such(port: str) -> None:
    with pytest.raises(ConfigError, match="the port is wrong"):
        parse_address(f"rtsp://me:pw@host:{port}/x")


@given(
    password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12).map(
        lambda s: f"PW{s}PW"
    ),
    query=st.sampled_from(["", "?token=SECRET", "?a@b=SECRET"]),
)
def test_a_mask_hides_user_password_and_query(password: str, query: str) -> None:
    shown = mask(f"rtsp://user:{password}@10.0.0.7:554/live{query}")
    assert "user" not in shown and "SECRET" not in shown
    assert "PW" not in shown
    if not query and "?" not in password and not ("/" in password and "=" in password):
        assert shown == "rtsp://***@10.0.0.7:554/live"


def test_a_mask_leaves_alone_what_holds_no_secret() -> None:
    assert mask("rtsp://10.0.0.7/live") == "rtsp://10.0.0.7/live" and mask("a.mp4") == "a.mp4"


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("rtsp://h:554/user=admin&password=SECRET&channel=1", "rtsp://h:554/***", "h:554"),
        ("rtsp://me:SECRET@h/live;key%3DSECRET?a=b", "rtsp://***@h/***?***", "h"),
        ("http://h#token=SECRET", "http://h/***", "h"),
        ("rtsp://h/user=admin&password=SEC@RET&channel=1", "rtsp://***", "camera"),
        ("rtsp://me:SECRET@h/live/1", "rtsp://***@h/live/1", "h/live/1"),
    ],
)
def test_a_path_that_holds_a_password_is_not_shown_either(url: str, shown: str, name: str) -> None:
    camera = find_cameras([url], {})[0]
    assert (camera.address.shown, camera.name, camera.address.target) == (shown, name, url)


# --- files --------------------------------------------------------------------------------------


def test_the_example_of_the_docs_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOOR_PASSWORD", "s3cret")
    example = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(example) == 1
    door, yard = find_cameras([written(tmp_path, example[0])], {})
    assert door.address.target == "rtsp://watch:s3cret@10.0.0.7/stream1"
    assert door.address.shown == "rtsp://***@10.0.0.7/stream1"
    assert (door.thresholds, door.background, door.hold_s) == ({"left": 0.8, "right": 0.7}, "nothing", 0.5)
    assert (yard.fps, yard.timeout_s, yard.frozen_s, yard.threshold) == (15, 5, 30, 0.5)


def test_the_docs_name_every_key_and_every_event() -> None:
    text = DOCS.read_text("utf-8")
    assert [key for key in Camera.model_fields if key not in text] == []
    folder = DOCS.parents[1] / "src/framegate/watch"
    told = {name for file in folder.glob("*.py") for name in re.findall(r'tell\(\s*"(\w+)"', file.read_text())}
    assert len(told) >= 12 and [name for name in told if f"`{name}`" not in text] == []


def test_the_docs_list_every_suffix_and_every_event_that_is_not_posted() -> None:
    text = DOCS.read_text("utf-8")
    assert [suffix for suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES if f"`{suffix}`" not in text] == []
    sentence = re.search(r"posts every event but (.*?) as JSON", text, re.DOTALL)
    assert sentence and set(re.findall(r"`(\w+)`", sentence[1])) == NOT_POSTED


def test_keys_of_a_camera_go_before_defaults_and_those_before_the_command_line(tmp_path: Path) -> None:
    text = (
        "defaults: {hold_s: 2, fps: 5}\ncameras:\n- {name: a, source: a.mp4, hold_s: 3}\n- {name: b, source: b.mp4}\n"
    )
    a, b = find_cameras([written(tmp_path, text)], {"hold_s": 1.0, "threshold": 0.9})
    assert (a.hold_s, a.fps, a.threshold) == (3, 5, 0.9) and (b.hold_s, b.fps) == (2, 5)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = """
camera: 3
cameras:
- {name: a, source: rtps://me:s3cret@cam/x}
- {source: a.mp4, hold_s: -1}
- just text
- {name: b, source: b.mp4, thresholds: {left: 1.5}, fpss: 3}
- {name: c, source: "rtsp://${NOT_SET_ANYWHERE}@cam/x"}
- {name: d, source: 7}
"""
    told = refused([written(tmp_path, text)])
    for expected in (
        "camera: no such key; did you mean 'cameras'?",
        "cameras[0]: source 'rtps://***@cam/x': rtps:// is not known; did you mean 'rtsp",
        "cameras[1]: name: Field required",
        "cameras[1]: hold_s: Input should be greater than 0",
        "cameras[2]: expected keys and values",
        "cameras[3]: thresholds.left: Input should be less than or equal to 1",
        "cameras[3]: fpss: no such key; did you mean 'fps'?",
        "cameras[4]: source: the environment has no NOT_SET_ANYWHERE",
        "cameras[5]: source: Input should be a valid string",
    ):
        assert expected in told
    assert "s3cret" not in told and len(told.splitlines()) == 10


def test_what_misses_in_the_environment_hides_nothing_else(tmp_path: Path) -> None:
    text = """
cameras:
- {name: a, source: "rtsp://${NOT_SET_1}:${NOT_SET_2}@cam/x"}
- {name: a, source: "rtsp://${NOT_SET_3}@cam/x", hold_s: -1}
- {name: b, source: b.mp4}
- {name: b, source: "rtps://cam/x"}
"""
    told = refused([written(tmp_path, text)])
    for expected in (
        "cameras[0]: source: the environment has no NOT_SET_1, NOT_SET_2",
        "cameras[1]: source: the environment has no NOT_SET_3",
        "cameras[1]: hold_s",
        "cameras[3]: source 'rtps://cam/x'",
        "name 'a': 2 cameras have it",
        "name 'b': 2 cameras have it",
    ):
        assert expected in told
    assert len(told.splitlines()) == 7


@given(password=st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1))
def test_a_password_of_the_environment_leads_to_no_other_host(password: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOOR_PASSWORD", password)
        address = find_cameras(["rtsp://watch:${DOOR_PASSWORD}@10.0.0.7:554/stream1"], {})[0].address
    split = urlsplit(address.target)
    assert (split.hostname, split.port, split.path, split.username) == ("10.0.0.7", 554, "/stream1", "watch")
    assert unquote(str(split.password)) == password
    assert address.shown == "rtsp://***@10.0.0.7:554/stream1"


@pytest.mark.parametrize(
    ("source", "value", "target"),
    [
        ("${X}", "rtsp://me:p%40w@cam/x", "rtsp://me:p%40w@cam/x"),
        ("http://me:pw@${X}/x", "cam:81", "http://me:pw@cam:81/x"),
        ("http://${X}/a@b", "cam:81", "http://cam:81/a@b"),
        ("http://cam?a=${X}@b", "1&c", "http://cam?a=1&c@b"),
        ("http://${X}@cam/${X}", "me:p@w", "http://me:p%40w@cam/me:p@w"),
        ("films/${X}.mp4", "a b@c", "films/a b@c.mp4"),
    ],
)
def test_only_the_user_and_the_password_are_encoded(
    source: str, value: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", value)
    assert find_cameras([source], {})[0].address.target == target


def test_a_key_that_is_given_twice_is_refused_wherever_it_is(tmp_path: Path) -> None:
    text = """
defaults: &all {fps: 5, fps: 6}
cameras:
- <<: *all
  name: a
  source: a.mp4
  fps: 7
- name: b
  source: b.mp4
  thresholds: {left: 0.5, "left": 0.6}
  name: c
"""
    told = refused([written(tmp_path, text)])
    assert "cameras.yaml: line 2: fps: this key is given twice" in told
    assert "line 10: left: this" in told and "line 11: name: this" in told
    assert told.count("given twice") == 3


@pytest.mark.parametrize(
    "pair", ["hold_s: yes", "fps: true", "attempts: true", 'threshold: "0.9"', "thresholds: {left: on}", "slow_s: no"]
)
def test_a_word_is_not_taken_for_a_number(tmp_path: Path, pair: str) -> None:
    told = refused([written(tmp_path, f"cameras:\n- name: a\n  source: a.mp4\n  {pair}\n")])
    assert re.search(pair.split(":")[0] + r"\S*: Input should be a valid (number|integer)", told)


def test_a_key_among_the_defaults_is_as_wrong_as_any_other(tmp_path: Path) -> None:
    text = "defaults: {treshold: 0.5, name: x}\ncameras: [{name: a, source: a.mp4}]"
    told = refused([written(tmp_path, text)])
    assert "treshold: no such key; did you mean 'threshold'?" in told and "defaults.name" in told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "cameras:",
        "cameras: []",
        "cameras: 3",
        "just text",
        "cameras: {name: a}",
        "a: [",
        "\tx: 1",
        "[x]: 1",
        "[" * 9000,
    ],
)
def test_a_file_without_a_list_of_cameras_is_refused(tmp_path: Path, text: str) -> None:
    told = refused([written(tmp_path, text)])
    assert "cameras.yaml" in told and ("a list of cameras" in told or "not YAML" in told)


def test_a_file_that_is_not_there_or_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused([str(tmp_path / "cameras.yaml")])
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not YAML" in refused([str(tmp_path / "b.yaml")])


@pytest.mark.parametrize("line", ["  source: 'rtsp://me:s3cret@h", "  source: @s3cret", "  a: 2026-99-99 # s3cret"])
def test_a_file_that_is_no_yaml_is_not_quoted(tmp_path: Path, line: str) -> None:
    told = refused([written(tmp_path, f"cameras:\n- name: a\n{line}\n")])
    assert "not YAML" in told and "s3cret" not in told
    assert "99" in line or "line " in told


def test_a_file_can_make_no_python_object(tmp_path: Path) -> None:
    assert "not YAML" in refused([written(tmp_path, "cameras: !!python/object/apply:os.system [true]")])


def test_two_cameras_of_one_name_are_refused_in_a_file_and_numbered_on_the_command_line(tmp_path: Path) -> None:
    cameras = [{"name": "a", "source": "x/a.mp4"}, {"name": "a", "source": "y/a.mp4"}]
    assert "name 'a': 2 cameras have it" in refused([written(tmp_path, yaml.safe_dump({"cameras": cameras}))])
    found = find_cameras(["x/a.mp4", "y/a.mp4", "rtsp://me:pw@cam:554/s1?x=1"], {})
    assert [camera.name for camera in found] == ["a", "a-2", "cam:554/s1"]


def test_wrong_values_of_the_command_line_are_told(tmp_path: Path) -> None:
    assert "threshold: Input should be less than" in refused(["a.mp4"], threshold=2.0)
    assert "s3cret" not in refused(["rtsp://me:s3cret@cam/x"], threshold=2.0)


def test_labels_are_compared_with_those_of_the_model() -> None:
    good, bad = find_cameras(["a.mp4"], {"background": "green"}), find_cameras(["a.mp4"], {"thresholds": {"blu": 0.1}})
    check_labels(good, ("blue", "green"))
    with pytest.raises(ConfigError, match="'blu'; did you mean 'blue'"):
        check_labels(bad, ("blue", "green"))


def test_the_quiet_label_is_that_of_the_bench_where_the_model_has_it() -> None:
    camera = find_cameras(["a.mp4"], {})[0]
    assert camera.rules(("nothing", "left")).background == "nothing"
    assert camera.rules(("left", "right")).background is None
