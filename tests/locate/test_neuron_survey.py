"""`palimpsest neurons`: what it writes, that it resumes, and that no fact is dropped."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import palimpsest.locate.neuron.survey as survey
from families import build, byte_tokenizer
from oracles.small import FACTS, model_of
from palimpsest.cli.neurons import command
from palimpsest.facts import Fact
from palimpsest.locate.neuron.effects import neuron_effects
from palimpsest.locate.neuron.shared import knowledge_neurons
from palimpsest.locate.neuron.survey import NeuronWork, neurons_in, survey_table

LONG = Fact("x " * 300, "{} is", "Paris", id="long")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    build("gpt2").save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    return place


def ask(folder: Path, facts: list[Fact], out: Path, *more: str) -> Result:
    file = out.parent / "facts.jsonl"
    file.write_text("".join(json.dumps(fact.to_json()) + "\n" for fact in facts))
    arguments = [str(folder), str(file), "--out", str(out), "--steps", "2", "--random-sets", "2", *more]
    return CliRunner().invoke(command, arguments)


def test_the_command_prints_a_row_a_fact_and_writes_everything(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    done = ask(folder, list(FACTS), tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result["passed"]) | set(result["not_passed"]) == {fact.id for fact in FACTS}
    again = ask(folder, list(FACTS), tmp_path / "out")
    assert again.exit_code == 0
    lines = again.stdout.splitlines()
    assert lines[0].split()[:4] == ["fact", "passes", "neurons", "layers"]
    assert [line.split()[0] for line in lines[1:4]] == [fact.id for fact in FACTS]
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert [s["id"] for s in samples] == [f"{kind}:{fact.id}" for kind in ("neurons", "effects") for fact in FACTS]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == result


def test_an_interrupted_run_goes_on_and_ends_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert ask(folder, list(FACTS), tmp_path / "a" / "out").exit_code == 0
    real, calls = survey.neuron_effects, []

    def failing(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **settings)

    monkeypatch.setattr(survey, "neuron_effects", failing)
    assert ask(folder, list(FACTS), tmp_path / "b" / "out").exit_code != 0
    monkeypatch.setattr(survey, "neuron_effects", real)
    assert ask(folder, list(FACTS), tmp_path / "b" / "out").exit_code == 0
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()


def test_a_bad_fact_is_named_and_stops_no_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    done = ask(folder, [LONG, *FACTS], tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert "neurons:long: The text is" in done.stderr
    assert "effects:long: The fact long has no neurons" in done.stderr
    assert set(json.loads(done.stdout)["failed"]) == {"neurons:long", "effects:long"}
    assert "1 facts could not be measured" in done.stderr


def test_an_unknown_preset_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    done = ask(folder, list(FACTS), tmp_path / "out", "--preset", "dai")
    assert "no preset 'dai'" in str(done.exception)


def test_the_records_are_those_of_the_library() -> None:
    model = model_of("gpt2")
    work = NeuronWork(model, FACTS, {"steps": 2}, random_sets=2, elsewhere=1)
    records: list[dict[str, Any]] = []
    for item in work.items:
        records.append({"id": item, **work.do(item, records)})
    own = knowledge_neurons(model, FACTS[0], steps=2)
    found = neurons_in(records)
    assert found[FACTS[0].id] == own.neurons
    settings = records[3]["settings"]
    partner = next(fact for fact in FACTS[1:] if [list(n) for n in found[fact.id]] == settings["other"])
    away = [fact for fact in FACTS if fact.id in settings["elsewhere"]]
    assert len(away) == 1
    assert partner not in away
    direct = neuron_effects(
        model, FACTS[0], own.neurons, other=found[partner.id], elsewhere=away, random_sets=2, seed=0
    )
    assert direct.to_json() == {name: value for name, value in records[3].items() if name != "id"}
    rows = survey_table(records)
    effect = direct.of("suppress")
    assert effect is not None
    assert rows[0]["drift own"] == effect.drift[0]
    assert rows[0]["neurons"] == len(own.neurons)


def test_pairs_pass_the_gate_where_the_answer_outranks_its_foil() -> None:
    from palimpsest.errors import SettingError
    from palimpsest.locate import eligible

    model = model_of("gpt2")
    work = NeuronWork(model, FACTS, {"steps": 1, "refine": False, "score": "logit-difference"}, gate="eligible")
    found = [work.do(f"neurons:{fact.id}", []) for fact in FACTS]
    assert [record["passes"] for record in found] == eligible(model, FACTS)
    assert found[0]["settings"]["score"] == "logit-difference"
    with pytest.raises(SettingError, match="Did you mean 'eligible'"):
        NeuronWork(model, FACTS, {}, gate="eligibel")


def test_known_facts_alone_make_the_summary() -> None:
    model = model_of("gpt2")
    work = NeuronWork(model, FACTS, {"steps": 1, "refine": False}, random_sets=1, elsewhere=1)
    records: list[dict[str, Any]] = []
    for item in work.items:
        records.append({"id": item, **work.do(item, records)})
    assert work.results(records)["not_passed"] == [fact.id for fact in FACTS]
    assert work.results(records)["summary"] == []
    for record in records[:2]:
        record["passes"] = True
    result = work.results(records)
    assert result["passed"] == [fact.id for fact in FACTS[:2]]
    assert {row["drift"].n for row in result["summary"]} == {2}
    assert "more than 3 facts" in result["facts_or_token_patterns"]["total"]
