"""What moves exports/shipped: ship, roll back, release; and what ships beside it, a challenger.

Decides nothing: the verdict does, or the person who rolls back. In this order: the archive, exports/shipped,
exports/promotion.json, the registered version, its alias. Killed anywhere, the same command run again ends
where it would have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from framegate.contract import (
    CandidateVerdict,
    ConfigError,
    DataError,
    FramegateError,
    NothingShipped,
    Skipped,
    Verdict,
    atomic_folder,
    nearest,
    sha256_bytes,
)
from framegate.promotion.archive import VERDICT, Winner, check_archive, fill, find_winner, locked, put
from framegate.promotion.origin import Origin, upstream
from framegate.promotion.record import (
    CHALLENGER,
    FILE,
    HOLD,
    SHIPPED,
    Hold,
    Promotion,
    alias_of,
    archived,
    digest_in,
    read_hold,
    read_record,
)
from framegate.promotion.registry import Registry, mirror
from framegate.signature import sign


@dataclass(frozen=True, slots=True)
class Shipment:
    """What ships now, and what a person should be told besides."""

    promotion: Promotion
    notes: tuple[str, ...] = ()


def ship(exports: Path, origin: Origin, registry: Registry | Skipped) -> Shipment:
    """Archive and ship the model that exports/verdict.json names; while held, leave the held one and say so.

    NothingShipped when the verdict names none, by waivers only, or another ship is at work: what shipped stays.
    BundleError, DataError: the bundle or the evidence is not what was judged.
    """
    with locked(exports):
        verdict = Verdict.read(exports / VERDICT)
        if verdict.shipped is None:
            raise NothingShipped(f"{verdict.sentence} What shipped before stays; {exports / 'report.html'} shows why.")
        if verdict.waived:
            rules = ", ".join(waiver.rule for waiver in verdict.waived)
            raise NothingShipped(
                f"{exports / VERDICT}: {verdict.shipped} passes only by waiving {rules}, so it is never the champion; "
                "`framegate ship --waive` ships it as the challenger"
            )
        if verdict.status != "PASS" or (verdict.shipped, "PASS") not in {
            (c.candidate, c.status) for c in verdict.candidates
        }:
            raise DataError(f"{exports / VERDICT}: {verdict.shipped} ships without having passed; run `dvc repro`")
        if hold := read_hold(exports):
            return _settle(exports, hold.promotion, registry, (_kept(exports, hold, verdict),))
        winner = find_winner(exports, verdict, verdict.shipped)
        return _settle(exports, _archive(exports, winner, verdict, origin), registry)


def challenge(
    exports: Path, verdict: Verdict, origin: Origin, registry: Registry | Skipped, candidate: str | None = None
) -> Shipment:
    """Ship what passes by a waiver to exports/challenger, alias `challenger`; exports/shipped is not touched.

    `candidate`: another than the verdict's choice. NothingShipped when it does not pass even so, ConfigError when it
    was not judged or nothing is waived.
    """
    if not verdict.waived or not all(waiver.reason.strip() for waiver in verdict.waived):
        raise ConfigError("a challenger ships by a waiver with a reason; without a waiver: `dvc repro`")
    one = _passing(verdict, candidate)
    rules = "; ".join(f"{waiver.rule} ({waiver.reason})" for waiver in verdict.waived)
    sentence = f"{one.candidate} is a challenger, by waiving {rules}: {one.reason}."
    with locked(exports):
        winner, text = find_winner(exports, verdict, one.candidate), verdict.to_json().encode()
        promotion = _record(winner, verdict, sha256_bytes(text), origin, digest_in(exports / SHIPPED))
        promotion = promotion.model_copy(update={"sentence": sentence})
        with atomic_folder(exports / CHALLENGER) as empty:
            fill(empty, winner, text, promotion, origin.key)
        version, notes = mirror(registry, CHALLENGER, exports / CHALLENGER, promotion, None)
    return Shipment(promotion.model_copy(update={"version": version}), notes)


def rollback(exports: Path, to: int | None, reason: str, time: str, registry: Registry | Skipped) -> Shipment:
    """Put an earlier champion back and hold it: the verdict's does not ship until `release`.

    `to`: its number; None: the champion before, or what a rollback that was interrupted was to put back.
    DataError when there is none or its archive was changed: then nothing moves.
    """
    with locked(exports):
        hold, written = read_hold(exports), _readable(exports / FILE)
        if to is None:
            to = hold.promotion if hold and (not written or written.hold != hold) else previous_champion(exports)
        check_archive(exports, to)
        if not hold or hold.promotion != to:
            now = _readable(exports / SHIPPED / FILE)
            hold = Hold(promotion=to, rolled_back_from=now.number if now else None, reason=reason, time=time)
            hold.write(exports / HOLD)
        return _settle(exports, to, registry, (str(hold),))


def release(exports: Path) -> Hold | None:
    """Take the hold away; gives it, None when there was none.

    exports/promotion.json, the output of stage ship, loses its hold too: that is why `dvc repro` runs the stage again.
    """
    with locked(exports):
        hold, written, now = read_hold(exports), read_record(exports / FILE), read_record(exports / SHIPPED / FILE)
        if hold and now:
            version = written.version if written and written.number == now.number else None
            now.model_copy(update={"version": version}).write(exports / FILE)
        (exports / HOLD).unlink(missing_ok=True)
    return hold


def previous_champion(exports: Path) -> int:
    """The number of the last one before the present champion that does not serve the same. DataError without one."""
    now = one = read_record(exports / SHIPPED / FILE)
    numbers = {digest_in(folder): number for number, folder in archived(exports).items()}
    known = ", ".join(map(str, numbers.values())) or "none"
    while one and one.previous:
        if (number := numbers.get(one.previous)) is None:
            raise DataError(
                f"promotion {one.number} names as the one before it {one.previous[:12]}…, which is not kept as it was "
                f"in {exports / 'promotions'}; name one with --to; kept: {known}"
            )
        one = Promotion.read(exports / "promotions" / str(number) / FILE)
        if now and not one.serves_like(now):
            return number
    raise DataError(f"no champion was there before the present one; name one with --to; kept: {known}")


def _settle(exports: Path, number: int, registry: Registry | Skipped, notes: tuple[str, ...] = ()) -> Shipment:
    """From the archive outwards: exports/shipped, exports/promotion.json, the registered version, the alias."""
    before = _readable(exports / FILE)
    expected = before.version if before else None
    kept = expected if before and before.number == number else None
    promotion = put(exports, number).model_copy(update={"hold": read_hold(exports), "version": kept})
    promotion.write(exports / FILE)
    try:
        version, said = mirror(registry, alias_of(exports), exports / SHIPPED, promotion, expected)
    except FramegateError as error:
        raise FramegateError(
            f"{exports / SHIPPED} holds promotion {number}, {promotion.candidate}; the registry could not be told: "
            f"{error}; run this again when it can"
        ) from error
    if version:
        promotion = promotion.model_copy(update={"version": version})
        promotion.write(exports / FILE)
    return Shipment(promotion, (*notes, *said))


def _kept(exports: Path, hold: Hold, verdict: Verdict) -> str:
    held = check_archive(exports, hold.promotion)
    same = (held.bundle, held.candidate) == (verdict.bundle, verdict.shipped)
    what = "the present verdict names the same" if same else f"{verdict.shipped} of the present verdict is not shipped"
    return f"{hold}: {what}; `framegate promotions release` {'ends the hold' if same else 'lets it'}"


def _passing(verdict: Verdict, candidate: str | None) -> CandidateVerdict:
    """The one to ship as a challenger: what the walk chose will do, measured again or not."""
    name = candidate or verdict.shipped or verdict.chosen
    judged = {one.candidate: one for one in verdict.candidates}
    if name is None:
        passing = ", ".join(one.candidate for one in judged.values() if one.status == "PASS") or "none"
        raise NothingShipped(f"even with the waiver: {verdict.sentence} Passing, for --candidate: {passing}")
    if name not in judged:
        raise ConfigError(f"candidate {name!r} was not judged{nearest(name, judged)}; known: {', '.join(judged)}")
    if judged[name].status != "PASS":
        raise NothingShipped(f"even with the waiver {name} is {judged[name].status}: {judged[name].reason}")
    rules = [waiver.rule for waiver in verdict.waived]
    if not any(outcome.rule in rules and outcome.status != "PASS" for outcome in judged[name].outcomes):
        failing = "; ".join(f"{one.candidate}: {one.reason}" for one in judged.values() if one.status != "PASS")
        raise NothingShipped(
            f"{name} passes without the waiver of {', '.join(rules)}; not passing: {failing or 'none'}"
        )
    return judged[name]


def _archive(exports: Path, winner: Winner, verdict: Verdict, origin: Origin) -> int:
    """The number under which the winner of this very verdict is kept; kept now, unless it was before."""
    text = (exports / VERDICT).read_bytes()
    wanted = (sha256_bytes(text), winner.bundle.info.digest)
    kept = {number: _readable(folder / FILE) for number, folder in archived(exports).items()}
    found = [number for number, one in kept.items() if one and (one.verdict, one.bundle) == wanted]
    number = found[-1] if found else max(kept, default=0) + 1  # a damaged one keeps its number
    folder = exports / "promotions" / str(number)
    if not found:
        promotion = _record(winner, verdict, wanted[0], origin, digest_in(exports / SHIPPED), number)
        with atomic_folder(folder) as empty:
            fill(empty, winner, text, promotion, origin.key)
    elif origin.key:
        sign(folder, origin.key)
    return number


def _readable(path: Path) -> Promotion | None:
    """As `read_record`, None also when it is damaged: what is damaged must not stand in the way of what is not."""
    try:
        return read_record(path)
    except DataError:
        return None


def _record(
    winner: Winner, verdict: Verdict, digest: str, origin: Origin, previous: str | None, number: int | None = None
) -> Promotion:
    return Promotion(
        number=number,
        candidate=str(winner.name),
        runtime=winner.name.runtime,
        threads=winner.threads,
        sentence=verdict.sentence,
        waived=verdict.waived,
        bundle=winner.bundle.info.digest,
        dataset=verdict.dataset,
        host_class=verdict.host_class,
        host=winner.measurement.host_class,
        verdict=digest,
        evidence={**verdict.measurements, **verdict.evidence},
        upstream=upstream(origin.lock, [str(winner.bundle.path), f"work/measurements/{winner.name}"]),
        git_sha=origin.git_sha,
        git_dirty=origin.git_dirty,
        time=origin.time,
        previous=previous,
    )
