"""The gate: rules and a case in, a verdict out. Pure but for reading and writing the case; it measures nothing.

rules (what must be proven), metrics (where each number comes from), evidence and case (what was measured),
faults and context (what is no evidence) -> judge (one rule, one candidate) -> judged (one candidate) -> choose
(shortlist, walk, ties) -> decide (the verdict).
"""

from framegate.gate.case import Case, CaseFacts, Sources, write_case
from framegate.gate.decide import choose, decide
from framegate.gate.evidence import Agreed, Agreement, Evidence, load_evidence
from framegate.gate.rules import GateRules, Rule

__all__ = [
    "Agreed",
    "Agreement",
    "Case",
    "CaseFacts",
    "Evidence",
    "GateRules",
    "Rule",
    "Sources",
    "choose",
    "decide",
    "load_evidence",
    "write_case",
]
