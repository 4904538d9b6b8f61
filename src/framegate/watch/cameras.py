"""Which cameras are watched, and how: sources on the command line, or a cameras.yaml. Every mistake is told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import yaml
from pydantic import ConfigDict, Field, ValidationError

from framegate.alerts import Rules
from framegate.contract import ConfigError, Record, nearest
from framegate.media import is_video
from framegate.watch.address import Address, mask, parse_address, readable
from framegate.watch.feed import Opening
from framegate.watch.health import Bounds

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OrOff = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # seconds, 0 = off
BACKGROUND = "nothing"  # the label that the bench takes for a quiet scene
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")  # of the environment
CONFIG_SUFFIXES = (".yaml", ".yml")


class Camera(Record):
    """One camera: every key of cameras.yaml. No word is taken for a number: `yes` would be 1."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    source: Annotated[str, Field(min_length=1)]
    threshold: Share = 0.5  # confidence of every frame that an alert takes
    thresholds: dict[str, Share] = Field(default={})  # of single labels
    hold_s: Seconds = 0.5
    background: str | None = None  # default: "nothing", where the model has it
    fps: Seconds | None = None  # its nominal rate, where it does not say it itself
    timeout_s: Seconds = 10.0
    attempts: Annotated[int, Field(ge=1)] | None = None  # in a row that fail; default: for ever
    transport: Literal["tcp", "udp"] = "tcp"
    frozen_s: OrOff = 10.0
    black_s: OrOff = 5.0
    black_mean: Annotated[float, Field(ge=0, le=255)] = 16.0
    black_deviation: Annotated[float, Field(ge=0, le=255)] = 8.0
    slow_s: OrOff = 10.0

    @property
    def address(self) -> Address:
        """ConfigError when the source cannot be meant."""
        return parse_address(self.source)

    @property
    def opening(self) -> Opening:
        """How its source is opened."""
        return Opening(self.timeout_s, self.transport)

    def rules(self, labels: Sequence[str]) -> Rules:
        """Its alerts on a model with these labels."""
        background = self.background or (BACKGROUND if BACKGROUND in labels else None)
        return Rules(self.hold_s, self.threshold, self.thresholds, background)

    def bounds(self, model_fps: float, nominal_fps: float | None) -> Bounds:
        """Slow is: fewer frames per second than the model wants, or than half of what the camera should give."""
        slow_fps = max(model_fps, (self.fps or nominal_fps or 0.0) / 2)
        return Bounds(self.frozen_s, self.black_s, self.black_mean, self.black_deviation, self.slow_s, slow_fps)


# --- where they come from ---------------------------------------------------------------------


def find_cameras(sources: Sequence[str], given: Mapping[str, Any]) -> tuple[Camera, ...]:
    """Cameras of sources (files, folders, devices, URLs, cameras.yaml); `given`: keys that hold where none is named.

    ConfigError lists everything that is wrong.
    """
    entries: list[tuple[str, Any]] = []  # (where it stands, keys)
    problems: list[str] = []
    for source in sources:
        if source.lower().endswith(CONFIG_SUFFIXES):
            entries += _entries(Path(source), problems)
        else:
            entries.append((source if "://" not in source else "source", {"name": _name(source), "source": source}))
    found = [_camera(where, keys, given, problems) for where, keys in entries]
    cameras = [camera for some in found for camera in some]
    if any(source.lower().endswith(CONFIG_SUFFIXES) for source in sources):
        wrong = [keys for (_, keys), some in zip(entries, found, strict=True) if not some]
        names = [camera.name for camera in cameras] + [str(keys["name"]) for keys in wrong if _has_name(keys)]
    else:
        cameras = _renamed(cameras)
        names = [camera.name for camera in cameras]
    problems += [
        f"name {name!r}: {names.count(name)} cameras have it" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    _refuse(problems)
    return tuple(cameras)


def check_labels(cameras: Iterable[Camera], labels: Sequence[str]) -> None:
    """ConfigError for each label that the model does not have."""
    problems = []
    for camera in cameras:
        named = [(f"thresholds.{label}", label) for label in camera.thresholds]
        named += [("background", camera.background)] if camera.background else []
        problems += [
            f"camera {camera.name!r}: {key}: the model has no label {label!r}{nearest(label, labels)}"
            for key, label in named
            if label not in labels
        ]
    if problems:
        problems.append(f"labels of the model: {', '.join(labels)}")
    _refuse(problems)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("\n  ".join(["cameras cannot be watched as they are described:", *problems]))


def _entries(path: Path, problems: list[str]) -> list[tuple[str, Any]]:
    """The cameras of a file, with its defaults filled in."""
    try:
        loader = _Loader(path.read_text("utf-8"))
        content = loader.get_single_data()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return []
    except (yaml.YAMLError, ValueError) as error:
        problems.append(f"{path}: not YAML: {_why_not_yaml(error)}")
        return []
    except RecursionError:
        problems.append(f"{path}: not YAML that can be read: nested too deeply")
        return []
    problems += [f"{path}: {key}" for key in loader.twice]
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), list) or not content["cameras"]:
        problems.append(f"{path}: expected a list of cameras under the key 'cameras'")
        return []
    keys = ("cameras", "defaults")
    problems += [f"{path}: {key}: no such key{nearest(str(key), keys)}" for key in content if key not in keys]
    defaults = content.get("defaults") or {}
    if not isinstance(defaults, dict):
        problems.append(f"{path}: defaults: expected keys and values")
        defaults = {}
    own = [key for key in ("name", "source") if key in defaults]
    problems += [f"{path}: defaults.{key}: every camera has its own" for key in own]
    return [
        (f"{path}: cameras[{k}]", defaults | one if isinstance(one, dict) else one)
        for k, one in enumerate(content["cameras"])
    ]


class _Loader(yaml.SafeLoader):
    """YAML, and the keys that a mapping has twice, the last of which would hold."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As it stands in the file, before anything is merged into it."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                self.twice.append(f"line {key.start_mark.line + 1}: {key.value}: this key is given twice")
            seen.add(key.value)
        return node


def _has_name(keys: Any) -> bool:
    return isinstance(keys, dict) and isinstance(keys.get("name"), str)


def _why_not_yaml(error: Exception) -> str:
    """What and where, without the line: it may hold a password."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "a value that is none"
    return what + (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "")


def _camera(where: str, keys: Any, given: Mapping[str, Any], problems: list[str]) -> list[Camera]:
    if not isinstance(keys, dict):
        problems.append(f"{where}: expected keys and values: name, source, ...")
        return []
    camera, source = None, keys.get("source")
    try:
        camera = Camera.model_validate({**given, **keys})
    except ValidationError as error:
        problems += [_problem(where, dict(one)) for one in error.errors()]
    try:
        if isinstance(source, str) and source:
            parse_address(source := _filled(source))
        if camera is None:
            return []
        camera = camera.model_copy(update={"source": source})
        if camera.address.kind == "file" and camera.address.path.is_dir():
            return _of_folder(camera)
    except ConfigError as error:
        problems.append(f"{where}: {error}")
        return []
    return [camera]


def _problem(where: str, error: dict[str, Any]) -> str:
    """One line: the place, what is wrong, what was perhaps meant. Never the value: it may hold a password."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{where}: {place}: no such key{nearest(place, Camera.model_fields)}"
    return f"{where}: {place}: {error['msg']}"


def _filled(source: str) -> str:
    """`${NAME}` from the environment, so that a password need not stand in a file. ConfigError names all that miss.

    What fills the user or the password of a URL is percent-encoded, which FFmpeg undoes: no value of it leads to
    another host. A `:` stays, for a variable that is both of them.
    """
    if missing := [name for name in dict.fromkeys(PLACEHOLDER.findall(source)) if name not in os.environ]:
        raise ConfigError(f"source: the environment has no {', '.join(missing)}")
    login = re.match(r"[^/]*://[^/?#]*@", source)
    end = login.end() if login else 0
    user = PLACEHOLDER.sub(lambda found: quote(os.fsencode(os.environ[found[1]]), safe=":"), source[:end])
    return user + PLACEHOLDER.sub(lambda found: os.environ[found[1]], source[end:])


def _of_folder(camera: Camera) -> list[Camera]:
    """A camera for each video in it that is not hidden; of a link that leads nowhere the camera's end will tell."""
    entries = [path for path in camera.address.path.iterdir() if is_video(path) and not path.name.startswith(".")]
    videos = sorted(path for path in entries if not path.is_dir())
    if not videos:
        raise ConfigError(f"source {camera.source!r}: no video in this folder")
    return _renamed(
        [
            camera.model_copy(update={"name": f"{camera.name}/{readable(video.stem)}", "source": str(video)})
            for video in videos
        ]
    )


def _name(source: str) -> str:
    """A short name for a source of the command line."""
    if "://" not in source:
        return (Path(source).stem or source)[:100]
    place = mask(source).partition("://")[2].removeprefix("***@").partition("?")[0]
    return (place.strip("/*") or "camera")[:100]


def _renamed(cameras: Sequence[Camera]) -> list[Camera]:
    """The second one of a name gets a number behind it."""
    seen: dict[str, int] = {}
    found = []
    for camera in cameras:
        seen[camera.name] = seen.get(camera.name, 0) + 1
        number = f"-{seen[camera.name]}" if seen[camera.name] > 1 else ""
        found.append(camera.model_copy(update={"name": camera.name + number}))
    return found
