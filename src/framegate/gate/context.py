"""What every candidate of a run is judged in: the reference, the champion, and how quiet the machine was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framegate.bench.stats import Estimate
from framegate.contract import ConfigError, nearest
from framegate.gate.case import Case
from framegate.gate.evidence import Agreed, Evidence
from framegate.gate.rules import GateRules, Rule

INPUTS = (("host_class", "on another host class"), ("index", "on other data"), ("bench", "otherwise"))


@dataclass(frozen=True, slots=True)
class Context:
    """`champion` is None unless it was measured on the same data; `unfit` then says why. `restless`: why no time is
    believed, or empty."""

    rules: GateRules
    by_name: Mapping[str, Evidence]
    reference: Evidence
    champion: Evidence | None
    unfit: str
    restless: str
    agreements: Mapping[str, Agreed]

    @classmethod
    def of(cls, case: Case, rules: GateRules) -> Context:
        """ConfigError when no candidate is declared, one twice, or the reference is not among them."""
        by_name = _by_name(case, rules)
        reference = by_name[rules.reference]
        unfit = _why_no_champion(case.champion, reference)
        beside_itself = by_name.get(reference.name.parent)
        return cls(
            rules=rules,
            by_name=by_name,
            reference=reference,
            champion=None if unfit else case.champion,
            unfit=unfit,
            restless=_why_restless(beside_itself, rules.restless),
            agreements=case.agreements,
        )

    def opponents(self, rule: Rule, one: Evidence) -> list[tuple[str, Evidence | None]]:
        """Whom a rule compares a candidate with: nobody with itself, nobody with a champion that there is not.

        A rule that asks for the champion by name is not proven while the champion was measured on other data.
        """
        found: list[tuple[str, Evidence | None]] = []
        for against in rule.opponents:
            if against == "reference":
                if one is not self.reference or rule.where == "camera":
                    found.append((against, self.reference))
            elif against != "champion":
                found.append((against, None))
            elif self.champion is not None and not _same_model(self.champion, one):
                found.append((against, self.champion))
            elif self.champion is None and self.unfit and rule.against:
                found.append((against, None))
        return found

    def why_not_comparable(self, one: Evidence) -> str | None:
        """Why nothing can be concluded about a candidate, whatever the rules; None when it can. Never waived."""
        found, reference = one.measurement, self.reference
        if found.status != "measured" or one.samples is None:
            return f"{found.status}: {found.reason}"
        if reference.samples is None:
            told = f"{reference.measurement.status}: {reference.measurement.reason}"
            return f"the reference has no measurement ({told})"
        for key, words in INPUTS:
            if not found.inputs.get(key) or found.inputs[key] != reference.measurement.inputs.get(key):
                return f"measured {words} than the reference; run bench for both"
        if not one.bundle:
            return "nothing says which bundle was measured; run bench again"
        if one.bundle == reference.bundle and one.name.bundle != reference.name.bundle:
            return f"it is the reference under another name: its bundle is that of {reference.name}"
        return self._why_not_beside_parent(one) or self._fault(one)

    def _why_not_beside_parent(self, one: Evidence) -> str | None:
        """Its ratios are of its parent's time only when it ran beside the bundle that was measured as its parent."""
        parent = self.by_name.get(one.name.parent)
        if parent is None or not parent.bundle:
            return f"its parent {one.name.parent} was not measured: nothing shows what it was timed beside"
        if one.measurement.inputs.get("parent") != parent.bundle:
            return f"it was timed beside another bundle than that of its parent {one.name.parent}; run bench again"
        return None

    def _fault(self, one: Evidence) -> str | None:
        if self.reference.fault:
            return f"the reference's {self.reference.fault}"
        return f"its {one.fault}" if one.fault else None


def _by_name(case: Case, rules: GateRules) -> dict[str, Evidence]:
    names = [str(one.name) for one in case.evidence]
    if not names:
        raise ConfigError("no candidate is declared: conf/candidates.yaml must name at least the reference")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"candidates declared twice: {', '.join(twice)}")
    if rules.reference not in names:
        raise ConfigError(
            f"gate.reference {rules.reference!r} is not among the {len(names)} declared candidates"
            f"{nearest(rules.reference, names)}"
        )
    return dict(sorted(zip(names, case.evidence, strict=True)))


def _same_model(champion: Evidence, one: Evidence) -> bool:
    return champion.name == one.name and champion.bundle == one.bundle


def _why_no_champion(champion: Evidence | None, reference: Evidence) -> str:
    """Why drops are not counted from the champion too; empty when they are, or when nothing has ever shipped."""
    if champion is None:
        return ""
    index = champion.measurement.inputs.get("index")
    if champion.samples is None:
        why = champion.measurement.reason
    elif not index or index != reference.measurement.inputs.get("index"):
        why = "it was measured on other data"
    else:
        why = f"its {champion.fault}" if champion.fault else ""
    return f"not compared with the champion {champion.name}: {why}" if why else ""


def _why_restless(beside_itself: Evidence | None, margin: float) -> str:
    """A dense model timed beside itself shows what a ratio of nothing looks like on this machine, today."""
    if beside_itself is None or beside_itself.samples is None or beside_itself.fault:
        return why_restless(None, margin, {})
    latency = beside_itself.measurement.latency
    if latency is None:
        return why_restless(None, margin, {})
    found = Estimate(latency.ratio_p50, latency.ratio_p50_low, latency.ratio_p50_high, latency.calls)
    return why_restless(found, margin, beside_itself.measurement.host_conditions)


def why_restless(found: Estimate | None, margin: float, conditions: Mapping[str, Any]) -> str:
    """Why no time is believed that was measured beside this ratio of a model to itself; empty when it can be.

    The interval counts, not the point: a point near 1 with a wide interval is luck.
    """
    if found is None:
        return "nothing shows how quiet this machine is: the reference's own model was not timed beside itself"
    if found.low is None or found.high is None:
        return "nothing shows how quiet this machine is: the reference met itself in too few processes"
    if 1 / (1 + margin) <= found.low and found.high <= 1 + margin:
        return ""
    load = conditions.get("load_1_5_15", ["unknown"])[0]
    return (
        f"this machine is too restless: load {load} (the reference took [{found.low:.3f}, {found.high:.3f}] of its own "
        f"time, {1 / (1 + margin):.3f} to {1 + margin:.3f} is allowed)"
    )
