"""Where everything came from: bundles are those that were measured, files those that dvc.lock names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from framegate.contract import (
    REFUSED,
    Bundle,
    BundleError,
    CandidateName,
    DataError,
    Measurement,
    digest_of,
    read_json,
    sha256_file,
)
from framegate.dvclock import Lock, md5_of
from framegate.promotion import Promotion
from framegate.promotion.origin import upstream
from framegate.verify.check import NotThere, guarded
from framegate.verify.subject import CHAMPION, CONFIRMATION, NAME, Subject

MEASUREMENTS, AGREEMENT, INDEX = "work/measurements", "work/agreement", "work/index/index.json"
HOSTS = "hosts.json"  # class -> sha256 of its verdict


def bundles(subject: Subject) -> Iterator[str]:
    """Every bundle is whole, is the one that was measured and timed against, and answers the index's question."""
    for name in sorted({CandidateName.parse(one).bundle for one in subject.verdict.measurements}):
        yield from guarded(_bundle(subject, name), name)
    for name, found in subject.readable():
        if name != CHAMPION:
            yield from guarded(_measured(subject, found.measurement), name)


def _bundle(subject: Subject, name: str) -> Iterator[str]:
    path = subject.bundles / name
    if (path / REFUSED).is_file():
        return
    info = Bundle.load(path).info
    if info.name != name:
        yield f"bundle.json says that it is {info.name}"
    if info.labels != subject.index.labels or info.clip != subject.index.spec:
        yield "made for other labels or another clip than the index has"
    if info.lineage.dataset != subject.index.dataset:
        yield f"trained on data set {info.lineage.dataset[:12]}…, judged on {subject.index.dataset[:12]}…"
    if info.precision == "fp32":
        return
    fp32 = Bundle.load(subject.bundles / f"{info.model}-{info.variant}-fp32").info
    if info.lineage.parent != fp32.digest:
        yield f"made from bundle {str(info.lineage.parent)[:12]}…, {fp32.name} is {fp32.digest[:12]}…"


def _measured(subject: Subject, told: Measurement) -> Iterator[str]:
    name = CandidateName.parse(told.candidate)
    where = {"bundle": name.bundle, "parent": CandidateName.parse(name.parent).bundle}
    for role, bundle in where.items():
        try:
            found = Bundle.load(subject.bundles / bundle)
        except BundleError:
            if told.status == "measured":
                raise
            continue
        if told.inputs and told.inputs.get(role) != found.info.digest:
            yield f"measured with {role} {told.inputs.get(role, '')[:12]}…, {bundle} is {found.info.digest[:12]}…"
        for key, true in {"size_bytes": found.size_bytes, "parameters": found.info.parameters}.items():
            if role == "bundle" and told.status == "measured" and getattr(told, key) not in (None, true):
                yield f"{key} is {getattr(told, key)}, {bundle} has {true}"


# --- dvc.lock ---------------------------------------------------------------------------------


def lock(subject: Subject) -> Iterator[str]:
    """Files have the md5 that dvc.lock had for them when the gate judged: who edits one and seals it again is found."""
    yield from locked(subject, subject.lock)


def own_lock(subject: Subject, path: Path) -> Iterator[str]:
    """The same of the project's own dvc.lock, and of the verdict itself, which that one knows."""
    own = Lock.read(path)
    yield from locked(subject, own)
    for name in ("verdict.json", HOSTS):
        yield from _same_md5(own.outs(), f"exports/{name}", subject.root / name)


def locked(subject: Subject, lock: Lock) -> Iterator[str]:
    """Measurements, bundles and index against the md5 of each in a dvc.lock."""
    outs = lock.outs()
    files = {f"{MEASUREMENTS}/{name}": subject.evidence / name for name in subject.verdict.measurements}
    files |= {"work/confirmation": subject.evidence / CONFIRMATION, INDEX: subject.evidence / "index.json"}
    names = {CandidateName.parse(name).bundle for name in subject.verdict.measurements}
    files |= {f"exports/{name}": subject.bundles / name for name in sorted(names)}
    there = {out: path for out, path in files.items() if path.exists()}
    if unknown := [out for out in there if out not in outs]:
        yield f"{lock.path} knows nothing of {', '.join(unknown)}"
    for out, path in there.items():
        yield from _same_md5(outs, out, path)
    chosen = lock.deps("choose")  # the folder as it was read before anything was chosen
    yield from _same_md5(chosen, AGREEMENT, subject.evidence / "agreement")


def _same_md5(outs: dict[str, str], out: str, path: Path) -> Iterator[str]:
    if out in outs and (got := md5_of(path)) != outs[out]:
        yield f"{path}: md5 is {got}, dvc.lock has {outs[out] or 'none'} for {out}"


def led_here(subject: Subject) -> Iterator[str]:
    """promotion.json names the entries of dvc.lock that led to the bundle and its measurement, as they are."""
    path = subject.root / "promotion.json"
    if not path.is_file():
        if subject.verdict.shipped is None or subject.verdict.waived:
            return
        raise NotThere(f"{path}: missing; `dvc repro` ships what the verdict names")
    told = Promotion.read(path)
    if told.verdict != sha256_file(subject.root / "verdict.json"):
        return  # of an earlier verdict: what led there is no longer in this dvc.lock
    stages = subject.lock.stages
    for name, digest in told.upstream.items():
        if name not in stages:
            yield f"promotion.json names stage {name}, dvc.lock has none"
        elif (got := digest_of(stages[name])) != digest:
            yield f"stage {name}: dvc.lock's entry is {got[:12]}…, promotion.json says {digest[:12]}…"
    wanted = [f"exports/{CandidateName.parse(told.candidate).bundle}", f"{MEASUREMENTS}/{told.candidate}"]
    if missing := sorted(upstream({"stages": stages}, wanted).keys() - told.upstream.keys()):
        yield f"promotion.json does not name what led here: {', '.join(missing)}"


def hosts(exports: Path) -> Iterator[str]:
    """Every verdict that hosts.json lists is there as it was judged."""
    for name, digest in judged_hosts(exports).items():
        path = exports / "hosts" / name / "verdict.json"
        if not path.is_file() or sha256_file(path) != digest:
            yield f"{path}: missing, or not the one that {exports / HOSTS} names"


def judged_hosts(exports: Path) -> dict[str, str]:
    """Host class -> sha256 of its verdict, of all that were judged with this one. DataError: not readable."""
    path = exports / HOSTS
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or not all(
        isinstance(one, str) and NAME.fullmatch(key) for key, one in found.items()
    ):
        raise DataError(f"{path}: expected a sha256 for each host class; run `dvc repro`")
    return found


def named(subject: Subject) -> Iterator[str]:
    """exports/hosts/<class12> holds the verdict of that host class."""
    if subject.root.name != subject.verdict.host_class[:12]:
        yield f"{subject.root}: the verdict is for host class {subject.verdict.host_class[:12]}"
