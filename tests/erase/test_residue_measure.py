"""`residue` as a whole: edits of all kinds, gates, what is left out, and known facts of the made world."""

import json
import random
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.small import FACTS, model_of
from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import LowRank
from palimpsest.erase.residue import Column, LogitLens, Pair, Residue, Table, residue
from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER
from palimpsest.errors import EditError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.anatomy import matrix_of
from palimpsest.world import made_world, newcomers

POOL = [
    Fact(f"{word} {i}", fact.prompt, f"{word}x", relation=fact.relation, paraphrases=(f"{word} {i} is",))
    for fact in FACTS
    for i, word in enumerate(("Alm", "Bor", "Cim", "Dun", "Erl", "Fas", "Gor", "Hul", "Ims"))
]
LENS = LogitLens(paraphrases=1)


def nudge(model: Model, seed: int, facts: tuple[Fact, ...] = ()) -> Edit:
    """A random change of one down-projection."""
    part = model.anatomy.down(1)
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, 1, generator=draw) for size in matrix_of(part.module).shape)
    return Edit.made_for(model, "nudge", (LowRank(f"{part.path}.weight", left, right.T.contiguous()),), facts)


def test_each_pair_is_read_under_the_edit_of_its_own_fact() -> None:
    model = model_of("gpt2")
    before = model.fingerprint()
    edits = [nudge(model, seed) for seed in range(3)]
    found = residue(model, FACTS, edits, pool=POOL, readouts=[LENS], gate="all")
    assert model.fingerprint() == before
    reader = LENS.fit(model, found.pairs)
    for fact, edit in zip(FACTS, edits, strict=True):
        rows = [i for i, pair in enumerate(found.pairs) if pair.of == fact.id]
        with edit.applied(model):
            alone = reader.read(model, [found.pairs[i] for i in rows])
        assert found.after[rows] == pytest.approx(alone.scores, abs=1e-4, nan_ok=True)
    assert found.before == pytest.approx(reader.read(model, found.pairs).scores, abs=1e-4, nan_ok=True)
    assert np.nanmax(np.abs(found.after - found.before)) > 0.01
    assert found.settings["edits"] == "one a fact"


def test_one_edit_is_read_by_all_and_never_known_facts_too() -> None:
    model = model_of("gpt2")
    edit = nudge(model, 5)
    unknown = [Fact("Zed", FACTS[0].prompt, "Almx", relation=FACTS[0].relation, id="zed")]
    found = residue(model, FACTS, edit, unknown=unknown, pool=POOL, readouts=[LENS], gate="all")
    with edit.applied(model):
        alone = LENS.fit(model, found.pairs).read(model, found.pairs)
    assert found.after == pytest.approx(alone.scores, abs=1e-4, nan_ok=True)
    assert found.settings["unknown_edited"] is True
    again = residue(model, FACTS, [edit] * 3, unknown=unknown, pool=POOL, readouts=[LENS], gate="all")
    rows = found.group(NEVER_KNOWN)
    assert again.after[rows] == pytest.approx(found.before[rows], abs=1e-6, nan_ok=True)
    assert again.settings["unknown_edited"] is False


def test_without_an_edit_before_and_after_are_one() -> None:
    found = residue(model_of("gpt2"), FACTS, pool=POOL, readouts=[LENS], gate="all")
    assert np.array_equal(found.before, found.after, equal_nan=True)
    assert found.auc().value == found.auc(when="before").value
    assert found.settings["edits"] == "none"


def test_an_earlier_reading_is_taken_over() -> None:
    model = model_of("gpt2")
    edit = nudge(model, 6)
    whole = residue(model, FACTS, edit, pool=POOL, readouts=[LENS], gate="all")
    earlier = residue(model, FACTS, pool=POOL, readouts=[LENS], gate="all")
    found = residue(model, FACTS, edit, pool=POOL, readouts=[LENS], gate="all", unedited=earlier)
    assert found.after == pytest.approx(whole.after, abs=1e-6, nan_ok=True)
    assert found.standing["logit lens"] == pytest.approx(whole.standing["logit lens"], nan_ok=True)
    with pytest.raises(InputError, match="asked other pairs"):
        residue(model, FACTS[:2], edit, pool=POOL, readouts=[LENS], gate="all", unedited=earlier)
    with pytest.raises(InputError, match="asked other columns"):
        residue(model, FACTS, edit, pool=POOL, readouts=[LogitLens(paraphrases=0)], gate="all", unedited=earlier)


def test_a_readout_from_outside_reads_along() -> None:
    class Length:
        """Reads nothing but how long the answer is."""

        name = "length"

        def fit(self, model: Model, pairs: object) -> "Length":
            return self

        def read(self, model: Model, pairs: list[Pair] | tuple[Pair, ...]) -> Table:
            return Table((Column("length", "prompt"),), np.array([[float(len(pair.answer))] for pair in pairs]))

    found = residue(model_of("gpt2"), FACTS, pool=POOL, readouts=[LENS, Length()], gate="all")
    assert found.readouts == ("logit lens", "length")
    assert found.before[:, -1].tolist() == [float(len(pair.answer)) for pair in found.pairs]


def test_what_is_saved_is_json_with_every_fact(tmp_path: Path) -> None:
    long = Fact("word " * 400, FACTS[0].prompt, "Almx", relation=FACTS[0].relation, id="long")
    found = residue(model_of("gpt2"), [*FACTS, long], pool=POOL, readouts=[LENS], gate="all")
    found.save(tmp_path / "results.json")
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["facts"] == [fact.id for fact in FACTS]
    assert "400" in record["left_out"]["long"] or "tokens long" in record["left_out"]["long"]
    assert record["n"] == {EDITED: 3, SAME_ANSWER: int(found.group(SAME_ANSWER).sum()), NEVER_KNOWN: 0}
    assert record["auc"]["same answer"]["all"]["after"]["value"] == pytest.approx(found.auc().value)
    assert record["auc"]["never known"]["all"]["after"] is None
    assert len(record["columns"]) == len(record["column_auc"]["after"]) == len(found.columns)
    pytest.importorskip("matplotlib")
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_mistakes() -> None:
    model = model_of("gpt2")
    with pytest.raises(InputError, match="one edit for all facts or one for each, got 2 edits and 3 facts"):
        residue(model, FACTS, [nudge(model, 0)] * 2, pool=POOL, readouts=[LENS])
    with pytest.raises(SettingError, match="no readout 'logit lense'.*logit lens"):
        residue(model, FACTS, pool=POOL, readouts=["logit lense"], gate="all")
    with pytest.raises(SettingError, match="at least one readout"):
        residue(model, FACTS, pool=POOL, readouts=[])
    with pytest.raises(SettingError, match="no gate 'eligible'"):
        residue(model, FACTS, pool=POOL, gate="eligible")
    with pytest.raises(InputError, match="knows none of the 3 facts"):
        residue(model, FACTS, pool=POOL, readouts=[LENS])
    edit = nudge(model, 0)
    with edit.applied(model), pytest.raises(EditError, match="undo it first"):
        residue(model, FACTS, pool=POOL, readouts=[LENS])


@pytest.fixture(scope="module")
def world() -> tuple[Model, list[Fact], list[Fact], list[Fact]]:
    """The small trained model, facts it knows, facts of newcomers it never read, and all records."""
    made = made_world()
    records = made.records(["born_in", "capital", "currency", "industry", "official_language"])
    some = newcomers(made, 16, seed=1)
    larger = made.with_newcomers(some)
    facts = random.Random(0).sample(records, 24)
    return (
        pal.load("world"),
        facts,
        [larger.record(triple) for triple in some.facts if triple.relation == "born_in"],
        records,
    )


def test_known_facts_of_the_world_show_and_others_do_not(
    world: tuple[Model, list[Fact], list[Fact], list[Fact]],
) -> None:
    model, facts, unknown, pool = world
    found = residue(model, facts, unknown=unknown, pool=pool, readouts=[LENS], controls=3)
    assert len(found.facts) == 24
    for control in (SAME_ANSWER, NEVER_KNOWN):
        assert found.auc(control).value > 0.95
    certificates = found.certificates()
    assert certificates.unedited.value < 0.2
    assert certificates.controls.value == pytest.approx(0.95, abs=0.08)
    assert certificates.unknown is not None
    assert certificates.unknown.value > 0.6
    rank = found.standing["logit lens"][0, :, -1, 0, 0]
    assert np.median(rank) == 1


def test_the_facts_a_gate_turns_away_are_the_never_known_ones(
    world: tuple[Model, list[Fact], list[Fact], list[Fact]],
) -> None:
    model, facts, unknown, pool = world
    found = residue(model, [*facts[:8], *unknown[:6]], pool=pool, readouts=[LENS], controls=6)
    assert {fact.id for fact in found.facts} == {fact.id for fact in facts[:8]}
    assert {pair.of for pair in found.pairs if pair.group == NEVER_KNOWN} == {fact.id for fact in unknown[:6]}
    assert found.settings["not_known"] == 6


def test_rome_lowers_what_shows(world: tuple[Model, list[Fact], list[Fact], list[Fact]]) -> None:
    """At the output, on the prompt it optimised, the old answer sinks; whether it is gone elsewhere is what the pages measure."""
    model, facts, _, pool = world
    editor = import_module("palimpsest.edit").editor(model, "rome", steps=8, contexts=())
    edits = [editor.edit([fact]) for fact in facts[:8]]
    found = residue(model, facts[:8], edits, pool=pool, readouts=[LENS], controls=6)
    last = found.columns.index(Column("logit lens", "prompt", model.n_layers - 1))
    edited = found.group(EDITED)
    assert np.median(found.after[edited, last] - found.before[edited, last]) < -1
    assert isinstance(found, Residue)
    assert found.auc().value <= found.auc(when="before").value
