"""How a promotion is kept: written whole, checked by its digests, one change at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framegate.contract import (
    Bundle,
    BundleError,
    CandidateName,
    DataError,
    FramegateError,
    Measurement,
    NothingShipped,
    Verdict,
    atomic_folder,
    digest_of,
    sha256_file,
    write_bytes,
)
from framegate.promotion.record import CHALLENGER, FILE, SHIPPED, Promotion, archive_of, bundles_of
from framegate.signature import SigningKey, sign

MEASUREMENT, SAMPLES, VERDICT = "measurement.json", "samples.npz", "verdict.json"


@dataclass(frozen=True, slots=True)
class Winner:
    """A candidate that may ship: its bundle is the one that was measured, its evidence the one that was judged."""

    name: CandidateName
    bundle: Bundle
    measurement: Measurement
    evidence: Path  # folder of measurement.json and samples.npz

    @property
    def threads(self) -> int:
        """Those that it was measured with."""
        return int(self.measurement.session["threads"])


def find_winner(exports: Path, verdict: Verdict, candidate: str) -> Winner:
    """The candidate's bundle and evidence.

    DataError when exports/evidence lacks it or holds another measurement than was judged; BundleError when the bundle
    is not the one that was measured.
    """
    name, folder = CandidateName.parse(candidate), exports / "evidence" / candidate
    if not (folder / MEASUREMENT).is_file():
        raise DataError(f"{folder}: no measurement of {candidate}, which the verdict names; run `dvc repro`")
    try:
        measurement = checked_measurement(folder, verdict.measurements.get(candidate))
    except DataError as error:
        raise DataError(f"{error}; run `dvc repro` to judge and ship the same") from None
    bundle = Bundle.load(bundles_of(exports) / name.bundle)
    judged = measurement.inputs.get("bundle") if candidate != verdict.shipped else verdict.bundle
    for whose, digest in (("measured", measurement.inputs.get("bundle")), ("verdict judged", judged)):
        if bundle.info.digest != digest:
            raise BundleError(
                f"{bundle.path}: digest is {bundle.info.digest[:12]}…, the one {whose} is {str(digest)[:12]}…; "
                "run `dvc repro` so that the bundle that was measured is the one that ships"
            )
    if "threads" not in measurement.session:
        raise DataError(f"{folder / MEASUREMENT}: its session names no threads; run `dvc repro` to measure it again")
    return Winner(name, bundle, measurement, folder)


def checked_measurement(folder: Path, digest: str | None) -> Measurement:
    """The folder's measurement. DataError unless it has this digest and its samples are those that it names."""
    measurement, samples = Measurement.read(folder / MEASUREMENT), folder / SAMPLES
    if digest_of(measurement.model_dump(mode="json")) != digest:
        raise DataError(f"{folder / MEASUREMENT}: not the measurement that was judged")
    if not samples.is_file() or sha256_file(samples) != measurement.samples_sha256:
        raise DataError(f"{samples}: missing, or not the samples of {MEASUREMENT}")
    return measurement


def fill(folder: Path, winner: Winner, verdict: bytes, promotion: Promotion, key: SigningKey | None) -> None:
    """Write a whole promotion into an empty folder."""
    for file in ["bundle.json", *winner.bundle.info.files]:
        shutil.copy2(winner.bundle.path / file, folder / file)
    for file in (MEASUREMENT, SAMPLES):
        shutil.copy2(winner.evidence / file, folder / file)
    write_bytes(folder / VERDICT, verdict)
    promotion.write(folder / FILE)
    if key:
        sign(folder, key)


def check_promotion(folder: Path) -> Promotion:
    """The record of a promoted folder (archive, shipped, challenger), every file checked against it.

    BundleError or DataError names what is missing or was changed. What a forger rewrote throughout, only
    `signature.check_signature` finds.
    """
    if not (folder / FILE).is_file():
        raise BundleError(f"{folder / FILE}: missing; expected a folder that was shipped")
    promotion = Promotion.read(folder / FILE)
    if (got := Bundle.load(folder).info.digest) != promotion.bundle:
        raise BundleError(f"{folder}: holds bundle {got[:12]}…, {FILE} says {promotion.bundle[:12]}…")
    if not (folder / VERDICT).is_file() or sha256_file(folder / VERDICT) != promotion.verdict:
        raise DataError(f"{folder / VERDICT}: missing, or not the verdict that {FILE} names")
    measurement = checked_measurement(folder, promotion.evidence.get(promotion.candidate))
    _check_follows(folder, promotion, measurement, Verdict.read(folder / VERDICT))
    return promotion


def _check_follows(folder: Path, promotion: Promotion, measurement: Measurement, verdict: Verdict) -> None:
    """DataError for what a record says, and serving obeys, that its measurement and its verdict do not."""
    wanted = {
        "candidate": measurement.candidate,
        "runtime": CandidateName.parse(measurement.candidate).runtime,
        "threads": measurement.session.get("threads"),
        "bundle": measurement.inputs.get("bundle"),
        "host": measurement.host_class,
        "host_class": measurement.inputs.get("host_class"),
        "dataset": verdict.dataset,
        "evidence": {**verdict.measurements, **verdict.evidence},
        "waived": verdict.waived,
    }
    if promotion.number is not None:  # a challenger may be another than its verdict's choice
        wanted |= {"candidate": verdict.shipped, "bundle": verdict.bundle, "sentence": verdict.sentence, "waived": ()}
    for key, expected in wanted.items():
        if (got := getattr(promotion, key)) != expected:
            raise DataError(f"{folder / FILE}: {key} is {got!r}, its measurement and verdict say {expected!r}")


def check_archive(exports: Path, number: int) -> Promotion:
    """The record of an archived promotion that is still what was kept. DataError when it is not, or is not there."""
    source = archive_of(exports, number)
    try:
        promotion = check_promotion(source)
        if promotion.number != number:
            raise DataError(f"{source / FILE}: says that it is promotion {promotion.number}")
    except FramegateError as error:
        raise DataError(
            f"promotion {number} was changed after it was kept, and does not ship: {error}; nothing was moved; "
            f"restore {source} from a backup, or remove it"
        ) from None
    return promotion


def put(exports: Path, number: int) -> Promotion:
    """Make exports/shipped a copy of an archived promotion, by two renames, unless it is one; its record.

    DataError as of `check_archive`.
    """
    promotion, source, target = check_archive(exports, number), archive_of(exports, number), exports / SHIPPED
    if not target.is_dir() or _digests(source) != _digests(target):
        with atomic_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    return promotion


def _digests(folder: Path) -> dict[str, str]:
    return {one.name: sha256_file(one) for one in folder.iterdir() if one.is_file()}


@contextmanager
def locked(exports: Path) -> Iterator[None]:
    """One ship, rollback or release at a time; the lock ends with its process. NothingShipped when another has it.

    What a killed one left behind is put right first.
    """
    path = exports / ".ship.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NothingShipped(
                f"{path}: another ship or rollback is at work here; wait for it, then run this again"
            ) from None
        _recover(exports)
        yield


def _recover(exports: Path) -> None:
    """After a kill: put back the folder that was renamed away, remove what was half written."""
    for name in (SHIPPED, CHALLENGER):
        for old in exports.glob(f".{name}.*.old"):
            if not (exports / name).exists():
                old.rename(exports / name)
    mine = [exports.glob(f".{name}.*") for name in (SHIPPED, CHALLENGER)]  # other stages are at work in exports as well
    for leftovers in (*mine, (exports / "promotions").glob(".*")):
        for leftover in leftovers:
            if leftover.is_dir():
                shutil.rmtree(leftover)
