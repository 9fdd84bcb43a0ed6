"""What a neuron writes, and whether its attribution follows the text more than the fact.

Writing. Neuron i of layer l adds k_i times column w = W_down[:, i] to the residual stream. Read as if it were all there is,

    logits(w) = [head(final(w / rms(w))) - head(final(-w / rms(w)))] / 2

with the model's own final norm and head. Where the final norm is an RMS norm with gain g this is U (g * w) / rms(w), and where it
is a layer norm U (g * (w - mean w)) / std(w); biases cancel. It is a linearisation, like the logit lens: what later layers make of
w, the size of the rest of the stream, and a norm between the MLP and the stream (Gemma 2, OLMo 2) are left out. A neuron with
a negative key, common in gated MLPs, writes the opposite: it promotes what the list calls suppressed.

Facts or token patterns? Niu et al. 2024 argue that knowledge neurons hold patterns of tokens. Over facts f, with a the answer and
s the subject, and counts from a text that stands for what the model was trained on,

    y_f = c_0 + c_1 log(1 + n(a)) + c_2 log(1 + n(a, s)) + error,

n(a) being how often a stands in the text and n(a, s) in how many paragraphs a and s stand together; y is the log of the
attribution. Fitted by least squares; intervals from resampled (relation, subject).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact, shipped_text
from palimpsest.locate.neuron.shared import KnowledgeNeurons, Neuron
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, pad
from palimpsest.model.anatomy import in_out_features, matrix_of
from palimpsest.statistics import Estimate, cluster_bootstrap


@dataclass(frozen=True)
class Writing:
    """What one neuron writes: with the sign of its key where that was given, else when its key is positive.

    Attributes:
        layer, neuron: which.
        promoted, suppressed: tokens whose logits it raises and lowers most, strongest first, with the logit.
        rank: of an answer among the promoted, 0 the first; None where no answer was asked for.
    """

    layer: int
    neuron: int
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    rank: int | None = None


@torch.no_grad()
def written_logits(model: Model, neurons: Sequence[Neuron]) -> Float[Tensor, "neurons vocabulary"]:
    """logits(w) of each (layer, place), in float32 or better, on the CPU."""
    columns = []
    for l, i in neurons:
        down = model.anatomy.down(l).module
        if not 0 <= i < in_out_features(down)[0]:
            raise SettingError(f"There is no neuron {i} in layer {l}; it has {in_out_features(down)[0]}.")
        columns.append(at_least_float32(matrix_of(down)[:, i]))
    if not columns:
        raise SettingError("Ask for at least one neuron.")
    w = torch.stack(columns)
    w = w / w.square().mean(dim=1, keepdim=True).sqrt()
    both = torch.cat([w, -w])[:, None].to(model.net.dtype)
    with model.evaluating():
        logits = model.run(pad([[0]] * len(both)), start=model.n_layers, resid=both.to(model.device))
    plus, minus = at_least_float32(logits[:, 0]).cpu().chunk(2)
    return (plus - minus) / 2


def what_neurons_write(
    model: Model,
    neurons: Sequence[Neuron],
    *,
    keys: Sequence[float] | None = None,
    count: int = 10,
    answer: int | None = None,
) -> list[Writing]:
    """The tokens that each (layer, place) promotes and suppresses most.

    Args:
        model: read, never changed.
        neurons: which.
        keys: their keys (`KnowledgeNeurons.keys`), whose signs turn what they write; all taken as positive when None.
        count: tokens on each side.
        answer: a token whose rank among the promoted is wanted.

    Raises:
        SettingError: there is no such neuron, or none is given, or fewer than one token is asked for.
    """
    if count < 1:
        raise SettingError(f"Ask for at least one token, got {count}.")
    if keys is not None and len(keys) != len(neurons):
        raise SettingError(f"Give one key a neuron, got {len(keys)} keys for {len(neurons)} neurons.")
    result = []
    signs = torch.tensor([1.0 if keys is None or keys[n] >= 0 else -1.0 for n in range(len(neurons))])
    for (l, i), logits in zip(neurons, written_logits(model, neurons) * signs[:, None], strict=True):
        order = torch.argsort(-logits, stable=True).tolist()
        rank = None if answer is None else int((logits > logits[answer]).sum())
        up, down = order[:count], order[::-1][:count]
        sides = [tuple((model.tokenizer.decode([t]), float(logits[t])) for t in side) for side in (up, down)]
        result.append(Writing(l, i, sides[0], sides[1], rank))
    return result


def text_counts(facts: Sequence[Fact], text: str | None = None) -> list[tuple[int, int]]:
    """(n(a), n(a, s)) of each fact in a text (the shipped one when None): whole words, as they are spelt.

    Raises:
        InputError: a fact has no target_true.
    """
    text = shipped_text() if text is None else text
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    places: dict[str, tuple[int, frozenset[int]]] = {}

    def found(name: str) -> tuple[int, frozenset[int]]:
        if name not in places:
            whole = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
            counts = {i: len(whole.findall(paragraph)) for i, paragraph in enumerate(paragraphs) if name in paragraph}
            places[name] = sum(counts.values()), frozenset(i for i, n in counts.items() if n)
        return places[name]

    result = []
    for fact in facts:
        if fact.target_true is None:
            raise InputError(f"The fact {fact.id} ({fact.text!r}) has no target_true to be counted in a text.")
        times, where = found(fact.target_true)
        result.append((times, len(where & found(fact.subject)[1])))
    return result


@dataclass(frozen=True)
class Regression:
    """A least-squares fit over facts.

    Attributes:
        coefficients: by name, with intervals.
        r_squared: share of the variance that is explained; its interval leans upwards, as R squared does.
        n: facts that went in.
        left_out: ids of facts without positive attribution, which have no log.
        never_together: how many of the n facts have answer and subject in no paragraph together.
        constant: predictors that are the same for all n facts: they are not in the fit, and have no coefficient.
    """

    coefficients: dict[str, Estimate]
    r_squared: Estimate
    n: int
    left_out: tuple[str, ...]
    never_together: int
    constant: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "coefficients": {name: estimate.to_json() for name, estimate in self.coefficients.items()},
            "r_squared": self.r_squared.to_json(),
            "n": self.n,
            "left_out": list(self.left_out),
            "never_together": self.never_together,
            "constant": list(self.constant),
        }


def regress_on_text(
    found: Sequence[KnowledgeNeurons],
    *,
    outcome: str = "total",
    text: str | None = None,
    also: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> Regression:
    """Attribution on how often the text has the answer, and the answer with the subject.

    Args:
        found: one a fact.
        outcome: "total", the log of all positive attribution; or "largest", the log of the strongest neuron's.
        text: what is counted in; the shipped text when None. It is small: most facts stand in no paragraph of it.
        also: further predictors, one number a fact each (the probability of the answer is a good one).
        seed: of the bootstrap.

    Raises:
        SettingError: an unknown outcome.
        InputError: predictors do not match the facts, or there are too few facts to fit them.
    """
    if outcome not in ("total", "largest"):
        raise SettingError(f"There is no outcome {outcome!r}; choose 'total' or 'largest'.")
    return regress_values(
        [one.fact for one in found], [getattr(one, outcome) for one in found], text=text, also=also, seed=seed
    )


def regress_values(
    facts: Sequence[Fact],
    attribution: Sequence[float],
    *,
    text: str | None = None,
    also: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> Regression:
    """`regress_on_text` for attributions that were read back from a run."""
    counts = np.log1p(np.array(text_counts(facts, text), dtype=float).reshape(-1, 2))
    columns = {"log frequency": counts[:, 0], "log co-occurrence": counts[:, 1]}
    for name, values in (also or {}).items():
        if len(values) != len(facts):
            raise InputError(f"The predictor {name!r} has {len(values)} numbers for {len(facts)} facts; give one each.")
        columns[name] = np.array(values, dtype=float)
    kept = np.array([value > 0 for value in attribution], dtype=bool)
    never_together = int((counts[kept, 1] == 0).sum())
    constant = (
        tuple(name for name, column in columns.items() if np.ptp(column[kept], axis=0) == 0) if kept.any() else ()
    )
    columns = {name: column for name, column in columns.items() if name not in constant}
    design = np.stack([np.ones(len(facts)), *columns.values()], axis=1)[kept]
    y = np.log(np.array(attribution, dtype=float)[kept])
    if len(y) <= design.shape[1]:
        raise InputError(
            f"A regression with {design.shape[1]} coefficients needs more than {design.shape[1]} facts with positive "
            f"attribution, got {len(y)}; ask more facts."
        )
    clusters = [(fact.relation, fact.subject) for fact, keep in zip(facts, kept, strict=True) if keep]
    names = ["intercept", *columns, "R squared"]

    def estimate(place: int) -> Estimate:
        def statistic(rows: Float[np.ndarray, "rows"]) -> float:
            picked = rows.astype(int)
            return float(ordinary_least_squares(design[picked], y[picked])[place])

        statistic.__name__ = names[place]
        return cluster_bootstrap(
            np.arange(len(y), dtype=float), clusters, statistic=statistic, resamples=1000, seed=seed
        )

    fits = {name: estimate(place) for place, name in enumerate(names)}
    r_squared = fits.pop("R squared")
    left_out = tuple(fact.id for fact, keep in zip(facts, kept, strict=True) if not keep)
    return Regression(fits, r_squared, len(y), left_out, never_together, constant)


def ordinary_least_squares(
    design: Float[np.ndarray, "facts predictors"], y: Float[np.ndarray, "facts"]
) -> Float[np.ndarray, "_"]:
    """Coefficients and, last, R squared; all NaN where the predictors are not independent."""
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return np.full(design.shape[1] + 1, np.nan)
    fit = np.linalg.lstsq(design, y, rcond=None)[0]
    spread = ((y - y.mean()) ** 2).sum()
    left = ((y - design @ fit) ** 2).sum()
    return np.append(fit, 1 - left / spread if spread > 0 else np.nan)
