"""`framegate aa`: one bundle against itself. False alarms of the comparison that the gate makes, and its power."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from framegate.bench import aa, stats
from framegate.contract import Bundle, CandidateName, ConfigError, Verdict, write_text
from framegate.report.aa import draw
from framegate.runtime.session import RUNTIMES


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate aa`."""
    parser.add_argument("--runs", type=int, required=True, metavar="N", help="fixed before the first one; 1 to 10000")
    parser.add_argument("--bundle", type=Path, help="default: that of the reference in exports/verdict.json")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="ort-cpu")
    parser.add_argument("--pairs", type=int, default=20, help="fresh processes of a run (default: 20)")
    parser.add_argument("--blocks", type=int, default=8, help="AB/BA blocks of a process (default: 8)")
    parser.add_argument("--calls", type=int, default=50, help="calls of a block (default: 50)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slowdown", type=float, default=0.03, help="injected to test the power (default: 0.03)")
    parser.add_argument("--power-every", type=int, default=3, help="runs that test the power as well (default: 3)")
    parser.add_argument("--margin-p50", type=float, default=0.02, help="of the p50 rule (default: 0.02)")
    parser.add_argument("--margin-p99", type=float, default=0.10, help="of the p99 rule (default: 0.10)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("work/aa"), help="default: work/aa; kept, and gone on with"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Make the runs, print what they show, draw aa.svg."""
    folder = parsed.bundle or _reference()
    bundle = Bundle.load(folder)
    settings = ("pairs", "blocks", "calls", "threads", "seed", "slowdown", "power_every")
    if parsed.runs < stats.min_runs(0):
        print(f"{parsed.runs} runs cannot show that at most 1 % alarm: that takes {stats.min_runs(0)}", file=sys.stderr)
    plan = aa.plan_of(bundle, parsed.runtime, parsed.runs, **{key: getattr(parsed, key) for key in settings})
    done = aa.measure_runs(folder, plan, parsed.out)
    for _ in tqdm(done, total=plan.runs, unit="run", disable=not sys.stderr.isatty()):
        pass
    runs = aa.load_runs(parsed.out, plan)
    margins = {"p50": parsed.margin_p50, "p99": parsed.margin_p99}
    tallies = aa.tally(runs, plan, margins)
    write_text(parsed.out / "aa.svg", draw(runs, plan, margins["p50"]))
    if parsed.json:
        print(json.dumps({"plan": plan.model_dump(), "tallies": [one.model_dump() for one in tallies]}))
        return 0
    loads = sorted(one.load for one in runs)
    print(f"{bundle.info.name} against itself on {plan.runtime}: {plan.runs} runs of {plan.pairs} process pairs")
    print(f"load while measuring: median {loads[len(loads) // 2]:.1f}, at most {loads[-1]:.1f}")
    print(
        f"  {'way':23}{'margin':>7} {'truth':10} {'alarms, share with bounds':38} {'FAIL':>6} {'PASS':>6}  {'reach':>7}"
    )
    for one in tallies:
        print(f"  {words(one)}")
    print(f"picture: {parsed.out / 'aa.svg'}")
    return 0


def words(one: aa.Tally) -> str:
    """One tally as a line."""
    what = f"{one.slowdown:.0%} slower" if one.slowdown else "the same"
    low, high = one.alarm_share_low or 0.0, one.alarm_share_high or 0.0
    share = f"{one.alarms:4} of {one.runs:4} = {one.alarms / one.runs:6.1%} [{low:.1%}, {high:.1%}]"
    reach = "unknown" if one.reach is None else f"{one.reach:.1%}"
    return f"{one.way:24}{one.margin:5.0%}  {what:10} {share:38} {one.fails:5} {one.passes:6}  {reach:>7}"


def _reference() -> Path:
    """The reference's bundle."""
    path = Path("exports/verdict.json")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, so no reference is known; name a bundle with --bundle")
    return path.parent / CandidateName.parse(Verdict.read(path).reference).bundle
