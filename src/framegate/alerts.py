"""Alerts while a stream runs: the alarms that the bench counts (`bench.streams`), one frame at a time.

An alert goes off in the frame in which a label has been on top for `hold_s`, every frame of it at the label's threshold
or above; once per run of that label. It ends with the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_BRIDGED = 3  # frames from one answer to the next within a run, however short `hold_s` is


@dataclass(frozen=True, slots=True)
class Rules:
    """When an alert goes off; `background`: the label of a scene in which nothing happens, if there is one."""

    hold_s: float = 0.5
    threshold: float = 0.5  # confidence of every frame of a run
    thresholds: Mapping[str, float] | None = None  # of single labels
    background: str | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """It goes off at `time_s`; the run began at `start_s`. `confidence` is that of the frame."""

    label: str
    confidence: float
    start_s: float
    time_s: float


@dataclass(frozen=True, slots=True)
class AlertEnd:
    """The run of an alert is over: its first frame began at `start_s`, its last one ended at `end_s`."""

    label: str
    start_s: float
    end_s: float


class Alerts:
    """The alerts of one stream, whose frames come at the model's rate.

    Frames that were dropped are taken to be like those around them: what holds is time, not the number of frames. But
    where so many were not seen that another label could have raised an alert meanwhile, the run ends.
    """

    def __init__(self, labels: Sequence[str], fps: float, rules: Rules) -> None:
        own = rules.thresholds or {}
        self._labels, self._fps, self._background = labels, fps, rules.background
        self._thresholds = [np.float32(own.get(label, rules.threshold)) for label in labels]
        self._hold = max(1, math.ceil(rules.hold_s * fps - 1e-9))  # frames
        self._bridged = max(self._hold, LEAST_BRIDGED)
        self._top: int | None = None
        self._start_s = self._last_s = 0.0
        self._on = False

    def push(self, time_s: float, top: int, confidence: float) -> list[Alert | AlertEnd]:
        """What a frame starts and ends; `confidence` 0..1 is compared as float32, as the bench keeps it."""
        sure = bool(np.float32(confidence) >= self._thresholds[top]) and self._labels[top] != self._background
        found: list[Alert | AlertEnd] = []
        unseen = self._top is not None and round((time_s - self._last_s) * self._fps) > self._bridged
        if not sure or top != self._top or unseen:
            found += self.end()
            if not sure:
                return found
            self._top, self._start_s = top, time_s
        self._last_s = time_s
        if not self._on and round((time_s - self._start_s) * self._fps) + 1 >= self._hold:
            self._on = True
            found.append(Alert(self._labels[top], float(confidence), self._start_s, time_s))
        return found

    def end(self) -> list[Alert | AlertEnd]:
        """The stream ends or starts anew: the alert that was on is over."""
        top, on = self._top, self._on
        self._top, self._on = None, False
        return (
            [AlertEnd(self._labels[top], self._start_s, self._last_s + 1 / self._fps)] if on and top is not None else []
        )
