"""`framegate ship --waive RULE --reason TEXT`: what passes when a rule is set aside, as the challenger.

The champion ships by `dvc repro` alone, from the verdict; this never touches it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.contract import ConfigError, DataError, Waiver
from framegate.gate import GateRules, decide
from framegate.gate.case import read_judged
from framegate.promotion.origin import Origin
from framegate.promotion.record import CHALLENGER
from framegate.promotion.registry import installed
from framegate.promotion.ship import challenge


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate ship`."""
    parser.add_argument("--waive", action="append", metavar="RULE", required=True, help="as the report words it")
    parser.add_argument("--reason", action="append", metavar="TEXT", required=True, help="why; one for each --waive")
    parser.add_argument("--candidate", help="default: the one that the verdict then chooses")
    parser.add_argument("--exports", type=Path, default=Path("exports"), help="default: exports")


def run(parsed: argparse.Namespace) -> int:
    """Decide again from exports/evidence with the waivers, ship what passes to exports/challenger."""
    waivers, exports = parse_waivers(parsed.waive, parsed.reason), parsed.exports
    judged, case = read_judged(exports)
    rules = GateRules.parse(judged.gate)
    if rules.digest != judged.rules:
        raise DataError(
            f"{exports / 'verdict.json'}: its rules were changed after the gate judged by them; run `dvc repro`"
        )
    verdict = decide(case, rules, waivers)
    done = challenge(exports, verdict, Origin.here({}), installed(), parsed.candidate)
    print(f"{done.promotion.candidate} shipped to {exports / CHALLENGER} as the challenger; the champion stays")
    for waiver in done.promotion.waived:
        print(f"waived: {waiver.rule}: {waiver.reason}")
    for note in done.notes:
        print(note)
    return 0


def parse_waivers(rules: list[str], reasons: list[str]) -> tuple[Waiver, ...]:
    """One reason for each rule. ConfigError when one is missing or empty."""
    if len(rules) != len(reasons):
        raise ConfigError(
            f"--waive is given {len(rules)} times, --reason {len(reasons)} times; each rule needs its own"
        )
    if empty := [rule for rule, reason in zip(rules, reasons, strict=True) if not reason.strip()]:
        raise ConfigError(
            f"--reason is empty for {', '.join(empty)}; it is recorded: say why the rule may be set aside"
        )
    return tuple(Waiver(rule=rule, reason=reason) for rule, reason in zip(rules, reasons, strict=True))
