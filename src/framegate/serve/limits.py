"""What one client may ask of the server; every limit is an option of `framegate serve`, its description the help."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from framegate.contract import Record
from framegate.video import MediaLimits


class Limits(Record):
    """Limits of one server process."""

    max_batch: Annotated[int, Field(ge=1, le=256, description="frames answered by one step, at most")] = 16
    deadline_ms: Annotated[float, Field(gt=0, le=3.6e6, description="from accepting a frame to its answer")] = 1000.0
    max_streams: Annotated[int, Field(ge=1, description="live streams and sequences together, of each worker")] = 1024
    sequence_idle_s: Annotated[float, Field(gt=0, le=1e6, description="then a sequence is forgotten")] = 60.0
    max_uploads: Annotated[int, Field(ge=1, description="files in work at once; others wait for the deadline")] = 4
    max_upload_mb: Annotated[float, Field(gt=0, le=1e6, description="of a file")] = 256.0
    max_request_mb: Annotated[float, Field(gt=0, le=2000, description="of tensors or a frame, decompressed")] = 32.0
    max_pixels: Annotated[int, Field(ge=64, description="of one frame")] = 4096 * 2304
    max_frames: Annotated[int, Field(ge=1, description="of one video")] = 500_000
    max_seconds: Annotated[float, Field(gt=0, le=1e7, description="of one video")] = 4 * 3600.0
    version_s: Annotated[float, Field(gt=0, le=1e7, description="a stream stays on a version that was replaced")] = 60.0
    lag_s: Annotated[float, Field(ge=0, le=600, description="at the end: not ready, still answering")] = 1.0
    drain_s: Annotated[float, Field(gt=0, le=3600, description="at the end: for what was accepted")] = 20.0

    @property
    def max_upload(self) -> int:
        """Bytes of a file, decompressed."""
        return int(self.max_upload_mb * 1e6)

    @property
    def max_request(self) -> int:
        """Bytes of any other body or message, decompressed."""
        return int(self.max_request_mb * 1e6)

    @property
    def media(self) -> MediaLimits:
        """The same, for the decoder."""
        return MediaLimits(max_pixels=self.max_pixels, max_frames=self.max_frames, max_seconds=self.max_seconds)
