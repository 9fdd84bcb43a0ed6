"""MEND and KE as editing methods: a trained editor, from its file.

    edit = palimpsest.edit(model, [fact], method="mend", editor="editor/editor.safetensors")

Everything else was settled when it was trained (`palimpsest train`): layers and settings are in the file.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.edit.learned.file import Learned
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress


class _FromFile:
    """What both share.

    Args:
        model: the base the editor was trained for, with or without edits applied.
        preset: "fixed", the only one: what the file says.
        editor: the file, or the folder of `palimpsest train`.
        progress: called with (facts done, facts, id).
        seed: taken as by every method, recorded, and changes nothing: an edit draws nothing.

    Raises:
        SettingError: no editor is named, or a setting is given that the file holds.
        EditError: the file is missing, damaged, or of another method.
        WeightError: it was trained for another base.
    """

    name = ""

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        editor: str | PathLike[str] | None = None,
        progress: Progress | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        title = self.name.upper()
        if preset != "fixed":
            raise SettingError(f"{title} has no preset {preset!r}; its settings are in the editor's file.")
        for name in settings:
            hint = did_you_mean(name, ["editor"])
            raise SettingError(
                f"{title} takes no setting {name!r} when it edits, because the editor's file holds them.{hint}"
            )
        if editor is None:
            raise SettingError(
                f"{title} needs a trained editor: give editor=PATH, made by `palimpsest train {self.name} MODEL FACTS`."
            )
        self.learned, self.progress, self.seed = Learned.load(model, editor), progress, seed
        if self.learned.method != self.name:
            raise SettingError(f"{editor} is a trained {self.learned.method} and not {self.name}; use that method.")

    @property
    def card(self) -> dict[str, Any]:
        """Every setting it was trained with, and which editor it is."""
        card = self.learned.card
        return {**card["settings"], "editor": card["identity"], "paths": list(card["paths"]), "seed": self.seed}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """The trained editor's edit; `notes` holds per fact its tokens and the loss of its new answer before the edit."""
        return self.learned.edit(facts, self.progress)


class Mend(_FromFile):
    """MEND: see `palimpsest.edit.learned.mend`."""

    name = "mend"


class Ke(_FromFile):
    """KE: see `palimpsest.edit.learned.ke`."""

    name = "ke"
