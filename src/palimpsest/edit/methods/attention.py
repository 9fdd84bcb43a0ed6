"""An edit of attention weights: are they a place where a fact can be written? (Meng et al. 2022, appendix I)

Constrained fine-tuning (FT-L) of the maps W_Q, W_K and W_V of one late layer, at all heads:

    min over D of the mean over facts of  -(1/T) sum_t log p(o*_t | prompt, o*_<t; W + D)     with |D_ab| <= epsilon

Meng et al. find layer 33 of 48 best in GPT-2 XL (0.69 of the depth, where tracing sees the late site) and report that such edits
write the sentence they were trained on and little of what follows from it. The maps are found by structure: every linear map of
the attention module but the one it writes to the stream with; where queries, keys and values are one fused weight
(GPT-2's c_attn, NeoX's query_key_value), that is trained. How it is done stands in `palimpsest.edit.training`.

    "fixed"      every token of the answer in its own place; the bound was chosen on smollm2 (results/fine-tuning/choose.json)
    "rome-2022"  the published loss (all tokens after the prompt), and biases trained too
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.edit.defaults import defaults
from palimpsest.edit.methods.fine_tuning import PUBLISHED, bounded, distinct_layers, edit_of
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import one_of, resolve
from palimpsest.edit.training import TrainingSettings, check_bound, train
from palimpsest.errors import AnatomyError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.anatomy import is_linear
from palimpsest.runs import Progress


@dataclass(frozen=True)
class AttentionSettings:
    """Every setting of the attention edit.

    Attributes:
        preset: the name these settings began from.
        layers: whose attention is trained; the one at 0.69 of the depth when None.
        weights: "qkv", as published, or "qkvo" with the output projection.
        epsilon: bound on every entry of the change; none when None.
        biases: train the biases of those maps too, within the same bound.
        training: settings of the optimisation.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    weights: str = "qkv"
    epsilon: float | None = 1e-2
    biases: bool = False
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        one_of("The attention edit", "weights", self.weights, ("qkv", "qkvo"))
        check_bound("The attention edit", "epsilon", self.epsilon)


PRESETS: dict[str, AttentionSettings] = {
    "fixed": AttentionSettings(),
    "rome-2022": AttentionSettings(preset="rome-2022", biases=True, training=PUBLISHED),
}


class AttentionEdit:
    """The attention edit on one model.

    Args:
        model: read, never changed.
        preset: "fixed" or "rome-2022".
        progress: called with (passes done, passes, label).
        settings: any field of `AttentionSettings` or `TrainingSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        AnatomyError: a layer has no attention made of linear maps.
    """

    name = "attention"

    def __init__(
        self, model: Model, *, preset: str = "fixed", progress: Progress | None = None, **settings: Any
    ) -> None:
        self.model, self.progress = model, progress
        self.settings = resolve("The attention edit", PRESETS, preset, settings)
        usual = defaults(model, self.name)
        given = usual.layers if self.settings.layers is None else self.settings.layers
        self.layers_from = usual.provenance if self.settings.layers is None else "given"
        self.layers = distinct_layers("The attention edit", model, given)
        paths = [path for layer in self.layers for path in attention_maps(model, layer, self.settings.weights)]
        self.bounds = bounded(model, paths, self.settings.epsilon, biases=self.settings.biases)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force, where the layers come from, and the paths of the weights."""
        return {
            **asdict(self.settings),
            "layers": list(self.layers),
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
        trained = train(self.model, facts, self.bounds, min(self.layers), self.settings.training, self.progress)
        return edit_of(self.model, self.name, facts, trained, self.card)


def attention_maps(model: Model, layer: int, weights: str = "qkv") -> list[str]:
    """Paths of the linear maps that make queries, keys and values; with "qkvo" that of the output projection too.

    Raises:
        AnatomyError: the layer has none.
    """
    parts = model.anatomy.layers[model.anatomy.check_layer(layer)]
    attention, projection = parts.attention, parts.attention_projection
    if attention is None or projection is None:
        raise AnatomyError(f"Layer {layer} of {model.name} has no attention module; name another layer.")
    # where the module adds the stream itself (BLOOM), its output projection stands for it, beside the other maps
    root = attention.path if attention.path != projection.path else attention.path.rsplit(".", 1)[0]
    maps = [
        f"{root}.{name}"
        for name, module in model.net.get_submodule(root).named_modules()
        if is_linear(module) and "lora_" not in name
    ]
    inner = [path for path in maps if path != projection.path]
    if not inner:
        raise AnatomyError(f"The attention of layer {layer} of {model.name} has no map beside {projection.path}.")
    return [*inner, projection.path] if weights == "qkvo" else inner
