"""All checks of a folder, in the order in which one builds on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from framegate.contract import ConfigError
from framegate.verify import data, decision, measured, origin, shipped
from framegate.verify.check import Check, check
from framegate.verify.files import strays
from framegate.verify.subject import Subject

Checks = dict[str, Callable[[Subject], Iterator[str]]]

OF_A_VERDICT: Checks = {
    "rules: the gate section is the one that the verdict names": decision.rules,
    "measurements: those that were judged, facts follow from samples": measured.measurements,
    "evidence: all of it was judged": decision.unnamed,
    "clips: ids, labels and groups are the index's": data.clips,
    "data set: its digest follows from its clips, nothing is in two splits": data.dataset,
    "agreement: no clip that was learnt from": data.unlabelled,
    "answers: what was timed is what was judged": measured.answers,
    "bundles: whole, and those that were measured": origin.bundles,
    "calibration: no clip of the test split": data.calibration,
    "decision: decided again from the evidence": decision.decision,
    "shipped: what the verdict names": shipped.shipped,
    "champion: the evidence with which it shipped": shipped.champion,
}
OF_DVC: Checks = {
    "dvc.lock: every file is the one that a stage wrote": origin.lock,
    "upstream: promotion.json follows from dvc.lock": origin.led_here,
    "ledger: counts what was judged": data.counted,
}


def verify(exports: Path, lock: Path | None = None, key: Path | None = None) -> list[Check]:
    """Every finding about exports/ and exports/hosts/*. `lock`: the project's own dvc.lock; `key`: a PEM public key.

    ConfigError when there is no such folder, or no file that was asked for.
    """
    if not exports.is_dir():
        raise ConfigError(f"{exports}: no such folder; name the one that the gate stage writes")
    for path in (lock, key):
        if path and not path.is_file():
            raise ConfigError(f"{path}: no such file")
    first = check("files: nothing leaves the folder", strays(exports))
    if first.status != "ok":
        return [first]
    found = [first, *_of(Subject(exports, exports), OF_A_VERDICT | OF_DVC), *_own_lock(exports, lock)]
    found += _kept(exports, key)
    found.append(check("hosts: the verdicts that were made with this one", origin.hosts(exports)))
    judged = origin.judged_hosts(exports) if found[-1].status == "ok" else {}
    for folder in sorted(path for path in (exports / "hosts").glob("*") if path.is_dir()):
        of_host = {"host: the folder is named by its class": origin.named} | OF_A_VERDICT
        # of another: what shipped there is kept, but its verdict is about bundles that are no longer these
        theirs = _of(Subject(folder, exports), of_host) if folder.name in judged else []
        found += [replace(one, name=f"hosts/{folder.name}: {one.name}") for one in [*theirs, *_kept(folder, key)]]
    return found


def _of(subject: Subject, checks: Checks) -> list[Check]:
    """Those of one verdict; only that it cannot be read when it cannot."""
    readable = check("verdict: readable", subject.problems_of_verdict())
    return [readable, *(check(name, work(subject)) for name, work in checks.items() if readable.status == "ok")]


def _kept(root: Path, key: Path | None) -> list[Check]:
    """What shipped there, ever; who signed what ships there now."""
    signed = [check("signature: by the owner of the key", shipped.signature(root, key))] if key else []
    return [check("promotions: every archived one is whole", shipped.promotions(root)), *signed]


def _own_lock(exports: Path, lock: Path | None) -> list[Check]:
    """The project's own dvc.lock: the one that was named, or the one beside the folder."""
    path = lock or exports.resolve().parent / "dvc.lock"
    name = "the project's dvc.lock: every file is the one that a stage wrote"
    return [check(name, origin.own_lock(Subject(exports, exports), path))] if path.is_file() else []
