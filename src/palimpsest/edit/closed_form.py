"""What every method that solves for its edit shares: facts, contexts, values, keys, moments, and the loop over layers.

    z_i = h_i + delta_i                     values the answer needs at the last edited layer        (`values`)
    for each layer l, from the lowest:
        K   keys of the facts at l, on the model as edited so far                                   (`walk`)
        R   (z - h) / spread                what is still missing, shared among the layers left
        dW_l = the cheapest change that maps K to R                                                 (`solve`)

(Meng et al. 2023, section 4.3 and algorithm 1.) With one layer and one fact this is ROME's equation, with R = delta. A method
says what a change costs (`price`), how softly the values are met (`softness`), and its settings and presets.

Facts are written in batches, each on the model as edited by those before it; the model is left as it was found. Facts that
share a key are given one value together (`same_key="merge"`, as in MEMIT-Merge, arXiv 2502.07322), because one key cannot be
mapped to two.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.closed_form_settings import ClosedFormSettings
from palimpsest.edit.contexts import sample_contexts
from palimpsest.edit.defaults import Default, defaults
from palimpsest.edit.keys import combine
from palimpsest.edit.memory import Memory
from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.edit.payload import LowRank, refuse_quantised
from palimpsest.edit.requests import checked, same_keys
from palimpsest.edit.search import Found, Term
from palimpsest.edit.settings import resolve
from palimpsest.edit.solve import Price, Update, write, write_sums
from palimpsest.edit.values import Kept, find_values
from palimpsest.edit.walk import Walk
from palimpsest.edit.written import Written
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model, Site
from palimpsest.model.anatomy import in_out_features
from palimpsest.runs import Progress

TABLED_PRESETS = ("pmet",)  # presets with rows of their own in the table of defaults


class ClosedForm(ABC):
    """A method on one model: contexts and second moments are made once, then `edit` any number of times.

    Args:
        model: read, and left as it was found.
        preset: a name of the method's `presets`.
        text: plain text for C; the text that ships when None.
        moments: C by layer, instead of measuring it.
        resume: a folder where found values are kept; a killed edit with the same facts goes on from there.
        progress: called with (done, total, label).
        settings: any field of the method's settings, or of `ValueSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a layer out of range.
        AnatomyError: a layer has no down-projection.
        WeightError: the moments given were measured on other weights.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    presets: ClassVar[Mapping[str, ClosedFormSettings]]
    published: ClassVar[tuple[str, ...]] = ()  # presets that take the settings published for a model
    resumable: ClassVar[bool] = True

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        text: str | None = None,
        moments: Mapping[int, SecondMoment] | None = None,
        resume: Path | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.progress, self.resume = model, progress, resume
        usual = self._usual(preset)
        # what the project measured belongs to "fixed" alone; what was published for a model, to the published presets too
        tabled = preset == "fixed" or (preset in self.published and usual.source == "published")
        own = dict(usual.settings) if tabled else {}
        self.settings = resolve(self.title, self.presets, preset, {**own, **settings})
        layers = usual.layers if self.settings.layers is None else self.settings.layers
        self.layers = tuple(model.anatomy.check_layer(layer) for layer in layers)
        self._check_layers()
        self.paths = {layer: f"{model.anatomy.down(layer).path}.weight" for layer in self.layers}
        for path in self.paths.values():
            refuse_quantised(model, path)
        self.contexts = sample_contexts(
            model, self.settings.contexts, openings=self.settings.openings, seed=self.settings.seed
        )
        self.moments = self._moments(text, moments)
        for layer in self.layers:
            if self.settings.covariance == "measured":
                _ = self.moments[layer].factor  # refuses a singular one before anything is computed

    def _usual(self, preset: str) -> Default:
        """The table's row for this method and model, or the preset's own where it has one."""
        own = defaults(self.model, preset) if preset in TABLED_PRESETS else None
        return own if own is not None and own.known else defaults(self.model, self.name)

    @property
    def site(self) -> Site:
        """Where values are searched."""
        return Site(self.settings.site, self.layers[-1])

    @abstractmethod
    def price(self, layer: int, memory: Memory) -> Price:
        """What a change of W at `layer` costs, given the keys of earlier edits."""

    @abstractmethod
    def softness(self, facts: int) -> float:
        """How softly the values of that many facts are met."""

    def edit(self, facts: Sequence[Fact], memory: Memory | None = None) -> Edit:
        """Write `facts`, batch after batch, each on the model as edited so far.

        `notes` of the edit holds, per fact: steps, loss, |v|, |delta|, k^T A^-1 k, whether it was a no-op; per layer: what was
        missing and how large the change is; and which facts share a key.

        Args:
            facts: each with a `target_new`.
            memory: keys of earlier edits, to which those of this one are added; the edit's own when None.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, facts contradict each other, or a value search diverged.
        """
        facts, memory = checked(facts), Memory() if memory is None else memory
        batches = self._batches(facts)
        groups = [self._groups(batch) for batch in batches]  # conflicts are named before anything is computed
        notes: dict[str, list[Any]] = {"facts": [], "layers": [], "shared_keys": []}
        with Written(self.model, self.paths.values()) as written:
            for batch, grouped in zip(batches, groups, strict=True):
                self._write(batch, grouped, memory, written, notes)
                if self.progress and len(batches) > 1:
                    self.progress(len(notes["facts"]), len(facts), batch[-1].id)
        return Edit.made_for(self.model, self.name, tuple(written.updates), facts, self.card, notes)

    def shared_keys(self, facts: Sequence[Fact]) -> list[list[str]]:
        """Ids of facts that share a key within a batch, which no weight can map to two values; nothing is computed.

        Raises:
            EditError, FactError: as `edit` does before it computes anything.
        """
        return [
            [batch[i].id for i in group]
            for batch in self._batches(checked(facts))
            for group in same_keys(self.model, batch, self.settings.token)
            if len(group) > 1
        ]

    def edit_each(self, facts: Sequence[Fact]) -> list[Edit]:
        """An edit for every fact by itself, each on the unedited model; all values are searched together."""
        alone = [checked([fact])[0] for fact in facts]
        walk = Walk(self.model, alone, self.contexts, self.settings.token)
        states = self._states(walk, len(alone))
        found = self._find(alone, [[i] for i in range(len(alone))], states, self._kept(Written(self.model, [])))
        edits = []
        for i, fact in enumerate(alone):
            notes: dict[str, list[Any]] = {"facts": [], "layers": [], "shared_keys": []}
            with Written(self.model, self.paths.values()) as written:
                self._write([fact], [[0]], Memory(), written, notes, found=[found[i]])
            edits.append(Edit.made_for(self.model, self.name, tuple(written.updates), (fact,), self.card, notes))
        return edits

    @property
    def card(self) -> dict[str, Any]:
        """Every setting as it is in force: the resolved layers, the texts of the contexts, where C comes from."""
        return {
            **asdict(self.settings),
            "layers": list(self.layers),
            "layers_from": "given"
            if self.settings.layers is not None
            else self._usual(self.settings.preset).provenance,
            "context_texts": list(self.contexts),
            "moments": {str(l): {**self.moments[l].provenance, "count": self.moments[l].count} for l in self.layers},
        }

    def _batches(self, facts: tuple[Fact, ...]) -> list[tuple[Fact, ...]]:
        size = self.settings.batch or len(facts)
        return [facts[i : i + size] for i in range(0, len(facts), size)]

    def _groups(self, facts: Sequence[Fact]) -> list[list[int]]:
        alone = [[i] for i in range(len(facts))]
        if self.settings.same_key == "keep":
            return alone
        groups = same_keys(self.model, facts, self.settings.token)
        clash = next((group for group in groups if len(group) > 1), None)
        if clash is not None and self.settings.same_key == "refuse":
            names = " and ".join(f"{facts[i].id} ({facts[i].text!r})" for i in clash[:2])
            raise EditError(
                f"The facts {names} have one and the same key, which cannot be mapped to two values; "
                f"edit them in different batches, or merge their values (same_key='merge')."
            )
        return groups

    def _write(
        self,
        facts: Sequence[Fact],
        groups: list[list[int]],
        memory: Memory,
        written: Written,
        notes: dict[str, list[Any]],
        *,
        found: list[Found] | None = None,
    ) -> None:
        """One batch: find its values, then write it layer by layer into the model and into `notes`."""
        first = [facts[group[0]] for group in groups]
        walk = Walk(self.model, first, self.contexts, self.settings.token)
        states = self._states(walk, len(groups))
        if found is None:
            found = self._find(facts, groups, states, self._kept(written))
        delta = torch.stack([one.delta for one in found])
        for i, layer in enumerate(self.layers):
            left = len(self.layers) - i
            missing = delta if i == 0 else states + delta - walk.outputs(self.layers[-1])
            update = self._update(
                walk, layer, missing / (left if self.settings.spread == "even" else left**0.5), memory
            )
            payload = LowRank(self.paths[layer], update.u.cpu(), update.v.cpu())
            written.add(payload)
            notes["layers"].append(
                {
                    "layer": layer,
                    "facts": len(facts),
                    "missing": float(missing.norm(dim=1).mean()),
                    "change": payload.norm,
                }
            )
        self._note(facts, groups, found, states, update, notes)
        if self.settings.memory:
            again = Walk(self.model, first, self.contexts, self.settings.token)  # keys as they are once all is written
            for layer in self.layers:
                for _, (keys,) in again.read(layer, "key"):
                    memory.add(layer, self._key(keys))

    def _states(self, walk: Walk, n: int) -> Float[Tensor, "n d"]:
        """What delta is added to, of every group: h after the last layer, or the combined value where that is the site."""
        if self.settings.site == "resid_out":
            return walk.outputs(self.layers[-1])
        rows: dict[int, Tensor] = {}
        for which, (values,) in walk.read(self.layers[-1], "value"):
            rows |= dict(zip(which.tolist(), combine(values, self._target()), strict=True))
        return torch.stack([rows[i] for i in range(n)])

    def _find(self, facts: Sequence[Fact], groups: list[list[int]], states: Tensor, kept: Kept | None) -> list[Found]:
        norms = [float(norm) for norm in states.norm(dim=1)]
        asked, asked_groups = self._asked(facts, groups)
        return find_values(
            self.model,
            self.site,
            asked,
            self.contexts,
            norms,
            self.settings.values,
            token=self.settings.token,
            groups=asked_groups,
            kept=kept,
            progress=self.progress,
            term=self._term(),
        )

    def _asked(self, facts: Sequence[Fact], groups: list[list[int]]) -> tuple[Sequence[Fact], list[list[int]]]:
        """What the value search asks, group by group: the facts, and whatever wordings a method adds to them."""
        return facts, groups

    def _term(self) -> Term | None:
        """A further term of the search's loss."""
        return None

    def _update(self, walk: Walk, layer: int, residuals: Float[Tensor, "n d"], memory: Memory) -> Update:
        """dW of one layer from the keys of all facts, which are summed chunk by chunk where they outnumber their width."""
        price, softness = self.price(layer, memory), self.softness(len(residuals))
        width = in_out_features(self.model.anatomy.down(layer).module)[0]
        if len(residuals) <= width:
            keys = torch.empty(len(residuals), width, dtype=torch.float64)
            for which, (rows,) in walk.read(layer, "key"):
                keys[which] = self._key(rows).cpu().double()
            return self._solve(price, layer, keys, residuals, softness)
        gram = torch.zeros(width, width, dtype=torch.float64)
        cross = torch.zeros(residuals.shape[1], width, dtype=torch.float64)
        for which, (rows,) in walk.read(layer, "key"):
            k = self._key(rows).cpu().double()
            gram += k.T @ k
            cross += residuals[which].cpu().double().T @ k
        return write_sums(price, gram, cross, softness)

    def _key(self, rows: Float[Tensor, "facts contexts d"]) -> Float[Tensor, "facts d"]:
        return combine(rows, self.settings.key)

    def _target(self) -> str:
        """How the values of the contexts are combined into the one that delta is added to."""
        return self.settings.key

    def _solve(self, price: Price, layer: int, keys: Tensor, residuals: Tensor, softness: float) -> Update:
        return write(price, keys, residuals.cpu(), softness)

    def _moments(self, text: str | None, given: Mapping[int, SecondMoment] | None) -> dict[int, SecondMoment]:
        widths = {layer: in_out_features(self.model.anatomy.down(layer).module)[0] for layer in self.layers}
        if self.settings.covariance == "identity":
            return {layer: SecondMoment.identity(width) for layer, width in widths.items()}
        if given is None:
            text = shipped_text() if text is None else text
            tokens = self.settings.moment_tokens
            return cached_moments(self.model, self.layers, text, tokens=tokens, progress=self.progress)
        for layer in self.layers:
            if layer not in given:
                raise SettingError(
                    f"No second moment was given for layer {layer}, only for {sorted(given)}; add it or edit those layers."
                )
            given[layer].check_made_for(self.model, layer)
        return {layer: given[layer] for layer in self.layers}

    def _check_layers(self) -> None:
        if not self.layers:
            raise SettingError(f"{self.title} edits one layer or more, got 0; name one, or leave layers out.")
        if list(self.layers) != sorted(set(self.layers)):
            raise SettingError(f"{self.title} edits layers in ascending order, got {list(self.layers)}; sort them.")
        if self.settings.site == "value" and len(self.layers) != 1:
            raise SettingError(
                f"{self.title} edits one layer, got {len(self.layers)} ({list(self.layers)}); name one, or use memit."
            )

    def _kept(self, written: Written) -> Kept | None:
        """Where values on the weights as they are now are kept."""
        return None if self.resume is None else Kept(Path(self.resume), written.state())

    def _note(
        self,
        facts: Sequence[Fact],
        groups: list[list[int]],
        found: list[Found],
        states: Tensor,
        update: Update,
        notes: dict[str, list[Any]],
    ) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for g, (group, one) in enumerate(zip(groups, found, strict=True)):
            for i in group:
                rows[i] = {
                    "fact": facts[i].id,
                    "steps": one.steps,
                    "loss": one.loss,
                    "nll": one.nll,
                    "v_norm": float(states[g].norm()),
                    "delta_norm": float(one.delta.norm()),
                    "key_whitened_norm": None if update.whitened is None else float(update.whitened[g]),
                    "no_op": one.known and not bool(one.delta.any()),
                }
            if len(group) > 1:
                notes["shared_keys"].append([facts[i].id for i in group])
        notes["facts"] += [rows[i] for i in range(len(facts))]
