"""Knowledge neurons of a fact: those that many wordings of it have in common (Dai et al. 2022, section 3.2).

For wordings x_1 .. x_n of one fact, with Attr of `palimpsest.locate.neuron.attribution`,

    S_w  =  neurons with Attr_w(l, i) >= t * max Attr_w
    K    =  neurons that are in at least a share s of S_1 .. S_n

Where `wanted` gives (fewest, most), s is moved in steps of 0.05 until K has so many, as the published code does; the share
that was used is reported.

These are neurons whose integrated gradient is large. Whether the fact hangs on them is another question, which
`palimpsest.locate.neuron.effects` asks with its controls.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.known import Knowledge, ask_each, knowledge
from palimpsest.locate.neuron.attribution import ROWS, Attribution, neurons
from palimpsest.locate.neuron.baselines import baseline_keys
from palimpsest.locate.neuron.presets import SELECTION, settings_of
from palimpsest.locate.saving import save_json
from palimpsest.model import Model
from palimpsest.runs import Progress

STEP = 0.05

Neuron = tuple[int, int]
"""(layer, place in the key)."""


@dataclass(frozen=True, eq=False)
class KnowledgeNeurons:
    """The neurons that the wordings of a fact have in common.

    Attributes:
        fact: what was asked.
        neurons: K, by layer and then by place.
        strength: of each neuron in K, its attribution averaged over wordings.
        keys: of each neuron in K, its key averaged over wordings; a negative one writes the opposite of its column.
        in_wordings: of each neuron in K, in how many wordings it is over the threshold.
        share: s that was used.
        over: per wording, how many neurons are over the threshold.
        total: sum of all positive attributions, averaged over wordings.
        largest: the largest attribution of any neuron, averaged over wordings.
        completeness: the largest |sum of attributions - difference in score| of any layer and wording.
        complete: whether every layer of every wording is within the bar.
        widths: neurons of each layer.
        attributions: one a wording; empty where they were not kept.
        settings: how it was made.
    """

    fact: Fact
    neurons: tuple[Neuron, ...]
    strength: tuple[float, ...]
    keys: tuple[float, ...]
    in_wordings: tuple[int, ...]
    share: float
    over: tuple[int, ...]
    total: float
    largest: float
    completeness: float
    complete: bool
    widths: tuple[int, ...]
    attributions: tuple[Attribution, ...]
    settings: dict[str, object]

    @property
    def per_layer(self) -> dict[int, int]:
        """How many of K each layer holds, layers without any left out."""
        return dict(sorted(Counter(l for l, _ in self.neurons).items()))

    def to_json(self) -> dict[str, object]:
        """As plain data, without the attributions."""
        return {
            "fact": self.fact.to_json(),
            "neurons": [
                {"layer": l, "neuron": i, "attribution": a, "key": k, "wordings": n}
                for (l, i), a, k, n in zip(self.neurons, self.strength, self.keys, self.in_wordings, strict=True)
            ],
            "share": self.share,
            "over": list(self.over),
            "total": self.total,
            "largest": self.largest,
            "completeness": self.completeness,
            "complete": self.complete,
            "widths": list(self.widths),
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> object:
        """A matplotlib figure: where in the network K is."""
        from palimpsest.locate.neuron.plot import plot_neurons

        return plot_neurons(self)


def knowledge_neurons(
    model: Model,
    fact: Fact,
    *,
    texts: Sequence[str] | None = None,
    preset: str | None = None,
    threshold: float | None = None,
    share: float | None = None,
    wanted: tuple[int, int] | None = None,
    steps: int | None = None,
    rule: str | None = None,
    refine: bool | None = None,
    baseline: str | Sequence[Tensor] | None = None,
    score: str | None = None,
    answer: str | None = None,
    foil: str | None = None,
    keep: bool = True,
    rows: int = ROWS,
    progress: Progress | None = None,
) -> KnowledgeNeurons:
    """Find the knowledge neurons of one fact.

    Args:
        model: read, never changed; a re-initialised one serves as the control.
        fact: asked in its wordings; one wording alone shares everything with itself.
        texts: the wordings; all of the fact's when None. Find the neurons on some and cut them on others
            (`neuron_effects` takes them too) where the effect is to be evidence.
        preset: "dai-2022" or "eleuther" (`palimpsest.locate.neuron.presets`); what is given beside it wins.
        threshold: t, above 0 and at most 1; 0.2 when None.
        share: s, above 0 and at most 1; 0.7 when None.
        wanted: (fewest, most) neurons for which the share is moved; left as it is when None.
        steps, rule, refine, baseline, score, answer, foil, rows: as in `palimpsest.locate.neuron.attribution.neurons`.
        keep: keep the attribution of every wording (some megabytes a fact).
        progress: called with (done, total, label).

    Raises:
        SettingError: a setting is unknown or out of range.
        FactError: the answer (or the foil) cannot be scored.
        AnatomyError: a layer has no single down-projection, hence no keys.
    """
    chosen = settings_of(preset, SELECTION, {"threshold": threshold, "share": share, "wanted": wanted})
    t, s = chosen["threshold"], chosen["share"]
    for name, value in (("threshold", t), ("share", s)):
        if not 0 < value <= 1:
            raise SettingError(f"The {name} of knowledge neurons lies above 0 and is at most 1, got {value}.")
    if chosen["wanted"] and not 1 <= chosen["wanted"][0] <= chosen["wanted"][1]:
        raise SettingError(f"wanted must be (fewest, most) with 1 <= fewest <= most, got {chosen['wanted']}.")
    answer = answer or fact.target_true
    if answer is None:
        raise FactError(
            f"The fact {fact.id} ({fact.text!r}) has no target_true, so its wordings share no answer; give one."
        )
    if baseline == "mean":
        baseline = baseline_keys(model, "mean")
    found, texts = [], fact.wordings if texts is None else tuple(texts)
    if not texts:
        raise SettingError("Knowledge neurons need at least one wording, got none; leave texts out to use all.")
    for number, text in enumerate(texts):
        found.append(
            neurons(
                model,
                fact,
                text=text,
                answer=answer,
                foil=foil,
                preset=preset,
                steps=steps,
                rule=rule,
                refine=refine,
                baseline=baseline,
                score=score,
                rows=rows,
            )
        )
        if progress:
            progress(number + 1, len(texts), "wordings")
    sets = [attribution.over(t) for attribution in found]
    used, kept = shared_by(sets, s, chosen["wanted"])
    mean = np.mean([attribution.attr for attribution in found], axis=0)
    return KnowledgeNeurons(
        fact,
        kept,
        tuple(float(mean[place]) for place in kept),
        tuple(float(np.mean([attribution.keys[place] for attribution in found])) for place in kept),
        tuple(sum(place in own for own in sets) for place in kept),
        used,
        tuple(len(own) for own in sets),
        float(np.mean([attribution.attr.clip(min=0).sum() for attribution in found])),
        float(np.mean([attribution.attr.max() for attribution in found])),
        float(max(np.abs(attribution.completeness).max() for attribution in found)),
        all(attribution.complete for attribution in found),
        found[0].widths,
        tuple(found) if keep else (),
        {**found[0].settings, **chosen, "wordings": len(sets)},
    )


def shared_by(
    sets: Sequence[frozenset[Neuron]], share: float, wanted: tuple[int, int] | None = None
) -> tuple[float, tuple[Neuron, ...]]:
    """(share used, neurons in at least that share of the sets, in order).

    With `wanted` = (fewest, most) the share moves in steps of 0.05, down where there are too few and up where there are too
    many, until there are so many; where no share gives so many, the one that comes nearest is used, the first of equals.
    """
    times = Counter(place for own in sets for place in own)

    def kept(s: float) -> tuple[Neuron, ...]:
        return tuple(sorted(place for place, n in times.items() if n >= s * len(sets) - 1e-9))

    start = kept(share)
    if wanted is None or wanted[0] <= len(start) <= wanted[1]:
        return share, start
    direction = -STEP if len(start) < wanted[0] else STEP
    tried = [(share, start)]
    while 1e-9 < (s := round(tried[-1][0] + direction, 10)) <= 1:
        tried.append((s, kept(s)))
    return min(tried, key=lambda one: max(wanted[0] - len(one[1]), len(one[1]) - wanted[1], 0))


@dataclass(frozen=True, eq=False)
class NeuronSurvey:
    """Knowledge neurons of many facts. None is dropped: what is not known, or failed, is said.

    Attributes:
        found: one a fact, in order, those not known included.
        known: what the model says to each fact that could be asked, by id.
        failures: one sentence for each fact that could not be measured, by id.
    """

    found: tuple[KnowledgeNeurons, ...]
    known: dict[str, Knowledge]
    failures: dict[str, str]

    @property
    def of_known(self) -> tuple[KnowledgeNeurons, ...]:
        """Those of facts that the model knows: what conclusions may rest on."""
        return tuple(one for one in self.found if self._knows(one))

    @property
    def of_unknown(self) -> tuple[KnowledgeNeurons, ...]:
        """Those of facts that it does not know, or that have no `target_true` to be known."""
        return tuple(one for one in self.found if not self._knows(one))

    def _knows(self, one: KnowledgeNeurons) -> bool:
        return one.fact.id in self.known and self.known[one.fact.id].known

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "known": [one.to_json() for one in self.of_known],
            "unknown": [one.to_json() for one in self.of_unknown],
            "failures": self.failures,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)


def neuron_survey(
    model: Model, facts: Sequence[Fact], *, progress: Progress | None = None, **settings: object
) -> NeuronSurvey:
    """`knowledge_neurons` of many facts; `settings` go to it. A fact that cannot be measured stops no other.

    Raises:
        SettingError: a setting is unknown or out of range.
        AnatomyError: a layer has no single down-projection, hence no keys.
    """
    if settings.get("baseline") == "mean":
        settings["baseline"] = baseline_keys(model, "mean")
    answers, _ = ask_each(knowledge, model, facts)
    found, failures = list[KnowledgeNeurons](), dict[str, str]()
    for number, fact in enumerate(facts):
        try:
            found.append(knowledge_neurons(model, fact, **({"keep": False} | settings)))  # type: ignore[arg-type]
        except SettingError:  # no fault of the fact
            raise
        except InputError as error:
            failures[fact.id] = str(error)
        if progress:
            progress(number + 1, len(facts), fact.id)
    return NeuronSurvey(tuple(found), {facts[i].id: answer for i, answer in answers.items()}, failures)
