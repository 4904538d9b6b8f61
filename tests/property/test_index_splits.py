"""For any data set: nothing stands in two splits; resampling takes the latest frame at or before each tick."""

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from framegate.contract import DataError
from framegate.media import resample
from framegate.splits import Member, SplitShares, assign_splits, check_splits, components

SHARES = SplitShares()


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    """Up to 60 clips; groups of any size, bytes that repeat within a class, also across groups."""
    count = draw(st.integers(6, 60))
    classes, groups = draw(st.integers(2, 4)), draw(st.integers(3, 30))
    number = st.integers(0, 1000)
    clips = []
    for k in range(count):
        label = f"c{draw(number) % classes}"
        content = f"{label}-{draw(number) % 40}" if draw(st.booleans()) else f"{label}-own-{k}"
        clips.append(Member(f"{label}/{k:03}", label, f"g{draw(number) % groups}", content))
    return clips


@given(members(), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_nothing_stands_in_two_splits(clips: list[Member], seed: int) -> None:
    try:
        splits = assign_splits(clips, SHARES, seed)
    except DataError:
        assume(False)
    check_splits(clips, splits)
    assert set(splits) == {clip.id for clip in clips}
    for key in ("group", "sha256"):
        where: dict[str, set[str]] = {}
        for clip in clips:
            where.setdefault(getattr(clip, key), set()).add(splits[clip.id])
        assert all(len(found) == 1 for found in where.values())
    for label in {clip.label for clip in clips}:
        assert {splits[clip.id] for clip in clips if clip.label == label} == {"train", "val", "test"}


def test_a_set_too_small_for_any_fold_is_refused_by_its_class() -> None:
    placed = [("c2", "g2"), ("c1", "g0"), ("c3", "g0"), ("c0", "g0"), ("c0", "g0"), ("c1", "g1")]
    clips = [Member(f"{label}/{k}", label, group, f"own-{k}") for k, (label, group) in enumerate(placed)]
    with pytest.raises(
        DataError, match=r"class 'c0' has no clip in the val split: its clips stand in 1 group \('g0'\)"
    ):
        assign_splits(clips, SHARES, 0)


@given(members())
@settings(max_examples=60, deadline=None)
def test_components_are_the_closure_of_shared_groups_and_bytes(clips: list[Member]) -> None:
    found = components(clips)
    reached = {0}
    while True:
        keys = {key for n in reached for key in (clips[n].group, clips[n].sha256)}
        more = {n for n, clip in enumerate(clips) if clip.group in keys or clip.sha256 in keys}
        if more == reached:
            break
        reached = more
    assert reached == {n for n, number in enumerate(found) if number == found[0]}


@dataclass(frozen=True)
class At:
    time_s: float


@given(
    gaps=st.lists(st.floats(0.002, 1.99), max_size=40),
    fps=st.floats(0.2, 60.0),
    first=st.floats(0, 10),
)
@settings(max_examples=200, deadline=None)
def test_each_tick_shows_the_latest_frame_at_or_before_it(gaps: list[float], fps: float, first: float) -> None:
    times = [first]
    for gap in gaps:
        times.append(times[-1] + gap)
    picked = list(resample([At(t) for t in times], fps))
    assert [tick for tick, _, _ in picked] == [k / fps for k in range(len(picked))]
    tolerance = 0.001 + 1e-6  # what Matroska rounds away
    for tick, frame, cut in picked:
        assert not cut
        now = first + tick
        assert frame.time_s <= now + tolerance
        assert not [t for t in times if frame.time_s < t <= now]
    length = times[-1] - first
    mean = length / len(gaps) if gaps else 0.0
    assert len(picked) >= 1
    assert picked[-1][0] < length + mean or len(picked) == 1
    assert (len(picked) / fps) >= length + mean - tolerance
