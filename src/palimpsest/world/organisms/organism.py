"""`Organism`: a model of the world in which given facts were planted in a place we chose, and the tests it passed.

    organism = Organism.load("organisms/mlp-3-world")
    with organism.applied(model):              # the base it was made from, or it is refused
        ...                                    # the model knows the planted facts, from layer 3's MLP alone
    organism.places                            # {"*": (("mlp", 3),)}: the truth a map is compared with
    organism.acceptance.accepted               # whether the planting worked as meant

An organism is an edit with a known answer to the question where its facts are. Kinds:

    mlp, attention   new facts in one module of one layer
    crossed          one relation in one layer, another relation of the same subjects in another layer
    distributed      the same facts in the MLPs of all layers
    alias            a new name for a known entity in one MLP: the entity is processed, no attribute is new
    rank-one         new facts written by ROME
    null             trained on what the base knows already: nothing is planted
    shuffled         facts planted with the answers of each relation changed round: the facts it lists are nowhere

Its folder holds `edit.safetensors` and `organism.json`, which is written last: a folder that has it is whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit
from palimpsest.errors import EditError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import atomic_write, check_writable
from palimpsest.statistics import Estimate

KINDS = ("mlp", "attention", "crossed", "distributed", "alias", "rank-one", "null", "shuffled")
EVERY = "*"  # stands for every relation in `Organism.places`
FORMAT = "palimpsest-organism/1"
CARD, EDIT = "organism.json", "edit.safetensors"

Place = tuple[str, int]
Places = Mapping[str, tuple[Place, ...]]


def place_name(place: Place) -> str:
    """How a place is written as one word: `("mlp", 3)` is "mlp-3"."""
    return f"{place[0]}-{place[1]}"


def graft_key(place: Place | None, relation: str | None = None) -> str:
    """The key of a graft in `Acceptance.grafts`: "mlp-3", "mlp-3/born_in"; "none" where nothing is put back."""
    name = "none" if place is None else place_name(place)
    return name if relation is None else f"{name}/{relation}"


@dataclass(frozen=True)
class Acceptance:
    """What the acceptance tests of an organism measured: shares of prompts that `palimpsest.world.recall` counts as recalled.

    Attributes:
        planted: of the listed facts on seen wordings, with the organism applied.
        base: of the base's own facts, with the organism applied.
        paraphrase: of the listed facts on the wordings that were never seen.
        unplanted: of the listed facts on seen wordings in the base itself: what is recalled by luck.
        grafts: recall of the listed facts on seen wordings with one place put back as it is in the base: "mlp-3" over all
            of them, "mlp-3/born_in" over one relation, and "none" with nothing put back. Every layer's modules are there,
            those that the organism does not change too.
        transfer: of facts that follow from the planting and were never trained (alias organisms), else None.
        accepted: whether every test of its kind was passed.
        reasons: the tests it failed, in words.
    """

    planted: Estimate
    base: Estimate
    paraphrase: Estimate
    unplanted: Estimate
    grafts: Mapping[str, float]
    accepted: bool
    reasons: tuple[str, ...] = ()
    transfer: Estimate | None = None

    def drop(self, place: Place, relation: str | None = None) -> float:
        """How much recall of the listed facts, or of one relation of them, is lost with `place` put back to the base.

        Raises:
            SettingError: no such graft was measured.
        """
        keys = [graft_key(None, relation), graft_key(place, relation)]
        for key in keys:
            if key not in self.grafts:
                raise SettingError(f"There is no graft {key!r}.{did_you_mean(key, self.grafts)}")
        whole, left = (self.grafts[key] for key in keys)
        return whole - left

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `Acceptance.from_json` reads back."""
        return {
            **{name: value.to_json() for name, value in self._estimates().items()},
            "grafts": dict(self.grafts),
            "accepted": self.accepted,
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Acceptance":
        """The acceptance `to_json` wrote."""
        names = ("planted", "base", "paraphrase", "unplanted", "transfer")
        estimates = {name: Estimate.from_json(record[name]) for name in names if name in record}
        reasons = tuple(record["reasons"])
        return cls(**estimates, grafts=dict(record["grafts"]), accepted=bool(record["accepted"]), reasons=reasons)

    def _estimates(self) -> dict[str, Estimate]:
        found = {"planted": self.planted, "base": self.base, "paraphrase": self.paraphrase, "unplanted": self.unplanted}
        return found if self.transfer is None else {**found, "transfer": self.transfer}


@dataclass(frozen=True, eq=False)
class Organism:
    """A planting: what, where, in which base, and how well.

    Attributes:
        name: as in "mlp-3-world".
        kind: one of `KINDS`.
        base: name of the model it was planted in.
        places: where the facts of each relation are, "*" for all relations; empty where nothing is planted.
        edit: the change of weights.
        facts: what was planted, the answer being `target_true`; of an alias organism the subject is the new name.
        acceptance: what its tests measured.
        transfer: of alias organisms, facts of the new names that follow from the planting and were never trained.
    """

    name: str
    kind: str
    base: str
    places: Places
    edit: Edit
    facts: tuple[Fact, ...]
    acceptance: Acceptance
    transfer: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"There is no kind of organism {self.kind!r}.{did_you_mean(self.kind, KINDS)}")

    def __repr__(self) -> str:
        how = "accepted" if self.acceptance.accepted else "failed"
        return f"Organism({self.name!r}, {len(self.facts)} facts, {how})"

    def places_of(self, relation: str) -> tuple[Place, ...]:
        """Where the facts of `relation` were planted; () where they were not."""
        return self.places.get(relation, self.places.get(EVERY, ()))

    @contextmanager
    def applied(self, model: Model, dose: float = 1.0) -> Iterator[Model]:
        """The organism in its base inside the block; then the base again, bit for bit.

        Raises:
            WeightError: `model` is not the base it was planted in.
        """
        with self.edit.applied(model, dose):
            yield model

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the organism into `folder`, made if need be; raises `OutputError` where it cannot be written."""
        path = check_writable(Path(folder))
        card = {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "base": self.base,
            "places": {relation: [list(place) for place in places] for relation, places in self.places.items()},
            "facts": [fact.to_json() for fact in self.facts],
            "transfer": [fact.to_json() for fact in self.transfer],
            "acceptance": self.acceptance.to_json(),
        }
        self.edit.save(path / EDIT)
        atomic_write(path / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Organism":
        """Read what `save` wrote.

        Raises:
            EditError: there is no organism in the folder, or it is damaged.
        """
        path = Path(folder)
        if not (path / CARD).is_file():
            raise EditError(
                f"There is no organism in {path}: it has no {CARD}; name a folder that Organism.save wrote."
            )
        try:
            card = json.loads((path / CARD).read_text("utf-8"))
            if card.get("format") != FORMAT:
                raise EditError(
                    f"{path / CARD} is no organism: its format is {card.get('format')!r}, expected {FORMAT!r}."
                )
            places = {name: tuple((str(m), int(i)) for m, i in found) for name, found in card["places"].items()}
            facts, transfer = (tuple(map(Fact.from_json, card[name])) for name in ("facts", "transfer"))
            acceptance = Acceptance.from_json(card["acceptance"])
            name, kind, base = card["name"], card["kind"], card["base"]
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise EditError(f"The organism in {path} is damaged ({error}); make it again.") from None
        return cls(name, kind, base, places, Edit.load(path / EDIT), facts, acceptance, transfer)
