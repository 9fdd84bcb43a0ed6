"""Settings of published knowledge neurons, as data. Whatever a preset leaves out is the default."""

from typing import Any

from palimpsest.errors import SettingError, did_you_mean

PATH: dict[str, Any] = {"steps": 20, "rule": "midpoint", "baseline": "zero", "score": "probability"}
"""How one prompt is attributed."""

SELECTION: dict[str, Any] = {"threshold": 0.2, "share": 0.7, "wanted": None}
"""Which neurons are kept: at least `threshold` of the largest attribution, in at least `share` of the wordings; where
`wanted` gives (fewest, most), the share is moved in steps of 0.05 until so many are kept."""

PRESETS: dict[str, dict[str, Any]] = {
    # Hunter-DDM/knowledge-neurons, src/2_get_kn.py; there for BERT's [MASK], here for the token that predicts the answer
    "dai-2022": {"steps": 20, "rule": "left", "threshold": 0.2, "share": 0.7, "wanted": (2, 5)},
    # EleutherAI/knowledge-neurons; it averages over the tokens of the answer, here the first is scored
    "eleuther": {"steps": 20, "rule": "inclusive", "threshold": 0.3, "share": 0.5},
}


def settings_of(preset: str | None, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`defaults`, then what the preset says of them, then what was given (None means: not given)."""
    if preset is not None and preset not in PRESETS:
        raise SettingError(f"Knowledge neurons have no preset {preset!r}.{did_you_mean(preset, PRESETS)}")
    said = PRESETS[preset] if preset else {}
    return {
        name: given[name] if given.get(name) is not None else said.get(name, default)
        for name, default in defaults.items()
    }
