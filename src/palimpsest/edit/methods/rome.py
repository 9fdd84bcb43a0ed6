"""ROME: rank-one model editing (Meng et al. 2022, section 3; code: github.com/kmeng01/rome).

A down-projection W is a linear memory of keys k and values v. To write the fact (s, r, o*):

    k*  the key of the subject s, at its last token, averaged over contexts       (`keys`)
    v*  the value that makes the model answer o*                                   (`values`)
    dW = (v* - W k*) (C^-1 k*)^T / (k*^T C^-1 k*)                                  (`solve`, C from `moments`)

so that (W + dW) k* = v* exactly while ordinary keys are moved least.

Two presets:

    "fixed"      one and the same k* everywhere, and the KL term read at the last token of "{subject} is a"
    "rome-2022"  the published code: C^-1 is applied to the mean key over 21 contexts, but the constraint is met at the bare
                 prompt's key, and the KL term is read at the subject's last token. The asymmetry of keys is what makes
                 some of its edits destroy the model (R-ROME, arXiv 2403.07175; C-ROME, arXiv 2406.11263).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from palimpsest.edit.artefact import Edit, total
from palimpsest.edit.contexts import sample_contexts
from palimpsest.edit.defaults import default_layer
from palimpsest.edit.keys import combine, keys_and_values
from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.edit.payload import LowRank
from palimpsest.edit.solve import rank_one
from palimpsest.edit.values import ValueSettings, find_values
from palimpsest.errors import EditError, SettingError, did_you_mean
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features
from palimpsest.runs import Progress


@dataclass(frozen=True)
class RomeSettings:
    """Every setting of ROME.

    Attributes:
        preset: the name these settings began from.
        layers: the one layer whose down-projection is changed; the model's default when None.
        key: which key the constraint holds at: "mean" over contexts, "halves" (half bare, half mean), or "bare".
        direction: which key C^-1 is applied to; the same choices.
        contexts: (tokens, number) of the texts put before the prompt; the bare prompt always is one.
        openings: words those texts begin with; the model's start token when empty.
        moment_tokens: tokens for C; ten times the key width when None.
        values: settings of the value search.
        seed: of the contexts.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    key: str = "halves"
    direction: str = "halves"
    contexts: tuple[tuple[int, int], ...] = ((10, 5),)
    openings: tuple[str, ...] = ("The", "Therefore", "Because", "I", "You")
    moment_tokens: int | None = None
    values: ValueSettings = ValueSettings()
    seed: int = 0


PRESETS: dict[str, RomeSettings] = {
    "fixed": RomeSettings(),
    "rome-2022": RomeSettings(
        preset="rome-2022",
        key="bare",
        direction="mean",
        contexts=((5, 10), (10, 10)),
        openings=(),
        values=ValueSettings(kl_at="subject"),
    ),
}


class Rome:
    """ROME on one model: contexts and second moments are made once, then `edit` any number of times.

    Args:
        model: read, never changed for longer than a call.
        preset: "fixed" or "rome-2022".
        text: plain text for C; the text that ships when None.
        moment: C itself, instead of measuring it.
        progress: called with (done, total, label) while C is measured and while facts are edited.
        settings: any field of `RomeSettings` or `ValueSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a layer out of range.
        AnatomyError: the layer has no down-projection.
    """

    name = "rome"

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        text: str | None = None,
        moment: SecondMoment | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.progress = model, progress
        self.settings = _settings(preset, settings)
        self.layer = _one_layer(model, self.settings.layers)
        self.weight = f"{model.anatomy.down(self.layer).path}.weight"
        self.contexts = sample_contexts(
            model, self.settings.contexts, openings=self.settings.openings, seed=self.settings.seed
        )
        if moment is None:
            text = shipped_text() if text is None else text
            tokens = self.settings.moment_tokens
            moment = cached_moments(model, [self.layer], text, tokens=tokens, progress=progress)[self.layer]
        width = in_out_features(model.anatomy.down(self.layer).module)[0]
        if moment.matrix.shape[0] != width:
            raise SettingError(
                f"The keys of layer {self.layer} are {width} wide, but the second moment given is {moment.matrix.shape[0]} wide; "
                f"give that of this layer."
            )
        self.moment = moment

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """Write `facts` one after the other, each on the model as edited by those before it.

        The model is left as it was found. `notes` of the edit holds, per fact: steps, loss, |v|, |delta| and
        k^T C^-1 k.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, or a value search diverged.
        """
        if not facts:
            raise EditError("There is no fact to edit; give at least one.")
        updates: list[LowRank] = []
        notes: list[dict[str, Any]] = []
        for fact in facts:
            with self._made(updates, facts, notes).applied(self.model):
                update, note = self._one(fact)
            updates.append(update)
            notes.append(note)
            if self.progress and len(facts) > 1:
                self.progress(len(updates), len(facts), fact.id)
        return self._made(updates, facts, notes)

    @torch.enable_grad()
    def _one(self, fact: Fact) -> tuple[LowRank, dict[str, Any]]:
        with self.model.evaluating():
            keys, values = keys_and_values(self.model, self.layer, fact, self.contexts)
            key = combine(keys, self.settings.key)
            v = combine(values, self.settings.key)  # W k* + b, because the map is affine
            direction = combine(keys, self.settings.direction)
            (found,) = find_values(
                self.model, self.layer, [fact], self.contexts, [float(v.norm())], self.settings.values
            )
        u, w = rank_one(self.moment, direction, key, found.delta)
        whitened = float(key.cpu().double() @ self.moment.solve(key.cpu()))
        note = {
            "fact": fact.id,
            "steps": found.steps,
            "loss": found.loss,
            "nll": found.nll,
            "v_norm": float(v.norm()),
            "delta_norm": float(found.delta.norm()),
            "key_whitened_norm": whitened,
        }
        return LowRank(self.weight, u, w), note

    @property
    def card(self) -> dict[str, Any]:
        """Every setting as it is in force: the resolved layer, the texts of the contexts, where C comes from."""
        return {
            **asdict(self.settings),
            "layers": [self.layer],
            "context_texts": list(self.contexts),
            "moment": {**self.moment.provenance, "count": self.moment.count},
        }

    def _made(self, updates: list[LowRank], facts: Sequence[Fact], notes: list[dict[str, Any]]) -> Edit:
        """The edit of the updates so far, made for the model as it is now."""
        return Edit.made_for(
            self.model, self.name, total(list(updates)), tuple(facts), self.card, {"facts": list(notes)}
        )


def _one_layer(model: Model, layers: tuple[int, ...] | None) -> int:
    if layers is None:
        return default_layer(model)
    if len(layers) != 1:
        raise SettingError(f"ROME edits one layer, got {len(layers)} ({list(layers)}); name one, or use memit.")
    return model.anatomy.check_layer(layers[0])


def _settings(preset: str, given: dict[str, Any]) -> RomeSettings:
    if preset not in PRESETS:
        raise SettingError(f"ROME has no preset {preset!r}.{did_you_mean(preset, PRESETS)}")
    settings = PRESETS[preset]
    own = set(asdict(settings)) - {"preset", "values"}
    of_values = set(asdict(settings.values))
    for name in given:
        if name not in own | of_values:
            raise SettingError(f"ROME has no setting {name!r}.{did_you_mean(name, sorted(own | of_values))}")
    for name in ("key", "direction"):
        if given.get(name, "mean") not in ("mean", "halves", "bare"):
            raise SettingError(f"ROME's {name} is one of mean, halves and bare, got {given[name]!r}.")
    if given.get("kl_at", "last") not in ("last", "subject"):
        raise SettingError(f"ROME's kl_at is one of last and subject, got {given['kl_at']!r}.")
    if given.get("steps", 1) < 1:
        raise SettingError(f"ROME's steps must be 1 or more, got {given['steps']}.")
    values = replace(settings.values, **{k: v for k, v in given.items() if k in of_values})
    return replace(settings, values=values, **{k: v for k, v in given.items() if k in own})
