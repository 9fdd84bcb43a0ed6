"""Whether the place is that of the fact or of the wording (criteria M2, E5).

    template-eta         -omega2 of the wording on NIE(place) / TE      (Hays 1963: eta2 less what chance gives)
    template-icc         ICC(2,1) of a fact's peak depth over wordings  (Shrout and Fleiss 1979, case 2)
    template-robustness  the worst wording's share over the prompt's    min_v (sum e_v / sum TE_v) / (sum e_0 / sum TE_0)

Each fact is traced in up to four wordings: its prompt, paraphrases that name the subject, and, where there is one, a wording of
the other order. In "The capital of France is" the relation comes first and the subject's last token may have read it; in
"France has its capital in" it cannot have. Wordings that the model does not answer say nothing of where it keeps the answer:
they are left out and counted. Most sets of knowledge neurons belong to a wording and not to a fact (Chen et al. 2025,
*Query Localization*).

The framework's bars are of eta2, which is above 0 by chance alone, by (k - 1) / (n - 1): 0.06 for four wordings of a dozen facts,
where its floor is. So omega2 is held against them, which is eta2 in large samples and 0 on average where nothing differs; eta2
stands in the data with Welch's test.

Shares of single facts have heavy tails, and a tail would hide what a wording does; for both they are cut at -1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.roles import Effects, effects_of, seconds_of_maps, traced, tracer
from palimpsest.audit.setting import POSITIONS, Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, icc_2_1, of_means
from palimpsest.statistics.anova import omega_squared, welch

DRAWS = 4  # noise draws of one wording
MOST = 4  # wordings of one fact
PROMPT, OTHER_ORDER = "prompt", "other order"
CUT = (-1.0, 2.0)  # a fact's share is cut here where single facts' shares are compared
LEAST = 2  # variants that a worst one is chosen from, and wordings that are compared


class Templates:
    """The trace of `Tracing` in several wordings of each fact; see the module's text."""

    name = "templates"
    criteria = ("M2", "E5")
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """One map a wording."""
        return seconds_of_maps(bench, min(DRAWS, bench.setting.samples), MOST)

    def measure(self, bench: Bench, unit: str) -> Row:
        """One map a wording, under the wording's name; in place of one that cannot be traced stands why."""
        instrument = tracer(bench, bench.setting.place.module, min(DRAWS, bench.setting.samples))
        found: dict[str, Any] = {}
        for name, fact in wordings_of(bench[unit]).items():
            about = {"text": fact.text, "order": order_of(fact)}
            try:
                found[name] = about | traced(instrument, bench.model, fact)
            except FactError as error:
                found[name] = about | {"error": str(error)}
        return {"wordings": found}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Evidence over the wordings that at least two facts have."""
        own, place = rows[self.name], setting.place
        answered = {
            name: [{**row, "id": unit} for unit, row in told.items() if usable(row)]
            for name, told in by_wording(own).items()
        }
        effects = {
            name: effects_of(told, facts, place.position) for name, told in answered.items() if len(told) >= LEAST
        }
        effects = {name: one for name, one in effects.items() if len(one) >= LEAST}
        if PROMPT not in effects or len(effects) < LEAST:
            return []
        counted = self._counted(own, effects)
        return [
            self._eta(setting, effects, counted, answered, facts),
            self._icc(setting, effects, counted),
            self._robustness(setting, effects, counted),
        ]

    def _eta(
        self,
        setting: Setting,
        effects: Mapping[str, Effects],
        counted: str,
        answered: Mapping[str, Sequence[Row]],
        facts: Mapping[str, Fact],
    ) -> Evidence:
        centre, seed = setting.place.centre, setting.seed
        groups = {name: np.clip(one.at(centre) / one.totals, *CUT) for name, one in effects.items()}
        clusters = [one.clusters for one in effects.values()]
        share = welch(groups, clusters, seed=seed)
        return Evidence(
            experiment=self.name,
            endpoint="template-eta",
            criteria=("M2",),
            family="measurement",
            mode="interventional",
            estimate=omega_squared(groups, clusters, seed=seed).below(0, "-omega squared"),
            note=f"{counted} omega squared is eta squared, which stands in the data, less what chance gives.",
            data={
                "welch_f": share.f,
                "welch_p": share.p,
                "eta2": share.eta2.to_json(),
                "share_by_wording": {
                    name: one.share(one.at(centre), seed=seed).to_json() for name, one in effects.items()
                },
                "share_by_order": self._by_order(setting, facts, answered),
                "profiles": {
                    role: {
                        name: effects_of(answered[name], facts, role).of(one.names).profile(seed=seed)
                        for name, one in effects.items()
                    }
                    for role in POSITIONS
                },
            },
        )

    def _by_order(
        self, setting: Setting, facts: Mapping[str, Fact], answered: Mapping[str, Sequence[Row]]
    ) -> dict[str, Any]:
        """Share at the place of subject-first and of relation-first wordings."""
        found: dict[str, Any] = {}
        for order in ("subject first", "relation first"):
            told = [row for rows in answered.values() for row in rows if row["order"] == order]
            # a fact may be asked in one order several times: each wording is a record, the fact its cluster
            named = [{**row, "id": f"{row['id']}#{i}"} for i, row in enumerate(told)]
            of_row = {one["id"]: facts[row["id"]] for one, row in zip(named, told, strict=True)}
            effects = effects_of(named, of_row, setting.place.position)
            if len(effects):
                found[order] = effects.share(effects.at(setting.place.centre), seed=setting.seed).to_json()
        return found

    def _icc(self, setting: Setting, effects: Mapping[str, Effects], counted: str) -> Evidence:
        complete = shared_names(list(effects.values()))
        estimate, equal = Estimate.unknown("no two facts have all wordings", len(complete)), None
        if len(complete) >= LEAST:
            depths = np.column_stack([one.of(complete).peaks for one in effects.values()]) / max(
                1, setting.n_layers - 1
            )
            clusters = effects[PROMPT].of(complete).clusters
            estimate = icc_2_1(depths, clusters, seed=setting.seed)
            equal = float((depths == depths[:, :1]).all(axis=1).mean())
        return Evidence(
            experiment=self.name,
            endpoint="template-icc",
            criteria=("M2",),
            family="measurement",
            mode="interventional",
            estimate=estimate,
            note=f"{counted} Peak depth of each fact under each wording; unknown where every fact peaks at one layer, "
            "because then nothing is there to agree about.",
            data={"wordings": list(effects), "facts": len(complete), "same_peak_in_all_wordings": equal},
        )

    def _robustness(self, setting: Setting, effects: Mapping[str, Effects], counted: str) -> Evidence:
        variants = [name for name in effects if name != PROMPT]
        estimate = Estimate.unknown(f"{LEAST} variants are needed, got {len(variants)}")
        ratios: dict[str, float] = {}
        if len(variants) >= LEAST:
            table = columns_of(effects, variants, setting.place.centre)
            ratios = dict(zip(variants, ratios_of_means(table.mean(axis=0)), strict=True))
            estimate = of_means(
                table,
                effects[PROMPT].clusters,
                worst_ratio,
                name=f"least of {len(variants)} wordings' shares over the prompt's, on the facts that have both",
                unit="ratio of shares",
                seed=setting.seed,
            )
            if np.isnan(estimate.value):
                own = effects[PROMPT].share(effects[PROMPT].at(setting.place.centre), seed=setting.seed)
                estimate = Estimate.unknown(
                    f"at the prompt itself the place restores {own}, too little for a wording to keep a part of",
                    len(effects[PROMPT]),
                )
        return Evidence(
            experiment=self.name,
            endpoint="template-robustness",
            criteria=("E5",),
            family="behavioural",
            mode="interventional",
            estimate=estimate,
            note=f"{counted} The worst of {len(variants)} wordings besides the prompt is found anew in each resample.",
            data={"ratios": ratios, "variants": variants},
        )

    def _counted(self, rows: Sequence[Row], effects: Mapping[str, Effects]) -> str:
        asked = sum(len(row["wordings"]) for row in rows)
        kept = sum(len(one) for one in effects.values())
        return (
            f"{kept} of {asked} wordings of {len(rows)} facts counted; the others the model does not answer, have no "
            f"usable total effect, or could not be traced."
        )


def wordings_of(fact: Fact, most: int = MOST) -> dict[str, Fact]:
    """The prompt and paraphrases that name the subject, as facts; a wording of the other order is among them if there is one."""
    texts = [text for text in dict.fromkeys(fact.paraphrases) if fact.subject in text and text != fact.text]
    variants = [replace(fact, prompt=hole_in(text, fact.subject)) for text in texts if "{}" not in text]
    other = next((one for one in variants if order_of(one) != order_of(fact)), None)
    alike = [one for one in variants if one is not other][: most - 1 - (other is not None)]
    found = {PROMPT: fact} | {f"wording {i}": one for i, one in enumerate(alike, 1)}
    return found if other is None else found | {OTHER_ORDER: other}


def hole_in(text: str, subject: str) -> str:
    """The text as a prompt, with its hole where the subject stands last."""
    begin = text.rindex(subject)
    return f"{text[:begin]}{{}}{text[begin + len(subject) :]}"


def order_of(fact: Fact) -> str:
    """Whether the question says something before it names the subject: more than one word, which may be an article.

    Only then can the subject's last token have read the relation. An opening sentence is no part of the question.

    >>> order_of(Fact("France", "The capital of {} is"))
    'relation first'
    >>> order_of(Fact("Louvre", "We went to Paris. The {} stands in"))
    'subject first'
    """
    before = fact.prompt.partition("{}")[0].replace("\n", ". ")
    return "relation first" if len(before.rsplit(". ", 1)[-1].split()) > 1 else "subject first"


def usable(row: Row) -> bool:
    """Whether a wording was traced, and the model answers it."""
    return "error" not in row and bool(row["known"])


def by_wording(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Name of the wording to fact to its map, wordings in the order of the first fact that has them."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        for name, told in row["wordings"].items():
            found.setdefault(name, {})[row["id"]] = told
    return found


def shared_names(effects: Sequence[Effects]) -> list[str]:
    """Facts that all have, in order."""
    return [name for name in effects[0].names if all(name in one.names for one in effects)]


def columns_of(
    effects: Mapping[str, Effects], variants: Sequence[str], layer: int
) -> Float[np.ndarray, "facts columns"]:
    """Per fact and variant: effect and TE of the variant, effect and TE of the prompt; zeros where it lacks the variant."""
    prompt = effects[PROMPT]
    table = np.zeros((len(prompt), 4 * len(variants)))
    for v, name in enumerate(variants):
        shared = shared_names([prompt, effects[name]])
        rows = [prompt.names.index(one) for one in shared]
        for offset, one in ((0, effects[name].of(shared)), (2, prompt.of(shared))):
            table[rows, 4 * v + offset] = one.at(layer)
            table[rows, 4 * v + offset + 1] = one.totals
    return table


def ratios_of_means(means: Float[np.ndarray, " columns"]) -> list[float]:
    """Each variant's share over the prompt's share on the same facts; NaN where the prompt's is not above 0."""
    of_variant, te_variant, of_prompt, te_prompt = means.reshape(-1, 4).T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (of_variant / te_variant) / (of_prompt / te_prompt)
    return [float(one) for one in np.where((of_prompt > 0) & (te_prompt > 0) & (te_variant > 0), ratio, np.nan)]


def worst_ratio(means: Float[np.ndarray, " columns"]) -> float:
    """The least of `ratios_of_means`; NaN where one of them is."""
    return min(ratios_of_means(means), key=lambda ratio: -np.inf if np.isnan(ratio) else ratio)


EXPERIMENT = Templates
