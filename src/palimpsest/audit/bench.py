"""`Bench`: the model, the facts and what several experiments would otherwise each make for themselves.

A bench is where experiments work; its setting says at what. What it makes is made once, on first use: re-initialised models,
editors with their second moments and their kept values, the spread of the subjects' embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.edit import Edit, cached_moments, editor
from palimpsest.edit.registry import Editor
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.facts.text import shipped_text
from palimpsest.locate.tracing.controls import reinitialised
from palimpsest.locate.tracing.corruption import embedding_spread
from palimpsest.model import Model, pad

PASSES = 6
NOISE_SPREADS = 3  # noise of three times the spread of the subjects' embeddings (Meng et al. 2022, section 2.1)


class Bench:
    """Where the experiments of one audit work.

    Args:
        model: what the claim is about; experiments leave it as they found it.
        facts: by id, all that the setting names.
        setting: what is measured.
        folder: where values are kept between runs; None keeps nothing.
        pool: facts whose subjects and answers stand in for those of the facts measured: all that were given, also those that
            failed a gate; `facts` when empty.
    """

    def __init__(
        self,
        model: Model,
        facts: Mapping[str, Fact],
        setting: Setting,
        folder: Path | None = None,
        pool: Sequence[Fact] = (),
    ) -> None:
        if model.fingerprint() != setting.weights:
            raise SettingError(
                f"The setting is for weights {setting.weights[:12]}, got a model with {model.fingerprint()[:12]}; "
                "evidence about one model is none about another."
            )
        self.model, self.facts, self.setting, self.folder = model, dict(facts), setting, folder
        self.pool = list(pool) or list(self.facts.values())
        self._editors: dict[tuple[str, str], Editor] = {}

    def __getitem__(self, unit: str) -> Fact:
        """The fact of this id."""
        return self.facts[unit]

    @property
    def confirmation(self) -> list[Fact]:
        """The facts that report."""
        return [self.facts[name] for name in self.setting.confirmation]

    @property
    def discovery(self) -> list[Fact]:
        """The facts that choose."""
        return [self.facts[name] for name in self.setting.discovery]

    @cached_property
    def noise_level(self) -> float:
        """Three times the spread of the embeddings of all subjects of the audit: one level for every experiment."""
        return NOISE_SPREADS * embedding_spread(self.model, list(self.facts.values()))

    @cached_property
    def untrained(self) -> tuple[Model, ...]:
        """Three re-initialised models: null N6."""
        return tuple(reinitialised(self.model, seed=self.setting.seed + i) for i in range(3))

    @cached_property
    def seconds_a_pass(self) -> float:
        """Wall clock of one forward pass of 64 tokens in one row, the fastest of a few made now: the unit that plans count in."""
        text = " ".join(fact.text for fact in self.confirmation[:8])
        batch = pad([list(self.model.encode(text).ids)[:64]])
        times = []
        with self.model.evaluating(), torch.no_grad():
            for _ in range(PASSES):
                began = perf_counter()
                self.model.last_logits(batch)
                times.append(perf_counter() - began)
        return min(times)

    @cached_property
    def _moments(self) -> None:
        """Second moments of all layers measured, in one pass: editors, one layer each, then find them kept."""
        cached_moments(self.model, self.setting.layers, shipped_text())

    def editor(self, method: str = "rome", **settings: Any) -> Editor:
        """An editor, made once; values it searches are kept in the audit's folder."""
        _ = self._moments
        key = (method, repr(sorted(settings.items())))
        if key not in self._editors:
            kept = None if self.folder is None else self.folder / "values" / method
            self._editors[key] = editor(self.model, method, resume=kept, **settings)
        return self._editors[key]

    def edit_at(self, facts: Sequence[Fact], layer: int, *, position: str | None = None, **settings: Any) -> Edit:
        """A rank-one edit of one layer at the place's position (or at `position`)."""
        token = {SUBJECT: "subject_last", LAST: "last"}[position or self.setting.place.position]
        return self.editor("rome", layers=(layer,), token=token, **settings).edit(list(facts))
