"""Editing methods by name: ours as lazy strings, others' through the entry point group `palimpsest.methods`.

A method is a class made with (model, *, preset, progress, **settings) that has

    name             what it is called
    card             every setting it works with, as plain data
    edit(facts)      -> Edit, leaving the model as it was

and passes `palimpsest.edit.check_editor`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from palimpsest.edit.artefact import Edit
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.model import Model

METHODS = {
    "rome": "palimpsest.edit.methods.rome:Rome",
    "memit": "palimpsest.edit.methods.memit:Memit",
    "emmet": "palimpsest.edit.methods.emmet:Emmet",
    "alphaedit": "palimpsest.edit.methods.alphaedit:AlphaEdit",
    "ft": "palimpsest.edit.methods.fine_tuning:FineTuning",
    "attention": "palimpsest.edit.methods.attention:AttentionEdit",
    "joint": "palimpsest.edit.methods.joint:JointEdit",
    "neurons": "palimpsest.edit.methods.neurons:NeuronEdit",
    "mend": "palimpsest.edit.learned.methods:Mend",
    "ke": "palimpsest.edit.learned.methods:Ke",
    "overwrite": "palimpsest.erase.overwrite.overwrite:Overwrite",
    "grace": "palimpsest.edit.memories.grace:Grace",
    "wise": "palimpsest.edit.memories.wise:Wise",
    "in-context": "palimpsest.edit.memories.in_context:InContext",
    "serac": "palimpsest.edit.memories.serac:Serac",
    "random": "palimpsest.edit.methods.random_direction:RandomDirection",
}
GROUP = "palimpsest.methods"


@runtime_checkable
class Editor(Protocol):
    """A method bound to a model. `card` is plain data: every setting, default or given, that its edits depend on.

    One that takes facts without a `target_new` has `needs_answer = False` besides.
    """

    name: str

    @property
    def card(self) -> Mapping[str, Any]:
        """Every setting."""
        ...

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """An edit for `facts`, leaving the model as it was."""
        ...


def method_names() -> list[str]:
    """Every method at hand, ours and those of installed packages."""
    return sorted({*METHODS, *(point.name for point in metadata.entry_points(group=GROUP))})


def editor(
    model: Model,
    method: str = "rome",
    *,
    layers: int | Sequence[int] | None = None,
    resume: Path | None = None,
    **settings: Any,
) -> Editor:
    """The method `method` prepared for `model`: contexts and moments are made here, once, for any number of edits.

    Args:
        model: what will be edited.
        method: a name from `method_names()`.
        layers: which layers to change; the method's default for this model when None.
        resume: a folder where a method that can (`resumable`) keeps what it has found, so that a killed edit goes on.
        settings: `preset=` and the settings of the method (see its class).

    Raises:
        SettingError: the method, its preset or a setting is unknown ("did you mean").
    """
    target = METHODS.get(method)
    if target is None:
        points = [point for point in metadata.entry_points(group=GROUP) if point.name == method]
        if not points:
            raise SettingError(f"There is no editing method {method!r}.{did_you_mean(method, method_names())}")
        made = points[0].load()
    else:
        module, name = target.split(":")
        made = getattr(import_module(module), name)
    if layers is not None:
        settings["layers"] = (layers,) if isinstance(layers, int) else tuple(layers)
    if resume is not None and getattr(made, "resumable", False):
        settings["resume"] = resume
    return made(model, **settings)


def edit(
    model: Model,
    facts: Fact | Sequence[Fact],
    method: str = "rome",
    *,
    layers: int | Sequence[int] | None = None,
    **settings: Any,
) -> Edit:
    """An edit that writes `facts` with `method`. The model is not touched: apply the edit where you want it.

        edit = palimpsest.edit(model, [fact], method="rome")
        with edit.applied(model):
            ...

    Args:
        model: the model the edit is for.
        facts: one fact or several, each with a `target_new`.
        method: a name from `method_names()`.
        layers: which layers to change; the method's default for this model when None.
        settings: `preset=` and the settings of the method (see its class).

    Raises:
        SettingError, FactError, EditError: see the method.
    """
    facts = [facts] if isinstance(facts, Fact) else list(facts)
    return editor(model, method, layers=layers, **settings).edit(facts)
