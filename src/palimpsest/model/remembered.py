"""Which wirings the doctor has passed before, so that loading the same kind of model again need not prove it again.

Whether a site means what its name says depends on the code and the config of a model, not on the values of its weights. So a
pass is remembered under a hash of the config, the dtype, the attention implementation, the versions of torch and transformers,
and the code of this room. What does depend on the weights (finite values, W k + b = v on a real pass) is checked on every load.
"""

import hashlib
import os
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from palimpsest.model.smollm2 import cache_folder


def wiring(net: PreTrainedModel) -> str:
    """SHA-256 of everything the doctor's verdict on the sites of an unwrapped, freshly read model depends on."""
    digest = hashlib.sha256()
    for part in (
        type(net).__qualname__,
        net.config.to_json_string(use_diff=False),
        str(net.config._attn_implementation),
        str(net.dtype),
        str(torch.__version__),
        transformers.__version__,
    ):
        digest.update(f"{part}\0".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def passed_before(name: str) -> bool:
    """Whether the doctor passed this wiring on this machine."""
    return (cache_folder() / "doctor" / name).is_file()


def remember(name: str) -> None:
    """Note a pass; a cache that cannot be written only means that the next load checks again."""
    place = cache_folder() / "doctor" / name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "a", encoding="utf-8"):
            os.utime(place)
    except OSError:
        return
