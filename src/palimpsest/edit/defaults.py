"""Which layers to edit, and with which settings, when none are given: a table with provenance, and a rule for other models.

    found = defaults(model, "memit")
    found.layers, found.settings          # (4, 5, 6, 7, 8), {"clamp": 0.75, "moment_weight": 15000.0, ...}
    found.known, found.provenance         # False, "the rule, not measured: ..." where the table has nothing

A row of `data/defaults.json` is found by shape (type, layers, width, width of the keys, vocabulary up to padding) and never by
name, so that a fine-tune has the layers of its base. Published rows are the values that were shipped with the methods; each says
where. For other models, with L layers,

    one layer     round(0.3 L)            published layers stand at 0.15 to 0.36 of the depth
    five layers   the five ending there   memit, alphaedit, pmet; ending at the table's ROME layer where there is one
    attention     round(0.69 L)           ROME's appendix I (33 of 48)

The rule is a guess that an evaluation must confirm: `palimpsest sweep` measures layers and proposes one. That an edit works at a
layer is no evidence that anything is stored there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from palimpsest.errors import AnatomyError
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features

DEPTH = 0.3
ATTENTION_DEPTH = 0.69
SPREAD = {"memit": 5, "alphaedit": 5, "pmet": 5}  # methods that spread a change over several layers
VOCABULARY_PADDING = 512  # vocabularies are padded to multiples of 64 to 256, and fine-tunes add a few tokens
RULE = "the rule, not measured: `palimpsest sweep` measures layers and proposes one"


@dataclass(frozen=True)
class Default:
    """What a method does in a model when nothing is said.

    Attributes:
        layers: ascending, counted from 0.
        settings: that differ from the method's own, by the names of its settings.
        known: whether they were measured or published for models of this shape; False says that a rule gave them.
        provenance: where they come from, in words.
    """

    layers: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: bool = False
    provenance: str = RULE
    source: str = "rule"  # or "measured" by this project, or "published"

    def __str__(self) -> str:
        layers = f"layer{'s' if len(self.layers) > 1 else ''} {', '.join(map(str, self.layers))}"
        if self.known:
            return f"The default is {layers}, {self.provenance}."
        return f"No default is known for this model: {layers} by the rule; `palimpsest sweep` proposes one."


def defaults(model: Model, method: str) -> Default:
    """Layers and settings of `method` in `model`, with where they come from."""
    row = table_entry(model) or {"methods": {}}
    methods = row["methods"]
    if entry := methods.get(method):
        said = f"{row['source']} for {row['name']} ({entry['provenance']})"
        return Default(tuple(entry["layers"]), dict(entry["settings"]), True, said, row["source"])
    if method == "attention":
        return Default((_at(model, ATTENTION_DEPTH),))
    last = methods["rome"]["layers"][0] if "rome" in methods else _at(model, DEPTH)
    said = f"{RULE}; it ends at ROME's layer of {row['name']}" if "rome" in methods else RULE
    return Default(tuple(range(max(0, last - SPREAD.get(method, 1) + 1), last + 1)), provenance=said)


def default_layer(model: Model) -> int:
    """The layer of the table for a model of this shape, else the layer at 0.3 of the depth."""
    return defaults(model, "rome").layers[-1]


def default_layers(model: Model, method: str) -> tuple[int, ...]:
    """The layers `method` edits in this model; by the rule where the table has none."""
    return defaults(model, method).layers


def default_settings(model: Model, method: str) -> dict[str, Any]:
    """Settings of `method` in this model that differ from its own; empty where the table has none."""
    return dict(defaults(model, method).settings)


def table_entry(model: Model) -> dict[str, Any] | None:
    """The row of `data/defaults.json` whose shape is the model's, or None."""
    shape = shape_of(model)
    return next((row for row in table() if same_shape(row["shape"], shape)), None)


def table() -> list[dict[str, Any]]:
    """Every row: name, source ("measured", "published" or "rule"), shape, provenance, and by method layers and settings."""
    return json.loads(resources.files("palimpsest.edit").joinpath("data/defaults.json").read_text("utf-8"))


def shape_of(model: Model) -> dict[str, Any]:
    """What a row is found by. `inner` is the width of the keys, None where no layer 0 has a down-projection."""
    config = model.net.config.get_text_config(decoder=True)
    try:
        inner = in_out_features(model.anatomy.down(0).module)[0]
    except AnatomyError:
        inner = None
    return {
        "model_type": config.model_type,
        "layers": model.n_layers,
        "width": model.anatomy.width,
        "inner": inner,
        "vocabulary": config.vocab_size,
    }


def same_shape(row: Mapping[str, Any], shape: Mapping[str, Any]) -> bool:
    """Whether `shape` is that of a row, whose vocabulary is a list of sizes that may be padded."""
    near = any(abs(size - shape["vocabulary"]) <= VOCABULARY_PADDING for size in row["vocabulary"])
    return near and all(row[name] == shape[name] for name in ("model_type", "layers", "width", "inner"))


def _at(model: Model, depth: float) -> int:
    return min(round(depth * model.n_layers), model.n_layers - 1)
