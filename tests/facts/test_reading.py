"""`read_facts` from the outside: where facts come from, how the schema is found, what a mistake is told, writing."""

import io
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.errors import OutputError, RecordError, SettingError
from palimpsest.facts import Fact, FactFile, Probe, read_facts, reading, shipped_text, text, write_facts

TOWER = Fact(
    subject="Eiffel Tower",
    prompt="The {} is in",
    target_true="Paris",
    target_new="Rome",
    paraphrases=("One finds\nthe Eiffel Tower in",),
    neighbours=(Probe("The Louvre is in", "Paris"),),
)
OPERA = Fact(subject="Sydney Opera House", prompt="The {} is in", target_true="Sydney")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "facts.jsonl"
    write_facts(file, [TOWER, OPERA])
    return file


def test_what_is_written_is_read_back(path: Path) -> None:
    facts = read_facts(path)
    assert facts.facts == (TOWER, OPERA)
    assert (facts.problems, facts.source, facts.schema) == ((), str(path), "jsonl")
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


@given(subject=st.text(min_size=1).filter(str.strip), answer=st.text(min_size=1).filter(str.strip))
def test_any_text_is_read_back(tmp_path_factory: pytest.TempPathFactory, subject: str, answer: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    fact = Fact(subject=subject, prompt="Of {} one says", target_true=answer, paraphrases=(answer,))
    write_facts(file, [fact])
    assert read_facts(file).facts == (fact,)


def test_a_fact_file_is_a_sequence_of_facts(path: Path) -> None:
    facts = read_facts(path)
    assert isinstance(facts, FactFile)
    assert len(facts) == 2
    assert list(facts) == [TOWER, OPERA]
    assert facts[0] is facts.facts[0]
    assert facts[-1] == OPERA
    assert facts[:1] == (TOWER,)
    assert OPERA in facts
    assert list(reversed(facts)) == [OPERA, TOWER]
    assert "2 facts, 0 problems, jsonl" in repr(facts)
    with pytest.raises(IndexError):
        facts[2]


def test_a_path_may_be_text_or_a_path(path: Path) -> None:
    assert read_facts(str(path)) == read_facts(path)


def test_lists_lines_and_single_records_read_alike(tmp_path: Path) -> None:
    file = tmp_path / "facts"
    for written in (
        json.dumps([TOWER.to_json()]),
        json.dumps([TOWER.to_json()], indent=2),
        json.dumps(TOWER.to_json()),
        json.dumps(TOWER.to_json(), indent=4) + "\n",
    ):
        file.write_text(written, encoding="utf-8")
        assert read_facts(file).facts == (TOWER,)


def test_standard_input(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes() + b'{"subject": "x"}\n')))
    facts = read_facts("-")
    assert len(facts) == 2
    assert facts.source == "-"
    assert str(facts.problems[0]).startswith("standard input, line 3, field 'prompt': a fact needs the field 'prompt'")


def test_limit_stops_after_so_many_good_facts(tmp_path: Path, path: Path) -> None:
    assert read_facts(path, limit=1).facts == (TOWER,)
    assert len(read_facts(path, limit=99)) == 2
    file = tmp_path / "bad-first.jsonl"
    file.write_text('{"subject": "x"}\n' + path.read_text(encoding="utf-8") + '{"subject": "y"}\n', encoding="utf-8")
    facts = read_facts(file, limit=2)
    assert (len(facts), len(facts.problems)) == (2, 1)
    with pytest.raises(SettingError, match="limit must be at least 1, got 0"):
        read_facts(path, limit=0)


def test_a_long_file_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    write_facts(file, (Fact(subject=f"town {n}", prompt="{} is in", id=str(n)) for n in range(150)))
    assert [fact.id for fact in read_facts(file)] == [str(n) for n in range(150)]


def test_a_file_cut_short_yields_what_stands_before_the_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    facts = read_facts(path)
    assert facts.facts == (TOWER,)
    assert str(facts.problems[0]) == (
        f"{path}, line 2: the file ends in the middle of record 2; 1 record was read before it"
    )


def test_when_no_record_is_good_the_first_problem_is_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"subject": "x"}\n{"prompt": "{} is"}\n')
    with pytest.raises(RecordError) as raised:
        read_facts(file)
    assert str(raised.value) == (
        f"No fact could be read; the first of 2 problems is: {file}, line 1, field 'prompt': "
        f"a fact needs the field 'prompt'; this record was left out."
    )
    file.write_text("[1]")
    with pytest.raises(RecordError, match="the only problem is: .* must be an object with named fields, got 1"):
        read_facts(file)
    file.write_text("[]")
    with pytest.raises(RecordError, match="holds no record"):
        read_facts(file)
    file.write_text("")
    with pytest.raises(RecordError, match="is empty"):
        read_facts(file)
    file.write_text("This is a letter.\nIt holds no facts.\n")
    with pytest.raises(RecordError, match=r"the first of 2 problems is: .*, line 1: record 1 is not valid JSON"):
        read_facts(file)


def test_a_schema_that_is_not_known_is_told_by_its_fields(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('[{"question": "Where?", "answer": "Here"}]')
    with pytest.raises(RecordError) as raised:
        read_facts(file)
    assert "the fields of the record on line 1 are answer, question;" in str(raised.value)
    assert (
        "the schemas known are counterfact, zsre, knowedit, counterfact_flat, known_1000, blimp, pararel, jsonl."
        in str(raised.value)
    )


@pytest.mark.parametrize(
    ("record", "benchmark"),
    [
        ({"requested_rewrite": [{"prompt": "{} is"}], "questions": [], "new_answer": "y"}, "MQuAKE"),
        ({"example_type": "popular", "edit": {"prompt": "x is"}, "Relation_Specificity": []}, "RippleEdits"),
    ],
)
def test_benchmarks_of_cases_are_left_to_read_cases(tmp_path: Path, record: dict[str, object], benchmark: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps([record]))
    with pytest.raises(RecordError, match=f"this looks like {benchmark}, whose records .* read it with read_cases"):
        read_facts(file)


def test_the_schema_of_cases_is_not_one_of_facts(path: Path) -> None:
    with pytest.raises(SettingError, match=r"'mquake' \(MQuAKE\) holds cases and no single facts; use read_cases"):
        read_facts(path, schema="mquake")


def test_what_a_file_looks_like_is_said_when_it_is_read_by_another_schema(tmp_path: Path) -> None:
    file = tmp_path / "zsre.json"
    file.write_text(json.dumps([{"subject": "x", "src": "Who is x?", "alt": "z", "answers": ["y"]}]))
    with pytest.raises(RecordError, match="This looks like zsRE; read it with schema='zsre'"):
        read_facts(file, schema="counterfact")


def test_a_schema_can_be_named(path: Path) -> None:
    assert len(read_facts(path, schema="jsonl")) == 2
    with pytest.raises(RecordError, match=r"field 'requested_rewrite\."):
        read_facts(path, schema="counterfact")
    with pytest.raises(SettingError, match="There is no schema 'counterfct'. Did you mean 'counterfact'?"):
        read_facts(path, schema="counterfct")


def test_schemas_have_names_of_their_own() -> None:
    names = [schema.name for schema in (*reading.SCHEMAS, *reading.CASE_SCHEMAS)]
    assert len(set(names)) == len(names)
    assert names[:3] == ["counterfact", "zsre", "knowedit"]
    assert names[-3:] == ["mquake", "ripple", "blimp_pairs"]


def test_a_missing_file_is_told_its_nearest_names(path: Path) -> None:
    with pytest.raises(RecordError, match=r"There is no file .*fact\.jsonl\. Did you mean 'facts\.jsonl'\?"):
        read_facts(path.with_name("fact.jsonl"))
    with pytest.raises(RecordError, match=r"There is no file .* Choose one of: facts\.jsonl, shipped, reasoning\."):
        read_facts(path.with_name("zzz"))
    with pytest.raises(RecordError, match="no folder .*nowhere either"):
        read_facts(path.parent / "nowhere" / "facts.jsonl")


def test_a_misspelt_shipped_name_is_told_the_right_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="There is no file shiped. Did you mean 'shipped'?"):
        read_facts("shiped")


def test_a_folder_is_told_what_is_in_it(path: Path) -> None:
    with pytest.raises(RecordError, match=r"is a folder; name a file of facts in it, such as facts\.jsonl\."):
        read_facts(path.parent)


def test_a_name_that_cannot_be_a_file() -> None:
    with pytest.raises(RecordError, match="cannot be read: File name too long"):
        read_facts("x" * 5000)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(RecordError, match="cannot be read: Permission denied"):
        read_facts(path)


def test_a_path_called_like_a_shipped_set_is_a_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.chdir(path.parent)
    path.rename(path.with_name("shipped"))
    assert len(read_facts("./shipped")) == 2
    assert len(read_facts(Path("shipped"))) == 2


def test_the_shipped_set_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    data = path.parent / "data"
    data.mkdir()
    path.rename(data / "shipped.jsonl")
    monkeypatch.setattr(resources, "files", lambda package: path.parent)
    facts = read_facts("shipped")
    assert facts.facts == (TOWER, OPERA)
    assert facts.source == "shipped"


def test_a_missing_shipped_set_is_an_installation_that_lacks_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(RecordError, match=r"facts/data/shipped\.jsonl\) is missing from this installation"):
        read_facts("shipped")


def test_shipped_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(text.resources, "files", lambda package: tmp_path)
    with pytest.raises(RecordError, match=r"plain-english\.txt\) is missing from this installation"):
        shipped_text()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plain-english.txt").write_text("Zoë reads.\n", encoding="utf-8")
    assert shipped_text() == "Zoë reads.\n"


def test_writing_that_is_stopped_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()

    def stopped() -> object:
        yield TOWER
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_facts(path, stopped())  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["facts.jsonl"]


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="The facts cannot be written to .*facts.jsonl: No such file"):
        write_facts(tmp_path / "nowhere" / "facts.jsonl", [TOWER])


def test_importing_facts_imports_no_torch() -> None:
    code = "import sys, palimpsest.facts; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    source = str(Path(reading.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert run.stdout.strip() == "[]"
