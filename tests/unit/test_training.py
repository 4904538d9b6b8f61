"""Training: it learns, carries states, resumes, distils, and refuses what is not here."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from framegate.contract import ClipSpec, ConfigError, DataError
from framegate.data.module import Augmentation, ClipDataModule, augment, mirrored_labels
from framegate.models.cnn import FrameAverageNet
from framegate.models.recurrent import RecurrentNet
from framegate.models.store import NetCard, build_net, load_net
from framegate.models.video import run_clip
from framegate.training import (
    Distillation,
    LitVideo,
    TrainSettings,
    evaluate,
    fit,
    planned_epochs,
    save_result,
    step_weights,
)
from tests.memory import memory_index

PLAIN = Augmentation(shift=0, gain=0, offset=0, flip=False)
SETTINGS = TrainSettings(
    optimizer=torch.optim.AdamW,
    scheduler=partial(torch.optim.lr_scheduler.OneCycleLR),
    lr=5e-3,
    max_epochs=30,
    precision="32-true",
    accelerator="cpu",
    patience=99,
)


def gru(classes: int = 2, seed: int = 0) -> RecurrentNet:
    torch.manual_seed(seed)
    return RecurrentNet(classes, 16, 16, channels=(8, 16), projection=16, hidden=16, dropout=0.0)


def moving_data(batch_size: int = 8, clips: int = 32) -> ClipDataModule:
    """Two classes that differ by the direction of a moving bar only."""
    index, reader = memory_index(clips_per_class=clips)
    return ClipDataModule(index, reader, batch_size, augmentation=PLAIN)


def train_clips(data: ClipDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    """Every training clip in one batch."""
    frames, labels = zip(*(data.sets["train"][i] for i in range(len(data.sets["train"]))), strict=True)
    return torch.stack(frames), torch.tensor(labels)


def test_a_recurrent_net_overfits_a_tiny_batch(tmp_path: Path) -> None:
    data, net = moving_data(clips=16), gru()
    result = fit(net, data, replace(SETTINGS, carry=0.0, monitor="train/loss", max_epochs=80), tmp_path)
    frames, labels = train_clips(data)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(run_clip(net, frames)[0][:, -1], labels)
    assert loss < 0.02
    assert result.metrics["accuracy"] == pytest.approx(evaluate(net, data))
    assert result.confusion.sum() == len(data.sets["val"])
    assert not net.training


def test_an_interrupted_fit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    constant = replace(SETTINGS, scheduler=partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0))
    fit(gru(), moving_data(), replace(constant, max_epochs=2), tmp_path)
    seen: list[int] = []

    class Counting(RecurrentNet):
        def embed(self, frames: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(len(frames))
            return super().embed(frames)

    net = Counting(2, 16, 16, channels=(8, 16), projection=16, hidden=16, dropout=0.0)
    data = moving_data()
    fit(net, data, replace(constant, max_epochs=3), tmp_path)
    assert len(seen) == len(data.train_dataloader())  # one epoch more, not three


@pytest.mark.parametrize(("monitor", "lr", "latest"), [("val/accuracy", 1e-9, True), ("val/loss", 1e-3, False)])
def test_of_epochs_that_are_as_good_the_latest_is_kept(tmp_path: Path, monitor: str, lr: float, latest: bool) -> None:
    """Unlearning: so slowly that accuracy stands still while weights do not, and so that the loss rises."""
    net, constant = gru(), partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    unlearning = replace(SETTINGS, optimizer=partial(torch.optim.AdamW, maximize=True), scheduler=constant)
    fit(net, moving_data(), replace(unlearning, monitor=monitor, lr=lr, max_epochs=4), tmp_path)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    kept = all(torch.equal(value, last[f"net.{name}"]) for name, value in net.state_dict().items())
    assert kept is latest


def test_carried_states_start_the_next_batch_and_only_where_the_net_forgets() -> None:
    always = replace(SETTINGS, carry=1.0)
    frames, labels = torch.randint(0, 256, (4, 3, 16, 16, 3)).byte(), torch.tensor([0, 1, 0, 1])
    for net, carries in ((gru(), True), (FrameAverageNet(2, 16, 16, channels=(8,)), False)):
        lit = LitVideo(net, always)
        lit.log = lambda *_: None  # type: ignore[method-assign, assignment]  no trainer here
        lit._done = lambda: 1.0  # type: ignore[method-assign]
        assert lit._start(4) == (None, None)
        lit.training_step((frames, labels), 0)
        state, _ = lit._start(4)
        assert (state is not None) is carries
        if state is not None:
            torch.testing.assert_close(state, run_clip(net, frames)[1].detach())
        assert lit._start(3) == (None, None)  # a batch of another size starts fresh
        lit._done = lambda: 0.1  # type: ignore[method-assign]
        assert lit._start(4) == (None, None)  # too early
    assert LitVideo(gru(), replace(SETTINGS, carry=0.0))._start(4) == (None, None)


def test_a_student_comes_closer_to_its_teacher(tmp_path: Path) -> None:
    data, teacher, student = moving_data(), gru(seed=1), gru(seed=2)
    fit(teacher, data, replace(SETTINGS, monitor="train/loss"), tmp_path / "teacher")
    frames, _ = train_clips(data)

    def distance() -> float:
        with torch.no_grad():
            student.eval()
            return float((run_clip(student, frames)[0] - run_clip(teacher, frames)[0]).abs().mean())

    before = distance()
    kept = {k: v.clone() for k, v in teacher.state_dict().items()}
    fit(
        student,
        data,
        replace(SETTINGS, monitor="train/loss"),
        tmp_path / "student",
        Distillation(teacher, temperature=2.0, alpha=1.0),
    )
    assert distance() < before / 2
    assert all(torch.equal(kept[k], v) for k, v in teacher.state_dict().items())


def test_what_is_not_here_is_refused(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="gpu"):
            fit(gru(), moving_data(), replace(SETTINGS, accelerator="gpu"), tmp_path)
    with pytest.raises(ConfigError, match="fp7"):
        fit(gru(), moving_data(), replace(SETTINGS, precision="fp7"), tmp_path)
    with pytest.raises(ConfigError, match=r"train\.monitor: 'val/acc'; expected one of .*val/accuracy"):
        fit(gru(), moving_data(), replace(SETTINGS, monitor="val/acc"), tmp_path)


def test_a_learning_rate_that_explodes_is_a_readable_error(tmp_path: Path) -> None:
    settings = replace(SETTINGS, lr=1e30, monitor="val/loss", gradient_clip=0.0)
    with pytest.raises(DataError, match=r"lower train\.lr"):
        fit(gru(), moving_data(), settings, tmp_path)


def test_small_data_trains_for_enough_steps() -> None:
    settings = replace(SETTINGS, max_epochs=5, min_steps=300)
    assert planned_epochs(settings, batches=1) == 300
    assert planned_epochs(settings, batches=100) == 5
    assert planned_epochs(settings, batches=50) == 6


def test_mirrored_clips_take_the_mirrored_label() -> None:
    mirrored = mirrored_labels(["left", "right", "up"], {"left": "right", "right": "left", "up": "up"})
    frames = torch.randint(0, 256, (64, 2, 8, 8, 3)).byte()
    labels = torch.arange(64) % 3
    torch.manual_seed(0)
    got, new = augment(frames, labels, Augmentation(shift=0, gain=0, offset=0), mirrored)
    flipped = (got == frames.flip(3)).flatten(1).all(1)
    assert 16 < int(flipped.sum()) < 48
    assert torch.equal(got[~flipped], frames[~flipped])
    assert mirrored is not None and torch.equal(new, torch.where(flipped, mirrored[labels], labels))
    unmirrored, same = augment(frames, labels, Augmentation(shift=0, gain=0, offset=0), None)
    assert torch.equal(unmirrored, frames) and torch.equal(same, labels)


def test_augmentation_treats_every_frame_of_a_clip_alike() -> None:
    still = torch.randint(0, 256, (5, 1, 16, 16, 3)).byte().expand(-1, 4, -1, -1, -1)
    torch.manual_seed(3)
    got, _ = augment(still, torch.zeros(5).long(), Augmentation(), None)
    assert got.dtype == torch.uint8 and got.shape == still.shape
    assert torch.equal(got, got[:, :1].expand_as(got)) and not torch.equal(got, still)


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_step_weights_favour_the_end_and_sum_to_one(length: int) -> None:
    weights = step_weights(length, torch.device("cpu"))
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert bool((weights[: length // 2] == 0).all()) and weights[-1] >= 0.5


def test_class_weights_balance_the_classes() -> None:
    index, reader = memory_index(clips_per_class=32)
    keep = tuple(c for i, c in enumerate(index.clips) if c.split != "train" or c.label == "right" or i % 2)
    rows = {c.id: i for i, c in enumerate(index.clips)}
    reader.rows = [rows[c.id] for c in keep]
    data = ClipDataModule(index.model_copy(update={"clips": keep}), reader, 8)
    weights, counts = data.class_weights(), np.bincount(data.sets["train"].labels)
    np.testing.assert_allclose(weights.numpy() * counts, counts.sum() / 2, rtol=1e-6)


def test_a_net_survives_its_folder_and_nothing_else_does(tmp_path: Path) -> None:
    data, net = moving_data(), gru()
    config = {
        "_target_": "framegate.models.recurrent.RecurrentNet",
        "channels": [8, 16],
        "projection": 16,
        "hidden": 16,
    }
    card = NetCard(
        model="cnn_gru",
        variant="dense",
        config=config,
        labels=data.index.labels,
        clip=data.index.spec,
        dataset=data.index.dataset,
        metrics={},
    )
    save_result(tmp_path, net, card, fit(net, data, replace(SETTINGS, max_epochs=1), tmp_path / "resume"))
    again, _ = load_net(tmp_path)
    frames, _ = next(iter(data.val_dataloader()))
    with torch.no_grad():
        torch.testing.assert_close(run_clip(again, frames), run_clip(net, frames))
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    (tmp_path / "weights.pt").write_bytes(b"not these")
    with pytest.raises(DataError, match=r"weights\.pt"):
        load_net(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_target_": "framegate.models.cnn.FrameAverageNet", "dropuot": 0.1}, "did you mean 'dropout'"),
        ({"_target_": "framegate.models.cnn.FrameAverageNet", "backbone": "resnet81"}, "did you mean 'resnet18'"),
        ({"_target_": "framegate.models.cnn.FrameAvrageNet"}, "did you mean 'FrameAverageNet'"),
        ({"_target_": "os.system"}, "starts with one of framegate"),
        ({"_target_": "framegate.models.cnn.FrameAverageNet", "backbone": "vit_b_16"}, "does not take frames of 16x16"),
        ({"_target_": "framegate.models.cnn.FrameAverageNet", "weights": "DEFAULT"}, "no pretrained weights"),
    ],
)
def test_a_model_section_that_cannot_work_says_what_would(config: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_net(config, 3, ClipSpec(frames=4, height=16, width=16, fps=10))
