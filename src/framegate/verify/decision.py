"""Decides again from the evidence and compares."""

from __future__ import annotations

from collections.abc import Iterator

from framegate.gate import GateRules, decide
from framegate.gate.case import Case
from framegate.verify.check import differences
from framegate.verify.subject import Subject


def rules(subject: Subject) -> Iterator[str]:
    """The gate section in the verdict has the digest that the verdict names."""
    verdict = subject.verdict
    parsed = GateRules.parse(verdict.gate)
    if parsed.digest != verdict.rules:
        yield f"the gate section has digest {parsed.digest[:12]}…, the verdict names {verdict.rules[:12]}…"
    if parsed.reference != verdict.reference:
        yield f"the gate section's reference is {parsed.reference}, the verdict's is {verdict.reference}"


def decision(subject: Subject) -> Iterator[str]:
    """Every field of the verdict, decided again."""
    verdict = subject.verdict
    subject.folders()  # NotThere without evidence
    again = decide(
        Case.load(subject.evidence, list(verdict.measurements)), GateRules.parse(verdict.gate), verdict.waived
    )
    yield from differences(verdict.model_dump(mode="json"), again.model_dump(mode="json"))


def unnamed(subject: Subject) -> Iterator[str]:
    """Evidence that the verdict does not name: a measurement that was left out of the decision."""
    known = {*subject.folders(), "agreement"}
    for folder in sorted(path for path in subject.evidence.iterdir() if path.is_dir()):
        if folder.name not in known:
            yield f"{folder}: evidence that the verdict does not name"
