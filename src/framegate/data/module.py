"""Clips for training: the LightningDataModule over the shards, window sampling, augmentation on uint8.

Frames stay uint8 until they are inside the net. Decoding, resizing and splits are `media` and `index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from framegate.contract import ConfigError, Split
from framegate.index import Index, ShardReader, centre_window

Batch = tuple[Tensor, Tensor]  # frames u8 [B,T,H,W,C], labels i64 [B]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may be done to a training clip; every frame of a clip is treated alike.

    `shift`: largest shift in pixels of a random crop (edges repeated). `gain`, `offset`: largest relative
    change of contrast and absolute change of brightness in grey levels. `flip`: mirror half of the clips;
    takes effect only where the data set's flips.csv says what a mirrored label means.
    """

    shift: int = 4
    gain: float = 0.2
    offset: float = 20.0
    flip: bool = True


class ClipDataset(Dataset[tuple[Tensor, int]]):
    """One T-frame window per clip of a split: a random one for training, else the centre."""

    def __init__(self, index: Index, reader: ShardReader, split: Split, random_window: bool) -> None:
        self.rows = [i for i, clip in enumerate(index.clips) if clip.split == split]
        self.index, self.reader, self.random_window = index, reader, random_window
        order = {label: k for k, label in enumerate(index.labels)}
        self.labels = np.array([order[index.clips[i].label] for i in self.rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        row, length = self.rows[item], self.index.spec.frames
        available = self.index.clips[row].frames
        if self.random_window:
            start = int(torch.randint(available - length + 1, ()))
        else:
            start = centre_window(available, length)
        frames = np.array(self.reader.window(row, start, length))  # a copy: the memmap is read-only
        return torch.from_numpy(frames), int(self.labels[item])


def augment(frames: Tensor, labels: Tensor, how: Augmentation, mirrored: Tensor | None) -> Batch:
    """frames u8 [B,T,H,W,C], labels i64 [B] -> the same shapes, shifted, relit, and mirrored where allowed.

    `mirrored` i64 [K] gives the label of a mirrored clip, or None: no mirroring. Draws from torch's generator.
    """
    batch, device = len(frames), frames.device
    if how.flip and mirrored is not None:
        flip = torch.rand(batch, device=device) < 0.5
        frames = torch.where(flip[:, None, None, None, None], frames.flip(3), frames)
        labels = torch.where(flip, mirrored.to(device)[labels], labels)
    if how.shift:
        frames = _shift(frames, how.shift)
    if how.gain or how.offset:
        shape = (batch, 1, 1, 1, 1)
        gain = 1 + how.gain * (2 * torch.rand(shape, device=device) - 1)
        offset = how.offset * (2 * torch.rand(shape, device=device) - 1)
        centre = 127.5  # contrast turns about mid-grey
        frames = torch.addcmul(offset + centre * (1 - gain), frames.float(), gain).clamp_(0, 255).byte()
    return frames, labels


def _shift(frames: Tensor, most: int) -> Tensor:
    """Shift each clip by up to `most` pixels both ways, repeating the edges."""
    batch, length, height, width, _ = frames.shape
    dy, dx = torch.randint(-most, most + 1, (2, batch, 1), device=frames.device)
    rows = (torch.arange(height, device=frames.device) + dy).clamp(0, height - 1)  # [B,H]
    columns = (torch.arange(width, device=frames.device) + dx).clamp(0, width - 1)  # [B,W]
    clip = torch.arange(batch, device=frames.device)[:, None, None, None]
    time = torch.arange(length, device=frames.device)[None, :, None, None]
    return frames[clip, time, rows[:, None, :, None], columns[:, None, None, :]]


class ClipDataModule(pl.LightningDataModule):
    """Train, validation and test loaders over an index and its shards.

    Batches are (frames u8 [B,T,H,W,C], labels i64 [B]); augmentation runs on the device, per batch.
    """

    def __init__(
        self,
        index: Index,
        reader: ShardReader,
        batch_size: int = 32,
        workers: int = 0,
        augmentation: Augmentation = Augmentation(),
    ) -> None:
        super().__init__()
        self.index, self.reader = index, reader
        self.batch_size, self.workers, self.augmentation = batch_size, workers, augmentation
        self.mirrored = mirrored_labels(index.labels, index.flips)
        self.sets: dict[Split, ClipDataset] = {
            split: ClipDataset(index, reader, split, random_window=split == "train")
            for split in ("train", "val", "test")
        }
        if len(self.sets["train"]) < 1:
            raise ConfigError("data: no training clips; the index stage says what is in each split")

    def class_weights(self) -> Tensor:
        """f32 [K], inverse to the class's share of the training clips, mean 1 over the clips."""
        counts = np.bincount(self.sets["train"].labels, minlength=len(self.index.labels))
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)

    def _loader(self, split: Split) -> DataLoader[Any]:
        train = split == "train"
        size = min(self.batch_size, len(self.sets[split]))
        return DataLoader(
            self.sets[split],
            batch_size=size,
            shuffle=train,
            drop_last=train,  # every training batch has one size: carried states fit the next one
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled random windows."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Centre windows of the validation split."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Centre windows of the test split."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches, on the device that they are on."""
        if self.trainer is not None and self.trainer.training:
            return augment(*batch, self.augmentation, self.mirrored)
        return batch


def mirrored_labels(labels: Sequence[str], flips: dict[str, str] | None) -> Tensor | None:
    """i64 [K]: the class index that each class becomes when its clips are mirrored; None without flips.csv."""
    if flips is None:
        return None
    return torch.tensor([labels.index(flips[label]) for label in labels])
