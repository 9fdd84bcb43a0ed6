"""Each schema on records written here, and on the real files where they are to be had."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palimpsest.errors import FactError, RecordError
from palimpsest.facts import Fact, FactFile, Probe, other_number, read_facts

NESTED: dict[str, Any] = {
    "case_id": 1234,
    "pararel_idx": 5,
    "requested_rewrite": {
        "prompt": "{} is located in the city of",
        "relation_id": "P131",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
        "subject": "Eiffel Tower",
    },
    "paraphrase_prompts": ["A sentence.\n\nAnother one. Eiffel Tower stands in", "One can visit Eiffel Tower in"],
    "neighborhood_prompts": ["The Louvre is in", "Sorbonne is in the city of"],
    "attribute_prompts": ["The Colosseum is in"],
    "generation_prompts": ["Eiffel Tower is near", "Eiffel Tower is near"],
}
FLAT: dict[str, Any] = {
    "case_id": 77,
    "prompt": "Eiffel Tower is located in the city of",
    "subject": "Eiffel Tower",
    "target_new": "Rome",
    "ground_truth": "Paris",
    "rephrase_prompt": "A sentence.\nEiffel Tower stands in",
    "locality_prompt": "The Louvre is in",
    "locality_ground_truth": "Paris",
    "easyedit_split": "train",
}
KNOWN: dict[str, Any] = {
    "known_id": 7,
    "subject": "Marshall Islands",
    "attribute": "English",
    "template": "In {}, the language spoken is",
    "prediction": " a mixture of English and Marshallese.<|endoftext|>",
    "prompt": "In Marshall Islands, the language spoken is a mixture of",
    "relation_id": "P37",
}
PAIR: dict[str, Any] = {
    "sentence_good": "That guard knows that he moved those heavy book shelves.",
    "sentence_bad": "That guard knows that he moved those heavy book shelf.",
    "one_prefix_prefix": "That guard knows that he moved those heavy",
    "one_prefix_word_good": "book shelves",
    "one_prefix_word_bad": "book shelf",
    "UID": "determiner_noun_agreement_with_adjective_1",
    "one_prefix_method": True,
    "two_prefix_method": False,
    "pairID": "12",
}
OTHER_PAIR: dict[str, Any] = {
    "sentence_good": "The guard moved this shelf.",
    "sentence_bad": "The guard moved these shelf.",
    "two_prefix_prefix_good": "The guard moved this",
    "two_prefix_prefix_bad": "The guard moved these",
    "two_prefix_word": "shelf",
    "UID": "determiner_noun_agreement_2",
    "one_prefix_method": False,
    "two_prefix_method": True,
    "pairID": "3",
}
OWN: dict[str, Any] = {"subject": "Eiffel Tower", "prompt": "The {} is in", "target_true": "Paris", "id": "tower"}

Read = Callable[..., FactFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write records as JSON lines and read them as facts."""

    def write_and_read(*records: dict[str, Any], schema: str | None = None) -> FactFile:
        path = tmp_path / "facts.jsonl"
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
        return read_facts(path, schema=schema)

    return write_and_read


def changed(record: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of a record with one field set, or taken away when the value is `...`."""
    record = copy.deepcopy(record)
    inner = record
    *steps, last = path.split(".")
    for step in steps:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return record


def test_counterfact(read: Read) -> None:
    facts = read(NESTED)
    assert facts.schema == "counterfact"
    assert facts[0] == Fact(
        subject="Eiffel Tower",
        prompt="{} is located in the city of",
        target_true="Paris",
        target_new="Rome",
        id="counterfact/1234",
        relation="P131",
        paraphrases=("A sentence.\n\nAnother one. Eiffel Tower stands in", "One can visit Eiffel Tower in"),
        neighbours=(Probe("The Louvre is in", "Paris"), Probe("Sorbonne is in the city of", "Paris")),
        generation=(Probe("Eiffel Tower is near"), Probe("Eiffel Tower is near")),
    )


def test_counterfact_without_its_prompts_and_number(read: Read) -> None:
    (fact,) = read({"requested_rewrite": changed(NESTED["requested_rewrite"], "relation_id", ...)})
    assert fact.id == "counterfact/record-1"
    assert fact.relation == fact.prompt
    assert fact.paraphrases == fact.neighbours == fact.generation == ()


def test_counterfact_flat(read: Read) -> None:
    facts = read(FLAT)
    assert facts.schema == "counterfact_flat"
    assert facts[0] == Fact(
        subject="Eiffel Tower",
        prompt="{} is located in the city of",
        target_true="Paris",
        target_new="Rome",
        id="counterfact_flat/77",
        paraphrases=("A sentence.\nEiffel Tower stands in",),
        neighbours=(Probe("The Louvre is in", "Paris"),),
    )
    assert facts[0].relation == "{} is located in the city of"
    assert facts[0].text == FLAT["prompt"]


def test_flat_without_a_number_is_named_by_its_position(read: Read) -> None:
    assert [fact.id for fact in read(FLAT, changed(FLAT, "case_id", ...))] == [
        "counterfact_flat/77",
        "counterfact_flat/record-2",
    ]


@pytest.mark.parametrize(
    ("subject", "prompt", "hole"),
    [
        ("Rome", "Rome, the city of Rome, lies in", "{}, the city of Rome, lies in"),
        ("Iran", "Iranian films are made in Iran by", "Iranian films are made in {} by"),
        ("Iran", "Iranian films are made by", "{}ian films are made by"),
        (" Rome ", "In Rome they speak", "In {} they speak"),
        ("C++ (a.k.a. C)", "C++ (a.k.a. C) was made by", "{} was made by"),
        ("{x}", "The set {x} in {y} holds", "The set {} in {y} holds"),
    ],
)
def test_the_hole_is_made_where_the_subject_stands_first(read: Read, subject: str, prompt: str, hole: str) -> None:
    (fact,) = read(FLAT | {"subject": subject, "prompt": prompt})
    assert fact.prompt == hole
    assert fact.text == prompt


def test_known_1000_uses_the_prompt_and_not_the_template(read: Read) -> None:
    facts = read(KNOWN)
    assert facts.schema == "known_1000"
    assert facts[0] == Fact(
        subject="Marshall Islands",
        prompt="In {}, the language spoken is a mixture of",
        target_true="English",
        id="known_1000/7",
        relation="P37",
    )
    assert "<|endoftext|>" not in str(facts[0])


def test_blimp(read: Read) -> None:
    facts = read(PAIR)
    assert facts.schema == "blimp"
    assert facts[0] == Fact(
        subject="those",
        prompt="That guard knows that he moved {} heavy book",
        target_true="shelves",
        target_new="shelf",
        id="blimp/determiner_noun_agreement_with_adjective_1/12",
        relation="determiner_noun_agreement_with_adjective_1",
    )
    assert f"{facts[0].text} {facts[0].target_true}." == PAIR["sentence_good"]


def test_blimp_without_words_that_are_shared_and_without_a_number(read: Read) -> None:
    words = {"one_prefix_word_good": "geese", "one_prefix_word_bad": "goose", "pairID": None}
    (fact,) = read(PAIR | words | {"one_prefix_prefix": "Thistles hurt these "})
    assert (fact.subject, fact.prompt) == ("these", "Thistles hurt {}")
    assert (fact.target_true, fact.target_new) == ("geese", "goose")
    assert fact.id == "blimp/determiner_noun_agreement_with_adjective_1/record-1"


def test_a_blimp_pair_whose_determiners_differ_stops_no_other(read: Read) -> None:
    facts = read(OTHER_PAIR, PAIR)
    assert [fact.subject for fact in facts] == ["those"]
    (problem,) = facts.problems
    assert (problem.line, problem.field) == (1, "one_prefix_method")
    assert "determiner_noun_agreement_2 differ in the determiner and not in the noun" in problem.message


@pytest.mark.parametrize(
    ("determiner", "other"), [("this", "these"), ("these", "this"), ("that", "those"), ("Those", "That")]
)
def test_the_determiner_of_the_other_number(determiner: str, other: str) -> None:
    assert other_number(determiner) == other
    assert other_number(other) == determiner


@pytest.mark.parametrize("word", ["the", "", "this one"])
def test_what_is_no_determiner_has_no_other_number(word: str) -> None:
    with pytest.raises(FactError, match=f"one of the determiners this, these, that, those, got {word!r}"):
        other_number(word)


def test_own_schema(read: Read) -> None:
    facts = read(OWN | {"far": ["Two and two make", {"prompt": "Ice is", "answer": "cold"}]})
    assert facts.schema == "jsonl"
    assert facts[0].far == (Probe("Two and two make"), Probe("Ice is", "cold"))
    assert facts[0].id == "tower"


@pytest.mark.parametrize(
    ("good", "field", "value", "said"),
    [
        (NESTED, "requested_rewrite", ..., "a fact needs the field"),
        (NESTED, "requested_rewrite.subject", ..., "a fact needs the field 'requested_rewrite.subject'"),
        (NESTED, "requested_rewrite.subject", " ", "empty or blank"),
        (NESTED, "requested_rewrite.prompt", ..., "a fact needs the field"),
        (NESTED, "requested_rewrite.prompt", "{} and {} are", "exactly one '{}' where the subject goes, found 2"),
        (NESTED, "requested_rewrite.prompt", "The tower is", "found 0"),
        (NESTED, "requested_rewrite.target_new", "Rome", "expected an object with the field 'str', got 'Rome'"),
        (NESTED, "requested_rewrite.target_new.str", "  ", "empty or blank"),
        (NESTED, "requested_rewrite.target_true.str", None, "a fact needs the field"),
        (NESTED, "requested_rewrite.relation_id", 17, "expected text, got 17"),
        (NESTED, "paraphrase_prompts", "one text", "expected a list of texts"),
        (NESTED, "neighborhood_prompts", ["x", ""], "empty or blank"),
        (NESTED, "generation_prompts", [["x"]], "expected text"),
        (NESTED, "case_id", [1], "expected a number or a name"),
        (FLAT, "prompt", ..., "a fact needs the field 'prompt'"),
        (FLAT, "subject", ..., "a fact needs the field 'subject'"),
        (FLAT, "subject", "", "empty or blank"),
        (
            FLAT,
            "prompt",
            "The Louvre is in",
            "the subject 'Eiffel Tower' does not occur in the prompt 'The Louvre is in'",
        ),
        (FLAT, "prompt", "In C, {} is Eiffel Tower", "expected complete text, found '{}'"),
        (FLAT, "target_new", ..., "a fact needs the field 'target_new'"),
        (FLAT, "target_new", "\t", "empty or blank"),
        (FLAT, "ground_truth", "", "empty or blank"),
        (FLAT, "locality_prompt", 4, "expected text, got 4"),
        (KNOWN, "attribute", ..., "a fact needs the field 'attribute'"),
        (KNOWN, "attribute", " ", "empty or blank"),
        (KNOWN, "prompt", "In France, they speak", "does not occur in the prompt"),
        (PAIR, "UID", ..., "a fact needs the field 'UID'"),
        (PAIR, "UID", "passive_2", "only the paradigms determiner_noun_agreement* become facts, got 'passive_2'"),
        (PAIR, "one_prefix_method", False, "no text has two answers"),
        (PAIR, "one_prefix_prefix", ..., "a fact needs the field 'one_prefix_prefix'"),
        (PAIR, "one_prefix_prefix", "Thistles hurt the", "none of this, these, that, those is a word of the prefix"),
        (PAIR, "one_prefix_prefix", "Sets {} hurt this", "expected complete text, found '{}'"),
        (PAIR, "one_prefix_word_good", ..., "a fact needs the field 'one_prefix_word_good'"),
        (PAIR, "one_prefix_word_bad", " ", "empty or blank"),
        (PAIR, "one_prefix_word_bad", "book shelves", "expected another last word than that of 'book shelves'"),
        (PAIR, "one_prefix_word_bad", "book", "expected another last word than that of 'book shelves', got 'book'"),
        (PAIR, "pairID", [1], "expected a number or a name"),
        (OWN, "prompt", ..., "a fact needs the field 'prompt'"),
        (OWN, "prompt", "{} or {}", "found 2"),
        (OWN, "subject", "", "empty or blank"),
        (OWN, "target_true", " ", "target_true is empty"),
        (OWN, "target_nwe", "Rome", "unknown field 'target_nwe'"),
        (OWN, "neighbours", ["x", {"answer": "y"}], "has the fields prompt, answer, before, subject, aliases, kind"),
        (OWN, "paraphrases", "x", "must be a list"),
        (OWN, "id", 5, "expected text, got 5"),
        (OWN, "relation", ["P1"], "expected text"),
    ],
)
def test_a_bad_record_names_line_and_field_and_the_rest_goes_on(
    read: Read, good: dict[str, Any], field: str, value: object, said: str
) -> None:
    number = {"case_id", "known_id", "pairID", "id"} & set(good)
    renamed = [good | dict.fromkeys(number, f"copy {copied}") for copied in range(2)]
    facts = read(renamed[0], changed(good, field, value), renamed[1])
    assert len(facts) == 2
    (problem,) = facts.problems
    assert problem.line == 2
    assert problem.field is not None
    assert problem.field.startswith(field)
    assert said in problem.message
    assert problem.message.endswith("; this record was left out")
    assert str(problem).startswith(f"{facts.source}, line 2, field '{field}")


def test_prompts_that_recur_with_conflicting_targets_are_both_kept(read: Read) -> None:
    other = changed(FLAT, "target_new", "Berlin") | {"case_id": 78}
    facts = read(FLAT, other)
    assert [fact.target_new for fact in facts] == ["Rome", "Berlin"]
    assert facts[0].text == facts[1].text
    assert facts[0].id != facts[1].id
    assert facts.problems == ()


def test_conflicting_facts_without_an_id_of_their_own_get_different_ones(read: Read) -> None:
    nameless = changed(OWN, "id", ...)
    facts = read(
        nameless | {"target_new": "Rome"}, nameless | {"target_new": "Oslo"}, nameless | {"target_new": "Bonn"}
    )
    assert [fact.target_new for fact in facts] == ["Rome", "Oslo", "Bonn"]
    assert [fact.id for fact in facts] == [facts[0].id, f"{facts[0].id}-2", f"{facts[0].id}-3"]
    assert facts.problems == ()


def test_an_id_given_twice_is_changed_and_reported(read: Read) -> None:
    facts = read(OWN, OWN | {"id": "tower-2"}, OWN | {"target_new": "Oslo"})
    assert [fact.id for fact in facts] == ["tower", "tower-2", "tower-3"]
    (problem,) = facts.problems
    assert (problem.line, problem.field) == (3, "id")
    assert "line 1 has the id 'tower' too; this one is now called 'tower-3'" in problem.message


def test_blanks_around_targets_go(read: Read) -> None:
    (fact,) = read(FLAT | {"target_new": " Rome\n", "ground_truth": "Paris ", "locality_ground_truth": " Paris"})
    assert (fact.target_new, fact.target_true, fact.neighbours[0].answer) == ("Rome", "Paris", "Paris")


@pytest.mark.parametrize("subject", ["Władysław Witwicki", "東京タワー", "Zoë 😀", "e\u0301cole", "مريم"])
def test_subjects_beyond_ascii(read: Read, subject: str) -> None:
    (fact,) = read(FLAT | {"subject": subject, "prompt": f"Of {subject} one says"})
    assert fact.subject == subject
    assert fact.prompt == "Of {} one says"


def test_literal_braces_in_other_texts_stay(read: Read) -> None:
    (fact,) = read(FLAT | {"rephrase_prompt": "void f() {} Eiffel Tower {0} is in", "target_new": "{}"})
    assert fact.paraphrases == ("void f() {} Eiffel Tower {0} is in",)
    assert fact.target_new == "{}"


def test_a_missing_field_in_the_first_record_does_not_hide_the_schema(read: Read) -> None:
    assert read(changed(FLAT, "prompt", ...), FLAT).schema == "counterfact_flat"
    assert read(changed(KNOWN, "known_id", ...), KNOWN).schema == "known_1000"
    assert read(changed(PAIR, "sentence_good", ...), PAIR).schema == "blimp"
    assert read(changed(OWN, "subject", ...), OWN).schema == "jsonl"
    assert read({"case_id": 3}, NESTED).schema == "counterfact"


REAL = [
    ("counterfact/counterfact.json", "counterfact", 205),
    ("counterfact/counterfact_flat.json", "counterfact_flat", 8842),
    ("known_1000/known_1000.json", "known_1000", 493),
]


@pytest.mark.parametrize(("name", "schema", "count"), REAL)
def test_every_real_record_becomes_a_fact(records: Path, name: str, schema: str, count: int) -> None:
    facts = read_facts(records / name)
    assert facts.schema == schema
    assert facts.problems == ()
    assert len(facts) == count
    assert len({fact.id for fact in facts}) == count
    raw = json.loads((records / name).read_text(encoding="utf-8"))
    for fact, record in zip(facts, raw, strict=True):
        rewrite = record.get("requested_rewrite", record)
        assert fact.subject == rewrite["subject"]
        assert fact.text == rewrite["prompt"].replace("{}", rewrite["subject"])


def test_the_oddities_of_the_real_files_are_kept(records: Path) -> None:
    flat = read_facts(records / "counterfact/counterfact_flat.json")
    assert sum("\n" in fact.paraphrases[0] for fact in flat) == 229
    assert sum(not fact.subject.isascii() for fact in flat) == 32
    targets: dict[str, set[str | None]] = {}
    for fact in flat:
        targets.setdefault(fact.text, set()).add(fact.target_new)
    assert sum(len(conflicting) > 1 for conflicting in targets.values()) == 74
    known = read_facts(records / "known_1000/known_1000.json")
    assert not any("<|endoftext|>" in str(fact) for fact in known)


@pytest.mark.parametrize("paradigm", ["1", "irregular_1", "with_adj_irregular_1", "with_adjective_1"])
def test_every_real_pair_whose_nouns_differ_becomes_a_fact(records: Path, paradigm: str) -> None:
    path = records / "blimp" / f"determiner_noun_agreement_{paradigm}.jsonl"
    facts = read_facts(path)
    assert (facts.schema, len(facts), facts.problems) == ("blimp", 200, ())
    assert len({fact.text for fact in facts}) == 200
    for fact, line in zip(facts, path.read_text(encoding="utf-8").splitlines(), strict=True):
        record = json.loads(line)
        assert fact.id == f"blimp/determiner_noun_agreement_{paradigm}/{record['pairID']}"
        assert f"{fact.text} {fact.target_true}." == record["sentence_good"]
        assert f"{fact.text} {fact.target_new}." == record["sentence_bad"]
        assert other_number(other_number(fact.subject)) == fact.subject


@pytest.mark.parametrize("paradigm", ["2", "irregular_2", "with_adj_2", "with_adj_irregular_2"])
def test_no_real_pair_whose_determiners_differ_becomes_one(records: Path, paradigm: str) -> None:
    with pytest.raises(RecordError, match="the first of 200 problems is: .* field 'one_prefix_method': .* no text has"):
        read_facts(records / "blimp" / f"determiner_noun_agreement_{paradigm}.jsonl")


@pytest.mark.parametrize("paradigm", ["passive_2", "principle_A_domain_2", "npi_present_2"])
def test_real_pairs_of_other_phenomena_are_refused(records: Path, paradigm: str) -> None:
    with pytest.raises(RecordError, match=f"field 'UID': .* become facts, got '{paradigm}'"):
        read_facts(records / "blimp" / f"{paradigm}.jsonl")
