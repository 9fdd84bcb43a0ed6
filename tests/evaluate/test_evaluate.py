"""`evaluate`: the model is left as found, failures stand in their records, and a killed run ends in the same bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, LAYER, documents, model_of, smollm2, with_probes
from palimpsest.edit import SecondMoment
from palimpsest.errors import InputError, OutputError, SettingError, WeightError
from palimpsest.evaluate import Scores, counterfact_scores
from palimpsest.evaluate.suites.counterfact import CounterFact
from palimpsest.evaluate.suites.coverage import Coverage
from palimpsest.facts import Fact
from palimpsest.model import Model

ROME: dict[str, Any] = {"method": "rome", "layers": LAYER, "text": documents(), "contexts": ((5, 1),), "steps": 4}
ASKED = tuple(with_probes(f, [f"So {f.text}"], [("The capital of France is", "Paris")]) for f in FACTS)
UNFINISHED = Fact("Peru", "The capital of {} is", "Lima", id="peru")


@pytest.fixture
def model() -> Model:
    return model_of("llama")


def left_alone(model: Model) -> bool:
    """Whether the model is as it was built."""
    clean = not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())
    return clean and model.applied == [] and model.fingerprint() == model_of("llama").fingerprint()


def test_without_an_edit_there_is_only_before(model: Model) -> None:
    scores = pal.evaluate(model, ASKED)
    assert [record["id"] for record in scores.records] == [fact.id for fact in ASKED]
    for fact, record in zip(ASKED, scores.records, strict=True):
        assert "post" not in record
        assert record["pre"] == pytest.approx(counterfact_scores(model, [fact])[0], abs=1e-5)
        assert record["eligible"] == (record["pre"]["nll_true"] < record["pre"]["nll_new"])
        assert (record["relation"], record["subject"]) == (fact.relation, fact.subject)
    assert left_alone(model)


def test_a_method_edits_each_fact_by_itself(model: Model) -> None:
    scores = pal.evaluate(model, ASKED, **ROME)
    for fact, record in zip(ASKED, scores.records, strict=True):
        edit = pal.edit(model, [fact], **ROME)
        with edit.applied(model):
            assert record["post"] == pytest.approx(counterfact_scores(model, [fact])[0], abs=1e-5)
        assert record["edit"] == edit.notes
        assert record["post"]["nll_new"] < record["pre"]["nll_new"]
    assert left_alone(model)


def test_one_edit_for_all_facts(model: Model) -> None:
    edit = pal.edit(model, ASKED[:1], **ROME)
    for dose in (1.0, 0.5):
        scores = pal.evaluate(model, ASKED, edit=edit, dose=dose)
        with edit.applied(model, dose):
            after = [counterfact_scores(model, [fact])[0] for fact in ASKED]
        for record, expected in zip(scores.records, after, strict=True):
            assert record["post"] == pytest.approx(expected, abs=1e-5)
        assert "edit" not in scores.records[0]
        assert scores.settings["dose"] == dose
    assert left_alone(model)


@pytest.mark.parametrize("out", [False, True])
def test_a_fact_that_fails_stands_in_its_record_and_harms_no_other(model: Model, out: bool, tmp_path: Path) -> None:
    folder = tmp_path if out else None
    alone = pal.evaluate(model, ASKED, **ROME)
    scores = pal.evaluate(model, [ASKED[0], UNFINISHED, *ASKED[1:]], out=folder, **ROME)
    assert scores.records[1]["id"] == "peru"
    assert set(scores.records[1]) == {"id", "error"}
    assert "no target_new" in scores.records[1]["error"]
    assert [record["id"] for record in scores.failed] == ["peru"]
    assert [record["post"]["nll_new"] for record in scores.measured] == [r["post"]["nll_new"] for r in alone.records]
    assert (scores.summary()["n"], scores.summary()["failed"]) == (3, 1)
    assert left_alone(model)


class Killed(BaseException):
    """Ends the work from outside."""


def kill_after(done: int) -> Any:
    """A progress function that ends the work."""

    def progress(now: int, total: int, label: str) -> None:
        if label in {fact.id for fact in ASKED} and now == done:
            raise Killed

    return progress


def test_an_interrupted_run_ends_in_the_same_bytes(model: Model, tmp_path: Path) -> None:
    whole = pal.evaluate(model, ASKED, out=tmp_path / "whole", **ROME)
    for done in (1, 2):
        with pytest.raises(Killed):
            pal.evaluate(model, ASKED, out=tmp_path / "broken", progress=kill_after(done), **ROME)
        assert len((tmp_path / "broken" / "samples.jsonl").read_bytes().splitlines()) == done
        assert not (tmp_path / "broken" / "results.json").exists()
        assert left_alone(model)
    again = pal.evaluate(model, ASKED, out=tmp_path / "broken", **ROME)
    for name in ("plan.json", "samples.jsonl", "results.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert again.records == whole.records
    assert again.summary() == whole.summary()


def test_a_finished_run_measures_nothing_again_and_files_say_what_memory_says(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = pal.evaluate(model, ASKED, out=tmp_path, **ROME)
    lines = (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(scores.records)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["n"] == 3
    assert results["post"]["es"]["value"] == scores.estimate("es").value  # type: ignore[union-attr]
    in_memory = pal.evaluate(model, ASKED, **ROME)
    assert json.loads(json.dumps(in_memory.records)) == list(scores.records)
    monkeypatch.setattr(CounterFact, "measure", lambda *args: pytest.fail("measured again"))
    assert pal.evaluate(model, ASKED, out=tmp_path, **ROME).records == scores.records


def test_the_plan_stays_short_and_another_plan_is_refused(model: Model, tmp_path: Path) -> None:
    pal.evaluate(model, ASKED[:1], out=tmp_path, **ROME)
    assert documents()[:100] not in (tmp_path / "plan.json").read_text("utf-8")
    with pytest.raises(SettingError, match="steps"):
        pal.evaluate(model, ASKED[:1], out=tmp_path, **(ROME | {"steps": 3}))
    with pytest.raises(SettingError, match="text"):
        pal.evaluate(model, ASKED[:1], out=tmp_path, **(ROME | {"text": documents() + " more"}))
    with pytest.raises(SettingError, match="facts"):
        pal.evaluate(model, ASKED[:2], out=tmp_path, **ROME)
    changed = replace(ASKED[0], target_new="Kyoto")
    with pytest.raises(SettingError, match="facts"):
        pal.evaluate(model, [changed], out=tmp_path, **ROME)
    with pytest.raises(SettingError, match="dose"):
        pal.evaluate(model, ASKED[:1], out=tmp_path, dose=0.5, **ROME)


def test_everything_the_numbers_depend_on_is_recorded(model: Model, tmp_path: Path) -> None:
    summary = pal.evaluate(model, ASKED[:1], out=tmp_path, **ROME).summary()
    settings = summary["settings"]
    assert settings["method"] == "rome"
    assert settings["weights"] == model.fingerprint()
    assert {"preset", "layers", "key", "context_texts", "moments", "values", "seed"} <= settings[
        "method_settings"
    ].keys()
    assert {"palimpsest", "torch", "transformers"} == settings["versions"].keys()


def test_another_edit_of_the_same_facts_is_another_plan(model: Model, tmp_path: Path) -> None:
    first = pal.edit(model, ASKED[:1], **ROME)
    second = pal.edit(model, [replace(ASKED[0], target_new="Kyoto")], **ROME)
    pal.evaluate(model, ASKED[:1], edit=first, out=tmp_path)
    with pytest.raises(SettingError, match="edit.sha256"):
        pal.evaluate(model, ASKED[:1], edit=second, out=tmp_path)


def test_another_setting_of_a_suite_is_another_plan(model: Model, tmp_path: Path) -> None:
    pal.evaluate(model, ASKED[:1], suite=Coverage(0.9), out=tmp_path)
    with pytest.raises(SettingError, match="suite_settings"):
        pal.evaluate(model, ASKED[:1], suite=Coverage(0.8), out=tmp_path)


def test_one_fact_need_not_be_a_list(model: Model) -> None:
    assert len(pal.evaluate(model, ASKED[0]).records) == 1


def test_shards_make_the_whole(model: Model, tmp_path: Path) -> None:
    whole = pal.evaluate(model, ASKED, out=tmp_path / "whole", **ROME)
    shards = [pal.evaluate(model, ASKED, out=tmp_path / "parts", shard=f"{i}/2", **ROME) for i in (1, 2)]
    assert [len(shard.records) for shard in shards] == [2, 1]
    assert not (tmp_path / "parts" / "results.json").exists()
    joined = pal.evaluate(model, ASKED, out=tmp_path / "parts", **ROME)
    assert joined.records == whole.records
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "kind", "sentence"),
    [
        ({"suite": "counterfat"}, SettingError, "Did you mean 'counterfact'"),
        ({"method": "rmoe"}, SettingError, "Did you mean 'rome'"),
        (ROME | {"preset": "fixd"}, SettingError, "Did you mean 'fixed'"),
        (ROME | {"layers": 7}, SettingError, "Did you mean 2"),
        (ROME | {"step": 7}, SettingError, "Did you mean 'steps'"),
        ({"shard": "1/2"}, SettingError, "output folder"),
        ({"shard": "3/2", "out": "run"}, SettingError, "3/2"),
        ({"steps": 3}, SettingError, "steps"),
    ],
)
def test_a_mistake_ends_the_work_with_one_sentence(
    model: Model, settings: dict[str, Any], kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    places = (
        [settings | {"out": tmp_path / "run"}]
        if "out" in settings
        else [settings, settings | {"out": tmp_path / "run"}]
    )
    if settings == {"shard": "1/2"}:
        places = [settings]
    for given in places:
        with pytest.raises(kind, match=sentence) as refused:
            pal.evaluate(model, ASKED, **given)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "samples.jsonl").exists() or not (tmp_path / "run" / "samples.jsonl").read_bytes()


def test_facts_and_edits_that_cannot_be(model: Model, tmp_path: Path) -> None:
    edit = pal.edit(model, [EIFFEL], **ROME)
    with pytest.raises(InputError, match="not both"):
        pal.evaluate(model, ASKED, edit=edit, **ROME)
    with pytest.raises(InputError, match="no facts"):
        pal.evaluate(model, [])
    with pytest.raises(InputError, match="own id"):
        pal.evaluate(model, [JAPAN, JAPAN])
    with pytest.raises(WeightError, match="down_proj"):
        pal.evaluate(model_of("llama", seed=5), ASKED, edit=edit)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        pal.evaluate(model, ASKED, out=tmp_path / "file")
    assert left_alone(model)


def test_facts_with_one_subject_and_prompt_need_ids(model: Model) -> None:
    twins = [Fact("Japan", "{} has", "Tokyo", new) for new in ("Kyoto", "Paris")]
    with pytest.raises(InputError, match="own id"):
        pal.evaluate(model, twins)


def test_progress_counts_every_fact(model: Model) -> None:
    seen: list[tuple[int, int, str]] = []
    pal.evaluate(model, ASKED, progress=lambda done, total, label: seen.append((done, total, label)))
    assert [step for step in seen if step[2]] == [(i + 1, 3, fact.id) for i, fact in enumerate(ASKED)]


def test_smollm2_before_and_after() -> None:
    model = smollm2()
    fact = with_probes(
        Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome"),
        ["The Eiffel Tower can be found in"],
        [("The Louvre is located in the city of", "Paris")],
    )
    moment = SecondMoment.identity(1536)
    scores = pal.evaluate(model, [fact], method="rome", layers=9, moments={9: moment}, steps=8, contexts=((5, 1),))
    assert isinstance(scores, Scores)
    (record,) = scores.records
    assert record["eligible"]
    assert (record["pre"]["es"], record["post"]["es"]) == (0.0, 1.0)
