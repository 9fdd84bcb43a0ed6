"""Fine-tuning of one down-projection: FT, and FT-L within a bound (Zhu et al. 2020, in the form of Meng et al. 2022, appendix E.1).

    FT      min over D of the mean over facts of  -(1/T) sum_t log p(o*_t | prompt, o*_<t; W + D)
    FT-L    the same with |D_ab| <= epsilon for every entry

How it is done stands in `palimpsest.edit.training`. Four presets:

    "fixed"         every token of the answer is asked for in its own place (FT-M in the literature), no bound
    "ft-l"          the same within a bound: on smollm2 the largest of those tried that binds (results/fine-tuning/choose.json)
    "rome-2022"     the published code: all tokens of the answer are read from the one distribution after the prompt, and the
                    bias of the map is trained too
    "rome-2022-l"   the same within 5e-4, the bound for GPT-2 XL

Layers, and bounds of models for which one was published, come from `palimpsest.edit.defaults` under "ft" and "ft-l" (GPT-2 XL: FT
at layer 1, FT-L at layer 0); other models are trained at ROME's layer. Several facts are one optimisation of one D, not one after
the other. The change has no low rank: Adam's steps have none.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.edit.defaults import defaults
from palimpsest.edit.payload import Dense
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import resolve
from palimpsest.edit.training import Trained, TrainingSettings, check_bound, train
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress


@dataclass(frozen=True)
class FineTuningSettings:
    """Every setting of fine-tuning.

    Attributes:
        preset: the name these settings began from.
        layers: whose down-projections are trained; the model's default when None.
        epsilon: bound on every entry of the change; none when None.
        biases: train the biases of those maps too, within the same bound.
        training: settings of the optimisation.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    epsilon: float | None = None
    biases: bool = False
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        check_bound("Fine-tuning", "epsilon", self.epsilon)


PUBLISHED = TrainingSettings(target="last_prompt", shuffle=False)
PRESETS: dict[str, FineTuningSettings] = {
    "fixed": FineTuningSettings(),
    "ft-l": FineTuningSettings(preset="ft-l", epsilon=4e-3),
    "rome-2022": FineTuningSettings(preset="rome-2022", biases=True, training=PUBLISHED),
    "rome-2022-l": FineTuningSettings(preset="rome-2022-l", epsilon=5e-4, biases=True, training=PUBLISHED),
}


class FineTuning:
    """FT and FT-L on one model.

    Args:
        model: read, never changed.
        preset: "fixed", "ft-l", "rome-2022" or "rome-2022-l".
        progress: called with (passes done, passes, label).
        settings: any field of `FineTuningSettings` or `TrainingSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        AnatomyError: a layer has no down-projection.
    """

    name = "ft"

    def __init__(
        self, model: Model, *, preset: str = "fixed", progress: Progress | None = None, **settings: Any
    ) -> None:
        self.model, self.progress = model, progress
        usual = defaults(model, "ft-l" if preset.endswith("-l") else "ft")
        self.settings = resolve("Fine-tuning", PRESETS, preset, {**usual.settings, **settings})
        given = usual.layers if self.settings.layers is None else self.settings.layers
        self.layers_from = usual.provenance if self.settings.layers is None else "given"
        self.layers = distinct_layers("Fine-tuning", model, given)
        paths = [model.anatomy.down(layer).path for layer in self.layers]
        self.bounds = bounded(model, paths, self.settings.epsilon, biases=self.settings.biases)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force, and where the layers come from."""
        return {**asdict(self.settings), "layers": list(self.layers), "layers_from": self.layers_from}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """Train on `facts` together. `notes` of the edit holds the mean loss of each pass and, per fact, the loss reached.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, facts contradict each other, or training diverged.
        """
        facts = checked(facts)
        trained = train(self.model, facts, self.bounds, min(self.layers), self.settings.training, self.progress)
        return edit_of(self.model, self.name, facts, trained, self.card)


def distinct_layers(title: str, model: Model, layers: Sequence[int]) -> tuple[int, ...]:
    """`layers` in order; raises `SettingError` when there is none, one twice, or one that does not exist."""
    if not layers or len(set(layers)) != len(layers):
        raise SettingError(f"{title} needs at least one layer, each named once, got {list(layers)}.")
    return tuple(sorted(model.anatomy.check_layer(layer) for layer in layers))


def bounded(
    model: Model, paths: Sequence[str], epsilon: float | None, *, biases: bool = False
) -> dict[str, float | None]:
    """Path of the weight (and bias) of each map, with its bound."""
    found: dict[str, float | None] = {}
    for path in paths:
        found[f"{path}.weight"] = epsilon
        if biases and getattr(model.net.get_submodule(path), "bias", None) is not None:
            found[f"{path}.bias"] = epsilon
    return found


def edit_of(model: Model, method: str, facts: tuple[Fact, ...], trained: Trained, card: dict[str, Any]) -> Edit:
    """The edit that training found, with what it measured."""
    notes = {
        "losses": trained.losses,
        "facts": [
            {"fact": fact.id, "steps": len(trained.losses), "nll": nll}
            for fact, nll in zip(facts, trained.nll, strict=True)
        ],
    }
    payloads = tuple(Dense(path, delta) for path, delta in trained.deltas.items())
    return Edit.made_for(model, method, payloads, facts, card, notes)
