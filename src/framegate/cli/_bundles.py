"""`framegate bench exports/* -o DIR`: bundles as another host measures them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from framegate.bench.collected import CLASS
from framegate.bench.elsewhere import confirm, make_plan, measure_all
from framegate.bench.host import host_class, host_digest
from framegate.contract import ConfigError
from framegate.promotion.record import FILE, SHIPPED, read_record

SETTINGS = ("threads", "pairs", "seed", "timeout_s")


def run(parsed: argparse.Namespace) -> int:
    """A line per candidate; 0 when something was measured, 3 when nothing was."""
    if parsed.out is None:
        raise ConfigError("bench of bundles: name the folder that the measurements go to: -o DIR")
    ignored = [
        f"--{name}" for name in ("processes", "calls", "margin", "input", "shape") if getattr(parsed, name, None)
    ]
    if ignored:
        raise ConfigError(f"bench of bundles: {', '.join(ignored)} is for ONNX files; conf/bench says it for bundles")
    runtimes = [name for name in (parsed.runtime or "").split(",") if name]
    changes = {name: getattr(parsed, name) for name in SETTINGS}
    plan = make_plan(parsed.paths, parsed.out, parsed.index or Path("work/index"), runtimes, changes)
    found = []
    for one, line in measure_all(plan):
        found.append(one)
        if not parsed.json:
            print(line, flush=True)
    shipped = plan.exports / "hosts" / host_digest(host_class())[:CLASS] / SHIPPED
    champion = read_record(shipped / FILE)
    sentence = confirm(plan, shipped if champion else None, champion.candidate if champion else None)
    if parsed.json:
        listed = [{"candidate": one.candidate, "status": one.status, "reason": one.reason} for one in found]
        print(json.dumps({"measurements": listed, "confirmation": sentence}, indent=2, ensure_ascii=False))
    else:
        print(sentence)
        count = Counter(one.status for one in found)
        told = ", ".join(f"{count[status]} {status}" for status in ("measured", "skipped", "failed"))
        print(f"{told}; copy {plan.out} to where the gate runs, then: framegate collect {plan.out}")
    return 0 if any(one.status == "measured" for one in found) else 3
