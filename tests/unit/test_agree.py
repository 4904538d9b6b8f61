"""Clips that nobody labelled: which count, what both bundles say of them, and what that proves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.bench.agree import Clips, Side, compare, conclude, find_clips, write
from framegate.cli import main
from framegate.cli.agree import margin_of
from framegate.contract import Bundle, CandidateName, ConfigError, DataError, Verdict, sha256_file
from framegate.gate.evidence import Agreed, Agreement
from framegate.index import Index
from tests import judged
from tests.bundles import WEIGHTS, make_bundle
from tests.judged import DENSE, INT8

MakeClip = Callable[..., Path]
NONE = Clips((), 0, 0, False, "")


def clips_of(root: Path, make_clip: MakeClip, count: int = 3) -> Path:
    """Different clips at different depths."""
    for number in range(count):
        make_clip(root / f"day{number % 2}" / f"{number:03}.mp4", frames=8, fps=10, pattern="noise", seed=number)
    return root


def sides(folder: Path, weights: np.ndarray = WEIGHTS) -> tuple[Side, Side]:
    """A candidate with these weights, and the reference."""
    reference = make_bundle(folder, "tiny-dense-fp32")
    candidate = make_bundle(folder, "tiny-pruned-fp32", weights=weights.astype(np.float32))
    names = ("tiny-pruned-fp32--ort-cpu", "tiny-dense-fp32--ort-cpu")
    return Side(CandidateName.parse(names[0]), candidate), Side(CandidateName.parse(names[1]), reference)


# --- which clips count ------------------------------------------------------------------------


def test_clips_are_found_at_any_depth_and_copies_count_once(tmp_path: Path, make_clip: MakeClip) -> None:
    root = clips_of(tmp_path / "clips", make_clip)
    shutil.copy(root / "day0" / "000.mp4", root / "copy.mp4")
    (root / "notes.txt").write_text("no clip")
    (root / ".hidden").mkdir()
    shutil.copy(root / "day0" / "000.mp4", root / ".hidden" / "x.mp4")
    found = find_clips(root, None)
    assert [clip.id for clip in found.clips] == ["copy.mp4", "day0/002.mp4", "day1/001.mp4"]
    assert (found.duplicates, found.trained, found.grouped) == (1, 0, False)
    assert [clip.group for clip in found.clips] == [clip.id for clip in found.clips]


def test_groups_come_from_the_table_which_must_name_every_clip(tmp_path: Path, make_clip: MakeClip) -> None:
    root = clips_of(tmp_path / "clips", make_clip)
    rows = ["path,group", "day0/000.mp4,a", "day1/001.mp4,b", "day0/002.mp4,a"]
    (root / "groups.csv").write_text("\n".join(rows))
    found = find_clips(root, None)
    assert found.grouped and [clip.group for clip in found.clips] == ["a", "a", "b"]
    (root / "groups.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(DataError, match="1 of 3 clips have no row"):
        find_clips(root, None)


def test_what_was_learnt_from_proves_nothing(tmp_path: Path, make_clip: MakeClip) -> None:
    root, index = clips_of(tmp_path / "clips", make_clip), judged.make_index()

    def known(*names: str, split: str) -> Index:
        contents = [sha256_file(root / name) for name in names]
        clips = list(index.clips)
        for row, sha256 in zip(index.split(split), contents, strict=False):  # type: ignore[arg-type]
            clips[row] = clips[row].model_copy(update={"sha256": sha256})
        return index.model_copy(update={"clips": tuple(clips)})

    found = find_clips(root, known("day0/000.mp4", split="train"))
    assert found.trained == 1 and "day0/000.mp4" not in [clip.id for clip in found.clips]
    assert find_clips(root, known("day0/000.mp4", split="test")).trained == 0
    everything = known("day0/000.mp4", "day1/001.mp4", "day0/002.mp4", split="train")
    with pytest.raises(DataError, match="3 found, 3 of the training or validation split"):
        find_clips(root, everything)


def test_a_folder_without_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip that can be asked"):
        find_clips(tmp_path, None)
    with pytest.raises(DataError, match="no such folder"):
        find_clips(tmp_path / "nowhere", None)


def only(found: Clips, name: str) -> Clips:
    return replace(found, clips=tuple(clip for clip in found.clips if clip.id == name))


# --- what both say ----------------------------------------------------------------------------


def test_a_bundle_agrees_with_its_twin_and_not_with_one_that_swaps_channels(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    root = tmp_path / "clips"
    for number in range(4):
        make_clip(root / f"{number}.mp4", frames=6, pattern="halves", size=(64, 16 + 16 * number))
    clips = find_clips(root, None)
    agreed, skipped = compare(*sides(tmp_path / "same"), clips)
    assert (agreed.record.n, agreed.record.groups, agreed.record.disagreements, skipped) == (4, 4, 0, {})
    swapped, _ = compare(*sides(tmp_path / "swapped", WEIGHTS[::-1] * [[1.0, 1.0, 1.3]]), clips)
    assert swapped.record.disagreements > 0
    assert swapped.candidate_top.tolist() != swapped.reference_top.tolist()


def test_an_answer_that_is_not_finite_agrees_with_nothing() -> None:
    spoilt = Agreed(
        record(3, 3, 1),
        *[np.array(["a", "b", "c"])] * 3,
        np.array([-1, 0, 1]),
        np.array([-1, 0, 1]),
    )
    assert spoilt.disagrees.tolist() == [True, False, False]


def test_a_clip_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path, make_clip: MakeClip) -> None:
    root = clips_of(tmp_path / "clips", make_clip)
    (root / "broken.mp4").write_bytes(b"not a video at all")
    make_clip(root / "short.mp4", frames=2, fps=10, pattern="noise", seed=99)
    agreed, skipped = compare(*sides(tmp_path), find_clips(root, None))
    assert set(skipped) == {"broken.mp4", "short.mp4"} and "too short: 2 frames" in skipped["short.mp4"]
    assert agreed.record.n == 3 and "broken.mp4" not in agreed.ids
    with pytest.raises(DataError, match="none of 1 clips can be read"):
        compare(*sides(tmp_path / "again"), only(find_clips(root, None), "broken.mp4"))


def test_bundles_that_answer_other_questions_are_not_compared(tmp_path: Path) -> None:
    candidate, reference = sides(tmp_path)
    info = candidate.bundle.info.model_copy(update={"labels": ("x", "y", "z")})
    with pytest.raises(ConfigError, match="have other labels"):
        compare(Side(candidate.name, Bundle(candidate.bundle.path, info)), reference, NONE)
    with pytest.raises(ConfigError, match="is the reference itself"):
        compare(reference, reference, NONE)


def test_what_was_written_is_read_back_by_the_gate(tmp_path: Path, make_clip: MakeClip) -> None:
    agreed, _ = compare(*sides(tmp_path), find_clips(clips_of(tmp_path / "clips", make_clip), None))
    folder = write(agreed, tmp_path / "agreement")
    again = Agreed.load(folder)
    assert folder.name == "tiny-pruned-fp32--ort-cpu" and again.ids.tolist() == agreed.ids.tolist()
    assert again.disagrees.tolist() == agreed.disagrees.tolist() and again.record.samples_sha256 == sha256_file(
        folder / "samples.npz"
    )


# --- what it proves ---------------------------------------------------------------------------


def record(n: int, groups: int, disagreements: int) -> Agreement:
    names = {"candidate": INT8, "reference": DENSE, "bundle": "b", "reference_bundle": "r"}
    return Agreement(**names, n=n, groups=groups, disagreements=disagreements)


def agreed(n: int, disagreements: int, groups: int) -> Agreed:
    """n clips, of which the first ones of every group disagree in turn."""
    tops = np.zeros(n, np.int64)
    tops[:disagreements] = 1
    names = np.arange(n).astype(str)
    return Agreed(
        record(n, groups, disagreements),
        names,
        np.array([f"g{i % groups}" for i in range(n)]),
        names,
        tops,
        np.zeros(n, np.int64),
    )


def test_enough_clips_without_disagreement_prove_the_margin() -> None:
    proven, sentence = conclude(agreed(400, 0, 400), 1.0)
    assert proven and sentence.startswith("PASS: at most 0.")


@pytest.mark.parametrize(
    ("n", "disagreements", "groups", "reason"),
    [
        (100, 0, 100, "299 would do"),
        (400, 0, 3, "3 groups, 10 would do"),
        (400, 3, 400, "clips like these would do"),
        (400, 20, 400, "no number of clips proves less"),
    ],
)
def test_what_cannot_be_told_says_what_would_do(n: int, disagreements: int, groups: int, reason: str) -> None:
    proven, sentence = conclude(agreed(n, disagreements, groups), 1.0)
    assert not proven and sentence.startswith("cannot tell") and reason in sentence


def test_the_number_that_would_do_does() -> None:
    _, sentence = conclude(agreed(400, 2, 400), 1.0)
    number = int(sentence.split("about ")[1].split()[0])
    assert conclude(agreed(4 * number, 8 * number // 400, 4 * number), 1.0)[0]
    assert 400 < number < 4000 and not conclude(agreed(number // 2, number // 400, number // 2), 1.0)[0]


# --- the command ------------------------------------------------------------------------------


def command(*words: object) -> int:
    try:
        main(["agree", *map(str, words)])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def test_the_command_takes_all_from_the_verdict_and_says_what_it_proves(
    tmp_path: Path, make_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    project = judged.make_project(tmp_path / "project")
    root = clips_of(tmp_path / "clips", make_clip)
    words = [root, "--exports", project.exports, "-o", tmp_path / "agreement"]
    assert command(*words) == 3
    said = capsys.readouterr().out
    assert f"{INT8} and {DENSE}: 3 clips in 3 groups, 0 answered otherwise" in said
    assert "warning: no groups.csv" in said and "cannot tell at a margin of 5 points: 3 clips decide" in said
    assert (tmp_path / "agreement" / INT8 / "agreement.json").is_file()
    assert command(*words, "--margin", 99, "--candidate", project.exports / "tiny-pruned-fp32") == 3
    assert "3 groups, 10 would do" in capsys.readouterr().out
    assert command(*words, "--candidate", "tiny-nothing-fp32") == 1
    assert command(root, "--exports", tmp_path / "nowhere") == 1


def test_the_margin_is_that_of_the_rule_that_applies(tmp_path: Path) -> None:
    verdict = Verdict.read(judged.make_project(tmp_path).exports / "verdict.json")
    assert margin_of(verdict, CandidateName.parse(INT8)) == 5.0
    with pytest.raises(ConfigError, match="--margin"):
        margin_of(verdict.model_copy(update={"gate": {}}), CandidateName.parse(INT8))
