"""A trained net on disk: `net.json` says how to build it, `weights.pt` holds plain tensors (no pickled code)."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from framegate.contract import (
    ClipSpec,
    ConfigError,
    DataError,
    Record,
    atomic_path,
    nearest,
    sha256_file,
)
from framegate.models.video import VideoNet, load_weights

TARGET_PREFIXES = ("framegate.", "torch.", "pytorch_lightning.", "torchvision.")


class PassReport(Record):
    """What one compression pass did: before and after."""

    name: str
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    val_accuracy_before: float
    val_accuracy_after: float


class NetCard(Record):
    """net.json: all that is needed to build the net again, and where it came from."""

    model: str
    variant: str
    config: dict[str, Any]  # `_target_` and its arguments
    labels: tuple[str, ...]
    clip: ClipSpec
    dataset: str
    metrics: dict[str, float]
    passes: tuple[PassReport, ...] = ()
    weights_sha256: str = ""


def locate(target: str) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises ConfigError when it lies outside of framegate and its training libraries, or does not exist.
    """
    if not target.startswith(TARGET_PREFIXES):
        raise ConfigError(f"_target_ {target!r}: expected a name that starts with one of {', '.join(TARGET_PREFIXES)}")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        raise ConfigError(f"_target_ {target!r}: there is no module {module_name!r}") from None
    if not hasattr(module, name):
        raise ConfigError(f"_target_ {target!r}: {module_name} has no {name!r}{nearest(name, dir(module))}")
    return cast(Callable[..., Any], getattr(module, name))


def argument_problems(section: str, config: dict[str, Any]) -> list[str]:
    """Every argument of a `_target_` section that its target does not take, with the nearest one that it does."""
    if "_target_" not in config:
        return [f"{section}: _target_ is missing{nearest('_target_', config)}"]
    try:
        known = inspect.signature(locate(config["_target_"])).parameters
    except ConfigError as error:
        return [f"{section}: {error}"]
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return []
    wrong = [key for key in config if not key.startswith("_") and key not in known]
    return [
        f"{section}.{key}: unknown key{nearest(key, known)}; {config['_target_']} takes {', '.join(known)}"
        for key in wrong
    ]


def build_net(config: dict[str, Any], num_classes: int, clip: ClipSpec) -> VideoNet:
    """Build the net that a `model` section describes, for K classes and frames of `clip`'s size.

    Raises ConfigError naming a wrong key or value.
    """
    if problems := argument_problems("model", config):
        raise ConfigError("; ".join(problems))
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    net = locate(config["_target_"])(num_classes=num_classes, height=clip.height, width=clip.width, **arguments)
    if not isinstance(net, nn.Module) or not isinstance(net, VideoNet):
        raise ConfigError(f"model._target_ {config['_target_']!r}: not a VideoNet (see framegate.models.video)")
    return net


def save_net(folder: Path, net: VideoNet, card: NetCard) -> NetCard:
    """Write weights.pt and net.json; gives the card with the digest of the weights."""
    weights = {key: value.detach().cpu().contiguous() for key, value in cast(nn.Module, net).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "weights.pt") as path:
        torch.save(weights, path)
    card = card.model_copy(update={"weights_sha256": sha256_file(folder / "weights.pt")})
    card.write(folder / "net.json")
    return card


def load_net(folder: Path) -> tuple[VideoNet, NetCard]:
    """Read a net back in eval mode, on the CPU. Raises DataError when a file is missing or was changed."""
    card = NetCard.read(folder / "net.json")
    path = folder / "weights.pt"
    if not path.is_file() or sha256_file(path) != card.weights_sha256:
        raise DataError(f"{path}: missing or not the file that net.json describes; run the stage that writes it")
    config = {key: value for key, value in card.config.items() if key != "weights"}  # never download again
    net = build_net(config, len(card.labels), card.clip)
    load_weights(cast(nn.Module, net), torch.load(path, weights_only=True, map_location="cpu"))
    cast(nn.Module, net).eval()
    return net, card


def count_parameters(net: VideoNet) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in cast(nn.Module, net).parameters())


def count_macs(net: VideoNet, clip: ClipSpec) -> int:
    """Multiply-accumulates of one step on one frame (convolutions and matrix products)."""
    from torch.utils.flop_counter import FlopCounterMode

    frame = torch.zeros(1, clip.height, clip.width, 3, dtype=torch.uint8)
    module = cast(nn.Module, net)
    training = module.training
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.advance(net.embed(frame), net.init_state(1))
    module.train(training)
    return int(counter.get_total_flops()) // 2
