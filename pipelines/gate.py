"""Stage gate: evidence -> verdict, report and MLflow's comparison, per host class. Exits 0 also when nothing passes."""

from collections.abc import Sequence
from pathlib import Path

from framegate.contract import FramegateError, Verdict, sha256_file, write_json, write_text
from framegate.gate import GateRules, decide, load_evidence
from framegate.gate.case import Case, Sources, write_case
from framegate.gate.ledger import LEDGER, open_test
from framegate.index import Index, ShardReader
from framegate.report import render, thumbnails, worst_clips
from pipelines._schema import Config
from pipelines._sources import WORK, check_current, counted, local_sources, other_hosts
from pipelines._stage import Facts, log, stage


@stage("gate")
def gate(cfg: Config, out: Path) -> Facts:
    """Write <out>/verdict.json, report.html and evidence/; the same into <out>/hosts/<class>/, listed in hosts.json."""
    from framegate import track

    index = Index.read(WORK / "index" / "index.json")
    here, ledger = local_sources(), out / LEDGER
    evidence = load_evidence(here.measurements)
    openings = open_test(ledger, index, evidence, cfg.gate)
    others = {}
    for folder, sources, undeclared in other_hosts():
        try:
            check_current(sources, evidence, index)
            others[folder] = judge(folder, counted(sources, ledger, openings), cfg.gate)
        except FramegateError as error:  # another class's files decide nothing of this one's
            log.warning("%s is not judged: %s", folder, error)
        if undeclared:
            log.warning("%s: %s not judged: conf/candidates.yaml declares no such", folder, ", ".join(undeclared))
    verdict = judge(out, counted(here, ledger, openings), cfg.gate, tuple(others.values()))
    write_json(out / "hosts.json", {folder.name: sha256_file(folder / "verdict.json") for folder in others})
    try:
        track.log_candidates(verdict, [one.measurement for one in evidence], out / "report.html")
    except FramegateError as error:  # the verdict is a file; MLflow shows it
        log.warning("MLflow's comparison lacks this verdict: %s; `dvc repro -f -s gate` shows it there", error)
    return {"shipped": verdict.shipped, "sentence": verdict.sentence, "report": str(out / "report.html")}


def judge(folder: Path, sources: Sources, rules: GateRules, others: Sequence[Verdict] = ()) -> Verdict:
    """One host class: what was decided, from the copy of the evidence that anybody can decide from again."""
    write_case(folder / "evidence", sources)
    case = Case.load(folder / "evidence", sources.measurements)
    verdict = decide(case, rules)
    verdict.write(folder / "verdict.json")
    by_name = {str(one.name): one for one in case.evidence}
    winner = by_name.get(verdict.shipped or verdict.reference)
    worst = worst_clips(winner, by_name[verdict.reference]) if winner else []
    pictures = thumbnails(worst, ShardReader(WORK / "index" / "index.json", WORK / "index" / "shards"))
    write_text(folder / "report.html", render(verdict, case.evidence, case.confirmation, pictures, others))
    log.info("%s: %s", folder, verdict.sentence)
    return verdict


if __name__ == "__main__":
    gate()
