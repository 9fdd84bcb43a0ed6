"""Is the number that is reported the thing that is meant? Twelve facets of having changed a fact, beside the nominal score.

    nominal      p(new answer | prompt) after the edit: what an edit is optimised for
    composite    mean of the other facets a fact has, each between 0 (as if nothing, or everything, were changed) and 1

    target, paraphrase, alias      the new answer is likelier than the old: at the prompt, in other words, by another name
    reverse                        the same asked from the new answer's side, where the subject is the answer
    entailed, multi-hop            what follows is likelier than what held before
    same subject, neighbours,      the likeliest next token is what it was
    unrelated
    confidence                     exp(-|change of the entropy of the next token|)
    free generation                greedy writing begins with the new answer
    old answer                     1 - what is left of the old answer's probability over all wordings

A nominal score that says nothing about the composite measures its own target, not the change of a fact (Hoelscher-Obermaier et al.
2023 and Cohen et al. 2024 on what CounterFact leaves out). Facets are told apart by the strata of a fact and by the kinds that
benchmarks give their probes; a facet counts as measured where at least a quarter of the facts have it.

Apart from these, the residue: whether the old answer can still be read from the states more than the same answer can at subjects
that never had it (`palimpsest.erase.residue`), by the logit lens at every layer. 1 - AUC is kept, so that larger is better; 0.5 is
clean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_reading import (
    ENTAILED,
    PARAPHRASES,
    STRATA,
    TARGET,
    Reading,
    Strata,
    search_passes,
)
from palimpsest.audit.experiments.over_facts import clusters_of_rows, column
from palimpsest.audit.setting import Setting
from palimpsest.erase.residue import residue
from palimpsest.errors import FactError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Written
from palimpsest.evaluate.words import begins
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model
from palimpsest.statistics import Estimate, cluster_bootstrap, of_records, spearman

FACETS = (
    "target",
    "paraphrase",
    "alias",
    "reverse",
    "entailed",
    "multi-hop",
    "same subject",
    "neighbours",
    "unrelated",
    "confidence",
    "free generation",
    "old answer",
)
NOMINAL = "target"
HAVE = 0.25  # share of the facts that must have a facet for it to count as measured
RESIDUE = "residue"  # the unit that reads all facts together
READOUTS = ("logit lens",)
KINDS = {
    "alias": ("alias",),
    "multi-hop": ("hop", "portability", "reasoning", "compositionality"),
}  # parts of kinds' names
UNRELATED = 3  # facts of other relations, where a fact brings no far probes
PERMUTATIONS = 1999


class Coverage:
    """Facets of the rank-one edit at the place, and the residue of the old answers."""

    name = "coverage"
    criteria: tuple[str, ...] = ("M6",)
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact, and one for the residue of all."""
        return (*setting.facts_for(self.name), RESIDUE)

    def seconds(self, bench: Bench) -> float:
        """Two readings of some 30 prompts, what is written, and the residue's share; the edit is that of the doses."""
        return bench.seconds_a_pass * (search_passes(bench) + 50)

    def measure(self, bench: Bench, unit: str) -> Row:
        """The facets of one fact under its edit, or the residue over all."""
        layer = bench.setting.place.centre
        if unit == RESIDUE:
            return {"layer": layer, "auc": self._residue(bench, layer)}
        fact = bench[unit]
        if fact.target_new is None:
            raise FactError(f"The fact {fact.id} has no target_new to edit to; give one.")
        asked = parted(fact, bench.pool)
        strata = {
            name: Strata.of(bench.model, one, only=(ENTAILED,) if name else STRATA) for name, one in asked.items()
        }
        before = {name: one.read(bench.model) for name, one in strata.items()}
        with bench.edit_at([fact], layer).applied(bench.model):
            after = {name: one.read(bench.model) for name, one in strata.items()}
            free = _free(bench.model, fact)
        return {"layer": layer, "nominal": float(after[""].p[0]), "facets": facets(strata, before, after, free)}

    def _residue(self, bench: Bench, layer: int) -> dict[str, Any]:
        facts = [bench[name] for name in bench.setting.facts_for(self.name)]
        edits = [bench.edit_at([fact], layer) for fact in facts]
        found = residue(
            bench.model,
            facts,
            edits,
            pool=bench.pool,
            readouts=READOUTS,
            gate="all",
            seed=bench.setting.seed,
        )
        return {when: found.auc(when=when).to_json() for when in ("after", "before")}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """How many facets were measured, whether the nominal score goes with the others, and the residue."""
        own = [row for row in rows.get(self.name, ()) if row["layer"] == setting.place.centre]
        read = [row for row in own if row["id"] != RESIDUE]
        found = [*self._covered(facts, read)] if read else []
        return [*found, *(_residue_evidence(self.name, row) for row in own if row["id"] == RESIDUE)]

    def _covered(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        clusters = clusters_of_rows(rows, facts)
        had = {name: [row for row in rows if row["facets"].get(name) is not None] for name in FACETS}
        measured = [name for name in FACETS if len(had[name]) >= HAVE * len(rows) and had[name]]
        means = {name: _mean(had[name], name, facts) for name in measured}
        shared: dict[str, Any] = {"family": "behavioural", "mode": "interventional"}
        count = Estimate.exact(
            len(measured),
            n=len(rows),
            clusters=len({relation for relation, _ in clusters}),
            method=f"facets that at least {HAVE:.0%} of the facts have; a count, without sampling error",
            unit=f"of {len(FACETS)} facets",
        )
        found = [
            Evidence(
                self.name,
                "facets",
                ("M6",),
                estimate=count,
                note="Not measured: " + (", ".join(name for name in FACETS if name not in measured) or "none") + ".",
                data={
                    "facets": {name: one.to_json() for name, one in means.items()},
                    "n": {k: len(v) for k, v in had.items()},
                },
                **shared,
            )
        ]
        both = [row for row in rows if any(v is not None for name, v in row["facets"].items() if name != NOMINAL)]
        if len(both) < 3:
            return found
        nominal, whole = column(both, lambda row: row["nominal"]), np.array([composite(row["facets"]) for row in both])
        estimate = (
            of_records(
                lambda drawn: spearman(nominal[drawn], whole[drawn]),
                len(both),
                clusters_of_rows(both, facts),
                unit="Spearman's rho",
                name="Spearman's rho",
            )
            if not np.isnan(spearman(nominal, whole))
            else Estimate.unknown("one of the two scores does not vary", len(both))
        )
        p, chance = _permuted(nominal, whole)
        return [
            *found,
            Evidence(
                self.name,
                "nominal-coherence",
                ("M6",),
                estimate=estimate,
                controls=(Control("N7", chance, "composites dealt to other facts"),),
                p=p,
                note="p(new answer | prompt) against the mean of the other facets, fact by fact.",
                data={"nominal": nominal.tolist(), "composite": whole.tolist(), "ids": [row["id"] for row in both]},
                **shared,
            ),
        ]


def facets(
    strata: Mapping[str, Strata], before: Mapping[str, Reading], after: Mapping[str, Reading], free: float
) -> dict[str, float | None]:
    """Each facet of one fact, None where it has none; `strata` and readings by part, "" the fact's own (see `parted`)."""

    def right(part: str, stratum: str) -> float | None:
        at = strata[part].at(stratum) if part in strata else np.array([], dtype=int)
        return float(after[part].right[at].mean()) if at.size else None

    def kept(stratum: str) -> float | None:
        at = strata[""].at(stratum)
        return float((after[""].best[at] == before[""].best[at]).mean()) if at.size else None

    own = np.concatenate([strata[""].at(TARGET), strata[""].at(PARAPHRASES)])
    left = np.minimum(after[""].rival[own], before[""].rival[own]).sum() / max(before[""].rival[own].sum(), 1e-300)
    return {
        "target": right("", TARGET),
        "paraphrase": right("", PARAPHRASES),
        "alias": right("alias", ENTAILED),
        "reverse": right("reverse", ENTAILED),
        "entailed": right("", ENTAILED),
        "multi-hop": right("multi-hop", ENTAILED),
        "same subject": kept("same_subject"),
        "neighbours": kept("neighbours"),
        "unrelated": kept("far"),
        "confidence": float(np.exp(-abs(after[""].entropy[0] - before[""].entropy[0]))),
        "free generation": free,
        "old answer": float(1 - left),
    }


def parted(fact: Fact, others: Sequence[Fact]) -> dict[str, Fact]:
    """The fact with its entailed probes parted by facet: "" holds one hop, the others by name what they hold.

    Facts without far probes are given some: prompts of other facts, of other relations and subjects.
    """
    parts: dict[str, list[Probe]] = {"": [], "alias": [], "reverse": [], "multi-hop": []}
    for probe in fact.entailed:
        parts[facet_of(fact, probe)].append(probe)
    far = fact.far or tuple(
        Probe(one.text, one.target_true, subject=one.subject)
        for one in others
        if one.relation != fact.relation and one.subject != fact.subject and one.target_true is not None
    )
    record = {**vars(fact), "far": far[: max(UNRELATED, len(fact.far))]}
    return {name: Fact(**{**record, "entailed": tuple(probes)}) for name, probes in parts.items() if probes or not name}


def facet_of(fact: Fact, probe: Probe) -> str:
    """ "alias", "multi-hop" or "reverse", or "" for what follows in one step."""
    kind = (probe.kind or "").casefold()
    for name, parts in KINDS.items():
        if any(part in kind for part in parts):
            return name
    return "reverse" if probe.answer == fact.subject else ""


def composite(values: Mapping[str, float | None]) -> float:
    """The mean of the facets a fact has, but for the nominal one."""
    return float(np.mean([value for name, value in values.items() if name != NOMINAL and value is not None]))


def _permuted(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float | None, Estimate]:
    """p of a correlation as high by chance, and what chance gives."""
    observed = spearman(a, b)
    if np.isnan(observed):
        return None, Estimate.unknown("one of the two scores does not vary", len(a))
    ours, theirs = (ranks - ranks.mean() for ranks in (stats.rankdata(a), stats.rankdata(b)))
    draw = np.random.default_rng(seed)
    dealt = np.stack([draw.permutation(theirs) for _ in range(PERMUTATIONS)]) @ ours
    dealt /= np.linalg.norm(ours) * np.linalg.norm(theirs)
    low, high = np.quantile(dealt, (0.025, 0.975))
    p = (1 + int((dealt >= observed - 1e-12).sum())) / (1 + PERMUTATIONS)
    said = f"mean and middle 95 % of {PERMUTATIONS} permutations"
    return p, Estimate(float(dealt.mean()), float(low), float(high), len(a), len(a), method=said, unit="Spearman's rho")


def _mean(rows: Sequence[Row], name: str, facts: Mapping[str, Fact]) -> Estimate:
    return cluster_bootstrap(column(rows, lambda row: row["facets"][name]), clusters_of_rows(rows, facts))


def _free(model: Model, fact: Fact) -> float:
    new = str(fact.target_new)
    writing = Written(fact.text, tokens=len(model.encode_answer(fact.text, new)[0]) - len(model.encode(fact.text)) + 4)
    return float(begins(answer(model, [writing]).written(writing), new))


def _residue_evidence(name: str, row: Row) -> Evidence:
    after, before = (Estimate.from_json(row["auc"][when]) for when in ("after", "before"))
    return Evidence(
        name,
        "residue",
        (),
        "representational",
        "observational",
        after.below(1, "1 - residue AUC; 0.5 is clean"),
        note="The old answer at any layer (logit lens, max-T) against the same answer at subjects that never had it; "
        f"before the edit the AUC is {before}.",
        data={"after": after.to_json(), "before": before.to_json(), "readouts": list(READOUTS)},
    )


EXPERIMENT = Coverage
