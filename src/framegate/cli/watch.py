"""`framegate watch`: cameras, files and folders on the shipped model; alerts as JSON lines."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framegate.contract import ConfigError
from framegate.runtime.session import RUNTIMES

if TYPE_CHECKING:
    from framegate.watch.run import Settings

OF_CAMERAS = ("threshold", "hold_s", "background", "fps", "timeout_s", "attempts", "transport")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate watch`."""
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="rtsp://..., http://... (MJPEG, MPEG-TS), a video, a folder of videos, device:0, or a cameras.yaml",
    )
    add("--bundle", type=Path, default=Path("exports/shipped"), help="default: exports/shipped")
    add("--runtime", choices=list(RUNTIMES), help="default: the one that the model shipped with")
    add("--threads", type=int, choices=range(1, 257), metavar="N", help="of a step; default: as shipped")
    add("--accept-host", action="store_true", help="also without a verdict for this host class")
    add("--public-key", type=Path, help="use only what the owner of this Ed25519 key signed")
    add("--fast", action="store_true", help="files as fast as the model can, not a frame left out")
    add("--loop", action="store_true", help="files again and again")
    add("--answers", action="store_true", help="a line for every answer, too")
    add("--webhook", metavar="URL", help="also send events there: POST, JSON")
    add("--annotate", type=Path, metavar="PATH", help="write the answered frames: a .mp4, or a folder for several")
    add("--show", action="store_true", help="a window with all cameras")
    add("--status-every", type=float, metavar="SECONDS", help="a line with the state of all cameras so often")
    group = parser.add_argument_group("cameras", "hold where a cameras.yaml does not name the key")
    add = group.add_argument
    add("--threshold", type=float, help="confidence of every frame of an alert; default: 0.5")
    add("--label-threshold", action="append", default=[], metavar="LABEL=VALUE", help="of one label; may be repeated")
    add("--hold-s", type=float, metavar="SECONDS", help="how long a label is on top before the alert; default: 0.5")
    add("--background", metavar="LABEL", help="the label that raises none; default: nothing, where the model has it")
    add("--fps", type=float, help="of a camera that does not say it; half of it is slow")
    add("--timeout-s", type=float, metavar="SECONDS", help="without a frame, then it is connected anew; default: 10")
    add("--attempts", type=int, metavar="N", help="to connect in a row, then it has failed; default: for ever")
    add("--transport", choices=("tcp", "udp"), help="of rtsp; default: tcp")


def run(parsed: argparse.Namespace) -> int:
    """Until every camera ends, or SIGTERM or Ctrl-C: 0 then; 1 when every camera failed."""
    from framegate.signals import noted

    with noted() as stopped:  # what follows takes a second
        _need_packages()
        from framegate.watch.run import watch

        return asyncio.run(watch(settings_of(parsed), stopped_before=stopped))


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The command line as settings. ConfigError for what cannot be meant, BundleError without a bundle."""
    from framegate.media import is_image
    from framegate.promotion.serving import check_there
    from framegate.serve.model import Source
    from framegate.watch.cameras import find_cameras
    from framegate.watch.line import Pace
    from framegate.watch.run import Settings

    if parsed.status_every is not None and not parsed.status_every > 0:
        raise ConfigError(f"--status-every is {parsed.status_every:g}; expected more than 0 seconds")
    if parsed.fast and parsed.loop:
        raise ConfigError("--fast and --loop: as fast as it can, for ever; say one of them")
    cameras = find_cameras(parsed.sources, _given(parsed))
    files = [camera.address.path for camera in cameras if camera.address.kind == "file"]
    if parsed.loop and (images := [path for path in files if is_image(path)]):
        raise ConfigError(f"--loop: {images[0]} is an image: it has one frame; name a video")
    check_there(parsed.bundle)
    return Settings(
        source=Source(parsed.bundle, parsed.runtime, parsed.threads, parsed.accept_host, parsed.public_key),
        cameras=cameras,
        pace=Pace(parsed.fast, parsed.loop),
        answers=parsed.answers,
        webhook=parsed.webhook,
        annotate=parsed.annotate,
        show=parsed.show,
        status_every_s=parsed.status_every,
    )


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """The keys of cameras that the command line names."""
    given = {name: getattr(parsed, name) for name in OF_CAMERAS if getattr(parsed, name) is not None}
    thresholds = {}
    for one in parsed.label_threshold:
        label, _, value = one.rpartition("=")
        try:
            thresholds[label] = float(value)
        except ValueError:
            label = ""
        if not label:
            raise ConfigError(f"--label-threshold {one!r}: expected LABEL=VALUE, such as left=0.8")
    return given | ({"thresholds": thresholds} if thresholds else {})


def _need_packages() -> None:
    """ConfigError unless the serve extra is installed."""
    if missing := [name for name in ("httpx", "prometheus_client") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"`framegate watch` needs {', '.join(missing)}: pip install 'framegate[serve]'")
