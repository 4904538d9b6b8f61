"""How often a question was asked again: counted, and said."""

from pathlib import Path

from framegate.gate import CaseFacts, Evidence, Sources, decide
from framegate.gate.case import Case, write_case
from framegate.gate.ledger import note_confirmation, open_test
from tests import judged
from tests.evidence import REFERENCE, RULES, again, make, write_evidence

FAST = "cnn_gru-pruned-int8--ort-cpu"


def test_other_models_or_rules_open_the_test_split_once_more(tmp_path: Path) -> None:
    path, index = tmp_path / "test_ledger.json", judged.make_index()
    reference, fast = make(), make(FAST, 0.06)

    def opened(evidence: list[Evidence], bound: float = 1.0) -> int:
        rules = RULES.model_copy(update={"guardrail_points": bound})
        return open_test(path, index, evidence, rules)

    assert [opened([reference, fast]), opened([reference, fast])] == [1, 1]
    assert opened([reference, make(FAST, 0.06, inputs={"bundle": "trained again"})]) == 2
    assert opened([reference, fast], bound=0.5) == 3
    assert opened([reference, fast]) == 3
    fewer = index.model_copy(update={"clips": index.clips[:-1]})
    assert open_test(path, fewer, [reference, fast], RULES) == 1


def test_a_choice_that_is_confirmed_again_and_again_is_said(tmp_path: Path) -> None:
    fast = make(FAST, 0.06)
    folders = {str(one.name): write_evidence(one, tmp_path / str(one.name)) for one in (make(), fast)}

    def confirmed(p50_ms: float) -> tuple[int, tuple[str, ...]]:
        sources = Sources(folders, write_evidence(again(fast, p50_ms), tmp_path / "confirmation"))
        count = note_confirmation(tmp_path / "test_ledger.json", sources)
        counted = Sources(folders, sources.confirmation, facts=CaseFacts(confirmations=count))
        write_case(tmp_path / "evidence", counted)
        return count, decide(Case.load(tmp_path / "evidence", [REFERENCE, FAST]), RULES).warnings

    assert confirmed(0.06) == (1, ())
    assert confirmed(0.06) == (1, ())  # the same measurement
    count, warnings = confirmed(0.061)
    assert count == 2 and f"the latency of {FAST} was measured again 2 times" in warnings[0]
    assert note_confirmation(tmp_path / "test_ledger.json", Sources(folders)) == 0
