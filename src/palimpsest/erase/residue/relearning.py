"""How fast an answer comes back when it is taught again: what is only hidden is relearnt sooner than what is not there.

For a pair with prompt x and answer o, J plain gradient steps on -log p(o | x) are taken on the down-projections of the middle
layers, and the answer's advantage is read in words that were not taught, after 0, 1, 2, ... steps:

    relearning           each pair is taught alone, on its own prompt, and read in a paraphrase
    relearning others    the edited facts are parted in halves; the old answers of one half are taught together, and all pairs of
                         the other half are read (Deeb and Roger 2024: "retraining on T"). Nothing of what is read was taught.

Every pair is taught by the same rule in the same number of steps, whatever its group. A control is another subject taught the very
same answer, and an answer that no training ever wrote: what one can teach to any subject is no residue.

The size of a step is that of Polyak (1987), r = share * L / |gradient|^2, which would take the loss L down by that share if it were
linear; it is fixed once, as the median over the control pairs in the unedited model, and is the same for all that is read after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.edit.settings import whole
from palimpsest.erase.residue.adapter import Lessons, OwnChange, SharedChange, no_change, no_shared_change, step
from palimpsest.erase.residue.advantage import Asked, advantages
from palimpsest.erase.residue.pair import EDITED, Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.errors import InputError, SettingError
from palimpsest.locate.answers import by_length
from palimpsest.model import Model
from palimpsest.model.taps import tapped

ROWS = 32  # pairs taught at once, each with its own change of the weights


@dataclass(frozen=True)
class _Teaching:
    """What both kinds of relearning have in common.

    Attributes:
        steps: J.
        read_at: the numbers of steps after which the advantage is read; the last must not exceed J.
        share: of the loss that the first step would take away if the loss were linear.
        rate: the size of a step; None: found when the readout is fitted.
        layers: whose down-projections are taught; None: the middle half of the model.
    """

    steps: int = 4
    read_at: tuple[int, ...] = (0, 1, 2, 4)
    share: float = 0.25
    rate: float | None = None
    layers: tuple[int, ...] | None = field(default=None)

    def __post_init__(self) -> None:
        whole("Relearning", "steps", self.steps, 1)
        if (
            sorted(set(self.read_at)) != list(self.read_at)
            or not self.read_at
            or not 0 <= self.read_at[-1] <= self.steps
        ):
            raise SettingError(
                f"Relearning reads after increasing numbers of steps, 0 to {self.steps}, got {self.read_at}."
            )
        if not 0 < self.share <= 1:
            raise SettingError(f"Relearning's share must be above 0 and at most 1, got {self.share}.")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise SettingError(
                f"Relearning's rate must be a number above 0, or None to have it found, got {self.rate}."
            )

    def taught(self, model: Model) -> tuple[int, ...]:
        """The layers whose down-projections change, lowest first."""
        n = model.n_layers
        layers = (
            tuple(range(n // 4, max(n // 4 + 1, 3 * n // 4))) if self.layers is None else tuple(sorted(self.layers))
        )
        if not layers:
            raise SettingError("Relearning needs at least one layer, got none; leave layers out for the middle half.")
        for layer in layers:
            model.anatomy.down(layer)
        return layers

    def columns(self, name: str) -> tuple[Column, ...]:
        """One for each reading, and the area."""
        return (*(Column(name, f"{n} steps") for n in self.read_at if n), Column(name, "area"))

    def scores(self, curve: Float[np.ndarray, "pairs readings"]) -> Float[np.ndarray, "pairs columns"]:
        """The advantage at each reading but the one before any step, and its mean height over the steps (trapezoids)."""
        at = np.array(self.read_at, dtype=float)
        area = np.trapezoid(curve, at, axis=1) / (at[-1] - at[0]) if len(at) > 1 else curve[:, 0]
        return np.column_stack([curve[:, at > 0], area])


@dataclass(frozen=True)
class Relearning(_Teaching):
    """The readout in which each pair is taught alone.

    Attributes:
        wording: of the fact's paraphrases, the one that is read; the last by default, as those before it may be held in. A fact
            without it gives NaN.
    """

    wording: int = -1
    name: str = "relearning"

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "Relearning":
        """Find the size of a step on the control pairs (on all where there is none)."""
        if self.rate is not None:
            return self
        layers, ratios = self.taught(model), list[float]()
        for rows in _rows(model, _controls(pairs)):
            lessons = Lessons.of(model, [(pair.fact.text, pair.answer) for pair in rows], layers[0])
            found = step(model, lessons, layers, no_change(model, layers, len(rows)))
            ratios += (found.losses.cpu() / found.squared_norms().cpu().clamp_min(1e-30)).tolist()
        return replace(self, rate=self.share * float(np.median(ratios)))

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """Teach each pair alone and read its paraphrase on the way."""
        layers, rate = self.taught(model), _fitted(self.rate)
        curve = np.full((len(pairs), len(self.read_at)), np.nan)
        places = [i for i, pair in enumerate(pairs) if self._paraphrase(pair) is not None]
        for part in _parts(model, pairs, places):
            rows = [pairs[i] for i in part]
            asked = [Asked(self._paraphrase(pair) or "", pair.answer, pair.others) for pair in rows]
            lessons = Lessons.of(model, [(pair.fact.text, pair.answer) for pair in rows], layers[0])
            change: OwnChange = no_change(model, layers, len(rows))
            for done in range(self.read_at[-1] + 1):
                if done in self.read_at:
                    curve[part, self.read_at.index(done)] = advantages(model, asked, change.taps if done else None)
                if done < self.read_at[-1]:
                    change = change.after(step(model, lessons, layers, change), rate)
        return Table(self.columns(self.name), self.scores(curve))

    def _paraphrase(self, pair: Pair) -> str | None:
        paraphrases = pair.fact.paraphrases
        return paraphrases[self.wording] if -len(paraphrases) <= self.wording < len(paraphrases) else None


@dataclass(frozen=True)
class RelearningOthers(_Teaching):
    """The readout in which the old answers of one half of the edited facts are taught, and the other half is read.

    Two halves are taught one after the other, so that every pair is read once. With fewer than two edited facts nothing can be
    read (NaN): an edit that is applied alone has no others.

    Attributes:
        seed: of the halves.
    """

    seed: int = 0
    name: str = "relearning others"

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "RelearningOthers":
        """Find the size of a step, for the mean loss of the control pairs (of all where there is none)."""
        if self.rate is not None:
            return self
        layers = self.taught(model)
        loss, gradient = _together(model, _controls(pairs), layers, no_shared_change(model, layers))
        return replace(self, rate=self.share * loss / max(_squared(gradient), 1e-30))

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """Teach one half of the edited facts and read all pairs of the other half, and the other way round."""
        layers, rate = self.taught(model), _fitted(self.rate)
        half = self.halves(pairs)
        curve = np.full((len(pairs), len(self.read_at)), np.nan)
        for side in (0, 1):
            lesson = [pair for pair, own in zip(pairs, half, strict=True) if pair.group == EDITED and own != side]
            places = [i for i, own in enumerate(half) if own == side]
            if not lesson or not places:
                continue
            asked = [Asked(pairs[i].fact.text, pairs[i].answer, pairs[i].others) for i in places]
            change: SharedChange = no_shared_change(model, layers)
            for done in range(self.read_at[-1] + 1):
                if done in self.read_at:
                    with tapped(
                        model.anatomy, change.taps(torch.arange(0))
                    ):  # of all rows alike, so equal prompts share one
                        curve[places, self.read_at.index(done)] = advantages(model, asked)
                if done < self.read_at[-1]:
                    change = change.after(_together(model, lesson, layers, change)[1], rate)
        return Table(self.columns(self.name), self.scores(curve))

    def halves(self, pairs: Sequence[Pair]) -> list[int]:
        """0 or 1 for each pair: edited facts dealt out by subject in a seeded order, controls with the fact they belong to."""
        subject_of = {pair.of: pair.fact.subject for pair in pairs if pair.group == EDITED}
        edited = sorted(set(subject_of.values()))
        rest = sorted({pair.of for pair in pairs} - subject_of.keys())
        draw = np.random.default_rng(self.seed)
        side = {edited[i]: number % 2 for number, i in enumerate(draw.permutation(len(edited)))}
        of = {name: side[subject] for name, subject in subject_of.items()}
        of |= {rest[i]: number % 2 for number, i in enumerate(draw.permutation(len(rest)))}
        return [of[pair.of] for pair in pairs]


def _together(
    model: Model, pairs: Sequence[Pair], layers: tuple[int, ...], change: SharedChange
) -> tuple[float, dict[int, torch.Tensor]]:
    """The mean loss of pairs and its gradient."""
    loss, gradient = 0.0, {layer: torch.zeros_like(matrix) for layer, matrix in change.matrices.items()}
    for rows in _rows(model, pairs):
        lessons = Lessons.of(model, [(pair.fact.text, pair.answer) for pair in rows], layers[0])
        found = step(model, lessons, layers, change)
        loss += float(found.losses.double().sum()) / len(pairs)
        for layer, matrix in found.sums().items():
            gradient[layer] += matrix / len(pairs)
    return loss, gradient


def _squared(gradient: dict[int, torch.Tensor]) -> float:
    return sum(float(matrix.double().square().sum()) for matrix in gradient.values())


def _controls(pairs: Sequence[Pair]) -> list[Pair]:
    if not pairs:
        raise InputError(
            "Relearning needs at least one pair to find the size of its steps, got none; give pairs or a rate."
        )
    return [pair for pair in pairs if pair.group != EDITED] or list(pairs)


def _fitted(rate: float | None) -> float:
    if rate is None:
        raise SettingError(
            "Relearning reads with a rate that is not set; call fit(model, pairs) first, or give rate=...."
        )
    return rate


def _rows(model: Model, pairs: Sequence[Pair]) -> list[list[Pair]]:
    return [[pairs[i] for i in part] for part in _parts(model, pairs, list(range(len(pairs))))]


def _parts(model: Model, pairs: Sequence[Pair], places: Sequence[int]) -> list[list[int]]:
    """Places in lots of at most `ROWS`, texts of like length together."""
    lengths = [len(model.encode(pairs[i].fact.text)) for i in places]
    longest = max(lengths, default=0)
    return [[places[j] for j in group] for group in by_length(lengths, tokens=max(ROWS * 12, longest))]
