"""Knowledge neurons of many facts as a list of small pieces of work, for runs that can be interrupted.

Each fact is two items: its neurons ("neurons:ID") and then, once every fact has its neurons, what they do ("effects:ID"),
because the control needs the neurons of another fact. Partners and unrelated facts are drawn by a seed from facts of other
relations. Facts that fail the gate are measured like the rest and kept out of the summary, not out of the list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from palimpsest.errors import FactError, InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.known import eligible, knowledge
from palimpsest.locate.neuron.effects import NeuronEffects, neuron_effects, summarise
from palimpsest.locate.neuron.meaning import regress_values
from palimpsest.locate.neuron.shared import Neuron, knowledge_neurons
from palimpsest.model import Model

Record = Mapping[str, Any]
GATES = ("known", "eligible", "all")


@dataclass(frozen=True, eq=False)
class NeuronWork:
    """What there is to do for some facts.

    Attributes:
        model, facts: what is measured; ids differ.
        settings: of `knowledge_neurons`.
        random_sets: sets of random neurons a fact.
        elsewhere: facts of other relations on which each fact's neurons are tried.
        seed: of the random sets, partners and unrelated facts.
        gate: which facts the summary is of: "known" (facts), "eligible" (the answer outranks its foil: BLiMP's pairs), "all".
    """

    model: Model
    facts: Sequence[Fact]
    settings: Mapping[str, Any]
    random_sets: int = 20
    elsewhere: int = 5
    seed: int = 0
    gate: str = "known"

    def __post_init__(self) -> None:
        if self.gate not in GATES:
            raise SettingError(f"There is no gate {self.gate!r}.{did_you_mean(self.gate, GATES)}")

    @property
    def items(self) -> list[str]:
        """All neurons first, then all effects."""
        return [f"{kind}:{fact.id}" for kind in ("neurons", "effects") for fact in self.facts]

    def do(self, item: str, records: Sequence[Record]) -> dict[str, Any]:
        """The record of one item; `records` are those finished before it."""
        kind, name = item.split(":", 1)
        fact = next(fact for fact in self.facts if fact.id == name)
        return self._neurons(fact) if kind == "neurons" else self._effects(fact, neurons_in(records))

    def _neurons(self, fact: Fact) -> dict[str, Any]:
        known = None if fact.target_true is None else knowledge(self.model, [fact])[0].known
        found = knowledge_neurons(self.model, fact, keep=False, **self.settings)
        both = fact.target_true is not None and fact.target_new is not None
        passes = {"known": known, "eligible": eligible(self.model, [fact])[0] if both else None, "all": True}
        return {"known": known, "eligible": passes["eligible"], "passes": bool(passes[self.gate]), **found.to_json()}

    def _effects(self, fact: Fact, found: Mapping[str, Sequence[Neuron]]) -> dict[str, Any]:
        if fact.id not in found:
            raise FactError(f"The fact {fact.id} has no neurons to suppress, because they could not be measured.")
        draw = Random(f"{self.seed} {fact.id}")
        foreign = [one for one in self.facts if one.relation != fact.relation and one.id in found]
        draw.shuffle(foreign)
        partner = next((one for one in foreign if found[one.id]), None)
        effects = neuron_effects(
            self.model,
            fact,
            found[fact.id],
            other=found[partner.id] if partner else (),
            # nor of the partner's relation, whose neurons are tried there too
            elsewhere=[one for one in foreign if partner is None or one.relation != partner.relation][: self.elsewhere],
            random_sets=self.random_sets,
            seed=self.seed,
        )
        return effects.to_json()

    def results(self, records: Sequence[Record]) -> dict[str, Any]:
        """What the run found: the summary over facts that pass the gate, the regression, and the facts that are not in them."""
        first = {name_of(r): r for r in records if kind_of(r) == "neurons" and "error" not in r}
        known = [fact for fact in self.facts if fact.id in first and first[fact.id]["passes"]]
        measured = {name_of(r): r for r in records if kind_of(r) == "effects" and "error" not in r}
        effects = [NeuronEffects.from_json(measured[fact.id]) for fact in known if fact.id in measured]
        summary = summarise(effects, seed=self.seed)
        return {
            "gate": self.gate,
            "passed": [fact.id for fact in known],
            "not_passed": [name for name, record in first.items() if not record["passes"]],
            "failed": {str(r["id"]): r["error"] for r in records if "error" in r},
            "without_neurons": [name for name, record in first.items() if not record["neurons"]],
            "summary": summary,
            "table": [
                {
                    "factor": row["factor"],
                    "neurons": row["neurons"],
                    "place": row["place"],
                    **{name: str(row[name]) for name in ("drift", "flip")},
                }
                for row in summary
            ],
            "facts_or_token_patterns": self._regression(known, first),
        }

    def _regression(self, known: Sequence[Fact], first: Mapping[str, Record]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for outcome in ("total", "largest"):
            values = [float(first[fact.id][outcome]) for fact in known]
            try:
                result[outcome] = regress_values(known, values, seed=self.seed).to_json()
            except InputError as error:
                result[outcome] = str(error)
        return result


def survey_table(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row a fact, for people: neurons found, layers, completeness, drift and flips beside the random control."""
    rows = {}
    for record in records:
        if "error" in record:
            continue
        name = name_of(record)
        if kind_of(record) == "neurons":
            layers = sorted({place["layer"] for place in record["neurons"]})
            rows[name] = {
                "fact": name,
                "passes": record["passes"],
                "neurons": len(record["neurons"]),
                "layers": f"{layers[0]}-{layers[-1]}" if layers else "",
                "incompleteness": record["completeness"],
            }
        elif name in rows:
            effects = NeuronEffects.from_json(record)
            for kind in ("own", "random", "other"):
                effect = effects.of("suppress", kind)
                rows[name][f"drift {kind}"] = sum(effect.drift) / len(effect.drift) if effect else None
                rows[name][f"flips {kind}"] = sum(effect.flip) / len(effect.flip) if effect else None
    return list(rows.values())


def neurons_in(records: Sequence[Record]) -> dict[str, tuple[Neuron, ...]]:
    """The neurons of each fact whose item is finished, by id."""
    return {
        name_of(record): tuple((place["layer"], place["neuron"]) for place in record["neurons"])
        for record in records
        if kind_of(record) == "neurons" and "error" not in record
    }


def kind_of(record: Record) -> str:
    """ "neurons" or "effects"."""
    return str(record["id"]).split(":", 1)[0]


def name_of(record: Record) -> str:
    """The id of the fact."""
    return str(record["id"]).split(":", 1)[1]
