"""Readouts by name: what `--readouts` and `residue(readouts=...)` understand."""

from importlib import import_module

from palimpsest.erase.residue.readout import Readout
from palimpsest.errors import SettingError, did_you_mean

# name -> where its class is; those that need more than defaults (a pool of facts) are made by the caller
NAMES = {
    "logit lens": "palimpsest.erase.residue.lens:LogitLens",
    "trained lens": "palimpsest.erase.residue.trained_lens:TrainedLens",
    "head": "palimpsest.erase.residue.heads:Heads",
    "wording": "palimpsest.erase.residue.wordings:Wordings",
}


def readout_of(name: str) -> Readout:
    """A readout with its defaults; raises `SettingError` for a name that is none."""
    if name not in NAMES:
        raise SettingError(f"There is no readout {name!r}.{did_you_mean(name, NAMES)}")
    module, member = NAMES[name].split(":")
    readout: Readout = getattr(import_module(module), member)()
    return readout
