"""A joint edit of MLP and attention: both places that causal tracing names, trained together.

    min over D, E of the mean over facts of  -(1/T) sum_t log p(o*_t | prompt, o*_<t; W_down + D, W_QKV + E)
    with |D_ab| <= mlp_epsilon and |E_ab| <= attention_epsilon

D is the change of down-projections at early layers (the early site, at the last subject token), E that of the maps of queries,
keys and values at late ones (the late site, at the last token); each has its own bound, that of `ft-l` and that of `attention`. It
tells what one place adds to the other: compare it with `ft` (D alone) and `attention` (E alone) at the same bounds. One Adam, one
loss (`palimpsest.edit.training`). A method of this project; there is one preset, "fixed".
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.edit.defaults import defaults
from palimpsest.edit.methods.attention import attention_maps
from palimpsest.edit.methods.fine_tuning import bounded, distinct_layers, edit_of
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import one_of, resolve
from palimpsest.edit.training import TrainingSettings, check_bound, train
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress


@dataclass(frozen=True)
class JointSettings:
    """Every setting of the joint edit.

    Attributes:
        preset: the name these settings began from.
        mlp_layers: whose down-projections are trained; the model's default (that of ROME) when None.
        attention_layers: whose attention is trained; the one at 0.69 of the depth when None.
        weights: "qkv" or "qkvo", as in the attention edit.
        mlp_epsilon: bound on every entry of D; none when None.
        attention_epsilon: bound on every entry of E; none when None.
        training: settings of the optimisation.
    """

    preset: str = "fixed"
    mlp_layers: tuple[int, ...] | None = None
    attention_layers: tuple[int, ...] | None = None
    weights: str = "qkv"
    mlp_epsilon: float | None = 4e-3
    attention_epsilon: float | None = 1e-2
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        one_of("The joint edit", "weights", self.weights, ("qkv", "qkvo"))
        check_bound("The joint edit", "mlp_epsilon", self.mlp_epsilon)
        check_bound("The joint edit", "attention_epsilon", self.attention_epsilon)


PRESETS: dict[str, JointSettings] = {"fixed": JointSettings()}


class JointEdit:
    """The joint edit on one model.

    Args:
        model: read, never changed.
        preset: "fixed".
        progress: called with (passes done, passes, label).
        settings: any field of `JointSettings` or `TrainingSettings`.

    Raises:
        SettingError: an unknown preset or setting (`layers` among them: there are two), or a value out of range.
        AnatomyError: a layer has no down-projection, or no attention made of linear maps.
    """

    name = "joint"

    def __init__(
        self, model: Model, *, preset: str = "fixed", progress: Progress | None = None, **settings: Any
    ) -> None:
        self.model, self.progress = model, progress
        if "layers" in settings:
            raise SettingError(
                "The joint edit has no setting 'layers' but two, mlp_layers and attention_layers, so that it cannot be swept "
                "over one; name those, or use ft or attention."
            )
        self.settings = resolve("The joint edit", PRESETS, preset, settings)
        mlp, attention = self.settings.mlp_layers, self.settings.attention_layers
        usual = {"MLP": defaults(model, "rome"), "attention": defaults(model, "attention")}
        self.layers_from = "; ".join(
            f"{place}: {usual[place].provenance if layers is None else 'given'}"
            for place, layers in (("MLP", mlp), ("attention", attention))
        )
        mlp = usual["MLP"].layers if mlp is None else mlp
        attention = usual["attention"].layers if attention is None else attention
        self.mlp_layers = distinct_layers("The joint edit", model, mlp)
        self.attention_layers = distinct_layers("The joint edit", model, attention)
        down = [model.anatomy.down(layer).path for layer in self.mlp_layers]
        maps = [path for layer in self.attention_layers for path in attention_maps(model, layer, self.settings.weights)]
        self.bounds = {
            **bounded(model, down, self.settings.mlp_epsilon),
            **bounded(model, maps, self.settings.attention_epsilon),
        }

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force, where the layers of both places come from, and the paths of the weights."""
        return {
            **asdict(self.settings),
            "mlp_layers": list(self.mlp_layers),
            "attention_layers": list(self.attention_layers),
            "layers_from": self.layers_from,
            "paths": list(self.bounds),
        }

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """Train on `facts` together. `notes` of the edit holds the mean loss of each pass and, per fact, the loss reached.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, facts contradict each other, or training diverged.
        """
        facts = checked(facts)
        start = min(*self.mlp_layers, *self.attention_layers)
        trained = train(self.model, facts, self.bounds, start, self.settings.training, self.progress)
        return edit_of(self.model, self.name, facts, trained, self.card)
