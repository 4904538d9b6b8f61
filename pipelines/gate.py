"""Stage gate: measurements -> verdict, report and MLflow's comparison. Exits 0 also when nothing passes."""

from pathlib import Path

from framegate.contract import write_text
from framegate.gate import decide, load_evidence
from framegate.report import render
from pipelines._candidates import read_candidates
from pipelines._schema import Config
from pipelines._stage import Facts, stage


@stage("gate")
def gate(cfg: Config, out: Path) -> Facts:
    """Write <out>/verdict.json and report.html; judges the declared candidates, never a folder listing."""
    from framegate import track

    names = read_candidates().candidates
    evidence = load_evidence({name: Path("work/measurements") / name for name in names})
    verdict = decide(evidence, cfg.gate)
    measurements = [one.measurement for one in evidence]
    verdict.write(out / "verdict.json")
    write_text(out / "report.html", render(verdict, measurements))
    track.log_candidates(verdict, measurements, out / "report.html")
    return {"shipped": verdict.shipped, "sentence": verdict.sentence, "report": str(out / "report.html")}


if __name__ == "__main__":
    gate()
