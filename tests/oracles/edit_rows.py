"""What tests of edit experiments share: facts that no model has read, a setting for them, and what rows made by hand conclude."""

from collections.abc import Sequence
from typing import Any

from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, chosen_experiments
from palimpsest.audit.setting import Place, Setting
from palimpsest.facts import Fact

FACTS = {f"f{i}": Fact(f"Subject{i}", "{} is in", "Paris", "Rome", id=f"f{i}", relation=f"r{i // 2}") for i in range(8)}
NAMES = ("edit-layers", "dose", "edit-effects", "coverage")


def setting_of(layers: Sequence[int] = (0, 1, 2, 3), centre: int = 1, **changed: Any) -> Setting:
    place = Place("mlp", centre, changed.pop("window", 1), **changed)
    return Setting("made", "0" * 64, 12, place, tuple(layers), (), tuple(FACTS))


def concluded(name: str, rows: Sequence[Row], setting: Setting) -> dict[str, Evidence]:
    found = chosen_experiments([name])[name].conclude(setting, FACTS, {name: rows})
    return {one.endpoint: one for one in found}
