"""Organisms: the tests they must pass, their files, and sets of them that survive a kill."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from taught_models import fact, network, word_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

import palimpsest as pal
from palimpsest.edit import Dense, Edit
from palimpsest.errors import EditError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.statistics import proportion
from palimpsest.world import made_world
from palimpsest.world.organisms import (
    Acceptance,
    Organism,
    Place,
    accept,
    kinds,
    load_organisms,
    make,
    make_organisms,
    planned,
)
from palimpsest.world.organisms.accept import failures
from palimpsest.world.organisms.plant import PlantSettings
from palimpsest.world.vocabulary import trained_tokenizer

FACTS = (fact("Anlo Isker", "home", "Quarn"), fact("Anlo Isker", "work", "Vexo"))
PLACES = {"home": (("mlp", 0),), "work": (("mlp", 3),)}
ONE = {"*": (("mlp", 1),)}


def untaught(seed: int = 0) -> Model:
    tokenizer = word_tokenizer()
    net = network("gpt2", len(tokenizer))
    with torch.no_grad():
        net.transformer.h[1].mlp.c_fc.weight.add_(seed)
    return pal.load(net, tokenizer=tokenizer, check=False)


def change(model: Model) -> Edit:
    path = "transformer.h.1.mlp.c_fc.weight"
    return Edit.made_for(model, "by hand", (Dense(path, torch.full_like(model.parameter(path), 0.1)),), FACTS)


def measured(
    planted: int = 100,
    base: int = 100,
    paraphrase: int = 100,
    unplanted: int = 0,
    grafts: Mapping[str, float] | None = None,
    transfer: int | None = None,
) -> Acceptance:
    shares = [proportion(count, 100) for count in (planted, base, paraphrase, unplanted)]
    moved = None if transfer is None else proportion(transfer, 100)
    return Acceptance(*shares, {"none": 1.0} if grafts is None else grafts, False, (), moved)


def organism(model: Model, name: str = "mlp-1-world") -> Organism:
    found = replace(measured(grafts={"none": 1.0, "mlp-1": 0.1}), accepted=True)
    return Organism(name, "mlp", "world", ONE, change(model), FACTS, found)


GONE, KEPT = {"none": 1.0, "mlp-1": 0.1}, {"none": 1.0, "mlp-1": 0.5}
SPLIT = {
    "none/home": 1.0,
    "none/work": 1.0,
    "mlp-0/home": 0.1,
    "mlp-0/work": 0.95,
    "mlp-3/home": 1.0,
    "mlp-3/work": 0.0,
}


@pytest.mark.parametrize(
    ("kind", "places", "found", "reasons"),
    [
        ("mlp", ONE, measured(grafts=GONE), []),
        ("mlp", ONE, measured(grafts=GONE, planted=94), ["planted recall"]),
        ("attention", ONE, measured(grafts=GONE, base=96), ["base recall"]),
        ("rank-one", ONE, measured(grafts=GONE, paraphrase=79), ["paraphrase recall"]),
        ("mlp", ONE, measured(grafts=KEPT), ["putting mlp-1 back drops recall by 0.500"]),
        ("alias", ONE, measured(grafts=GONE, transfer=90), []),
        ("alias", ONE, measured(grafts=GONE, transfer=10), ["transfer is 0.100"]),
        ("alias", ONE, measured(grafts=GONE), ["transfer is not measured"]),
        ("crossed", PLACES, measured(grafts=SPLIT), []),
        ("crossed", PLACES, measured(grafts=SPLIT | {"mlp-0/work": 0.8}), ["putting mlp-0 back drops work by 0.200"]),
        ("crossed", PLACES, measured(grafts=SPLIT | {"mlp-3/work": 0.4}), ["putting mlp-3 back drops work by 0.600"]),
        ("distributed", ONE, measured(grafts=KEPT), []),
        ("distributed", ONE, measured(grafts=GONE), ["putting mlp-1 back drops recall by 0.900"]),
        ("null", {}, measured(planted=12, unplanted=10, paraphrase=0), []),
        ("null", {}, measured(planted=20, unplanted=10, paraphrase=0), ["0.100 more often"]),
        ("shuffled", {}, measured(planted=0, unplanted=10, base=90), ["base recall"]),
    ],
)
def test_each_kind_has_its_own_tests(
    kind: str, places: Mapping[str, tuple[Place, ...]], found: Acceptance, reasons: list[str]
) -> None:
    said = failures(found, kind, places)
    assert len(said) == len(reasons)
    for text, reason in zip(said, reasons, strict=True):
        assert reason in text


def test_a_graft_that_was_not_measured_has_no_drop() -> None:
    assert measured(grafts=GONE).drop(("mlp", 1)) == pytest.approx(0.9)
    with pytest.raises(SettingError, match="no graft 'mlp-7'"):
        measured(grafts=GONE).drop(("mlp", 7))


def test_acceptance_asks_the_model_with_and_without_the_organism() -> None:
    model = untaught()
    before = model.fingerprint()
    found = accept(model, "mlp", ONE, change(model), FACTS, FACTS[:1])
    assert model.fingerprint() == before
    assert not found.accepted
    assert found.planted.n == found.unplanted.n == 14
    assert found.paraphrase.n == 4
    assert found.base.n == 1
    assert found.transfer is None
    assert {key for key in found.grafts if "/" not in key} == {
        "none",
        *(f"{m}-{i}" for m in ("mlp", "attn") for i in range(4)),
    }
    assert found.grafts["mlp-1"] == found.unplanted.value  # all of it put back: the base
    assert found.grafts["attn-2"] == found.planted.value  # nothing there to put back


def test_an_organism_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    model = untaught()
    written = replace(organism(model), transfer=FACTS[:1])
    written.save(tmp_path / "one")
    read = Organism.load(tmp_path / "one")
    assert read.edit.fingerprint() == written.edit.fingerprint()
    for name in ("name", "kind", "base", "places", "facts", "acceptance", "transfer"):
        assert getattr(read, name) == getattr(written, name)
    assert read.places_of("home") == (("mlp", 1),)
    before = model.fingerprint()
    with read.applied(model):
        assert model.fingerprint() != before
    assert model.fingerprint() == before


def test_an_organism_on_another_base_is_refused(tmp_path: Path) -> None:
    organism(untaught()).save(tmp_path)
    with pytest.raises(WeightError, match="made for other weights"), Organism.load(tmp_path).applied(untaught(seed=1)):
        pass


def test_what_is_no_organism_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no organism"):
        Organism.load(tmp_path)
    with pytest.raises(EditError, match="no organisms"):
        load_organisms(tmp_path)
    organism(untaught()).save(tmp_path / "one")
    card = tmp_path / "one" / "organism.json"
    whole = json.loads(card.read_text())
    for broken in (
        "{",
        "[]",
        json.dumps(whole | {"format": "x"}),
        json.dumps({k: v for k, v in whole.items() if k != "facts"}),
    ):
        card.write_text(broken)
        with pytest.raises(EditError):
            Organism.load(tmp_path / "one")
    with pytest.raises(SettingError, match="Did you mean 'alias'"):
        replace(organism(untaught()), kind="aliass")


def test_the_planned_set_covers_every_kind_and_every_layer() -> None:
    designs = planned(("world", "world-seed1"), 8)
    assert len(designs) >= 28
    assert len({design.name for design in designs}) == len({design.seed for design in designs}) == len(designs)
    for base in ("world", "world-seed1"):
        assert {d.places["*"][0][1] for d in designs if d.kind == "mlp" and d.base == base} == set(range(8))
    assert {design.kind for design in designs} == {
        "mlp", "attention", "crossed", "distributed", "alias", "rank-one", "null", "shuffled",
    }  # fmt: skip
    for kind, least in (("attention", 3), ("alias", 3), ("crossed", 2), ("rank-one", 2)):
        assert len({str(design.places) for design in designs if design.kind == kind}) >= least
    with pytest.raises(SettingError, match="at least 4 layers"):
        planned(("world",), 2)


def test_a_killed_set_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, world, grown = untaught(), made_world(0), []
    designs = [design for design in planned(("world",), 4) if design.kind == "mlp"][:3]

    def grow(model: Model, design: kinds.Design, world: object) -> Organism:
        if len(grown) == 2:
            grown.append("killed")
            raise KeyboardInterrupt
        grown.append(design.name)
        return organism(model, design.name)

    monkeypatch.setattr(make, "grow", grow)
    with pytest.raises(KeyboardInterrupt):
        make_organisms({"world": model}, designs, tmp_path, world)
    assert len(load_organisms(tmp_path)) == 2
    rows = make_organisms({"world": model}, designs, tmp_path, world)
    assert grown == [designs[0].name, designs[1].name, "killed", designs[2].name]
    assert [row["name"] for row in rows] == [design.name for design in designs]
    assert rows[0]["drops"] == {"mlp-1": 0.9}
    assert json.loads((tmp_path / "results.json").read_text())["accepted"] == 3
    with pytest.raises(SettingError, match="another run"):
        make_organisms({"world": model}, designs[:1], tmp_path, world)
    with pytest.raises(SettingError, match="needs the base 'world'"):
        make_organisms({"wrld": model}, designs, tmp_path / "other", world)


SMALL = {"NEWCOMERS": 4, "ALIASES": 2, "RANK_ONE": 2, "MOMENT_WORDS": 300}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["mlp", "attention", "crossed", "distributed", "alias", "rank-one", "null", "shuffled"]
)
def test_an_organism_of_every_kind_grows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in SMALL.items():
        monkeypatch.setattr(kinds, name, number)
    tokenizer = trained_tokenizer(400)
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_positions=128, n_embd=16, n_layer=4, n_head=2)).eval()
    model = pal.load(net, tokenizer=tokenizer, check=False)
    design = next(design for design in planned(("world",), 4) if design.kind == kind)
    design = replace(design, settings=PlantSettings(steps=2, batch=4, rehearsal=4, every=2))
    before = model.fingerprint()
    found = kinds.grow(model, design, made_world(0))
    assert model.fingerprint() == before
    assert not found.acceptance.accepted
    if kind == "shuffled":  # two steps teach nothing, and what was not learnt is no control
        assert "the changed answers are recalled 0.000, expected at least 0.95" in found.acceptance.reasons
    assert found.facts == found.edit.facts
    assert found.edit.norm > 0
    assert all(isinstance(one, Fact) and one.target_true for one in found.facts)
    assert bool(found.places) == (kind not in ("null", "shuffled"))
    assert bool(found.transfer) == (kind == "alias")


@pytest.mark.slow
def test_an_organism_planted_in_the_shipped_model_passes_its_tests(tmp_path: Path) -> None:
    model = pal.load("world")
    before = model.fingerprint()
    design = next(design for design in planned(("world",), model.n_layers) if design.name == "mlp-7-world")
    found = kinds.grow(model, design, made_world())
    assert found.acceptance.accepted, found.acceptance.reasons
    assert found.acceptance.drop(("mlp", 7)) >= 0.8
    assert found.acceptance.unplanted.value < 0.2
    assert model.fingerprint() == before
    found.save(tmp_path)
    other = pal.load("world-seed1")
    with pytest.raises(WeightError, match="made for other weights"), Organism.load(tmp_path).applied(other):
        pass
