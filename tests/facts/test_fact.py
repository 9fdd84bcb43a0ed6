"""`Fact` and `Probe`: what they check, what they fill in, and that they survive the way through JSON."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.errors import FactError
from palimpsest.facts import STRATA, Fact, Probe

TOWER = Fact(subject="Eiffel Tower", prompt="The {} is located in the city of", target_true="Paris", target_new="Rome")

visible = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != "")
without_hole = visible.filter(lambda text: "{}" not in text and not text.endswith("{") and not text.startswith("}"))
prompts = st.tuples(without_hole, without_hole).map("{}".join)
maybe = st.none() | visible
probes = st.builds(Probe, prompt=visible, answer=maybe, before=maybe, subject=maybe)
many_probes = st.lists(probes, max_size=2).map(tuple)
many_texts = st.lists(visible, max_size=3).map(tuple)
facts = st.builds(
    Fact,
    subject=visible,
    prompt=prompts,
    target_true=maybe,
    target_new=maybe,
    id=st.just("") | visible,
    relation=st.just("") | visible,
    answer_aliases=many_texts,
    paraphrases=many_texts,
    neighbours=many_probes,
    same_subject=many_probes,
    entailed=many_probes,
    far=many_probes,
    generation=many_probes,
)


@given(facts)
def test_a_fact_survives_the_way_through_json(fact: Fact) -> None:
    assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact


@given(facts)
def test_the_span_is_where_the_subject_stands_in_the_text(fact: Fact) -> None:
    start, end = fact.subject_span
    assert fact.text[start:end] == fact.subject


def test_text_and_wordings() -> None:
    fact = dataclasses.replace(TOWER, paraphrases=("Where is the Eiffel Tower? In",))
    assert fact.text == "The Eiffel Tower is located in the city of"
    assert fact.wordings == (fact.text, "Where is the Eiffel Tower? In")
    assert fact.text[slice(*fact.subject_span)] == "Eiffel Tower"


def test_other_braces_stay_as_they_are() -> None:
    fact = Fact(subject="set{x}", prompt="In {maths}, {} is written {0} as")
    assert fact.text == "In {maths}, set{x} is written {0} as"
    assert fact.text[slice(*fact.subject_span)] == "set{x}"


def test_blanks_around_subject_and_targets_go() -> None:
    fact = Fact(subject=" Eiffel Tower ", prompt="The {} is in", target_true=" Paris", target_new="Rome\n")
    assert (fact.subject, fact.target_true, fact.target_new) == ("Eiffel Tower", "Paris", "Rome")


def test_the_prompt_stands_for_a_relation_that_is_not_named() -> None:
    assert TOWER.relation == TOWER.prompt
    assert Fact(subject="a", prompt="{} is", relation="P31").relation == "P31"


def test_an_id_is_made_from_subject_and_prompt() -> None:
    again = Fact(subject="Eiffel Tower", prompt="The {} is located in the city of")
    assert again.id == TOWER.id
    assert Fact(subject="Louvre", prompt=TOWER.prompt).id != TOWER.id
    assert Fact(subject="Louvre", prompt=TOWER.prompt, id="louvre").id == "louvre"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"subject": ""}, "subject is empty"),
        ({"subject": " \n"}, "subject is empty"),
        ({"subject": 3}, "subject must be text, got 3"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "The tower is in"}, "exactly one '{}' where the subject goes, got 0"),
        ({"prompt": "{} and {} are in"}, "exactly one '{}' where the subject goes, got 2"),
        ({"target_true": ""}, "target_true is empty"),
        ({"target_new": "  "}, "target_new is empty"),
        ({"target_new": 5}, "target_new must be text, got 5"),
        ({"paraphrases": "one text"}, "'paraphrases' must be a list of texts"),
        ({"paraphrases": ["good", ""]}, "text in 'paraphrases' is empty"),
        ({"answer_aliases": [None]}, "text in 'answer_aliases' must be text"),
        ({"neighbours": [{"answer": "no prompt"}]}, "probe in 'neighbours' has the fields"),
        ({"far": [{"prompt": "x", "anwser": "y"}]}, "anwser"),
        ({"entailed": [7]}, "probe in 'entailed' must be text or an object"),
    ],
)
def test_a_broken_rule_is_named(fields: dict[str, object], said: str) -> None:
    good: dict[str, object] = {"subject": "Eiffel Tower", "prompt": "The {} is in"}
    with pytest.raises(FactError) as raised:
        Fact(**(good | fields))  # type: ignore[arg-type]
    assert said in str(raised.value)


def test_from_json_names_missing_and_unknown_fields() -> None:
    with pytest.raises(FactError, match="needs the field 'prompt'"):
        Fact.from_json({"subject": "Eiffel Tower"})
    with pytest.raises(FactError, match="Unknown field 'target_nwe'"):
        Fact.from_json({"subject": "Eiffel Tower", "prompt": "{} is in", "target_nwe": "Rome"})
    with pytest.raises(FactError, match="'far' must be a list"):
        Fact.from_json({"subject": "Eiffel Tower", "prompt": "{} is in", "far": "text"})


def test_to_json_leaves_empty_fields_out() -> None:
    assert set(TOWER.to_json()) == {"subject", "prompt", "target_true", "target_new", "id", "relation"}


@pytest.mark.parametrize("stratum", STRATA)
def test_every_stratum_takes_text_objects_and_probes(stratum: str) -> None:
    record = {
        "subject": "Eiffel Tower",
        "prompt": "The {} is in",
        stratum: ["The Louvre is in", {"prompt": "Rome is in", "answer": " Italy"}, Probe("x", before="y")],
    }
    assert getattr(Fact.from_json(record), stratum) == (
        Probe("The Louvre is in"),
        Probe("Rome is in", answer="Italy"),
        Probe("x", before="y"),
    )


def test_facts_and_probes_cannot_be_changed_and_can_be_hashed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TOWER.subject = "Louvre"  # type: ignore[misc]
    assert len({TOWER, dataclasses.replace(TOWER), Fact("Louvre", "The {} is in")}) == 2


def test_a_probe_needs_a_prompt_and_no_blank_answer() -> None:
    with pytest.raises(FactError, match="prompt of a probe is empty"):
        Probe(" ")
    with pytest.raises(FactError, match="answer of a probe is empty"):
        Probe("The Louvre is in", answer="")
