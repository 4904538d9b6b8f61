"""The clips that were judged are those of the index, and nothing that was learnt from is asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from framegate.bench.samples import SplitSamples
from framegate.contract import Bundle, BundleError, CandidateName, Split
from framegate.folder import some
from framegate.gate.evidence import Agreed
from framegate.gate.ledger import LEDGER, Ledger, opening
from framegate.index import Clip, Index, dataset_digest
from framegate.verify.check import NotThere, guarded
from framegate.verify.subject import CHAMPION, CONFIRMATION, Subject

JUDGED: tuple[Split, ...] = ("val", "test")


def dataset(subject: Subject) -> Iterator[str]:
    """index.json has the digests that measurements and verdict name, and no leak between its splits."""
    index, verdict = subject.index, subject.verdict
    if (named := verdict.evidence.get("index")) not in (None, index.digest):
        yield f"index.json has digest {index.digest[:12]}…, the verdict names {str(named)[:12]}…"
    if verdict.dataset != index.dataset:
        yield f"data set {index.dataset[:12]}…, the verdict is about {verdict.dataset[:12]}…"
    if (follows := dataset_digest(index.clips, index.flips)) != index.dataset:
        yield f"the data set's digest is {index.dataset[:12]}…, its clips give {follows[:12]}…"
    yield from leaks(index)


def leaks(index: Index) -> Iterator[str]:
    """A clip listed twice; a group, or the same bytes, in two splits; the same bytes under two labels."""
    if twice := [name for name, count in Counter(clip.id for clip in index.clips).items() if count > 1]:
        yield f"index.json lists {some(twice)} more than once"
    for what, key, other in (
        ("group", "group", "split"),
        ("content", "sha256", "split"),
        ("content", "sha256", "label"),
    ):
        seen = defaultdict(set)
        for clip in index.clips:
            seen[getattr(clip, key)].add(getattr(clip, other))
        if split := [name for name, places in seen.items() if len(places) > 1]:
            yield f"{len(split)} times one {what} in two {other}s: {some(split)}"


def clips(subject: Subject) -> Iterator[str]:
    """Ids, labels and groups of the samples are exactly those of the index's validation and test split."""
    index = subject.index
    expected = {split: {index.clips[i].id: index.clips[i] for i in index.split(split)} for split in JUDGED}
    for name, found in subject.readable():
        told = found.measurement
        if name != CHAMPION and told.inputs and told.inputs.get("index") != index.digest:
            named = told.inputs.get("index", "")
            yield f"{name}: measured on index {named[:12]}…, the evidence holds {index.digest[:12]}…"
        if found.samples is None or name in (CHAMPION, CONFIRMATION):
            continue
        for split in JUDGED:
            got = found.samples.splits.get(split)
            yield from guarded(_of_split(got, expected[split], index.labels), f"{name}: {split}")


def _of_split(got: SplitSamples | None, expected: dict[str, Clip], labels: tuple[str, ...]) -> Iterator[str]:
    ids = [] if got is None else [str(one) for one in got.ids]
    if twice := len(ids) - len(set(ids)):
        yield f"{twice} clips are counted twice"
    if missing := expected.keys() - set(ids):
        yield f"{len(missing)} of {len(expected)} clips are missing: {some(missing)}"
    if strange := set(ids) - expected.keys():
        yield f"{len(strange)} clips are not of this split: {some(strange)}"
    if got is None:
        return
    known = [(row, expected[name]) for row, name in enumerate(ids) if name in expected]
    number = {label: k for k, label in enumerate(labels)}
    if wrong := [clip.id for row, clip in known if got.labels[row] != number[clip.label]]:
        yield f"{len(wrong)} labels are not those of the index: {some(wrong)}"
    if wrong := [clip.id for row, clip in known if got.groups[row] != clip.group]:
        yield f"{len(wrong)} groups are not those of the index: {some(wrong)}"


def unlabelled(subject: Subject) -> Iterator[str]:
    """Clips of an agreement are not those that the models learnt from."""
    learnt = {clip.sha256 for clip in subject.index.clips if clip.split != "test"}
    for path in sorted((subject.evidence / "agreement").glob("*/agreement.json")):
        found = Agreed.load(path.parent).sha256
        if wrong := sum(str(one) in learnt for one in found):
            yield f"agreement/{path.parent.name}: {wrong} of {len(found)} clips are of the training or validation split"


def counted(subject: Subject) -> Iterator[str]:
    """test_ledger.json knows of this verdict, and of as many openings of its test split as the verdict says."""
    path, verdict = subject.root / LEDGER, subject.verdict
    if not path.is_file():
        raise NotThere(f"{path}: missing; nothing shows how often the test split was opened")
    known = {name: found.measurement.inputs.get("bundle", "") for name, found in subject.readable()}
    bundles = {name: known.get(name, "") for name in verdict.measurements}  # what is damaged was judged as missing
    split, judged = opening(subject.index, bundles, verdict.rules)
    noted = Ledger.read(path).openings.get(split, ())
    if judged not in noted or len(noted) < verdict.openings:
        yield f"{path}: {len(noted)} openings of this test split; the verdict is one of {verdict.openings}"


def calibration(subject: Subject) -> Iterator[str]:
    """What bundles were calibrated on and show as golden clips is never of the test split."""
    split = {clip.id: clip.split for clip in subject.index.clips}
    silent = []
    for name in sorted({CandidateName.parse(one).bundle for one in subject.verdict.measurements}):
        if not (subject.bundles / name / "bundle.json").is_file():
            continue
        try:
            info = Bundle.load(subject.bundles / name).info
        except BundleError:
            continue  # a problem of the check on bundles
        yield from _wrong(f"{name}: calibrated on", info.lineage.calibration, split, ("train",))
        yield from _wrong(f"{name}: golden clips are", info.lineage.golden, split, ("train", "val"))
        if not info.lineage.golden or (info.precision.startswith("int8") and not info.lineage.calibration):
            silent.append(name)
    if silent:
        raise NotThere(f"{some(silent)}: bundle.json does not say which clips it was made with; export it again")


def _wrong(what: str, ids: Iterable[str], split: dict[str, Split], allowed: tuple[Split, ...]) -> Iterator[str]:
    found = defaultdict(list)
    for name in ids:
        if (place := split.get(name)) not in allowed:
            found[place].append(name)
    for place, names in found.items():
        yield f"{what} {len(names)} clips of {place or 'another data set'}: {some(names)}"
