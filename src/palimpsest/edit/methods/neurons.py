"""Editing knowledge neurons (Dai et al. 2022, section 5): write into the columns of W_down that a fact is attributed to.

For each neuron (l, n) of the fact, with w = W_down[:, n] of layer l and e(.) the embedding of an answer's token,

    edit     w  +=  - lambda_old * e(old answer)  +  lambda_new * e(new answer)
    erase    w   =  0      (or the embedding of the unknown token)

The neurons are those of `palimpsest.locate.knowledge_neurons`: integrated gradients of the old answer, shared by the wordings.
Whether a fact hangs on them is another question (`neuron_effects`); so is whether writing there changes more than one sentence.

    "fixed"      e is brought to the length of the column it is added to, in which the lambdas are then counted; it is added
                 with the sign of the neuron's key, because a neuron with a negative key (common in gated MLPs) writes the
                 opposite of its column; and e is the row of the output head, which is what reads the stream. Lambda 1 and 1,
                 at most 5 neurons: the best S of those tried on smollm2, where none writes well (docs/neuron-edits.md)
    "dai-2022"   lambda 1 and 8, e the input embedding as it is, for the 2 to 5 neurons of their selection
    "eleuther"   lambda 2 and 2, the same, for the neurons of EleutherAI's selection

The published lambdas count in lengths of e, which says nothing of how large a change is: how long e is beside a column differs
from model to model (in smollm2 3.2 beside 4.5, medians over tokens and neurons; docs/neuron-edits.md).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import LowRank
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import at_least, one_of, resolve
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import KnowledgeNeurons, knowledge_neurons
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features, matrix_of
from palimpsest.runs import Progress

Neuron = tuple[int, int]
"""(layer, place in the key)."""


@dataclass(frozen=True)
class NeuronSettings:
    """Every setting of the neuron edit.

    Attributes:
        preset: the name these settings began from.
        layers: only neurons of these layers are changed; of any when None.
        mode: "edit" or "erase".
        lambda_old: how much of the old answer is taken away.
        lambda_new: how much of the new answer is added.
        scale: what the lambdas count in: the length of the "column" that is changed, or e as it is ("embedding").
        signed: add with the sign of the neuron's mean key.
        embedding: e is the row of the "output" head, or of the "input" embedding (one and the same where they are tied).
        answer: e of the "first" token of an answer, or the "mean" over its tokens.
        erase_to: "zero" or "unknown", the embedding of the tokenizer's unknown token.
        selection: preset of `knowledge_neurons`; its corrected default when None.
        most: neurons a fact, the strongest of those found.
        attribution_steps: points on the path of integrated gradients; those of the selection when None.
        seed: taken because every method takes one, and recorded; nothing is drawn here, so it changes nothing.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    mode: str = "edit"
    lambda_old: float = 1.0
    lambda_new: float = 1.0
    scale: str = "column"
    signed: bool = True
    embedding: str = "output"
    answer: str = "first"
    erase_to: str = "zero"
    selection: str | None = None
    most: int = 5
    attribution_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        title = "The neuron edit"
        one_of(title, "mode", self.mode, ("edit", "erase"))
        one_of(title, "scale", self.scale, ("column", "embedding"))
        one_of(title, "embedding", self.embedding, ("output", "input"))
        one_of(title, "answer", self.answer, ("first", "mean"))
        one_of(title, "erase_to", self.erase_to, ("zero", "unknown"))
        at_least(title, "lambda_old", self.lambda_old, 0)
        at_least(title, "lambda_new", self.lambda_new, 0)
        at_least(title, "most", self.most, 1)


PRESETS: dict[str, NeuronSettings] = {
    "fixed": NeuronSettings(),
    "dai-2022": NeuronSettings(
        preset="dai-2022",
        lambda_old=1.0,
        lambda_new=8.0,
        scale="embedding",
        signed=False,
        embedding="input",
        selection="dai-2022",
        most=10,
    ),
    "eleuther": NeuronSettings(
        preset="eleuther",
        lambda_old=2.0,
        lambda_new=2.0,
        scale="embedding",
        signed=False,
        embedding="input",
        selection="eleuther",
        most=10,
    ),
}


class NeuronEdit:
    """The neuron edit on one model.

    Args:
        model: read, never changed.
        preset: "fixed", "dai-2022" or "eleuther".
        progress: called with (done, total, label) as facts are finished.
        settings: any field of `NeuronSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        AnatomyError: a layer has no down-projection, hence no neurons.
    """

    name = "neurons"

    def __init__(
        self, model: Model, *, preset: str = "fixed", progress: Progress | None = None, **settings: Any
    ) -> None:
        self.model, self.progress = model, progress
        self.settings = resolve("The neuron edit", PRESETS, preset, settings)
        for layer in self.settings.layers or range(model.n_layers):
            model.anatomy.down(layer)
        if self.settings.erase_to == "unknown" and model.tokenizer.unk_token_id is None:
            raise SettingError(f"The tokenizer of {model.name} has no unknown token; use erase_to='zero'.")

    @property
    def needs_answer(self) -> bool:
        """Whether a fact must say what to write; erasing does not ask."""
        return self.settings.mode == "edit"

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force, and which layers may be changed."""
        found = "not chosen: the layers of the neurons found"
        return {**asdict(self.settings), "layers_from": found if self.settings.layers is None else "given"}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """Change the neurons of every fact; each fact's neurons are found on the unedited model.

        Where facts share a neuron their changes add up (erased once). `notes` of the edit holds, per fact: its neurons and
        the Frobenius norm of its change.

        Raises:
            FactError: a fact lacks `target_true`, or `target_new` where something is to be written (mode "edit").
            EditError: there is nothing to edit, facts contradict each other, or no neuron was found.
        """
        facts = checked(facts) if self.settings.mode == "edit" else _checked_to_erase(facts)
        return self.write([self.find(fact, done, len(facts)) for done, fact in enumerate(facts)])

    def find(self, fact: Fact, done: int = 0, total: int = 1) -> KnowledgeNeurons:
        """The knowledge neurons of one fact."""
        chosen = self.settings
        found = knowledge_neurons(self.model, fact, preset=chosen.selection, steps=chosen.attribution_steps, keep=False)
        if self.progress:
            self.progress(done + 1, total, fact.id)
        return found

    @torch.no_grad()
    def write(self, found: Sequence[KnowledgeNeurons]) -> Edit:
        """The edit that changes neurons found before."""
        changes: dict[Neuron, Tensor] = {}
        notes: list[dict[str, Any]] = []
        for one in found:
            own = {place: self._change(one.fact, place, key) for place, key in self._chosen(one)}
            for place, change in own.items():
                again = self.settings.mode == "edit" and place in changes
                changes[place] = changes[place] + change if again else change
            norm = float(sum(float(change.norm()) ** 2 for change in own.values()) ** 0.5)
            notes.append({"fact": one.fact.id, "neurons": [list(place) for place in own], "norm": norm})
        if not changes:
            raise EditError(
                f"No knowledge neuron was found for {found[0].fact.text!r}, so there is no column to write in; "
                f"choose other layers or another selection."
            )
        layers = sorted({layer for layer, _ in changes})
        payloads = tuple(
            self._payload(layer, {n: change for (l, n), change in changes.items() if l == layer}) for layer in layers
        )
        facts = tuple(one.fact for one in found)
        return Edit.made_for(self.model, self.name, payloads, facts, self.card, {"facts": notes})

    def _chosen(self, found: KnowledgeNeurons) -> list[tuple[Neuron, float]]:
        """(neuron, mean key) of the strongest neurons in the layers asked for."""
        allowed = self.settings.layers
        ranked = sorted(zip(found.neurons, found.strength, found.keys, strict=True), key=lambda one: (-one[1], one[0]))
        return [(place, key) for place, _, key in ranked if allowed is None or place[0] in allowed][
            : self.settings.most
        ]

    def _change(self, fact: Fact, place: Neuron, key: float) -> Float[Tensor, "d"]:
        """What is added to the column of one neuron."""
        chosen, (layer, n) = self.settings, place
        column = matrix_of(self.model.anatomy.down(layer).module)[:, n].float()
        if chosen.mode == "erase":
            wanted = self._row(self.model.tokenizer.unk_token_id) if chosen.erase_to == "unknown" else 0 * column
            return wanted.to(column) - column
        old, new = (self.embedding_of(fact, answer).to(column) for answer in (fact.target_true, fact.target_new))
        if chosen.scale == "column":
            old, new = (column.norm() * e / e.norm() for e in (old, new))
        sign = -1.0 if chosen.signed and key < 0 else 1.0
        return sign * (chosen.lambda_new * new - chosen.lambda_old * old)

    def embedding_of(self, fact: Fact, answer: str | None) -> Float[Tensor, "d"]:
        """e of an answer to a fact."""
        ids, begin = self.model.encode_answer(fact.text, str(answer))
        tokens = ids[begin:] if self.settings.answer == "mean" else ids[begin : begin + 1]
        return torch.stack([self._row(token) for token in tokens]).mean(0)

    def _row(self, token: int) -> Float[Tensor, "d"]:
        anatomy = self.model.anatomy
        source = anatomy.head if self.settings.embedding == "output" else anatomy.embedding
        row: Tensor = source.weight[token]  # type: ignore[index]
        if len(row) != anatomy.width:
            raise EditError(
                f"The {self.settings.embedding} embedding of {self.model.name} is {len(row)} wide and its stream "
                f"{anatomy.width}, so it cannot be written into a column."
            )
        return row.detach().float()

    def _payload(self, layer: int, changes: dict[int, Tensor]) -> LowRank:
        """One column of U and one one-hot row of V for each neuron."""
        down = self.model.anatomy.down(layer)
        places = sorted(changes)
        u = torch.stack([changes[n] for n in places], dim=1)
        v = torch.zeros(len(places), in_out_features(down.module)[0], device=u.device)
        v[torch.arange(len(places)), torch.tensor(places)] = 1
        return LowRank(f"{down.path}.weight", u, v).recompressed()


def _checked_to_erase(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """`facts` as a tuple. What they ask for does not matter, so that none is missing and none contradicts another."""
    if not facts:
        raise EditError("There is no fact to erase; give at least one.")
    ids: dict[str, Fact] = {}
    for fact in facts:
        if ids.setdefault(fact.id, fact) != fact:
            raise EditError(f"Two facts have the id {fact.id!r}; give each its own, so that notes can be told apart.")
    return tuple(facts)
