"""palimpsest: locate, edit and audit factual associations in causal language models.

    import palimpsest as pal

    model = pal.load("smollm2")
    fact = pal.Fact(subject="Eiffel Tower", prompt="The {} is located in the city of",
                    target_true="Paris", target_new="Rome")
    trace = pal.trace(model, fact)
    edit = pal.edit(model, [fact], method="rome")
    with edit.applied(model):
        ...
    scores = pal.evaluate(model, [fact], method="rome", suite="counterfact")

Names are imported when they are first used, so that `import palimpsest` and the command line start quickly.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from palimpsest.collecting import collection_paused

__version__ = "0.1.0"

_HOMES = {
    "Edit": "edit",
    "EditSequence": "edit",
    "Fact": "facts",
    "Model": "model",
    "Probe": "facts",
    "Scores": "evaluate",
    "Lesion": "locate",
    "Trace": "locate",
    "audit": "audit",
    "check_editor": "edit",
    "check_localizer": "locate",
    "edit": "edit",
    "editor": "edit",
    "erase_concept": "erase.leace",
    "evaluate": "evaluate",
    "knockout": "locate",
    "knowledge_neurons": "locate",
    "load": "model",
    "logit_lens": "locate",
    "neurons": "locate",
    "probe": "locate",
    "propagate": "erase.propagate",
    "read_facts": "facts",
    "residue": "erase.residue",
    "lesion": "locate",
    "trace": "locate",
    "trace_facts": "locate",
    "write_facts": "facts",
}

__all__ = sorted(_HOMES)


def _room(name: str) -> ModuleType:
    with collection_paused():
        return import_module(f"palimpsest.{name}")


class _Package(ModuleType):
    """The package itself. `pal.edit` is the function, though `palimpsest.edit` is also the room it lives in."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("audit", "edit", "evaluate"):
            return getattr(sys.modules.get(f"palimpsest.{name}") or _room(name), name)
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name in _HOMES:
            return getattr(_room(_HOMES[name]), name)
        raise AttributeError(f"module 'palimpsest' has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
