"""GRACE (Hartvigsen et al. 2023): facts as entries of a codebook beside one layer, with no weight changed.

For a fact with prompt p and new answer o*, at the down-projection of one layer, with k its input at the last token of p,

    V = argmin  -(1/T) sum_t log p(o*_t | p, o*_<t; the output is V from the last token of p on)

by Adam, and (k, o*, e) meets the codebook by the rules of `palimpsest.edit.memories.codebook`. An entry that only expands stands
for several prompts of one answer, so its value is trained again on all of them, from where it was. Two presets:

    "fixed"        V begins as the layer's own output at the last token of the prompt, and training stops at a loss of 0.01
    "grace-2023"   the published code: V begins as uniform random numbers in [0, 1) and all 100 steps are taken

`memory=` is a codebook to grow: an edit of this method, or what `Edit.load` read of one. The published layer is late in the model
(35 of 48 in GPT-2 XL); the same depth is the default elsewhere.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.memories.beside import held, number_of, one_layer
from palimpsest.edit.memories.codebook import Codebook
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import at_least, one_of, resolve, whole
from palimpsest.edit.training import answer_rows, rows_nll, without_gradients
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.runs import Progress

DEPTH = 35 / 48  # of the published layer in GPT-2 XL


@dataclass(frozen=True)
class CodeSettings:
    """How a value is found.

    Attributes:
        radius: e of a new entry, in the units of the layer's input.
        steps: of Adam, at most.
        learning_rate: of Adam.
        stop_below: loss (nats a token) at which a value is good enough; 0 never.
        begin: "own", the layer's own output, or "random".
        seed: of the random beginnings; each fact draws its own.
    """

    radius: float = 1.0
    steps: int = 100
    learning_rate: float = 1.0
    stop_below: float = 1e-2
    begin: str = "own"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("radius", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingError(f"GRACE's {name} must be a number above 0, got {getattr(self, name)!r}.")
        whole("GRACE", "steps", self.steps, 1)
        at_least("GRACE", "stop_below", self.stop_below, 0)
        one_of("GRACE", "begin", self.begin, ("own", "random"))


@dataclass(frozen=True)
class GraceSettings:
    """Every setting of GRACE.

    Attributes:
        preset: the name these settings began from.
        layers: the one layer whose down-projection the codebook stands beside; the model's default when None.
        code: how a value is found.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    code: CodeSettings = field(default_factory=CodeSettings)


PRESETS = {
    "fixed": GraceSettings(),
    "grace-2023": GraceSettings("grace-2023", code=CodeSettings(stop_below=0.0, begin="random")),
}


class Grace:
    """GRACE on one model.

    Args:
        model: read, never changed.
        preset: "fixed" or "grace-2023".
        memory: an edit of this method to grow; a new codebook when None.
        progress: called with (facts done, facts, label).
        settings: any field of `GraceSettings` or `CodeSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        AnatomyError: the layer has no down-projection.
        EditError, WeightError: the memory is no codebook at this layer, or is one of another base.
    """

    name = "grace"

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        memory: Edit | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.memory, self.progress = model, memory, progress
        self.settings = resolve("GRACE", PRESETS, preset, settings)
        self.layer = one_layer("GRACE", model, self.settings.layers, DEPTH)
        self.book = None if memory is None else held(model, memory, Codebook, self.layer)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force."""
        return {**asdict(self.settings), "layers": [self.layer]}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """A codebook with `facts`, added to the memory's where one was given.

        `notes` holds, per fact, the rule it fell under, the distance to the nearest entry, the steps and the loss reached.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, two facts have one key and two answers, or training diverged.
        """
        facts = checked(facts)
        earlier = self.memory.facts if self.memory is not None else ()
        together = checked((*earlier, *(fact for fact in facts if fact not in earlier)))
        book, notes = self.book, list(self.memory.notes.get("facts", [])) if self.memory is not None else []
        for done, fact in enumerate(facts):
            book, note = self._add(book, fact, {known.id: known for known in together})
            notes.append(note)
            if self.progress:
                self.progress(done + 1, len(facts), note["rule"])
        assert book is not None
        return Edit.made_for(self.model, self.name, (book,), together, self.card, {"facts": notes})

    def _add(self, book: Codebook | None, fact: Fact, known: dict[str, Fact]) -> tuple[Codebook, dict[str, Any]]:
        radius, label = self.settings.code.radius, str(fact.target_new).strip()
        key, own = self._states(fact)
        rule, nearest, distance = ("far", -1, None) if book is None else book.met(key, label, radius)
        if book is not None and rule in ("same", "expand"):
            book = book.grown(key, own, radius, label, (fact.id,))
            value, steps, nll = self._value([known[name] for name in book.members[nearest]], book.values[nearest])
            values = book.values.clone()
            values[nearest] = value
            book = replace(book, values=values)
        else:
            value, steps, nll = self._value([fact], self._beginning(fact, own))
            if book is None:
                site, radii = Site("value", self.layer), torch.tensor([radius], dtype=key.dtype)
                book = Codebook(site, key[None], value[None], radii, (label,), ((fact.id,),))
            else:
                book = book.grown(key, value, radius, label, (fact.id,))
        return book, {"fact": fact.id, "rule": rule, "distance": distance, "steps": steps, "nll": nll}

    def _states(self, fact: Fact) -> tuple[Float[Tensor, "d_key"], Float[Tensor, "d"]]:
        """Input and output of the down-projection at the last token of the prompt."""
        ids, begin = self.model.encode_answer(fact.text, str(fact.target_new))
        sites = (Site("key", self.layer), Site("value", self.layer))
        with self.model.evaluating():
            states = self.model.record(pad([ids[: max(begin, 1)]]), sites)
        key, value = (at_least_float32(states[site][0, -1]).cpu() for site in sites)
        return key, value

    def _beginning(self, fact: Fact, own: Tensor) -> Tensor:
        if self.settings.code.begin == "own":
            return own
        seed = self.settings.code.seed + number_of(fact)
        return torch.rand(own.shape, generator=torch.Generator().manual_seed(seed), dtype=own.dtype)

    @torch.enable_grad()
    def _value(self, facts: Sequence[Fact], begin: Tensor) -> tuple[Float[Tensor, "d"], int, float]:
        """V for facts of one answer, how many steps it took, and the mean loss reached."""
        settings, model = self.settings.code, self.model
        value = begin.detach().clone().to(model.device).requires_grad_()
        adam = torch.optim.Adam([value], lr=settings.learning_rate)
        with model.evaluating(), without_gradients(model):
            rows = answer_rows(model, facts, self.layer, onward=True)

            def put(output: Tensor) -> Tensor:
                return value.to(output.dtype).expand_as(output)

            for steps in range(settings.steps + 1):
                loss = rows_nll(model, rows, self.layer, [Tap(Site("value", self.layer), put)]).mean()
                nll = float(loss.detach())
                if not nll < float("inf"):
                    raise EditError(
                        f"The value for {facts[-1].id} diverged: the loss is {nll}; lower GRACE's learning rate or use float32."
                    )
                if nll < settings.stop_below or steps == settings.steps:
                    break
                (value.grad,) = torch.autograd.grad(loss, [value])
                adam.step()
        return value.detach().cpu(), steps, nll
