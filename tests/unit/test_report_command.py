"""`framegate report`: files in, a page or Markdown out, and an exit code that says the status."""

import argparse
import re
from pathlib import Path

import pytest

from framegate.cli import EXIT_CODES, report
from framegate.contract import DataError, Status, Verdict
from framegate.gate import Case, decide
from framegate.gate.case import Sources, write_case
from framegate.gate.evidence import Evidence
from framegate.report import summary
from tests.evidence import REFERENCE, RULES, absent, case_of, decided, make, write_evidence

SHIPPED = "cnn_gru-pruned-int8--openvino"
FAILED = "cnn_gru-pruned70-fp32--ort-cpu"


def exports(folder: Path, evidence: list[Evidence] | None = None) -> Path:
    """As the gate stage leaves them."""
    evidence = evidence or [make(), make(SHIPPED, 0.061, lost=6), make(FAILED, 0.09, lost=60, val_lost=14)]
    case = case_of(evidence)
    found = {str(one.name): write_evidence(one, folder / "work" / str(one.name)) for one in evidence if one.samples}
    again = write_evidence(case.confirmation, folder / "work" / "confirmation") if case.confirmation else None
    write_case(folder / "exports" / "evidence", Sources(found, confirmation=again))
    names = [str(one.name) for one in evidence]
    decide(Case.load(folder / "exports" / "evidence", names), RULES).write(folder / "exports" / "verdict.json")
    return folder / "exports"


def run(folder: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    report.arguments(parser)
    return report.run(parser.parse_args([str(folder), *words]))


def test_it_writes_the_page_beside_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = exports(tmp_path)
    assert run(folder) == 0
    page = (folder / "report.html").read_text()
    assert Verdict.read(folder / "verdict.json").sentence in page and "In a fresh run" in page
    assert capsys.readouterr().out == ""


def test_markdown_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = exports(tmp_path)
    assert run(folder, "--format", "md") == 0
    printed = capsys.readouterr().out
    assert run(folder, "--format", "md", "-o", str(tmp_path / "pr.md")) == 0
    assert (tmp_path / "pr.md").read_text() == printed and printed.startswith("**PASS**: ")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("status", EXIT_CODES)
@pytest.mark.parametrize("words", [(), ("--format", "md")])
def test_the_exit_code_says_the_status(tmp_path: Path, status: Status, words: tuple[str, ...]) -> None:
    folder = exports(tmp_path, [make()])
    Verdict.read(folder / "verdict.json").model_copy(update={"status": status}).write(folder / "verdict.json")
    assert run(folder, *words) == {"PASS": 0, "FAIL": 2, "INCONCLUSIVE": 3}[status]


def test_other_hosts_are_linked(tmp_path: Path) -> None:
    folder = exports(tmp_path)
    other = Verdict.read(folder / "verdict.json").model_copy(update={"host_class": "c" * 64, "sentence": "Elsewhere."})
    (folder / "hosts" / ("c" * 12)).mkdir(parents=True)
    other.write(folder / "hosts" / ("c" * 12) / "verdict.json")
    run(folder)
    page = (folder / "report.html").read_text()
    assert "Elsewhere." in page and f'href="hosts/{"c" * 12}/report.html"' in page


def test_what_is_missing_or_does_not_belong_together_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"verdict.json: no such file; run the stage"):
        run(tmp_path)
    folder = exports(tmp_path)
    write_evidence(make(SHIPPED, 0.07, lost=6), folder / "evidence" / SHIPPED)
    with pytest.raises(DataError, match=f"{SHIPPED}: not what .*verdict.json was computed from"):
        run(folder)
    with pytest.raises(DataError, match=r"index.json: no such file"):
        run(exports(tmp_path / "b"), "--index", str(tmp_path / "nowhere"))
    (folder / "evidence").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"evidence: no such folder; run the gate stage"):
        run(folder)


def test_a_candidate_without_a_measurement_is_one_of_the_candidates(tmp_path: Path) -> None:
    folder = exports(tmp_path, [make(), absent(SHIPPED)])
    assert run(folder) == 0
    assert SHIPPED in (folder / "report.html").read_text()


# --- Markdown -----------------------------------------------------------------------------------


def test_the_summary_has_a_row_for_each_candidate_and_the_numbers_of_what_fails() -> None:
    case = case_of([make(), make(SHIPPED, 0.061, lost=6), make(FAILED, 0.09, lost=60, val_lost=14)])
    text = summary(decide(case, RULES), case.evidence, case.confirmation)
    table = [line for line in text.splitlines() if line.startswith("| cnn")]
    assert [line.split(" | ")[1] for line in table] == ["PASS, **ships**", "PASS, reference", "FAIL"]
    assert all(line.count(" | ") == 6 for line in table)
    assert re.search(r"accuracy drop ≤ 1 points: FAIL, 2.31 points \(1.\d+ … \d.\d+\), bound 1.00, n = 2,600", text)
    assert "test split opened 1 time" in text and text.endswith(".\n")


def test_nothing_from_outside_can_break_the_table_or_the_page() -> None:
    bad = "killed | by\n# <script>alert(1)</script> *now* `rm`"
    evidence = [make(), absent(SHIPPED, reason=bad)]
    text = summary(decided(evidence), evidence)
    assert "<script" not in text.replace("\\<", "") and "\n#" not in text
    assert "killed \\| by \\# \\<script\\>alert(1)\\</script\\> \\*now\\* \\`rm\\`" in text


def test_a_reference_that_ships_alone_has_nothing_to_explain() -> None:
    case = case_of([make()])
    text = summary(decide(case, RULES), case.evidence, case.confirmation)
    assert "Rules that do not pass" not in text and REFERENCE.replace("_", "\\_") in text
