"""The `bench` section: how candidates are measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from framegate.bench.camera import CameraSettings
from framegate.bench.scenario import OfflineSettings, ServerSettings
from framegate.bench.streams import StreamSettings
from framegate.contract import Record, digest_of

Count = Annotated[int, Field(ge=1)]


class ScenarioSettings(Record):
    """What is measured besides single_stream; None: not measured, and no rule on it is proven."""

    offline: OfflineSettings | None = None
    server: ServerSettings | None = None
    camera: CameraSettings | None = None
    streams: StreamSettings | None = None


class BenchSettings(Record):
    """The `bench` section; see conf/bench."""

    pairs: Count = 3
    blocks: Count = 8
    calls_per_block: Count = 50
    solo_processes: Count = 10
    solo_calls: Count = 1500
    threads: Count = 1
    accuracy_threads: Count = 2
    batch: Count = 16
    seed: int = 0
    confirm_pairs: Count = 20
    scenarios: ScenarioSettings = ScenarioSettings()
    timeout_s: Annotated[float, Field(gt=0)] = 900.0

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        return digest_of(self.model_dump(mode="json", exclude={"timeout_s"}))

    def again(self) -> BenchSettings:
        """For measuring the chosen one again: more pairs, other clips, another order."""
        return self.model_copy(update={"pairs": self.confirm_pairs, "seed": self.seed + 1})
