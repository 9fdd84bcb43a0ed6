"""The models that come inside the package: those that know the made world (see `palimpsest.world`)."""

from functools import partial
from importlib import resources
from pathlib import Path

from palimpsest.errors import ModelError

NAMES = ("world", "world-llama", "world-plain", "world-seed1")


def packaged_folder(name: str) -> Path:
    """The folder with config, tokenizer and weights of a model in the package.

    Raises:
        ModelError: the installation lacks it.
    """
    folder = Path(str(resources.files("palimpsest") / "world" / "models" / name))
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The model {name} is missing from this installation; install palimpsest again, or make it: "
            f"palimpsest world train {name} --out DIR, which loads as DIR."
        )
    return folder


PACKAGED = {name: partial(packaged_folder, name) for name in NAMES}
