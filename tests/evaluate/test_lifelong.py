"""Batch and sequence: what is edited when, measured on which model, and that a killed sequence ends in the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

import palimpsest as pal
from oracles.small import FACTS, LAYER, documents, model_of, with_probes
from palimpsest.edit import EditSequence
from palimpsest.errors import InputError, PalimpsestError, SettingError
from palimpsest.evaluate import Metric, Scores, lifelong
from palimpsest.evaluate.asks import Passage
from palimpsest.evaluate.chunks import chunks_of
from palimpsest.evaluate.lifelong import check_points, steps_of
from palimpsest.evaluate.suites.counterfact import CounterFact, counterfact_scores
from palimpsest.facts import Fact
from palimpsest.facts.case import Case
from palimpsest.model import Model
from palimpsest.world import made_world

MEMIT: dict[str, Any] = {"layers": LAYER, "text": documents(), "contexts": ((5, 1),), "steps": 3}
ASKED = tuple(
    with_probes(fact, [f"So {fact.text}"], [("The capital of France is", "Paris")])
    for fact in (
        *FACTS,
        Fact("Peru", "The capital of {} is", "Lima", "Rome", id="peru", relation="capital"),
        Fact("Louvre", "The {} is located in the city of", "Paris", "Berlin", id="louvre", relation="city"),
    )
)
UNFINISHED = Fact("Chile", "The capital of {} is", "Santiago", id="chile")
SEQUENCE: dict[str, Any] = {"method": "memit", "mode": "sequence", "at": (1, 2, 5), **MEMIT}


@pytest.fixture
def model() -> Model:
    return model_of("llama")


def near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_batch_is_one_edit_of_all(model: Model, tmp_path: Path) -> None:
    scores = pal.evaluate(model, [*ASKED, UNFINISHED], method="memit", mode="batch", out=tmp_path / "a", **MEMIT)
    edit = pal.edit(model, ASKED, "memit", **MEMIT)
    with edit.applied(model):
        expected = counterfact_scores(model, ASKED)
    for record, one in zip(scores.measured, expected, strict=True):
        near(record["post"], one)
    assert [record["id"] for record in scores.failed] == ["chile"]
    assert "no target_new" in scores.failed[0]["error"]
    in_memory = pal.evaluate(model, [*ASKED, UNFINISHED], method="memit", mode="batch", **MEMIT)
    assert json.loads(json.dumps(in_memory.records)) == list(scores.records)
    assert scores.settings["mode"] == "batch"
    shards = [
        pal.evaluate(
            model, [*ASKED, UNFINISHED], method="memit", mode="batch", out=tmp_path / "b", shard=f"{i}/2", **MEMIT
        )
        for i in (1, 2)
    ]
    assert [len(shard.records) for shard in shards] == [3, 3]
    pal.evaluate(model, [*ASKED, UNFINISHED], method="memit", mode="batch", out=tmp_path / "b", **MEMIT)
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_everything_edited_so_far_is_measured_on_the_model_as_it_then_is(model: Model) -> None:
    scores = pal.evaluate(model, ASKED, **SEQUENCE)
    sequence = EditSequence(model, "memit", **MEMIT)
    for edits in range(1, 6):
        sequence.extend([ASKED[edits - 1]])
        if edits not in (1, 2, 5):
            continue
        assert sequence.edit is not None
        with sequence.edit.applied(model):
            expected = counterfact_scores(model, ASKED[:edits])
        for record, one in zip(scores.records[:edits], expected, strict=True):
            near(record["at"][str(edits)], one)
    assert all(record["post"] == record["at"]["5"] and record["edits"] == 5 for record in scores.records)
    assert [sorted(record["at"], key=int) for record in scores.records] == [["1", "2", "5"], ["2", "5"], *[["5"]] * 3]
    assert scores.check_points == [1, 2, 5]
    curve = scores.retention("em")
    assert [(row["edits"], row["estimate"].n, row["newest"].n) for row in curve] == [(1, 1, 1), (2, 2, 1), (5, 5, 3)]
    assert curve[1]["estimate"].value == pytest.approx(sum(r["at"]["2"]["em"] for r in scores.records[:2]) / 2)
    assert curve[1]["newest"].value == pytest.approx(scores.records[1]["at"]["2"]["em"])
    assert [row["edits"] for row in scores.retention_table()] == ["1", "2", "5"]
    assert scores.summary()["retention"]["s"][2]["estimate"] == scores.estimate("s").to_json()  # type: ignore[union-attr]
    assert model.fingerprint() == model_of("llama").fingerprint()


def test_steps_of_several_facts(model: Model) -> None:
    scores = pal.evaluate(model, ASKED, **(SEQUENCE | {"at": (3, 5), "together": 2}))
    sequence = EditSequence(model, "memit", **MEMIT)
    for begin, end in ((0, 2), (2, 3), (3, 5)):
        sequence.extend(ASKED[begin:end])
    assert sequence.edit is not None
    with sequence.edit.applied(model):
        for record, one in zip(scores.records, counterfact_scores(model, ASKED), strict=True):
            near(record["post"], one)


class Killed(BaseException):
    """Ends the work from outside."""


@pytest.mark.parametrize("label", ["sequence", "record"])
@pytest.mark.parametrize("when", [2, 4])
def test_a_killed_sequence_ends_in_the_same_bytes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, when: int
) -> None:
    monkeypatch.setattr(lifelong, "SAVE_EVERY", 3)
    facts = [*ASKED[:2], UNFINISHED, *ASKED[2:]]
    whole = pal.evaluate(model, facts, out=tmp_path / "whole", **SEQUENCE)
    seen = 0

    def kill(done: int, total: int, told: str) -> None:
        nonlocal seen
        seen += (told == "sequence") if label == "sequence" else told in {fact.id for fact in facts}
        if seen == when:
            raise Killed

    with pytest.raises(Killed):
        pal.evaluate(model, facts, out=tmp_path / "broken", progress=kill, **SEQUENCE)
    assert not (tmp_path / "broken" / "results.json").exists()
    again = pal.evaluate(model, facts, out=tmp_path / "broken", **SEQUENCE)
    assert again.records == whole.records
    for name in ("plan.json", "samples.jsonl", "results.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [record["id"] for record in again.failed] == ["chile"]


def test_an_edit_that_was_lost_is_not_taken_for_no_edit(model: Model, tmp_path: Path) -> None:
    pal.evaluate(model, ASKED, out=tmp_path, **SEQUENCE)
    (lost, *_) = sorted((tmp_path / "sequence").glob("edit-*.safetensors"))
    lost.unlink()
    for name in ("samples.jsonl", "results.json"):
        (tmp_path / name).unlink()
    with pytest.raises(PalimpsestError, match=lost.name):
        pal.evaluate(model, ASKED, out=tmp_path, **SEQUENCE)


def test_a_finished_sequence_edits_nothing_again_and_is_read_back(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = pal.evaluate(model, ASKED, out=tmp_path, **SEQUENCE)
    monkeypatch.setattr(EditSequence, "extend", lambda *args: pytest.fail("edited again"))
    monkeypatch.setattr(CounterFact, "measure", lambda *args: pytest.fail("measured again"))
    assert pal.evaluate(model, ASKED, out=tmp_path, **SEQUENCE).records == scores.records
    read = Scores.load(tmp_path)
    assert read.records == scores.records
    assert read.metrics == scores.metrics
    assert read.summary() == scores.summary()
    with pytest.raises(SettingError, match="at"):
        pal.evaluate(model, ASKED, out=tmp_path, **(SEQUENCE | {"at": (1, 5)}))
    with pytest.raises(SettingError, match="Did you mean 'es'"):
        read.retention("ess")


def test_a_step_that_fails_is_told_and_the_others_stand(model: Model) -> None:
    lost = Fact("Atlantis", "The capital of {} is", "Poseidonis", "x" * 400, id="lost")
    scores = pal.evaluate(model, [ASKED[0], lost, ASKED[1]], **(SEQUENCE | {"at": ()}))
    assert [record["id"] for record in scores.failed] == ["lost"]
    sequence = EditSequence(model, "memit", **MEMIT)
    sequence.extend([ASKED[0]])
    sequence.extend([ASKED[1]])
    assert sequence.edit is not None
    with sequence.edit.applied(model):
        for record, one in zip(scores.measured, counterfact_scores(model, ASKED[:2]), strict=True):
            near(record["post"], one)


def test_what_is_asked_of_no_fact_is_asked_at_every_check_point(model: Model) -> None:
    class Reading:
        """How likely a passage is, where there is one."""

        name = "reading"
        metrics = {"nats": Metric("nll of the passage", False, "nats")}

        def asks(self, case: Case) -> list[Any]:
            return [Passage(case.text or case.fact.text)]

        def measure(self, case: Case, before: Any, after: Any) -> dict[str, float | None]:
            return {"nats": after.passage(case.text or case.fact.text).nll}

    text = Case("page", text="The capital of France is near the river.")
    settings = SEQUENCE | {"at": (1, 2)}
    scores = pal.evaluate(model, [*ASKED[:3], text], suite=Reading(), **settings)
    page = scores.records[-1]
    assert sorted(page["at"]) == ["1", "2"]
    assert page["at"]["1"]["nats"] != page["at"]["2"]["nats"] != page["pre"]["nats"]
    assert "post" not in scores.records[2]  # written after the last check point
    assert scores.records[2]["edits"] == 0


def test_check_points_and_steps() -> None:
    assert check_points((), 7) == (7,)
    assert check_points((5, 1, 5), 7) == (1, 5)
    cases = [Case(str(i), text="x") for i in range(7)]
    assert [len(step) for step in steps_of(cases, (1, 5), 3)] == [1, 3, 1]
    assert [case.id for step in steps_of(cases, (1, 7), 3) for case in step] == list("0123456")
    for wrong in (0, 8):
        with pytest.raises(SettingError, match="from 1 to 7"):
            check_points((wrong,), 7)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mode": "batch"}, "no method"),
        ({"mode": "bach", "method": "memit"}, "Did you mean 'batch'"),
        ({"method": "memit", "at": (1,)}, "mode='sequence'"),
        ({"method": "memit", "mode": "sequence", "together": 0}, "1 case or more"),
        ({"method": "memit", "mode": "sequence", "at": (9,)}, "from 1 to 5"),
    ],
)
def test_a_mode_that_cannot_be(model: Model, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        pal.evaluate(model, ASKED, **settings)


def test_a_case_without_facts_cannot_be_edited_by_itself(model: Model) -> None:
    scores = pal.evaluate(model, [ASKED[0], Case("page", text="x")], method="memit", **MEMIT)
    assert "0 facts" in scores.failed[0]["error"]


@pytest.mark.parametrize("count", [0, 1, 12, 13, 200, 500])
def test_chunks_hold_everything_once_and_belong_to_one_shard(count: int) -> None:
    items = list(range(count))
    chunks = [list(chunk) for chunk in chunks_of(items)]
    assert sorted(item for chunk in chunks for item in chunk) == items
    assert all(len(chunk) <= 16 for chunk in chunks)
    for shards in (2, 3, 4, 6, 12):
        assert all(len({item % shards for item in chunk}) == 1 for chunk in chunks)


def test_many_facts_and_any_shards_give_the_same_bytes(tmp_path: Path) -> None:
    model = model_of("gpt2")
    facts = [
        with_probes(
            Fact(f"town {i}", "The {} is in", "Paris", "Rome", id=f"t{i}"),
            [f"Where is town {i}? In"],
            [(f"Lyon {i % 3} is in", "Paris")],
        )
        for i in range(26)
    ]
    suite = "counterfact+locality"
    whole = pal.evaluate(model, facts, out=tmp_path / "whole", suite=suite)
    assert [record["id"] for record in whole.records] == [fact.id for fact in facts]
    for count in (2, 5):
        for i in range(1, count + 1):
            pal.evaluate(model, facts, out=tmp_path / str(count), suite=suite, shard=f"{i}/{count}")
        pal.evaluate(model, facts, out=tmp_path / str(count), suite=suite)
        for name in ("samples.jsonl", "results.json"):
            assert (tmp_path / str(count) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_order_of_facts_changes_no_number() -> None:
    model = model_of("gpt2")
    one = {record["id"]: record for record in pal.evaluate(model, ASKED).records}
    for record in pal.evaluate(model, ASKED[::-1]).records:
        near(record["pre"], one[record["id"]]["pre"])


def test_a_batch_on_a_model_that_knows_its_facts() -> None:
    """The made world's model: old answers before, new ones after, teacher-forced and written freely."""
    world = pal.load("world")
    facts = made_world().records(["founder"], probes=2)[:3]
    suite = "counterfact+teacher_forcing+generation+locality"
    scores = pal.evaluate(world, facts, method="ft", mode="batch", suite=suite, steps=100)

    def value(metric: str, when: str) -> float:
        found = scores.estimate(metric, when)
        assert found is not None
        return found.value

    assert value("es", "pre") == value("tf_exact", "pre") == value("gen_begins", "pre") == 0
    assert value("es", "post") == value("tf_exact", "post") == value("gen_begins", "post") == 1
    assert value("ns", "pre") == 1
    assert value("kl", "post") > 0
    assert scores.estimate("kl", "pre") is None
    assert all(record["eligible"] for record in scores.records)


def test_no_facts(model: Model) -> None:
    with pytest.raises(InputError, match="no facts"):
        pal.evaluate(model, [], mode="batch", method="memit")


@pytest.mark.parametrize("mode", ["batch", "sequence"])
def test_nothing_to_write(model: Model, mode: str) -> None:
    with pytest.raises(InputError, match=f"No case can be written by a {mode}, because: the cases hold no facts; give"):
        pal.evaluate(model, [Case("page", text="x y")], method="memit", mode=mode, suite="text", **MEMIT)


@pytest.mark.parametrize("mode", ["each", "batch", "sequence"])
def test_a_fact_that_no_tokenizer_reads_harms_no_other(model: Model, mode: str) -> None:
    bad = with_probes(Fact("\ud800", "The {} is in", "Paris", "Rome", id="half"), [], [("The Thames is in", "London")])
    scores = pal.evaluate(model, [ASKED[0], bad], method="memit", mode=mode, suite="locality", **MEMIT)
    assert [record["id"] for record in scores.failed] == ["half"]
    assert "cannot read the fact 'half'" in scores.failed[0]["error"]
    assert [bool(record.get("post")) for record in scores.measured] == [True]
