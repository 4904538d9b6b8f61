"""`framegate ship --waive`: decided again from exports/evidence, shipped beside the champion, never as it."""

from dataclasses import replace
from pathlib import Path

import pytest

from framegate.cli import main
from framegate.contract import Bundle, Verdict
from framegate.gate import Case, CaseFacts, Evidence, decide
from framegate.promotion.archive import check_promotion
from tests.bundles import make_bundle
from tests.evidence import RULES, case_of, make, write_evidence

FAST = "cnn_gru-pruned-fp32--ort-cpu"  # three points worse than it may be
WORSE = "cnn_gru-pruned70-fp32--ort-cpu"  # and this one is slow as well
RULE, RECALL = "accuracy drop ≤ 1 points", "recall of every class"


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the gate leaves when one candidate is fast but worse: the reference would ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    exports = Path("exports")
    evidence = [make(), make(FAST, p50_ms=0.06, lost=100), make(WORSE, p50_ms=0.5, lost=100)]
    case = case_of([with_bundle(exports, one) for one in evidence])
    for one in case.evidence:
        write_evidence(one, exports / "evidence" / str(one.name))
    assert case.confirmation
    write_evidence(case.confirmation, exports / "evidence/confirmation")
    CaseFacts().write(exports / "evidence/case.json")
    decide(Case.load(exports / "evidence", [str(one.name) for one in evidence]), RULES).write(exports / "verdict.json")
    return exports


def with_bundle(exports: Path, one: Evidence) -> Evidence:
    """Evidence of a bundle that is really there, timed beside the reference's."""
    parent = exports / "cnn_gru-dense-fp32"
    digest = make_bundle(exports, one.name.bundle).info.digest
    changed = {
        "inputs": one.measurement.inputs | {"bundle": digest, "parent": Bundle.load(parent).info.digest},
        "session": one.measurement.session | {"threads": 2},
    }
    return replace(one, measurement=one.measurement.model_copy(update=changed))


def test_another_host_class_has_its_challenger_from_the_same_bundles(exports: Path) -> None:
    other = exports / "hosts" / "abcdefabcdef"
    for name in ("evidence", "verdict.json"):
        (exports / name).rename(other.mkdir(parents=True, exist_ok=True) or other / name)
    waived = [word for rule in (RULE, RECALL) for word in ("--waive", rule, "--reason", "a week of trial")]
    main(["ship", *waived, "--exports", str(other)])
    assert check_promotion(other / "challenger").candidate == FAST


@pytest.mark.parametrize("rule", [RULE, RULE.replace("≤", "<=")])
def test_what_a_waived_rule_kept_out_ships_as_the_challenger(
    exports: Path, capsys: pytest.CaptureFixture[str], rule: str
) -> None:
    assert next(c for c in Verdict.read(exports / "verdict.json").candidates if c.candidate == FAST).status == "FAIL"
    before = (exports / "verdict.json").read_bytes()
    why = ["--reason", "a week of trial at camera 3", "--reason", "the same"]
    main(["ship", "--waive", rule, "--waive", RECALL, *why])
    assert f"{FAST} shipped to exports/challenger as the challenger; the champion stays" in capsys.readouterr().out
    found = check_promotion(exports / "challenger")
    assert (found.candidate, found.threads, found.number) == (FAST, 2, None)
    assert [(one.rule, one.reason) for one in found.waived] == [
        (RULE, "a week of trial at camera 3"),
        (RECALL, "the same"),
    ]
    assert found.sentence.startswith(
        f"{FAST} is a challenger, by waiving {RULE} (a week of trial at camera 3); {RECALL}"
    )
    assert (exports / "verdict.json").read_bytes() == before and not (exports / "shipped").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--candidate", WORSE, "--waive", RULE], f"error: even with the waiver {WORSE} is FAIL: latency_p50_ms"),
        (["--waive", RULE], "cnn_gru-dense-fp32--ort-cpu passes without the waiver of accuracy drop ≤ 1 points; not"),
        (["--waive", "acuracy drop"], "error: waiver: 'acuracy drop' is no rule; did you mean 'accuracy drop"),
        (["--candidate", "cnn_gru-prumed-fp32--ort-cpu", "--waive", RULE], f"was not judged; did you mean '{FAST}'"),
    ],
)
def test_no_waiver_helps_against_what_it_does_not_name(exports: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ship", *words, "--reason", "trial"])
    assert message in str(caught.value)
    assert not (exports / "challenger").exists()
