"""Which layer to edit when none is named: a table with provenance, and a rule for models that are not in it."""

import json
from importlib import resources
from typing import Any

from palimpsest.model import Model

UNKNOWN_DEPTH = 0.3  # ROME's and MEMIT's published layers stand at 0.15 to 0.36 of the depth


def default_layer(model: Model) -> int:
    """The layer of the table for a model of this shape, else the layer at 0.3 of the depth."""
    entry = table_entry(model)
    return int(entry["layer"]) if entry else round(UNKNOWN_DEPTH * model.n_layers)


def table_entry(model: Model) -> dict[str, Any] | None:
    """The row of `data/default_layers.json` whose shape (type, layers, width, vocabulary) is the model's, or None."""
    config = model.net.config.get_text_config(decoder=True)
    shape = {
        "model_type": config.model_type,
        "layers": model.n_layers,
        "width": model.anatomy.width,
        "vocabulary": config.vocab_size,
    }
    table = json.loads(resources.files("palimpsest.edit").joinpath("data/default_layers.json").read_text("utf-8"))
    return next((row for row in table if all(row[name] == value for name, value in shape.items())), None)
