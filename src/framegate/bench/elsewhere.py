"""Bundles on another machine: what the pipeline's bench stage does, from copied folders and the base install alone.

Needs the bundles, exports/verdict.json (which candidates, which gate) and the index with its shards; neither git,
DVC nor torch. Every finished candidate stays; what is brought home is checked and kept by `collected`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from framegate.bench.host import host_class
from framegate.bench.measure import inputs_of, measure, measure_again, summary
from framegate.bench.processes import Bench
from framegate.bench.settings import BenchSettings
from framegate.contract import (
    REFUSED,
    Bundle,
    CandidateName,
    ConfigError,
    DataError,
    Measurement,
    Skipped,
    Verdict,
    explain,
    nearest,
    sha256_file,
)
from framegate.dvclock import Lock
from framegate.folder import some
from framegate.gate import Case, CaseFacts, GateRules, Sources, choose
from framegate.index import ShardReader
from framegate.runtime.session import RUNTIMES, available_runtimes

APART = frozenset(
    {"shipped", "challenger", "promotions", "evidence", "hosts"}
)  # folders of exports/ that are no bundle
CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured here. `rules`: the gate that chooses; None where no verdict came along."""

    exports: Path
    candidates: tuple[CandidateName, ...]
    reader: ShardReader
    settings: BenchSettings
    out: Path
    rules: GateRules | None

    def bench(self, name: CandidateName, settings: BenchSettings) -> Bench:
        """One candidate beside its parent."""
        parent = CandidateName.parse(name.parent).bundle
        return Bench(name, self.exports / name.bundle, self.exports / parent, self.reader, settings)


# --- what is asked for ------------------------------------------------------------------------


def make_plan(
    paths: Sequence[Path],
    out: Path,
    index: Path,
    runtimes: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """From folders (`exports/*`), the index folder, runtimes instead of the declared ones, and changed settings.

    ConfigError, DataError or BundleError before anything runs: no bundle, two folders of bundles, no index, a name
    that is no runtime or setting.
    """
    bundles = find_bundles(paths)
    homes = {path.parent for path in bundles}
    if len(homes) > 1:
        raise ConfigError(f"bundles of {len(homes)} folders: {some(map(str, homes))}; name those of one: exports/*")
    exports = homes.pop()
    verdict = Verdict.read(exports / "verdict.json") if (exports / "verdict.json").is_file() else None
    names = _candidates([Bundle.load(path).info.name for path in bundles], verdict, runtimes)
    rules = GateRules.parse(verdict.gate) if verdict and verdict.gate else None
    wanted = _with_what_they_are_judged_against(names, rules, exports)
    return Plan(exports, wanted, open_index(index, exports), settings_of(exports, changes or {}), out, rules)


def find_bundles(paths: Sequence[Path]) -> list[Path]:
    """The bundles among `exports/*`; files and the folders that belong there are passed over. ConfigError: others."""
    folders = [path for path in paths if not path.is_file() and path.name not in APART]
    strange = [str(path) for path in folders if not any((path / name).is_file() for name in ("bundle.json", REFUSED))]
    if strange:
        raise ConfigError(
            f"{some(strange)}: no bundle (no bundle.json in it); name folders that the export stage wrote"
        )
    if found := [path for path in folders if (path / "bundle.json").is_file()]:
        return found
    raise ConfigError(f"no bundle among {some(map(str, paths))}; name folders that the export stage wrote: exports/*")


def _candidates(bundles: Sequence[str], verdict: Verdict | None, runtimes: Sequence[str]) -> list[CandidateName]:
    """Those that the verdict declares; every bundle on the runtimes asked for; without either, on what is here."""
    if unknown := [name for name in runtimes if name not in RUNTIMES]:
        raise ConfigError(
            f"runtime {unknown[0]!r} is unknown{nearest(unknown[0], RUNTIMES)} known: {', '.join(RUNTIMES)}"
        )
    if verdict and not runtimes:
        declared = [CandidateName.parse(name) for name in verdict.measurements]
        return [name for name in declared if name.bundle in bundles]
    here = [name for name, found in available_runtimes().items() if not isinstance(found, Skipped)]
    return [CandidateName.parse(f"{bundle}--{runtime}") for bundle in bundles for runtime in runtimes or here]


def _with_what_they_are_judged_against(
    names: Sequence[CandidateName], rules: GateRules | None, exports: Path
) -> tuple[CandidateName, ...]:
    """The reference first, then parents, then the rest: without them nothing could be concluded."""
    needed = {CandidateName.parse(name.parent) for name in names}
    if rules and (exports / CandidateName.parse(rules.reference).bundle).is_dir():
        needed.add(CandidateName.parse(rules.reference))
    if missing := sorted(str(name) for name in needed if not (exports / name.bundle / "bundle.json").is_file()):
        raise ConfigError(f"{exports}: lacks the bundle of {some(missing)}, which others are timed beside; copy it too")
    return tuple(dict.fromkeys((*sorted(needed, key=str), *sorted(names, key=str))))


def open_index(folder: Path, exports: Path) -> ShardReader:
    """The clips that are judged. ConfigError with the line that copies them."""
    if not (folder / "index.json").is_file() or not (folder / "shards").is_dir():
        raise ConfigError(
            f"{folder}: no index.json with its shards here: the frames must be copied too. Where they were built: "
            f"rsync -aR work/index/index.json work/index/shards {exports.name} THIS_HOST:{Path.cwd()}/"
        )
    return ShardReader(folder / "index.json", folder / "shards")


def settings_of(exports: Path, changes: Mapping[str, Any]) -> BenchSettings:
    """As the pipeline measured, which the dvc.lock in the evidence records; else the defaults; then the changes."""
    path = exports / "evidence" / "dvc.lock"
    recorded = Lock.read(path).params("bench@").get("bench", {}) if path.is_file() else {}
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return BenchSettings.model_validate({**recorded, **given})
    except ValidationError as error:
        raise ConfigError(f"bench: {explain(error)}") from None


# --- measuring --------------------------------------------------------------------------------


def measure_all(plan: Plan) -> Iterator[tuple[Measurement, str]]:
    """Measure what is not finished yet, each into out/<candidate>; gives it with one line, as it ends."""
    for number, name in enumerate(plan.candidates, 1):
        bench, folder = plan.bench(name, plan.settings), plan.out / str(name)
        start, found = time.perf_counter(), finished(bench, folder)
        told = "kept" if found else ""
        found = found or measure(bench, folder)
        line = summary(found, time.perf_counter() - start)
        yield found, f"[{number}/{len(plan.candidates)}] {line}{f' ({told})' if told else ''}"


def finished(bench: Bench, folder: Path) -> Measurement | None:
    """What was measured before with the very same digests, its samples whole; None: measure."""
    try:
        found = Measurement.read(folder / "measurement.json")
    except DataError:
        return None
    samples = folder / "samples.npz"
    same = found.status == "measured" and found.candidate == str(bench.candidate)
    same = same and found.inputs == inputs_of(bench, host_class())
    return found if same and samples.is_file() and sha256_file(samples) == found.samples_sha256 else None


def confirm(plan: Plan, champion: Path | None = None, incumbent: str | None = None) -> str:
    """Let the gate choose on this host and measure its choice again, into out/confirmation; a sentence on it.

    `champion`: the folder of what ships for this host class; `incumbent`: its candidate.
    """
    if plan.rules is None:
        return "nothing is chosen here: no exports/verdict.json with a gate section came along"
    if plan.rules.reference not in map(str, plan.candidates):
        return f"nothing is chosen here: the reference {plan.rules.reference} was not measured"
    sources = Sources(
        measurements={str(name): plan.out / str(name) for name in plan.candidates},
        champion=champion,
        agreements={path.parent.name: path.parent for path in plan.exports.glob("evidence/agreement/*/agreement.json")},
        facts=CaseFacts(incumbent=incumbent),
    )
    chosen = choose(Case.read(sources), plan.rules)
    if chosen is None:
        return "no candidate is proven on this host: there is nothing to confirm"
    bench, folder = plan.bench(CandidateName.parse(chosen), plan.settings.again()), plan.out / CONFIRMATION
    found = finished(bench, folder) or measure_again(bench, folder)
    return f"{chosen} is chosen on this host; its latency again: {found.status}{found.reason and ': '}{found.reason}"
