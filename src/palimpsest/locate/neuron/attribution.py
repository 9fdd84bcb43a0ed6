"""Attribution of an answer to single neurons: integrated gradients over the keys of the MLPs (Dai et al. 2022, section 3.1).

The neurons of layer l are the entries of its key k, the input of the MLP's down-projection (act(W_up h), or
act(W_gate h) * W_up h where the MLP is gated). With a baseline b and the score P of an answer after a prompt,

    Attr(l, i) = (k_i - b_i) * integral_0^1 dP(k_l = b + a (k - b)) / dk_i da

where only the key of layer l at the prompt's last token is moved, and everything above it answers. By the fundamental theorem
of calculus the attributions of one layer add up to what the whole layer does (completeness, Sundararajan et al. 2017):

    sum_i Attr(l, i) = P(k_l = k) - P(k_l = b)

so the error of the sum that stands for the integral can be measured, and is (`Attribution.completeness`).

Only what can differ is computed. The key moves at the last token, so the tokens before it are run once and read from the
cache; layers below l are not run; logits are taken at the last token alone. Points on the path of several neighbouring layers
go through the network as rows of one batch, each replaced at its own layer, and one backward pass serves them all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.neuron.baselines import baseline_keys
from palimpsest.locate.neuron.integration import REFINABLE, RULES, Path, Points
from palimpsest.locate.neuron.last_token import LastToken, answer_token, foil_token
from palimpsest.locate.neuron.presets import PATH, settings_of
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.saving import save_json
from palimpsest.model import Model, Site, Tap
from palimpsest.runs import Progress

ROWS, PASSES = 128, 12
BAR_SHARE, BAR = 0.02, 0.002
"""The attributions of a layer count as complete within 2 % of the difference in score, or 0.002 where that is more."""

Scorer = Callable[[Float[Tensor, "rows vocabulary"], int, int | None], Float[Tensor, "rows"]]
SCORES: dict[str, Scorer] = {
    "probability": lambda logits, answer, _: logits.softmax(-1)[:, answer],
    "log-probability": lambda logits, answer, _: logits.log_softmax(-1)[:, answer],
    "logit": lambda logits, answer, _: logits[:, answer],
    "probability-difference": lambda logits, answer, foil: logits.softmax(-1)[:, answer] - logits.softmax(-1)[:, foil],
    "logit-difference": lambda logits, answer, foil: logits[:, answer] - logits[:, foil],
}
"""What is attributed, by name; the differences are against the first token of a foil, as BLiMP's bad word."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """The attribution of one answer after one prompt to every neuron.

    Attributes:
        fact: what was asked.
        text: the wording that was run.
        answer: the token that is scored, as text.
        attr: Attr(l, i), shape (layers, neurons); 0 beyond `widths[l]` where layers differ in width.
        keys: k of the untouched run, in the same shape; many are negative where the MLP is gated.
        clean: score of the untouched run.
        baseline: per layer, the score with its key at the baseline, shape (layers,).
        points: points on the path of each layer: the steps, and more where the path was refined.
        widths: neurons of each layer.
        settings: how it was made.
    """

    fact: Fact
    text: str
    answer: str
    attr: Float[np.ndarray, "layers neurons"]
    keys: Float[np.ndarray, "layers neurons"]
    clean: float
    baseline: Float[np.ndarray, "layers"]
    points: tuple[int, ...]
    widths: tuple[int, ...]
    settings: dict[str, object]

    @property
    def completeness(self) -> Float[np.ndarray, "layers"]:
        """Per layer, sum of the attributions minus what they should add up to: the error of the rule."""
        return self.attr.sum(axis=1) - (self.clean - self.baseline)

    @property
    def relative_completeness(self) -> Float[np.ndarray, "layers"]:
        """Per layer, |error| over its bar: max(2 % of |clean - baseline|, 0.002). Complete where this is at most 1."""
        return np.abs(self.completeness) / np.maximum(BAR_SHARE * np.abs(self.clean - self.baseline), BAR)

    @property
    def complete(self) -> bool:
        """Whether every layer's attributions add up, to within the bar."""
        return bool((self.relative_completeness <= 1).all())

    def over(self, threshold: float) -> frozenset[tuple[int, int]]:
        """(layer, neuron) of attributions of at least `threshold` times the largest; none where none is positive."""
        largest = self.attr.max()
        if largest <= 0:
            return frozenset()
        return frozenset((int(l), int(i)) for l, i in np.argwhere(self.attr >= max(threshold * largest, 1e-300)))

    def strongest(self, count: int = 10) -> list[tuple[int, int, float]]:
        """(layer, neuron, attribution) of the `count` largest, largest first; ties go to the lower layer and neuron."""
        order = np.argsort(-self.attr, axis=None, kind="stable")[:count]
        places = np.stack(np.unravel_index(order, self.attr.shape), axis=1)
        return [(int(l), int(i), float(self.attr[l, i])) for l, i in places]

    def to_json(self) -> dict[str, object]:
        """As plain data: the strongest hundred neurons and each layer's sum, not the whole array."""
        return {
            "fact": self.fact.to_json(),
            "text": self.text,
            "answer": self.answer,
            "clean": self.clean,
            "baseline": self.baseline.tolist(),
            "sum": self.attr.sum(axis=1).tolist(),
            "completeness": self.completeness.tolist(),
            "complete": self.complete,
            "points": list(self.points),
            "strongest": [{"layer": l, "neuron": i, "attribution": a} for l, i, a in self.strongest(100)],
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> Any:
        """A matplotlib figure: per layer, the largest attribution and the sum of all."""
        from palimpsest.locate.neuron.plot import plot_attribution

        return plot_attribution(self)


def neurons(
    model: Model,
    fact: Fact,
    *,
    text: str | None = None,
    answer: str | None = None,
    foil: str | None = None,
    preset: str | None = None,
    steps: int | None = None,
    rule: str | None = None,
    refine: bool | None = None,
    baseline: str | Sequence[Tensor] | None = None,
    score: str | None = None,
    rows: int = ROWS,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute the answer of one prompt to the neurons of every layer.

    Args:
        model: read, never changed; a re-initialised one serves as the control.
        fact: whose prompt is run.
        text: another wording of it; `fact.text` when None.
        answer: scored by its first token; `target_true` when None, or the model's first choice where that is None too.
        foil: what the differences are taken against; `target_new` when None.
        preset: "dai-2022" or "eleuther": the published sums, whose error is reported in `completeness`.
        steps: points on the path from the baseline to the key; 20 when None.
        rule: "midpoint" (when None), "gauss-legendre", "left" or "inclusive" (`palimpsest.locate.neuron.integration`).
        refine: cut the path finer where a layer's sum misses the bar of completeness, as long as that helps; when None, done
            for "midpoint".
        baseline: "zero" (when None); "mean", the mean key over the shipped text; or one key a layer, of shape (neurons,).
        score: one of `SCORES`; "probability" when None.
        rows: how many points go through the network at once; bounds the memory.
        progress: called with (done, total, label).

    Raises:
        SettingError: an unknown name, fewer than one step or row, or a baseline that does not fit.
        FactError: there is no foil where one is needed, or it begins with the answer's token; an answer has no token.
        AnatomyError: a layer has no single down-projection, hence no keys.
    """
    asked = settings_of(preset, PATH, {"steps": steps, "rule": rule, "baseline": baseline, "score": score})
    points, scorer = check_settings(asked["steps"], asked["rule"], asked["score"], rows)
    refine = asked["rule"] in REFINABLE if refine is None else refine
    if refine and asked["rule"] not in REFINABLE:
        raise SettingError(f"Only the rule 'midpoint' can be refined, got {asked['rule']!r}; leave refine out.")
    text = fact.text if text is None else text
    ids, token = answer_token(model, text, answer or fact.target_true)
    other = (
        foil_token(model, text, foil or fact.target_new, ids, token) if asked["score"].endswith("difference") else None
    )
    keys_at = baseline_keys(model, asked["baseline"])
    with torch.no_grad(), model.evaluating():
        point = LastToken.of(model, ids)

    def bound(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows"]:
        return scorer(logits, token, other)

    with torch.enable_grad(), model.evaluating():
        attr, paths = _Integration(model, point, keys_at, bound, rows, progress).run(points, PASSES if refine else 0)
    widths = tuple(len(key) for key in point.keys)
    together, keys = np.zeros((2, len(widths), max(widths)))
    for l, row in enumerate(attr):
        together[l, : widths[l]] = row
        keys[l, : widths[l]] = at_least_float32(point.keys[l]).double().cpu().numpy()
    settings: dict[str, object] = {
        "model": model.name,
        "preset": preset,
        **asked,
        "baseline": asked["baseline"] if isinstance(asked["baseline"], str) else "given",
        "refine": refine,
        "foil": None if other is None else model.tokenizer.decode([other]),
        "scored": "the first token of the answer",
    }
    return Attribution(
        fact,
        text,
        model.tokenizer.decode([token]),
        together,
        keys,
        paths[0].end,
        np.array([path.start for path in paths]),
        tuple(len(path.at) for path in paths),
        widths,
        settings,
    )


STRIKES = 2  # passes that did not halve a layer's error; it is rounding then (bfloat16), which no cut takes away

Job = tuple[int, float, float]
"""One point: layer, a, and the weight of its gradient. Jobs that run together stand in order of layers."""


@dataclass(eq=False)
class _Integration:
    """The paths of all layers of one prompt, on their way."""

    model: Model
    point: LastToken
    baseline: Sequence[Tensor]
    score: Callable[[Tensor], Tensor]
    rows: int
    progress: Progress | None

    def run(self, points: Points, passes: int) -> tuple[list[Float[np.ndarray, "_"]], list[Path]]:
        """(attributions of each layer, its path), refined up to `passes` times where the bar is missed."""
        layers = range(self.model.n_layers)
        gradient = [np.zeros(len(key)) for key in self.point.keys]
        end = float(self.score(self.point.logits)[0])
        given = [(0.0, 0.0), *zip(*(array.tolist() for array in points), strict=True)]  # the baseline comes first
        scores, slopes = self.differentiate([(l, a, w) for l in layers for a, w in given], gradient)
        paths = [
            Path(*points, score[1:], slope[1:], float(score[0]), end)
            for score, slope in zip(scores.reshape(len(layers), -1), slopes.reshape(len(layers), -1), strict=True)
        ]
        strikes = dict.fromkeys(layers, 0)
        for _ in range(passes):
            missing = [l for l in layers if abs(paths[l].error) > bar(paths[l]) and strikes[l] < STRIKES]
            cuts = {l: paths[l].to_split(bar(paths[l]) / 2) for l in missing}
            if not cuts:
                break
            before = {l: abs(paths[l].error) for l in cuts}
            jobs = [job for l, cut in cuts.items() for i in cut for job in _thirds(l, paths[l], i)]
            scores, slopes = self.differentiate(jobs, gradient)
            done = 0
            for l, cut in cuts.items():
                own = slice(done, done + 3 * len(cut))
                outer = scores[own].reshape(-1, 3)[:, 1:], slopes[own].reshape(-1, 3)[:, 1:]
                paths[l] = paths[l].split(cut, *outer)
                done = own.stop
                strikes[l] += abs(paths[l].error) > before[l] / 2
        return [self.delta(l) * own for l, own in enumerate(gradient)], paths

    def delta(self, layer: int) -> Float[np.ndarray, "_"]:
        """k - b of one layer."""
        key = at_least_float32(self.point.keys[layer])
        return (key - self.baseline[layer].to(key)).double().cpu().numpy()

    def differentiate(
        self, jobs: Sequence[Job], gradient: list[Float[np.ndarray, "_"]]
    ) -> tuple[Float[np.ndarray, "jobs"], Float[np.ndarray, "jobs"]]:
        """(P, P') at each job, in order of layers; the weighted dP/dk is added to `gradient` of its layer."""
        all_scores, all_slopes = [], []
        for begin in range(0, len(jobs), self.rows):
            chunk = jobs[begin : begin + self.rows]
            layers = sorted({l for l, _, _ in chunk})
            moves = {l: _Move.of(l, chunk, self.point.keys[l], self.baseline[l]) for l in layers}
            taps = [Tap(Site("key", l), move) for l, move in moves.items()]
            scores = self.score(self.point.again(self.model, len(chunk), layers[0], taps))
            found = torch.autograd.grad(scores.sum(), [move.keys for move in moves.values()])
            for (l, move), own in zip(moves.items(), found, strict=True):
                each = own.double().cpu().numpy()
                gradient[l] += np.array([w for _, _, w in chunk[move.where]]) @ each
                all_slopes.append(each @ self.delta(l))
            all_scores.append(scores.detach().double().cpu().numpy())
            if self.progress:
                self.progress(begin + len(chunk), len(jobs), "points")
        return np.concatenate(all_scores), np.concatenate(all_slopes)


def bar(path: Path) -> float:
    """The largest error with which a layer's attributions count as complete."""
    return max(BAR_SHARE * abs(path.end - path.start), BAR)


def _thirds(layer: int, path: Path, i: int) -> list[Job]:
    """An interval in three: its midpoint loses two thirds of its weight to the midpoints of the outer thirds."""
    at, third = float(path.at[i]), float(path.weight[i]) / 3
    return [(layer, at, -2 * third), (layer, at - third, third), (layer, at + third, third)]


@dataclass(frozen=True, eq=False)
class _Move:
    """Puts b + a_j (k - b) in place of the last token's key in some rows of a batch; `keys` collects the gradient."""

    where: slice
    keys: Float[Tensor, "points neurons"]

    @classmethod
    def of(cls, layer: int, jobs: Sequence[Job], key: Tensor, baseline: Tensor) -> "_Move":
        mine = [i for i, (l, _, _) in enumerate(jobs) if l == layer]
        key = at_least_float32(key)
        baseline = baseline.to(key)
        a = torch.tensor([[jobs[i][1]] for i in mine], dtype=key.dtype, device=key.device)
        return cls(slice(mine[0], mine[-1] + 1), (baseline + a * (key - baseline)).requires_grad_())

    def __call__(self, tensor: Float[Tensor, "rows columns neurons"]) -> Float[Tensor, "rows columns neurons"]:
        tensor = tensor.clone()
        tensor[self.where, -1] = self.keys.to(tensor)
        return tensor


def check_settings(steps: int, rule: str, score: str, rows: int) -> tuple[Points, Scorer]:
    """The points and the score that these settings name; raises `SettingError` with the setting that is wrong."""
    if rule not in RULES:
        raise SettingError(f"There is no rule {rule!r}.{did_you_mean(rule, RULES)}")
    if score not in SCORES:
        raise SettingError(f"There is no score {score!r}.{did_you_mean(score, SCORES)}")
    if steps < 1:
        raise SettingError(
            f"Integrated gradients needs at least one step, got {steps}; the default is {PATH['steps']}."
        )
    if rows < 1:
        raise SettingError(f"At least one row must go through the network at once, got {rows}.")
    return RULES[rule](steps), SCORES[score]
