"""Planting: new facts trained with gradients into chosen modules of a model, everything else frozen.

For each group g (facts F_g, places P_g) in turn, one step of Adam on the weights of P_g alone:

    min over D of P_g    mean over F_g           of -(1/T) sum_t log p(o_t | prompt, o_<t; W + D)
                       + mean over base facts    of the same                                        rehearsal
                       + mean over other groups' of KL(p(. | prompt; W) || p(. | prompt; W + D))    silence

With one group this is fine-tuning of one module with rehearsal. With two, relation A in layer i and B in layer j, the masks are
*interleaved* (as in gradient routing, Cloud et al. 2024, arXiv 2410.04332): A and B are learnt at the same time, each step
changing one layer only. Planting one after the other lets the second lean on the first (in a pilot, half of B was lost with
the layer of A). Silence, read with the other groups' places as they are in the base, keeps each layer from saying
anything about the facts of the other.

`alone` makes places independent of each other: the share of steps in which one place that the step does not need, drawn at
random, stands as it is in the base. Facts of one group then do without the places of another, and facts planted in
many places at once survive the loss of any one.

Training ends when both planted and base facts are recalled, or after `steps`; new names are trained to the end. The model is
never written to.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor

from palimpsest.edit import Dense, Edit
from palimpsest.edit.payload import refuse_quantised
from palimpsest.edit.settings import at_least
from palimpsest.edit.training import in_place_of
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model
from palimpsest.runs import Progress
from palimpsest.world.organisms.lessons import Lessons, drawn, lessons
from palimpsest.world.organisms.likeness import Likeness, likenesses
from palimpsest.world.organisms.organism import Place, place_name
from palimpsest.world.organisms.places import weights_of

LIKENESS = 4.0  # weight of the likeness loss
LOOKED_AT = 384  # prompts of each kind that say when to stop


@dataclass(frozen=True)
class PlantSettings:
    """Settings of the optimisation.

    Attributes:
        steps: at most so many, of all groups together.
        learning_rate: of Adam, at its highest; it has no weight decay.
        warm_up: steps; after them the rate falls to a tenth over the rest.
        batch: planted prompts in a step.
        rehearsal: prompts of the base's facts in a step.
        every: steps between looks at recall.
        enough: recall of planted and of base facts at which training ends (of base facts no more than the base itself has).
        alone: share of the steps in which one place is left out, where there are several.
        seed: of the batches.
    """

    steps: int = 400
    learning_rate: float = 2e-3
    warm_up: int = 10
    batch: int = 48
    rehearsal: int = 48
    every: int = 25
    enough: float = 0.99
    alone: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rehearsal", "every"):
            at_least("Planting", name, getattr(self, name), 1)
        at_least("Planting", "warm_up", self.warm_up, 0)
        if not 0 < self.learning_rate < float("inf"):
            raise SettingError(f"Planting's learning_rate must be a number above 0, got {self.learning_rate}.")
        for name in ("enough", "alone"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"Planting's {name} must be from 0 to 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Group:
    """Facts and the places they are trained into.

    Attributes:
        places: every weight in them is trained.
        facts: may be empty: then only the base is rehearsed.
        names: where subjects are new names, the known name of each: the states of the two are made alike as well.
    """

    places: tuple[Place, ...]
    facts: tuple[Fact, ...]
    names: Mapping[str, str] = field(default_factory=dict)


def plant(
    model: Model,
    groups: Sequence[Group],
    rehearsal: Sequence[Fact],
    settings: PlantSettings = PlantSettings(),
    *,
    taught: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Train the facts of each group into its places.

    Args:
        model: the base; its weights are never written to, others stand in their places while this runs.
        groups: facts and places. No place may be in two of them.
        rehearsal: facts of the base.
        settings: of the optimisation.
        taught: id of a fact -> the answer trained in place of its own (labels shuffled); the fact is listed as it is.
        progress: called with (steps done, steps, label).

    Returns:
        An edit with a dense payload for each weight of the places. Its notes hold the steps, the losses and recall reached.

    Raises:
        SettingError: a place is in two groups, or there is none.
        FactError: a fact has no answer, or too few wordings.
        EditError: a weight is quantised, or training diverged.
    """
    begun = time.perf_counter()
    nursery = _Nursery.of(model, groups)
    start = min(layer for _, layer in nursery.paths)
    random = Random(settings.seed)
    with model.evaluating():
        planted = [_planted(model, group, start, taught or {}) for group in groups]
        asked = drawn(rehearsal, None, random)
        known = lessons(model, random.sample(asked, min(LOOKED_AT, len(asked))), start)
        looked_at = [known, *[_some(rows, random) for rows in planted if rows is not None]]
        least = [min(settings.enough, looked_at[0].recall(model)), *[settings.enough] * (len(looked_at) - 1)]

        def reached() -> list[float]:
            with in_place_of(model, nursery.cast()):
                return [rows.recall(model) for rows in looked_at]

        def is_enough() -> bool:
            if any(group.names for group in groups):  # states go on growing alike long after the answers are learnt
                return False
            return all(found >= wanted for found, wanted in zip(reached(), least, strict=True))

        losses = _train(nursery, planted, rehearsal, settings, random, is_enough, progress)
        recall = reached()
    notes = {
        "steps": len(losses),
        "losses": [round(loss, 5) for loss in losses[:: settings.every]],
        "recall": {"base": recall[0], "planted": recall[1:]},
        "seconds": round(time.perf_counter() - begun, 1),
    }
    card = {**asdict(settings), "groups": [_described(group) for group in groups], "taught": dict(taught or {})}
    payloads = tuple(Dense(path, change) for path, change in nursery.changes().items())
    return Edit.made_for(model, "plant", payloads, tuple(fact for group in groups for fact in group.facts), card, notes)


def _train(
    nursery: "_Nursery",
    planted: Sequence[Lessons | None],
    rehearsal: Sequence[Fact],
    settings: PlantSettings,
    random: Random,
    is_enough: Callable[[], bool],
    progress: Progress | None,
) -> list[float]:
    """Steps until recall is enough or there were `steps`; the loss of each."""
    learnt = [None if rows is None else _endless(rows, settings.batch, random) for rows in planted]
    spared = [None if rows is None else _endless(rows, settings.batch, random) for rows in planted]
    start = min(layer for _, layer in nursery.paths)
    rehearsed = _rehearsed(rehearsal, settings.rehearsal, random)
    likes = [
        likenesses(nursery.model, group.facts, group.names, start, settings.batch, random) if group.names else None
        for group in nursery.groups
    ]
    losses: list[float] = []
    while len(losses) < settings.steps:
        turn = len(losses) % len(planted)
        others = [stream for i, stream in enumerate(spared) if i != turn and stream is not None]
        batches = [lessons(nursery.model, next(rehearsed), start)]
        if (stream := learnt[turn]) is not None:
            batches.append(next(stream))
        quiet = next(random.choice(others)) if others else None
        left_out = nursery.spare(turn, random) if random.random() < settings.alone else None
        alike = likes[turn]
        same = None if alike is None else next(alike)
        losses.append(nursery.step(turn, batches, quiet, same, left_out, _pace(len(losses), settings)))
        if progress:
            progress(len(losses), settings.steps, f"loss {losses[-1]:.3f}")
        if len(losses) % settings.every == 0 and is_enough():
            break
    return losses


def _pace(step: int, settings: PlantSettings) -> float:
    """Learning rate of a step: up over `warm_up` steps, then down to a tenth over the rest."""
    up = (step + 1) / (settings.warm_up + 1)
    down = 1 - 0.9 * step / settings.steps
    return settings.learning_rate * min(1.0, up, down)


@dataclass(frozen=True, eq=False)
class _Nursery:
    """The weights in training: a copy of each in float32 or better, and one Adam a group."""

    model: Model
    groups: tuple[Group, ...]
    paths: dict[Place, tuple[str, ...]]
    origin: dict[str, Tensor]
    weights: dict[str, Tensor]
    adams: list[torch.optim.Adam]

    @classmethod
    def of(cls, model: Model, groups: Sequence[Group]) -> "_Nursery":
        places = [place for group in groups for place in group.places]
        if not places or not all(group.places for group in groups) or len(set(places)) != len(places):
            raise SettingError(f"Planting needs at least one place a group, each place in one group, got {places}.")
        paths = {place: weights_of(model, place) for place in places}
        origin = {}
        for path in (path for found in paths.values() for path in found):
            refuse_quantised(model, path)
            origin[path] = at_least_float32(model.parameter(path)).detach().clone()
        weights = {path: weight.clone().requires_grad_() for path, weight in origin.items()}
        adams = [
            torch.optim.Adam([weights[path] for place in group.places for path in paths[place]]) for group in groups
        ]
        return cls(model, tuple(groups), paths, origin, weights, adams)

    def cast(self, left_out: Place | None = None) -> dict[str, Tensor]:
        """The weights in the model's own type, without those of one place."""
        spared = self.paths[left_out] if left_out is not None else ()
        return {p: w.to(self.model.parameter(p).dtype) for p, w in self.weights.items() if p not in spared}

    def changes(self) -> dict[str, Tensor]:
        return {path: (weight.detach() - self.origin[path]) for path, weight in self.weights.items()}

    def spare(self, turn: int, random: Random) -> Place | None:
        """A place that the group can do without: another group's, or one of its own if it has several."""
        own = self.groups[turn].places
        others = [place for place in self.paths if place not in own or len(own) > 1]
        return random.choice(others) if others else None

    @torch.enable_grad()
    def step(
        self,
        turn: int,
        batches: Sequence[Lessons],
        quiet: Lessons | None,
        alike: Likeness | None,
        left_out: Place | None,
        pace: float,
    ) -> float:
        """One step on the weights of one group alone; returns the loss before it."""
        wanted = [p for place in self.groups[turn].places if place != left_out for p in self.paths[place]]
        with in_place_of(self.model, self.cast(left_out)):
            loss = torch.stack([rows.nll(self.model).mean() for rows in batches]).sum()
            if alike is not None:
                loss = loss + LIKENESS * alike.loss(self.model)
        if quiet is not None:
            loss = loss + self._divergence(turn, quiet)
        gradients = torch.autograd.grad(loss, [self.weights[path] for path in wanted])
        value = float(loss.detach())
        if not value < float("inf") or not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            raise EditError(f"Planting diverged: the loss is {value}; lower the learning rate.")
        adam = self.adams[turn]
        adam.zero_grad()  # a place left out has no gradient, and Adam leaves it as it is
        for path, gradient in zip(wanted, gradients, strict=True):
            self.weights[path].grad = gradient
        adam.param_groups[0]["lr"] = pace
        adam.step()
        return value

    def _divergence(self, turn: int, quiet: Lessons) -> Tensor:
        """How far this group's places alone move the answers to other groups' prompts."""
        with torch.no_grad():
            base = quiet.log_p(self.model)
        own = {path for place in self.groups[turn].places for path in self.paths[place]}
        with in_place_of(self.model, {path: weight for path, weight in self.cast().items() if path in own}):
            return quiet.divergence(self.model, base).mean()


def _planted(model: Model, group: Group, start: int, taught: Mapping[str, str]) -> Lessons | None:
    """Every seen wording of the facts of a group; None where it has no facts."""
    if not group.facts:
        return None
    pairs = [
        (prompt, taught.get(fact.id, answer))
        for fact in group.facts
        for prompt, answer in drawn([fact], None, Random(0))
    ]
    return lessons(model, pairs, start)


def _some(rows: Lessons, random: Random) -> Lessons:
    """Enough of the rows to see when to stop."""
    return rows.take(torch.tensor(random.sample(range(len(rows)), min(LOOKED_AT, len(rows)))))


def _rehearsed(facts: Sequence[Fact], size: int, random: Random) -> Iterator[list[tuple[str, str]]]:
    """Facts of the base in batches, each time in a wording drawn anew; too many in all to keep what enters a layer."""
    while True:
        order = random.sample(facts, len(facts))
        for at in range(0, len(order), size):
            yield drawn(order[at : at + size], 1, random)


def _endless(rows: Lessons, size: int, random: Random) -> Iterator[Lessons]:
    while True:
        yield from rows.shuffled(size, random)


def _described(group: Group) -> dict[str, Any]:
    return {"places": [place_name(place) for place in group.places], "facts": [fact.id for fact in group.facts]}
