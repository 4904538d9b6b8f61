"""What ships is what the verdict named; what shipped before is whole; who signed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from framegate.contract import sha256_file
from framegate.promotion.archive import check_promotion
from framegate.promotion.record import CHALLENGER, FILE, SHIPPED, Promotion, archived, is_of_host, read_hold
from framegate.signature import check_signature
from framegate.verify.check import NotThere, guarded
from framegate.verify.subject import CHAMPION, Subject


def shipped(subject: Subject) -> Iterator[str]:
    """exports/shipped is whole, is the promotion that promotion.json records, and is what this verdict ships."""
    folder, record = subject.root / SHIPPED, subject.root / FILE
    if not folder.is_dir() and not record.is_file():
        if subject.verdict.shipped is None or subject.verdict.waived:
            return
        raise NotThere(f"{folder}: missing; `dvc repro` ships what the verdict names")
    told = check_promotion(folder)
    if told.number is None:
        yield f"{folder}: a challenger stands in the champion's place"
    if is_of_host(subject.root) and told.host_class != subject.verdict.host_class:
        yield f"{folder}: shipped for host class {told.host_class[:12]}, this is {subject.verdict.host_class[:12]}"
    ours = Promotion.read(record) if record.is_file() else None
    if ours is None or _core(ours) != _core(told):
        yield f"{record}: {'missing' if ours is None else 'not the record of what is shipped'}"
    if told.number is not None and sha256_file(folder / FILE) != _digest(archived(subject.root).get(told.number)):
        yield f"{folder}: not promotion {told.number} as it was archived"
    yield from _by_this_verdict(subject, told)


def _core(promotion: Promotion) -> Promotion:
    """Without what is known only after it was signed."""
    return promotion.model_copy(update={"version": None, "hold": None})


def _digest(folder: Path | None) -> str | None:
    return sha256_file(folder / FILE) if folder and (folder / FILE).is_file() else None


def _by_this_verdict(subject: Subject, told: Promotion) -> Iterator[str]:
    """Unless the verdict ships nothing, or somebody rolled back: then what ships is of an earlier one."""
    verdict = subject.verdict
    if told.verdict == sha256_file(subject.root / "verdict.json"):
        if (told.candidate, told.bundle) != (verdict.shipped, verdict.bundle):
            yield f"{told.candidate} ({told.bundle[:12]}…) is shipped, the verdict names {verdict.shipped}"
        return
    hold = read_hold(subject.root)
    if hold is not None and hold.promotion != told.number:
        yield f"promotion {told.number} is shipped, hold.json holds {hold.promotion}"
    if hold is None and verdict.shipped is not None and not verdict.waived:
        yield f"{told.candidate} was shipped by verdict {told.verdict[:12]}…, verdict.json is another; run `dvc repro`"


def champion(subject: Subject) -> Iterator[str]:
    """What was judged as the present champion is the evidence of a promotion that is kept."""
    name = subject.verdict.evidence.get(CHAMPION)
    kept = [Promotion.read(folder / FILE) for folder in archived(subject.root).values()]
    if name is not None and name not in {one.evidence.get(one.candidate) for one in kept}:
        yield f"evidence/{CHAMPION} is not that of any promotion in {subject.root / 'promotions'}"


def promotions(root: Path) -> Iterator[str]:
    """Every archived promotion, and a challenger, is whole."""
    folders = list(archived(root).values()) + ([root / CHALLENGER] if (root / CHALLENGER).is_dir() else [])
    for folder in folders:
        yield from guarded(_whole(folder), folder.name)


def _whole(folder: Path) -> Iterator[str]:
    if (number := check_promotion(folder).number) not in (None, int(folder.name) if folder.name.isdecimal() else None):
        yield f"says it is promotion {number}"


def signature(root: Path, key: Path) -> Iterator[str]:
    """What ships was signed by the owner of the public key. Another host class may never have shipped."""
    if not (root / SHIPPED).is_dir():
        if is_of_host(root):
            return
        raise NotThere(f"{root / SHIPPED}: missing; nothing is shipped that could be signed")
    check_signature(root / SHIPPED, key)
    yield from ()
