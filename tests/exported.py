"""Tiny nets, clips and bundles that many tests share: each is built once per run."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from framegate.compress import CompressContext
from framegate.compress.prune import Prune
from framegate.contract import Bundle, ClipSpec, Lineage
from framegate.export import ExportClips, ExportSettings, Source, export_bundle
from framegate.models.store import NetCard, build_net

FOLDER = TemporaryDirectory(prefix="bundles-")  # goes with the process
LABELS = ("up", "down", "left", "right", "nothing")
SPEC = ClipSpec(frames=4, height=32, width=32, fps=10)
SEEDS = {"dense": 0, "pruned": 4}  # with which int8 errs by a tenth at most of what would change a clip's label
LINEAGE = Lineage(dataset="d" * 64, config="c" * 64, weights="w" * 64)
SETTINGS = ExportSettings()
MODELS = {
    "cnn": {"_target_": "framegate.models.cnn.FrameAverageNet"},
    "cnn_gru": {"_target_": "framegate.models.recurrent.RecurrentNet", "cell": "gru", "projection": 24, "hidden": 16},
    "cnn_lstm": {"_target_": "framegate.models.recurrent.RecurrentNet", "cell": "lstm", "projection": 24, "hidden": 16},
}


def random_clips(count: int, seed: int = 0, spec: ClipSpec = SPEC) -> np.ndarray:
    """Coloured blocks that move, with noise: u8 [n,T,H,W,3]."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, spec.height // 8, spec.width // 8, 3))
    still = blocks.repeat(8, 1).repeat(8, 2)
    moving = np.stack([np.roll(still, 3 * t, axis=2) for t in range(spec.frames)], 1)
    return np.clip(moving + random.integers(-20, 20, moving.shape), 0, 255).astype(np.uint8)


def random_net(model: str, backbone: str = "small", seed: int = 0):
    """A net in eval mode with lively weights: batch norms that do something, logits of about one."""
    torch.manual_seed(seed)
    config = {**MODELS[model], "backbone": backbone, "channels": [16, 24]}
    net = build_net(config, len(LABELS), SPEC)
    with torch.no_grad():
        net.train()
        for batch in torch.from_numpy(random_clips(8, seed=99)).unbind(1):
            net.embed(batch)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        net.head.weight.mul_(10)
    return net.eval(), config


def context(net, fit=None) -> CompressContext:
    """What a pass needs, without data."""
    return CompressContext(net, fit, lambda _: 0.5, SPEC)


def source(model: str, backbone: str = "small", variant: str = "dense") -> Source:
    """A net, dense or pruned to a half, with its card; built once; nobody may change it."""
    return _source(model, backbone, variant)


@cache
def _source(model: str, backbone: str, variant: str) -> Source:
    net, config = random_net(model, backbone, seed=SEEDS[variant])
    if variant == "pruned":
        net = Prune(0.5)(net, context(net))
    card = NetCard(
        model=model, variant=variant, config=config, labels=LABELS, clip=SPEC, dataset=LINEAGE.dataset, metrics={}
    )
    return Source(net, card, LINEAGE)


@cache
def export_clips() -> ExportClips:
    return ExportClips(random_clips(32, 1), random_clips(4, 2), random_clips(8, 3))


def bundle(model: str, backbone: str = "small", variant: str = "dense", precision: str = "fp32") -> Bundle:
    """The exported bundle, built once; nobody may change it."""
    return _bundle(model, backbone, variant, precision)


@cache
def _bundle(model: str, backbone: str, variant: str, precision: str) -> Bundle:
    out = Path(FOLDER.name) / backbone / f"{model}-{variant}-{precision}"
    fp32 = _bundle(model, backbone, variant, "fp32") if precision == "int8" else None
    return export_bundle(source(model, backbone, variant), precision, export_clips(), out, SETTINGS, fp32)
