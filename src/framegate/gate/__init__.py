"""The gate: rules and evidence in, a verdict out. Pure but for `load_evidence`; it measures nothing and moves nothing.

evidence (what was measured) -> judge (one rule, one candidate: an outcome) -> decide (all of them: what ships).
"""

from framegate.gate.decide import decide
from framegate.gate.evidence import Evidence, load_evidence
from framegate.gate.rules import GateRules, Rule

__all__ = ["Evidence", "GateRules", "Rule", "decide", "load_evidence"]
