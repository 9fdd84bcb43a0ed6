"""Claims and rules as files: what they hold, what a mistake in one is told, and that a claim cannot be changed unnoticed."""

import json
from pathlib import Path

import pytest

from palimpsest.audit.claim import TAGS, Claim, Scope, read_claim, require_unchanged, shipped_claims
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import experiments
from palimpsest.audit.report_data import Status
from palimpsest.audit.rules import read_rules, shipped_rules
from palimpsest.audit.scoring import score
from palimpsest.audit.wording import inferred_tag, licensed_wording, unlicensed
from palimpsest.errors import InputError, RecordError, SettingError
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate

RULES = read_rules()
ROME = read_claim("rome-2022")


def changed(**places) -> dict:
    """The shipped claim's JSON with some values replaced; "readings.0.tag" leads into lists and objects by "__"."""
    record = json.loads(json.dumps(ROME.record))
    for path, value in places.items():
        *way, last = path.split("__")
        at = record
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        at[int(last) if isinstance(at, list) else last] = value
    return record


def written(folder: Path, record: dict) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(record), "utf-8")
    return path


def test_the_shipped_claim_has_its_four_readings_and_predictions():
    assert shipped_claims() == ["rome-2022"]
    assert {reading.id: reading.tag for reading in ROME.readings} == {
        "mediation": "causal-mechanistic",
        "edit": "functional",
        "storage": "storage",
        "transport": "transportable",
    }
    assert (ROME.place.module, ROME.place.position, ROME.place.centre) == ("mlp", "last subject token", None)
    for reading in ROME.readings:
        assert len(reading.predictions) >= 3
        assert {rival for one in reading.predictions for rival in one.rivals} == set(reading.rivals)
        assert reading.decisive
        assert unlicensed(reading.text, reading.tag, RULES) == []


def test_the_hash_is_of_content_and_not_of_layout(tmp_path):
    record = changed()
    backwards = dict(reversed(list(record.items())))
    (tmp_path / "same.json").write_text(json.dumps(backwards, indent=7), "utf-8")
    assert read_claim(tmp_path / "same.json").sha256 == ROME.sha256
    assert Claim.from_json(changed(readings__0__predictions__0__bar=0.71)).sha256 != ROME.sha256


def test_a_prediction_changed_after_evidence_exists_is_refused():
    stored = ROME.sha256
    require_unchanged(ROME, stored)
    eased = Claim.from_json(changed(readings__0__predictions__0__floor=0.1))
    with pytest.raises(InputError, match="was changed after evidence exists: its hash was .* restore the file"):
        require_unchanged(eased, stored)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ({"readings__0__predictions__0__criterion": "I22"}, "names the criterion 'I22'. Did you mean 'I2'"),
        (
            {"readings__0__predictions__0__endpoint": "restoratoin"},
            "endpoint 'restoratoin'. Did you mean 'restoration'",
        ),
        ({"readings__0__decisive": ["I99"]}, "decisive, names the criterion 'I99'"),
        ({"readings__0__not_applicable": {"M55": "why"}}, "not_applicable, names the criterion 'M55'"),
        ({"readings__0__not_applicable": {"M5": " "}}, "not applicable without a reason"),
        ({"schema": "palimpsest-claim/9"}, "has the schema 'palimpsest-claim/9', and this version reads"),
        ({"readings__0__tag": "causal-mechanic"}, "has the tag 'causal-mechanic'. Did you mean 'causal-mechanistic'"),
        ({"readings__0__predictions__0__floor": 0.9}, "its floor at most its bar, got 0.9 and 0.7"),
        (
            {"readings__0__predictions__0__rivals": ["any-layr"]},
            "is denied by 'any-layr', which is no rival. Did you mean",
        ),
        ({"readings__0__predictions__1__id": "restores"}, "two predictions of the same id"),
        ({"readings__1__id": "mediation"}, "two readings of the same id"),
        ({"readings": []}, "has no reading"),
        ({"place__layers": "early"}, "\"discover\" or as a list of numbers, got 'early'"),
        ({"place__layers": [3]}, "lists its layers and gives a depth too"),
        ({"place__depth": [0.7, 0.1]}, "as two numbers between 0 and 1, the least first, got [0.7, 0.1]"),
        ({"place__depth": 0.5}, "as two numbers between 0 and 1, the least first, got 0.5"),
        ({"scope__model": ["gpt2"]}, "A scope has no 'model'. Did you mean 'models'"),
        ({"plce": {}}, "has a field 'plce' that nothing reads. Did you mean 'place'"),
        ({"place__module": "mpl"}, "a module of mlp, attn, state, got 'mpl'"),
    ],
)
def test_every_mistake_in_a_claim_has_its_sentence(tmp_path, places, sentence):
    with pytest.raises(InputError) as refused:
        read_claim(written(tmp_path, changed(**places)))
    assert sentence in str(refused.value)


def test_files_that_are_no_claims_say_so(tmp_path):
    with pytest.raises(SettingError, match="no claims called 'rome'.* Did you mean 'rome-2022'"):
        read_claim("rome")
    with pytest.raises(RecordError, match="cannot be read as text"):
        read_claim(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{"schema": ', "utf-8")
    with pytest.raises(RecordError, match="cut.json is not JSON: line 1"):
        read_claim(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]", "utf-8")
    with pytest.raises(RecordError, match="holds one JSON object, got a list"):
        read_claim(tmp_path / "list.json")
    lacking = changed()
    del lacking["source"]
    with pytest.raises(RecordError, match="lacks the field 'source'"):
        read_claim(written(tmp_path, lacking))


def test_a_claim_may_name_its_layers():
    place = Claim.from_json(changed(place={"module": "mlp", "layers": [5, 3, 4]})).place
    assert (place.centre, place.window) == (4, 3)


def test_a_claim_may_bound_the_depth_of_what_is_discovered():
    place = Claim.from_json(changed(place__depth=[0.25, 0.75])).place
    assert place.centre is None
    assert place.within(range(9), 9) == [2, 3, 4, 5, 6]
    assert place.within([0, 1, 7, 8], 9) == [1]  # none lies there: the nearest to their middle
    assert place.within([0], 1) == [0]
    assert Claim.from_json(changed(place={"module": "mlp"})).place.within(range(9), 9) == list(range(9))


def test_a_reading_that_does_not_exist_is_named():
    with pytest.raises(SettingError, match="no reading 'storge'. Did you mean 'storage'"):
        ROME.reading("storge")


def test_what_facts_cover_is_counted():
    facts = [
        Fact(
            subject="Ann",
            prompt="{} lives in",
            target_true="Rome",
            target_new="Oslo",
            relation="home",
            paraphrases=("Ann dwells in",),
        ),
        Fact(subject="Bob", prompt="{} works as a", target_true="cook", target_new="king", relation="work"),
    ]
    assert Scope.tested("m", facts) == Scope(("m",), ("home", "work"), 1, ("English",), 2)


# rules


def test_the_presets_differ_where_the_framework_differs():
    formal, page = read_rules("mv27-formal"), read_rules("mv27-criterion")
    assert shipped_rules() == ["mv27-criterion", "mv27-formal"]
    assert formal.parts["E3"][0].of[0].bar == 3.0
    assert page.parts["E3"][0].of[0].bar == 2.0
    assert page.parts["I1"] == formal.parts["I1"]
    assert formal.sha256 != page.sha256
    assert tuple(formal.tags) == TAGS


def test_every_endpoint_is_of_an_experiment():
    assert {one.experiment for one in RULES.endpoints.values()} <= {*experiments(), "null audit"}


def test_one_file_adds_a_criterion_and_an_endpoint(tmp_path):
    mine = {
        "schema": "palimpsest-rules/1",
        "name": "mine",
        "extends": "mv27-formal",
        "endpoints": {"rhymes": {"experiment": "rhyming", "text": "share of answers that rhyme"}},
        "criteria": {
            "R1": {
                "name": "Rhyme",
                "lens": "External",
                "question": "Does it rhyme?",
                "parts": [{"of": [{"endpoint": "rhymes", "floor": 0.2, "bar": 0.4}]}],
            },
        },
    }
    rules = read_rules(written(tmp_path, mine))
    found = Evidence("rhyming", "rhymes", (), "behavioural", "observational", Estimate(0.5, 0.45, 0.6, 9, 9))
    report = score(ROME, "edit", [found], rules, weights="w")
    assert report.criteria["R1"].status is Status.PASS
    assert report.criteria["R1"].extension
    assert report.counts["criteria"] == 27
    assert read_claim("rome-2022", rules).id == "rome-2022"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"criteria": {"I1": {"parts": [{"of": [{"endpoint": "lesion-maen", "floor": 0, "bar": 1}]}]}}},
            "Did you mean 'lesion-mean'",
        ),
        ({"criteria": {"R1": {"parts": []}}}, "'R1', which nothing defines"),
        (
            {"criteria": {"R1": {"name": "R", "lens": "Extern", "question": "?", "parts": []}}},
            "Did you mean 'External'",
        ),
        (
            {"criteria": {"I1": {"parts": [{"need": 2, "of": [{"endpoint": "readout", "floor": 0, "bar": 1}]}]}}},
            "nor 2 of 1 endpoints",
        ),
        (
            {"criteria": {"I1": {"parts": [{"of": [{"endpoint": "readout", "floor": 2, "bar": 1}]}]}}},
            "floor 2 above its bar 1",
        ),
        (
            {
                "criteria": {
                    "V4": {"parts": [{"of": [{"endpoint": "storage", "floor": 0, "bar": 1, "fail_below": 0.5}]}]}
                }
            },
            "fails below 0.5, which is above its floor 0",
        ),
        ({"criteria": {"I1": {"parts": [{"procedure": "magic"}]}}}, "the procedure 'magic'"),
        (
            {
                "criteria": {
                    "I1": {"parts": [{"of": [{"endpoint": "readout", "floor": 0, "bar": 1, "requires": ["N9"]}]}]}
                }
            },
            "the null 'N9'",
        ),
        ({"schema": "other"}, "has the schema 'other'"),
        ({"extends": None}, "lacks 'criteria'; give it, or start with \"extends\""),
        ({"tags": {"storage": {"requires": ["Z1"]}}}, "the criterion 'Z1'"),
    ],
)
def test_every_mistake_in_rules_has_its_sentence(tmp_path, change, sentence):
    mine = {"schema": "palimpsest-rules/1", "name": "mine", "extends": "mv27-formal", "significance": 0.05, **change}
    with pytest.raises(InputError) as refused:
        read_rules(written(tmp_path, mine))
    assert sentence in str(refused.value)


def test_rules_that_extend_each_other_are_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"schema": "palimpsest-rules/1", "extends": str(path)}), "utf-8")
    with pytest.raises(RecordError, match="rules end at a file that extends nothing"):
        read_rules(path)


# wording


def test_the_level_of_a_sentence_is_that_of_its_strongest_verb():
    assert inferred_tag("Facts are stored in layer 3 and an edit changes them.", RULES) == "storage"
    assert inferred_tag("An edit CHANGES them.", RULES) == "functional"
    assert inferred_tag("Layers are nice.", RULES) == ""


def test_a_verb_inside_another_word_is_none():
    assert unlicensed("The restored changeset is storeys high.", "", RULES) == []


def test_definite_articles_need_that_there_is_no_rival():
    sentence = "This is the mechanism."
    one = licensed_wording(sentence, RULES, frozenset(RULES.tags), {"I6": Status.PASS})
    assert one.licensed == sentence
    assert licensed_wording(sentence, RULES, frozenset(), {"I6": Status.WEAK}).licensed == "This is a mechanism."


def test_a_replacement_keeps_the_capital_and_every_other_word():
    wording = licensed_wording("Stores facts, and stores them well.", RULES, frozenset({"causal-mechanistic"}), {})
    assert wording.licensed == "Mediates the recall of facts, and mediates the recall of them well."
    assert wording.unlicensed == ("Stores", "stores")
    assert "".join(text for kind, text in wording.pieces if kind != "added") == wording.claimed


def test_a_replacement_whose_own_criteria_failed_is_passed_over():
    sentence, licensed = "Facts are stored in layer 3.", frozenset({"representational", "functional"})
    read_out = licensed_wording(sentence, RULES, licensed, {"C2": Status.PARTIAL})
    assert read_out.licensed == "Facts can be read from layer 3."
    failed = licensed_wording(sentence, RULES, licensed, {"C2": Status.FAIL})
    assert failed.licensed == "Facts are affected by interventions on layer 3."
    assert (
        licensed_wording(sentence, RULES, licensed - {"functional"}, {}).licensed
        == "Facts are associated with layer 3."
    )


@pytest.mark.parametrize("tag", TAGS)
def test_no_replacement_claims_more_than_what_licensed_it(tag):
    order = list(RULES.tags)
    for verb in RULES.verbs.values():
        if (instead := verb.instead.get(tag)) is not None:
            needed = inferred_tag(instead, RULES)
            assert not needed or order.index(needed) <= order.index(tag), (verb.phrase, instead)
        needed = inferred_tag(verb.instead[""], RULES)
        assert not needed or verb.instead[""].startswith(("is not shown", "are not shown", "is meant", "are meant"))
