"""What the three readings of the residual stream share: whom they ask, which token they score, and their profiles.

A `Profile` is one curve over layers for each fact and each thing measured, kept as it was measured and summarised by means
with cluster-bootstrap intervals (clusters: relation, then subject). Facts the model does not know are measured too and
summarised apart, and a fact that cannot be asked is listed with its reason.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from palimpsest.errors import FactError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.known import ask_each, knowledge
from palimpsest.locate.saving import save_json
from palimpsest.model import Model
from palimpsest.runs import Progress
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference

GROUPS = ("known", "unknown", "all")
Failures = tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Profile:
    """Curves over layers, one for each fact and each thing measured.

    Attributes:
        instrument: "logit lens" or "attention knock-out".
        facts: those that could be asked, in the order given.
        known: per fact, whether the model knows it (`palimpsest.locate.knowledge`).
        values: per curve, shape (facts, layers); NaN where a fact has no such thing (no control, no other token).
        pairs: curves and their controls, (curve, control).
        failures: (id, reason) of the facts that could not be asked.
        settings: how it was made.
    """

    instrument: str
    facts: tuple[Fact, ...]
    known: tuple[bool, ...]
    values: dict[str, Float[np.ndarray, "facts layers"]]
    pairs: tuple[tuple[str, str], ...]
    failures: Failures
    settings: dict[str, object]

    @property
    def n_layers(self) -> int:
        """How many layers each curve covers."""
        return int(next(iter(self.values.values())).shape[1])

    def estimates(self, curve: str, *, group: str = "known", seed: int = 0) -> list[Estimate]:
        """The mean of one curve at each layer, each with its own 95 % interval (not a band for the whole curve).

        Args:
            curve: a key of `values`.
            group: "known", "unknown" or "all" facts.
            seed: of the bootstrap.

        Returns:
            One `Estimate` a layer, over the facts that have this curve; unknown (NaN, n = 0) where none has.

        Raises:
            SettingError: there is no such curve or group.
        """
        return self._per_layer((curve,), group, seed)

    def contrast(self, curve: str, control: str, *, group: str = "known", seed: int = 0) -> list[Estimate]:
        """Mean of `curve` - `control` at each layer, over the facts that have both; as `estimates` otherwise."""
        return self._per_layer((curve, control), group, seed)

    def to_json(self) -> dict[str, Any]:
        """As plain data: every mean with its interval, by group, and every fact's own values."""
        return {
            "instrument": self.instrument,
            "settings": self.settings,
            "n": {group: int(self._rows(group).sum()) for group in GROUPS},
            "failures": [{"fact": fact, "reason": reason} for fact, reason in self.failures],
            "means": {group: self._summary(group) for group in ("known", "unknown") if self._rows(group).any()},
            "facts": [fact.id for fact in self.facts],
            "known": list(self.known),
            "values": {curve: nested(array) for curve, array in self.values.items()},
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> object:
        """A matplotlib figure: each curve and its control over layers, with intervals."""
        from palimpsest.locate.reading.plot import plot_profile

        return plot_profile(self)

    def _rows(self, group: str) -> Bool[np.ndarray, "facts"]:
        if group not in GROUPS:
            raise SettingError(f"A profile has no group {group!r}.{did_you_mean(group, GROUPS)}")
        known = np.array(self.known, dtype=bool)
        return {"known": known, "unknown": ~known, "all": np.ones_like(known)}[group]

    def _per_layer(self, curves: tuple[str, ...], group: str, seed: int) -> list[Estimate]:
        for curve in curves:
            if curve not in self.values:
                raise SettingError(f"A profile has no curve {curve!r}.{did_you_mean(curve, self.values)}")
        arrays = [self.values[curve] for curve in curves]
        kept = self._rows(group) & np.all([np.isfinite(array).all(axis=1) for array in arrays], axis=0)
        if not kept.any():
            return [Estimate(np.nan, np.nan, np.nan, 0, 0, method="no fact has it")] * self.n_layers
        clusters = [(fact.relation, fact.subject) for fact, keep in zip(self.facts, kept, strict=True) if keep]
        columns = [[array[kept, l] for array in arrays] for l in range(self.n_layers)]
        if len(curves) == 1:
            return [cluster_bootstrap(own, clusters, seed=seed) for (own,) in columns]
        return [paired_difference(own, control, clusters, seed=seed) for own, control in columns]

    def _summary(self, group: str) -> dict[str, Any]:
        means = {curve: [found.to_json() for found in self.estimates(curve, group=group)] for curve in self.values}
        minus = {
            f"{curve} - {control}": [found.to_json() for found in self.contrast(curve, control, group=group)]
            for curve, control in self.pairs
        }
        return means | minus


def ask(
    model: Model, facts: Sequence[Fact], *, progress: Progress | None = None
) -> tuple[list[tuple[Fact, bool]], list[tuple[str, str]]]:
    """Each fact that can be asked with whether it is known, and (id, reason) of those that cannot."""
    answers, failures = ask_each(knowledge, model, facts, progress=progress)
    asked = [(facts[i], answers[i].known) for i in sorted(answers)]
    return asked, [(facts[i].id, reason) for i, reason in sorted(failures.items())]


def scored_token(model: Model, text: str, answer: str) -> int:
    """The first token of `answer` after `text`; raises `FactError` where it has none."""
    ids, begin = model.encode_answer(text, answer)
    if begin >= len(ids):
        raise FactError(f"The answer {answer!r} has no token after {text!r}; give an answer of visible characters.")
    return ids[begin]


def find_subject(fact: Fact, wording: str) -> tuple[int, int] | None:
    """Characters [start, end) of the subject in a wording, as a whole word; None where it does not occur."""
    if wording == fact.text:
        return fact.subject_span
    found = re.search(rf"(?<!\w){re.escape(fact.subject)}(?!\w)", wording)
    return found.span() if found else None


def nested(array: np.ndarray) -> Any:
    """An array of numbers as nested lists in which NaN is None, because JSON has no NaN."""
    if array.ndim > 1:
        return [nested(row) for row in array]
    return [float(number) if np.isfinite(number) else None for number in array]
