"""Readouts by name: what `--readouts` and `residue(readouts=...)` understand."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from palimpsest.erase.residue.readout import Readout
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact

# name -> where its class is
NAMES = {
    "logit lens": "palimpsest.erase.residue.lens:LogitLens",
    "trained lens": "palimpsest.erase.residue.trained_lens:TrainedLens",
    "head": "palimpsest.erase.residue.heads:Heads",
    "wording": "palimpsest.erase.residue.wordings:Wordings",
    "probe": "palimpsest.erase.residue.probes:Probes",
    "attack": "palimpsest.erase.residue.attacks:Attacks",
    "sampling": "palimpsest.erase.residue.sampling:Sampling",
    "relearning": "palimpsest.erase.residue.relearning:Relearning",
}
# what differs from a class's own defaults; a relation of too few facts for a probe is no reason to read nothing at all
SETTINGS: dict[str, dict[str, Any]] = {"probe": {"few": "leave"}}
POOLED = ("probe", "attack")  # which are made of a pool of facts


def readout_of(name: str, pool: Sequence[Fact] = ()) -> Readout:
    """A readout with its defaults; raises `SettingError` for a name that is none.

    Args:
        name: of `NAMES`.
        pool: facts with true answers, for probes and attacks.
    """
    if name not in NAMES:
        raise SettingError(f"There is no readout {name!r}.{did_you_mean(name, NAMES)}")
    module, member = NAMES[name].split(":")
    settings = SETTINGS.get(name, {}) | ({"pool": tuple(pool)} if name in POOLED else {})
    readout: Readout = getattr(import_module(module), member)(**settings)
    return readout
