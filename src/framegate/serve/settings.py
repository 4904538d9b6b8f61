"""Everything that `framegate serve` was told; picklable, so that worker processes get the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from framegate.serve.limits import Limits
from framegate.serve.model import Source


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """A candidate that sees a share of the streams; its answers are only compared."""

    source: Source
    share: float


@dataclass(frozen=True, slots=True)
class Settings:
    """One server: what, where, for whom."""

    source: Source
    name: str = "framegate"
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001  # None: no gRPC
    workers: int = 1
    keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)
    low_confidence: float = 0.5
    shadow: ShadowSettings | None = None
    follow_every_s: float = 1.0
    ports_file: Path | None = None
