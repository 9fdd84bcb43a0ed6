"""`palimpsest erase` on a tiny model: what it writes and prints, and how each mistake ends."""

import io
import json
import sys

import pytest

from families import build, byte_tokenizer
from palimpsest.cli.main import main
from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Hook

WORDS = ("king", "river", "house", "tower", "market", "bridge", "road", "forest", "town", "sea")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build("gpt2").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def erase(monkeypatch, model):
    """`erase(...)` gives the exit code and what was printed."""

    def run(*arguments: object):
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["palimpsest", "erase", str(model), *map(str, arguments)])
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, out.getvalue(), err.getvalue()

    return run


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "number.json"
    texts = [
        {"text": f"{start} {word}{'s' * many}", "label": "plural" if many else "singular", "group": word}
        for word in WORDS
        for start in ("The old", "We saw the")
        for many in (0, 1)
    ]
    path.write_text(json.dumps(texts))
    return path


def test_labelled_texts_at_one_layer(erase, labels, tmp_path) -> None:
    code, out, err = erase("--concept", labels, "--layers", 1, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["concept"] == "number"
    assert found["classes"] == {"plural": 20, "singular": 20}
    assert [(row["site"], row["states"], row["rank"]) for row in found["sites"]] == [("resid_out[1]", 40, 1)]
    edit = Edit.load(found["file"])
    assert edit.method == "leace"
    assert isinstance(edit.payloads[0], Hook)
    code, out, err = erase("--concept", labels, "--out", tmp_path / "whole")
    assert code == 0, err
    assert "resid_in[0]" in out
    assert "resid_out[2]" in out
    assert "edit.safetensors" in out


def test_folded(erase, labels, tmp_path) -> None:
    code, out, err = erase(
        "--concept", labels, "--layers", 1, "--kind", "mlp_out", "--fold", "--out", tmp_path / "run", "--json"
    )
    assert code == 0, err
    assert not any(isinstance(payload, Hook) for payload in Edit.load(json.loads(out)["file"]).payloads)
    code, _, err = erase("--concept", labels, "--layers", 1, "--fold", "--out", tmp_path / "no")
    assert code == 2
    assert "cannot be folded into weights" in err


def test_a_relation_of_a_file_of_facts(erase, tmp_path) -> None:
    facts = tmp_path / "facts.jsonl"
    rows = [
        {"subject": word, "prompt": "The {} is in", "target_true": answer, "relation": "place",
         "paraphrases": [f"{start} {word} is in" for start in ("We know that the", "You see the old", "A", "Some")]}
        for i, word in enumerate(WORDS)
        for answer in ("north" if i % 2 else "south",)
    ]  # fmt: skip
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = (facts, "--layers", 1, "--out", tmp_path / "run")
    code, out, err = erase(
        *arguments, "--concept", "relation:place", "--token", "last", "--control", "random", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["classes"] == {"north": 25, "south": 25}
    code, _, err = erase(*arguments, "--concept", "relation:plaice")
    assert (code, "Did you mean 'place'" in err) == (2, True)


def test_associations(erase, tmp_path) -> None:
    path = tmp_path / "unwanted.json"
    path.write_text(json.dumps([{"prompt": "The king of the", "completion": "town", "paraphrases": ["A king of the"]}]))
    code, out, err = erase("--concept", path, "--layers", "0,1", "--out", tmp_path / "run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["associations"][0]["completion"] == "town"
    assert set(found["elicitation"]["attacks"]) == {"direct", "paraphrase", "prefix", "primed"}
    assert Edit.load(found["file"]).method == "unwanted"
    code, out, err = erase("--concept", "unwanted", "--limit", 1, "--layers", 1, "--out", tmp_path / "other")
    assert code == 0, err
    assert "violets" in out
    assert "excess after" in out
    code, _, err = erase("--concept", path, "--fold", "--out", tmp_path / "run")
    assert code == 2
    assert "--fold is about erasing a concept" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--concept", "unwantd"), "There is no concept 'unwantd'. Did you mean 'unwanted'?"),
        (("--concept", "none.json"), "cannot be read"),
        (("--concept", "blimp-number"), "None of the facts is of BLiMP"),
        (("--concept", "unwanted", "--token", "last"), "--token is about a relation"),
    ],
)
def test_mistakes(erase, tmp_path, arguments, said) -> None:
    code, out, err = erase(*arguments, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_what_a_file_of_texts_does_not_use_is_refused(erase, labels, tmp_path) -> None:
    code, _, err = erase("--concept", labels, "--limit", 3, "--out", tmp_path / "run")
    assert code == 2
    assert "--limit is of facts or associations" in err
    code, _, err = erase("facts.jsonl", "--concept", labels, "--out", tmp_path / "run")
    assert code == 2
    assert "a file of its own and no FACTS are read, got 'facts.jsonl'" in err


@pytest.mark.filterwarnings("default")
def test_few_texts_are_told_in_one_sentence(erase, labels, tmp_path) -> None:
    labels.write_text(json.dumps(json.loads(labels.read_text())[:8]))
    code, _, err = erase("--concept", labels, "--out", tmp_path / "run")
    assert code == 0
    assert err.count("palimpsest: warning: 8 labelled texts are no more than the 32 dimensions of a state") == 1
    assert "erase.py" not in err


def test_one_class_is_refused(erase, tmp_path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps([{"text": "The king", "label": "a"}, {"text": "The town", "label": "a"}]))
    code, _, err = erase("--concept", path, "--out", tmp_path / "run")
    assert code == 2
    assert "needs at least two classes to be erased, got only 'a', 2 times" in err
