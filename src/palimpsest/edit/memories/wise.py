"""WISE (Wang et al. 2024): facts in a side copy W' = W + D of one down-projection, asked only where it has something to say.

The facts are dealt to k shards. Each trains its own D_i, where a random mask lets it, on

    L = mean over facts of -(1/T) sum_t log p(o*_t | prompt, o*_<t; D_i from the last token of the prompt on)  +  L_a
    L_a = mean over u  max(0, s(u) - alpha)                      u: tokens of texts that are not about the facts
        + mean over e  max(0, beta - s(e))                       e: tokens at which the facts' answers are read
        + mean over e  max(0, gamma - (s(e) - max over u s(u)))
    s(t) = |D_i k_t|

and D = TIES(D_1, ..., D_k) (`memories.ties`). The threshold is epsilon = ratio * min over e of s(e), with the merged D; routing is
that of `memories.side`. `memory=` is an edit of this method: what is new becomes one more side memory beside those it has. Two
presets:

    "fixed"       Adam; margins in units of the mean length of the layer's own outputs, so that they mean the same in every model;
                  one shard and no mask, because with masks unrelated prompts scored like edited ones more often (on six
                  founders of the made world, on which it must not be judged)
    "wise-2024"   the published numbers: SGD at rate 1, margins 5, 20 and 10 as they are, |D_ab| <= 1, 70 steps, two shards
                  with rho = 0.2

What differs from the published code in both: while it trains, every token of a prompt passes W', though only routed ones will; here
those from the last one of the prompt on do, which are the ones that will be routed (so what stands before them is run once). The
texts u are the model's own (seeded) and the prompts of `examples`, shipped facts unless others are given; the published ones are a
benchmark's locality prompts, which would be asked again when it is judged.

Examples look as edited prompts do and are about something else. How often a memory takes such prompts for its own is measured in
docs/memory-routing.md.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.contexts import sample_contexts
from palimpsest.edit.memories.beside import held, one_layer
from palimpsest.edit.memories.examples import examples_or_shipped, refuse_edited
from palimpsest.edit.memories.side import Side
from palimpsest.edit.memories.ties import random_masks, ties
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import at_least, one_of, resolve, whole
from palimpsest.edit.training import AnswerRows, answer_rows, rows_nll, without_gradients
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.model.anatomy import in_out_features
from palimpsest.runs import Progress

DEPTH = 27 / 31  # of the published layer in Llama 2
READ = 32  # unrelated texts read at once


@dataclass(frozen=True)
class SideSettings:
    """How a side memory is trained and routed.

    Attributes:
        steps: over all facts of a shard.
        optimiser: "adam" or "sgd".
        learning_rate: of it.
        weight_decay: of it, toward W.
        clamp: bound on every entry of D.
        shards: k, at most one a fact.
        mask: rho, the share of entries that a shard may move.
        density: share of entries that TIES keeps.
        alpha, beta, gamma: the margins.
        relative: whether margins count in mean lengths of the layer's outputs.
        ratio: of the least score of a fact, as threshold.
        prefixes: (length, count) of texts of the model put before prompts in training, besides the bare prompt.
        unrelated: (length, count) of texts of the model that are about something else, besides the examples.
        seed: of masks and texts.
    """

    steps: int = 70
    optimiser: str = "adam"
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    clamp: float = 1.0
    shards: int = 1
    mask: float = 1.0
    density: float = 0.53
    alpha: float = 0.25
    beta: float = 1.0
    gamma: float = 0.5
    relative: bool = True
    ratio: float = 0.88
    prefixes: tuple[int, int] = (10, 4)
    unrelated: tuple[int, int] = (40, 40)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "shards"):
            whole("WISE", name, getattr(self, name), 1)
        one_of("WISE", "optimiser", self.optimiser, ("adam", "sgd"))
        for name in ("weight_decay", "alpha", "beta", "gamma"):
            at_least("WISE", name, getattr(self, name), 0)
        for name in ("mask", "density", "ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"WISE's {name} must be above 0 and at most 1, got {getattr(self, name)!r}.")
        for name in ("learning_rate", "clamp"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"WISE's {name} must be a number above 0, got {getattr(self, name)!r}.")


@dataclass(frozen=True)
class WiseSettings:
    """Every setting of WISE.

    Attributes:
        preset: the name these settings began from.
        layers: the one layer whose down-projection is copied; the model's default when None.
        side: how the copy is trained and routed.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    side: SideSettings = field(default_factory=SideSettings)


PUBLISHED = SideSettings(
    optimiser="sgd",
    shards=2,
    mask=0.2,
    learning_rate=1.0,
    weight_decay=1e-5,
    alpha=5.0,
    beta=20.0,
    gamma=10.0,
    relative=False,
    prefixes=(10, 10),
)
PRESETS = {"fixed": WiseSettings(), "wise-2024": WiseSettings("wise-2024", side=PUBLISHED)}


class Wise:
    """WISE on one model.

    Args:
        model: read, never changed.
        preset: "fixed" or "wise-2024".
        memory: an edit of this method to grow by one more side memory.
        examples: facts whose prompts the memory learns to leave alone; 96 shipped ones when None. None that is given may be edited,
            and those about an edited subject are passed over. Held are all tokens of these texts, (tokens, inputs) in float32.
        progress: called with (shards done, shards, label).
        settings: any field of `WiseSettings` or `SideSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        AnatomyError: the layer has no down-projection.
        EditError, WeightError: the memory is no side memory of this layer, or one of another base.
    """

    name = "wise"

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        memory: Edit | None = None,
        examples: Sequence[Fact] | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.memory, self.progress = model, memory, progress
        self.given_examples = None if examples is None else tuple(examples)
        self.settings = resolve("WISE", PRESETS, preset, settings)
        self.examples = examples_or_shipped(self.given_examples)
        self.layer = one_layer("WISE", model, self.settings.layers, DEPTH)
        self.earlier = None if memory is None else held(model, memory, Side, self.layer)
        inputs, outputs = in_out_features(model.anatomy.down(self.layer).module)
        self.shape = (outputs, inputs)
        side = self.settings.side
        # a fact's prompt has one hole and no brace besides
        self.prefixes = [text for text in self._written(side.prefixes, side.seed) if not {"{", "}"} & set(text)]
        self.unrelated = self._written(side.unrelated, side.seed + 1)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force."""
        given = None if self.given_examples is None else [fact.id for fact in self.given_examples]
        return {**asdict(self.settings), "layers": [self.layer], "examples": given}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """A side memory with `facts`, beside those of the memory where one was given.

        `notes` holds, per fact, its shard, the loss as it is served, its least score and the threshold.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, two facts contradict each other, training diverged, or the memory learnt nothing.
            SettingError: one of the examples that were given is edited, or there is no unrelated text and no example.
        """
        facts, settings = checked(facts), self.settings.side
        refuse_edited(self.given_examples, facts)
        earlier = self.memory.facts if self.memory is not None else ()
        together = checked((*earlier, *(fact for fact in facts if fact not in earlier)))
        dealt = [list(facts[i :: settings.shards]) for i in range(min(settings.shards, len(facts)))]
        number = 0 if self.earlier is None else len(self.earlier)
        masks = random_masks(len(dealt), self.shape, settings.mask, seed=settings.seed + number)
        with self.model.evaluating(), without_gradients(self.model):
            elsewhere, changes = self._elsewhere(facts), []
            for i, shard in enumerate(dealt):
                changes.append(self._trained(shard, masks[i], elsewhere))
                if self.progress:
                    self.progress(i + 1, len(dealt), "shards")
            merged = ties(torch.stack(changes), settings.density)
            rows = answer_rows(self.model, facts, self.layer, onward=True)
            with torch.no_grad():
                _, scores = self._run(rows, merged.to(self.model.device))
        least = torch.where(rows.weight > 0, scores, math.inf).min(dim=1).values
        threshold = settings.ratio * float(least.min())
        if not threshold > 0:
            raise EditError(
                "The side memory learnt nothing, so that no threshold can be set; raise WISE's steps or rate."
            )
        side = Side(
            Site("value", self.layer),
            merged.float()[None],
            torch.tensor([threshold]),
            (tuple(fact.id for fact in facts),),
        )
        if self.earlier is not None:
            side = self.earlier.plus(side)
        with self.model.evaluating(), torch.no_grad(), side.installed(self.model, 1.0):
            served = answer_rows(self.model, facts, self.layer)
            nll = rows_nll(self.model, served, self.layer)  # as it will be served, routing and all
        where = {fact.id: i for i, shard in enumerate(dealt) for fact in shard}
        notes = list(self.memory.notes.get("facts", [])) if self.memory is not None else []
        for i, fact in enumerate(facts):
            found = {"shard": where[fact.id], "nll": float(nll[i]), "score": float(least[i]), "threshold": threshold}
            notes.append({"fact": fact.id, **found})
        return Edit.made_for(self.model, self.name, (side,), together, self.card, {"facts": notes})

    def _written(self, drawn: tuple[int, int], seed: int) -> list[str]:
        """Texts of the model: (length, count), each ending in ". "."""
        return list(sample_contexts(self.model, (drawn,), seed=seed)[1:]) if drawn[1] else []

    def _elsewhere(self, facts: Sequence[Fact]) -> Float[Tensor, "tokens in"]:
        """What the layer reads at each token of the unrelated texts, and of the examples about other subjects than the facts'."""
        subjects, site = {fact.subject for fact in facts}, Site("key", self.layer)
        texts = [*self.unrelated, *(fact.text for fact in self.examples if fact.subject not in subjects)]
        if not texts:
            raise SettingError(
                f"WISE needs texts that are not about the facts, got none of {len(self.examples)} examples and no text; "
                "raise the count of `unrelated` or give it examples."
            )
        found = []
        for begin in range(0, len(texts), READ):
            batch = pad([self.model.encode(text).ids for text in texts[begin : begin + READ]])
            states = at_least_float32(self.model.record(batch, [site])[site])
            found.append(states[batch.mask.to(states.device).bool()])
        return torch.cat(found)

    @torch.enable_grad()
    def _trained(
        self, facts: Sequence[Fact], mask: Bool[Tensor, "out in"], elsewhere: Float[Tensor, "tokens in"]
    ) -> Float[Tensor, "out in"]:
        """D of one shard."""
        settings, device = self.settings.side, self.model.device
        wordings = [
            replace(fact, prompt=prefix + fact.prompt, id=f"{fact.id} {i}")
            for i, prefix in enumerate(("", *self.prefixes))
            for fact in facts
        ]
        rows = answer_rows(self.model, wordings, self.layer, onward=True)
        unit = self._unit(rows) if settings.relative else 1.0
        delta, mask = torch.zeros(self.shape, device=device, dtype=elsewhere.dtype, requires_grad=True), mask.to(device)
        with torch.no_grad():  # the gradient of a length is not defined at 0
            begun = torch.randn(self.shape, generator=torch.Generator().manual_seed(settings.seed)) * 1e-4
            delta += begun.to(delta) * mask
        made = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.SGD
        optimiser = made([delta], lr=settings.learning_rate, weight_decay=settings.weight_decay)
        for _ in range(settings.steps):
            nll, scores = self._run(rows, delta)
            margins = margin_loss(scores[rows.weight > 0] / unit, (elsewhere @ delta.T).norm(dim=-1) / unit, settings)
            loss = nll.mean() + margins
            if not float(loss.detach()) < math.inf:
                raise EditError(f"WISE's training diverged (the loss is {float(loss)}); lower its learning rate.")
            (gradient,) = torch.autograd.grad(loss, [delta])
            delta.grad = gradient * mask
            optimiser.step()
            with torch.no_grad():
                delta.clamp_(-settings.clamp, settings.clamp)
        return delta.detach().cpu()

    def _run(
        self, rows: AnswerRows, delta: Float[Tensor, "out in"]
    ) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows positions"]]:
        """Loss of each row with D from the last token of its prompt on, and the scores where answers are read."""
        changes: list[Tensor] = []

        def keep(states: Tensor) -> None:
            changes[:] = [at_least_float32(states) @ delta.T]

        def changed(output: Tensor) -> Tensor:
            return (at_least_float32(output) + changes[0]).to(output.dtype)

        taps = [Tap(Site("key", self.layer), keep), Tap(Site("value", self.layer), changed)]
        nll = rows_nll(self.model, rows, self.layer, taps)
        return nll, changes[0].norm(dim=-1).gather(1, rows.at_run)

    def _unit(self, rows: AnswerRows) -> float:
        """Mean length of the layer's own outputs where answers are read."""
        site = Site("value", self.layer)
        states = self.model.record(rows.batch, [site], prefix=rows.prefix, start=self.layer, resid=rows.resid)[site]
        return float(at_least_float32(states).norm(dim=-1).gather(1, rows.at_run)[rows.weight > 0].mean())


def margin_loss(
    edited: Float[Tensor, "edited"], unrelated: Float[Tensor, "unrelated"], settings: SideSettings
) -> Float[Tensor, ""]:
    """L_a: unrelated scores below alpha, edited ones above beta, and gamma between."""
    low = (unrelated - settings.alpha).relu().mean()
    high = (settings.beta - edited).relu().mean()
    apart = (settings.gamma - (edited - unrelated.max())).relu().mean()
    return low + high + apart
