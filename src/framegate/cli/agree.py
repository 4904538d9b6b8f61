"""`framegate agree FOLDER`: how often a candidate and the reference disagree on clips that nobody labelled."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from framegate.bench.agree import Clips, Side, compare, conclude, find_clips, write
from framegate.cli import EXIT_CODES
from framegate.contract import Bundle, CandidateName, ConfigError, Verdict
from framegate.gate.evidence import Agreed
from framegate.gate.judge import disagreement
from framegate.gate.rules import GateRules
from framegate.index import Index

INDEXES = (Path("work/index/index.json"), Path("exports/evidence/index.json"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate agree`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="clips at any depth; groups.csv: path,group")
    parser.add_argument("--candidate", metavar="NAME", help="or a bundle; default: what the verdict waits for")
    parser.add_argument("--reference", metavar="NAME", help="default: the verdict's reference")
    parser.add_argument("--exports", type=Path, default=Path("exports"), metavar="DIR", help="default: exports")
    parser.add_argument("--index", type=Path, metavar="index.json", help="whose train and val clips do not count")
    parser.add_argument("--margin", type=float, metavar="POINTS", help="default: that of the gate's drop rule")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("-o", "--out", type=Path, default=Path("work/agreement"), help="default: work/agreement")


def run(parsed: argparse.Namespace) -> int:
    """Ask, write, say what it proves; 0 proven, 3 cannot tell."""
    path = parsed.exports / "verdict.json"
    verdict = Verdict.read(path) if path.is_file() else None
    candidate = side(parsed.candidate or undecided(verdict), parsed.exports, "--candidate")
    reference = side(parsed.reference or (verdict.reference if verdict else None), parsed.exports, "--reference")
    margin = parsed.margin if parsed.margin is not None else margin_of(verdict, candidate.name)
    index = open_index(parsed.index)
    if index is None:
        told_apart = "clips that the models learnt from are not told apart, so the gate will not count this"
        print(f"no index is here: {told_apart}; name it with --index", file=sys.stderr)
    found = find_clips(parsed.folder, index)
    agreed, skipped = compare(candidate, reference, found, parsed.threads)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    folder = write(agreed, parsed.out)
    proven, sentence = conclude(agreed, margin)
    print(told(agreed, found, len(skipped)))
    print(f"{sentence}. Written to {folder}; `dvc repro` takes it into account.")
    return 0 if proven else EXIT_CODES["INCONCLUSIVE"]


def undecided(verdict: Verdict | None) -> str | None:
    """What a verdict could not decide and asks about: the first of its walk that is INCONCLUSIVE, else its choice.

    The walk goes from slow to fast and stops there, so the faster ones have to wait for it.
    """
    if verdict is None:
        return None
    statuses = {one.candidate: one.status for one in verdict.candidates}
    waiting = [name for name in verdict.walk if statuses[name] == "INCONCLUSIVE"]
    return waiting[0] if waiting else verdict.chosen if verdict.chosen != verdict.reference else None


def side(name: str | None, exports: Path, option: str) -> Side:
    """A bundle on a runtime, from `<bundle>--<runtime>`, `<bundle>` or the folder of one (on ort-cpu)."""
    if not name:
        known = ", ".join(sorted(path.parent.name for path in exports.glob("*/bundle.json"))) or "no bundle"
        raise ConfigError(f"{exports / 'verdict.json'} names none; say which with {option}; {exports} has {known}")
    folder = Path(name) if (Path(name) / "bundle.json").is_file() else exports / name.partition("--")[0]
    bundle = Bundle.load(folder)
    parsed = CandidateName.parse(f"{bundle.info.name}--{name.partition('--')[2] or 'ort-cpu'}")
    return Side(parsed, bundle)


def margin_of(verdict: Verdict | None, name: CandidateName) -> float:
    """The tightest drop of accuracy from the reference that the gate allows this candidate, in points."""
    rules = GateRules.parse(verdict.gate).rules if verdict and verdict.gate else ()
    bounds = [
        rule.bound
        for rule in rules
        if (rule.metric, rule.kind) == ("accuracy", "drop_max")
        and rule.runtime in (None, name.runtime)
        and rule.where == "single_stream"
        and "reference" in rule.opponents
    ]
    if not bounds:
        raise ConfigError("no drop rule in exports/verdict.json says what may be lost; name the points with --margin")
    return min(bounds)


def open_index(path: Path | None) -> Index | None:
    """The one that was named, else the project's or the evidence's; None where there is none."""
    found = [path] if path else [one for one in INDEXES if one.is_file()]
    return Index.read(found[0]) if found else None


def told(agreed: Agreed, found: Clips, skipped: int) -> str:
    """What was asked and what came out."""
    said, share = agreed.record, disagreement(agreed)
    bound = "bound unknown" if share.high is None else f"at most {share.high:.2f} %"
    lines = [
        f"{said.candidate} and {said.reference}: {said.n} clips in {said.groups} groups, {said.disagreements} answered "
        f"otherwise ({share.value or 0:.2f} %, {bound})"
    ]
    left_out = {
        "could not be read": skipped,
        "were copies": found.duplicates,
        "are of the training or validation split": found.trained,
    }
    if any(left_out.values()):
        lines.append("left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items() if count))
    if not found.grouped:
        lines.append(
            "warning: no groups.csv, so every file counts as independent; clips cut from one recording are not: "
            "write path,group for each, or the bound is too good"
        )
    return "\n".join(lines)
