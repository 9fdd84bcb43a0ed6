"""Generation entropy and reference similarity: by hand, against another TF-IDF, and what has no value."""

import json
import re
from math import log2
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from oracles.small import model_of
from palimpsest.edit import edit
from palimpsest.errors import FactError, InputError
from palimpsest.evaluate import answer, evaluate
from palimpsest.evaluate.asks import Written
from palimpsest.evaluate.rating import read_written
from palimpsest.evaluate.suite import Answers, Suite, suite_of
from palimpsest.evaluate.suites.fluency import Fluency, generation_entropy
from palimpsest.evaluate.tfidf import TfIdf
from palimpsest.facts import Fact
from palimpsest.facts.case import Case

TEXTS = [
    "Rome is the capital of Italy, and Rome is old.",
    "The Louvre in Paris holds many paintings; Paris is the capital of France.",
    "A baker's oven, a 2nd oven: x y z.",
]
FACT = Fact(
    "Louvre",
    "The {} is in",
    "Paris",
    "Rome",
    id="louvre",
    generation=("The Louvre is", "Near the Louvre", "The Louvre is", "Inside it", "A fourth opening"),
)


def answers(suite: Fluency, *texts: str) -> Answers:
    return Answers(dict(zip(suite.asks(Case.of(FACT)), texts, strict=True)))


def test_entropy_by_hand() -> None:
    assert generation_entropy("a b c d") == pytest.approx((2 / 3 * log2(3) + 4 / 3 * log2(2)) / 2)
    # "a b a b a": pairs ab ba ab ba, one bit; triples aba bab aba, with shares 2/3 and 1/3
    triples = -(2 / 3 * log2(2 / 3) + 1 / 3 * log2(1 / 3))
    assert generation_entropy("a b a b a") == pytest.approx((2 / 3 * 1 + 4 / 3 * triples) / 2)
    # signs are words: "so , so , so" has the runs of "a b a b a"
    assert generation_entropy("so, so, so") == generation_entropy("a b a b a")


def test_repetition_and_nothing_have_no_entropy() -> None:
    for text in ("", "one", "one two", "no no no no no no"):
        assert generation_entropy(text) == 0.0
        assert str(generation_entropy(text)) == "0.0"
    varied = " ".join(f"w{i}" for i in range(100))
    assert generation_entropy(varied) == pytest.approx((2 / 3 * log2(99) + 4 / 3 * log2(98)) / 2)
    assert generation_entropy(varied) > generation_entropy("the cat sat on the mat " * 16) > 0


def test_the_vectors_are_scikit_learn_s() -> None:
    theirs = TfidfVectorizer().fit(TEXTS)
    ours = TfIdf.of(TEXTS)
    for text in (*TEXTS, "Rome and Paris and words unknown here"):
        row = theirs.transform([text]).toarray()[0]
        expected = {word: row[i] for word, i in theirs.vocabulary_.items() if row[i]}
        assert ours.vector(text) == pytest.approx(expected)
    both = theirs.transform(TEXTS[:2]).toarray()
    assert ours.cosine(TEXTS[0], TEXTS[1]) == pytest.approx(float(np.dot(both[0], both[1])))
    assert ours.cosine(TEXTS[0], TEXTS[0]) == pytest.approx(1.0)
    assert ours.cosine("unknown", TEXTS[0]) == 0.0
    with pytest.raises(InputError, match="got 2 without any"):
        TfIdf.of(["", "! ?"])


def test_three_prompts_are_asked_each_once() -> None:
    suite = suite_of("fluency")
    assert isinstance(suite, Suite)
    assert suite.asks(Case.of(FACT)) == [
        Written(text, 100, 5, 0) for text in ("The Louvre is", "Near the Louvre", "Inside it")
    ]


def test_both_metrics_by_hand() -> None:
    suite = Fluency({"Rome": [TEXTS[0]], "Paris": [TEXTS[1]]})
    texts = (" in Rome", " Italy is old", " a b c d")
    found = suite.measure(Case.of(FACT), *[answers(suite, *texts)] * 2)
    assert found["ge"] == pytest.approx((0 + generation_entropy("Italy is old") + generation_entropy("a b c d")) / 3)
    assert found["rs"] == pytest.approx(TfIdf.of(TEXTS[:2]).cosine(" ".join(texts), TEXTS[0]))
    assert set(found) == set(suite.metrics)


def test_texts_about_the_new_answer_are_more_like_its_references() -> None:
    suite = Fluency()
    about = suite.references_of("Rome")
    assert about
    assert all("Rome" in text for text in about)
    roman = suite.measure(Case.of(FACT), *[answers(suite, about[-1], "", "")] * 2)["rs"]
    other = suite.measure(Case.of(FACT), *[answers(suite, "A bicycle needs a chain and two wheels.", "", "")] * 2)["rs"]
    assert roman is not None
    assert other is not None
    assert roman > 3 * other


def test_what_has_no_reference_or_prompt_has_no_value() -> None:
    suite = Fluency({"Paris": [TEXTS[1]]})
    assert suite.measure(Case.of(FACT), *[answers(suite, "a b c d", "", "")] * 2)["rs"] is None
    plain = Case.of(Fact("Louvre", "The {} is in", "Paris", "Paris"))
    assert suite.measure(plain, Answers({}), Answers({})) == {"ge": None, "rs": None}
    with pytest.raises(FactError, match="has no target_new"):
        suite.measure(Case.of(Fact("Louvre", "The {} is in", "Paris")), Answers({}), Answers({}))


def test_an_answer_is_found_as_a_word() -> None:
    suite = Fluency()
    about = suite.references_of("Ti")  # and not in "Time" or "Tibet"
    assert about
    assert all("Ti" in re.findall(r"\w+", text) for text in about)
    assert suite.references_of("no such answer") == ()


def test_another_suite_has_another_name(tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"Rome": TEXTS[:1]}))
    names = [Fluency(), Fluency(path), Fluency({"Rome": TEXTS[1:2]}), Fluency(tokens=50), Fluency(seed=1)]
    assert len({suite.name for suite in names}) == 5
    assert Fluency(path).name == Fluency({"Rome": TEXTS[:1]}).name
    assert Fluency().name == "fluency"


def test_what_people_rate() -> None:
    suite = Fluency()
    written = suite.written(Case.of(FACT), answers(suite, " here", " there", " nowhere"))
    assert written == {
        "statement": "The Louvre is in Rome.",
        "texts": {"The Louvre is": " here", "Near the Louvre": " there", "Inside it": " nowhere"},
    }


def test_references_must_be_texts_by_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Fluency(tmp_path / "none.json")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        Fluency(bad)
    bad.write_text("[]")
    with pytest.raises(InputError, match="must be an object of lists of texts"):
        Fluency(bad)
    with pytest.raises(InputError, match="a list of texts for 'Rome'"):
        Fluency({"Rome": "one text"})


def test_a_run_keeps_the_texts_of_the_edited_model(tmp_path: Path) -> None:
    model = model_of("gpt2")
    suite = Fluency({"Rome": TEXTS[:1]}, tokens=6)
    plain = Fact("Japan", "The capital of {} is", "Tokyo", "Rome", id="japan")  # without prompts there is no text
    unedited = evaluate(model, [FACT, plain], suite=suite, out=tmp_path / "a")
    edited = evaluate(model, [FACT, plain], suite=suite, method="ft", layers=(1,), out=tmp_path / "b")
    before, after = (read_written(tmp_path / name) for name in "ab")
    assert [text.prompt for text in before] == ["The Louvre is", "Near the Louvre", "Inside it"]
    assert len({text.statement for text in (*before, *after)}) == 1
    made = edit(model, [FACT], method="ft", layers=(1,))
    asks = suite.asks(Case.of(FACT))
    assert [text.text for text in before] == [answer(model, asks).written(ask) for ask in asks]
    with made.applied(model):
        assert [text.text for text in after] == [answer(model, asks).written(ask) for ask in asks]
    assert before != after
    for scores, when in ((unedited, "pre"), (edited, "post")):
        assert scores.records[0][when]["ge"] > 0
        assert scores.records[1][when] == {"ge": None, "rs": None}
        assert "written" not in scores.records[1]
