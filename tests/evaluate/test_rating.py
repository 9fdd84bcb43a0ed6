"""Blind rating: what the page holds and hides, and what choices come to, by hand."""

import json
import random
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy.stats import binom

from palimpsest.errors import InputError, RecordError
from palimpsest.evaluate.rating import (
    QUESTIONS,
    Judgements,
    Study,
    Text,
    make_study,
    read_choices,
    read_written,
    score,
)
from palimpsest.report.rating_page import rating_page

EVIL = "<script>alert(1)</script>"


def texts(editor: str, facts: int = 6, prompts: int = 2) -> list[Text]:
    return [
        Text(f"f{i}", f"subject {i}", f"The thing {i} is in Rome.", f"Thing {i}.{j}", f" says {editor} {i} {j}")
        for i in range(facts)
        for j in range(prompts)
    ]


def study(**settings: object) -> Study:
    return make_study(texts("one"), texts("two"), names=("rome-editor", "memit-editor"), **settings)


def answered(own: Study, rater: str, wanted: dict[str, str]) -> Judgements:
    """The choices of a rater who finds "one", "two" or "tie" for each pair, told what stands on which side."""
    choices = {}
    for pair in own.pairs:
        choice = wanted.get(pair.id, "tie")
        side = "tie" if choice == "tie" else "left" if (choice == "one") == ("one" in pair.left) else "right"
        choices[pair.id] = dict.fromkeys(QUESTIONS, side)
    return Judgements(rater, own.id, choices)


class Page(HTMLParser):
    """Tags with attributes, and the text outside the script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] != "script":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_every_pair_has_both_texts_and_each_editor_stands_left_in_half_of_them() -> None:
    own = study(seed=3)
    assert len(own.pairs) == 12
    assert sum(pair.first_is_left for pair in own.pairs) == 6
    for pair in own.pairs:
        sides = (pair.left, pair.right) if pair.first_is_left else (pair.right, pair.left)
        assert "one" in sides[0]
        assert "two" in sides[1]
    assert {(pair.fact, pair.prompt) for pair in own.pairs} == {(text.fact, text.prompt) for text in texts("one")}


def test_a_seed_gives_one_study_and_another_seed_another() -> None:
    assert study(seed=1) == study(seed=1)
    assert [pair.first_is_left for pair in study(seed=1).pairs] != [pair.first_is_left for pair in study(seed=2).pairs]


def test_few_pairs_are_of_different_facts() -> None:
    assert len({pair.fact for pair in study(limit=6).pairs}) == 6


def test_what_cannot_be_compared_is_counted() -> None:
    second = texts("two")
    second[0] = texts("one")[0]
    own = make_study(texts("one"), second[:-1])
    assert (own.identical, own.unmatched, len(own.pairs)) == (1, 1, 10)
    with pytest.raises(InputError, match="There is nothing to rate: 12 prompts are in both runs"):
        make_study(texts("one"), texts("one"))
    with pytest.raises(InputError, match="two names"):
        make_study(texts("one"), texts("two"), names=("a", "a"))
    with pytest.raises(InputError, match="rate runs over the same facts"):
        make_study(texts("one"), [replace(text, statement="Else.") for text in texts("two")])


def test_the_page_says_nothing_of_editors_or_sides() -> None:
    own = study(seed=0)
    flipped = replace(own, pairs=tuple(replace(p, first_is_left=not p.first_is_left) for p in own.pairs))
    html = rating_page(own)
    assert rating_page(flipped) == html  # the key alone tells them
    for hidden in ("rome-editor", "memit-editor", "first", "subject 1"):
        assert hidden not in html


def test_every_string_stays_text_and_the_page_needs_no_network() -> None:
    first = [Text("f", EVIL, f"{EVIL} is in Rome.", f"About {EVIL}", f' one {EVIL} "quoted" & so')]
    second = [replace(first[0], text=f"{EVIL}'><img src=x onerror=alert(2)>")]
    html = rating_page(make_study(first, second))
    page = Page(html)
    assert EVIL not in html
    assert f"{EVIL} is in Rome." in page.text
    assert len(page.all("script")) == 1
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "link", "iframe", "form"})
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "onclick", "onerror", "onload"} & set(attributes)
    assert "default-src 'none'" in str(page.all("meta")[1]["content"])
    assert "http://" not in html
    assert "https://" not in html


def test_every_choice_can_be_reached_and_read() -> None:
    own = study()
    page = Page(rating_page(own))
    boxes = page.all("input")[1:]
    assert len(boxes) == len(own.pairs) * len(QUESTIONS) * 3
    assert all(box["type"] == "radio" for box in boxes)
    assert len(page.all("label")) == len(boxes) + 1  # the rater's name too
    assert len(page.all("legend")) == len(own.pairs) * len(QUESTIONS)
    assert len(page.all("button")) == 3
    assert not any("tabindex" in box for box in boxes)


def test_preferences_by_hand() -> None:
    own = study(seed=5)
    ids = [pair.id for pair in own.pairs]
    found = score(own, [answered(own, "ann", dict.fromkeys(ids[:8], "one") | dict.fromkeys(ids[8:10], "two"))])
    assert [preference.question for preference in found] == list(QUESTIONS)
    for preference in found:
        assert (preference.first, preference.second, preference.ties) == (8, 2, 2)
        assert preference.share.value == pytest.approx(0.8)
        assert preference.odds.value == pytest.approx(4.0)
        assert preference.share.low < 0.8 < preference.share.high
        assert preference.odds.low == pytest.approx(preference.share.low / (1 - preference.share.low))
        assert (preference.facts, preference.raters) == (6, 1)


def test_the_sign_test_counts_facts() -> None:
    own = study(seed=5)
    one = {pair.id: "one" for pair in own.pairs if pair.fact != "f0"} | {
        pair.id: "two" for pair in own.pairs if pair.fact == "f0"
    }
    # three raters who agree add judgements and no facts
    found = score(own, [answered(own, rater, one) for rater in "abc"])[0]
    assert (found.facts_first, found.facts_second) == (5, 1)
    assert found.p == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert found.first == 30


def test_unanimous_raters_still_have_an_interval() -> None:
    own = study()
    found = score(own, [answered(own, "ann", {pair.id: "one" for pair in own.pairs})])[0]
    assert found.share.value == 1
    assert 0 < found.share.low < 0.7
    assert found.odds.value == float("inf")
    assert json.dumps(found.to_json()["odds"]["value"]) == '"inf"'


def test_ties_alone_prefer_nobody() -> None:
    own = study()
    found = score(own, [answered(own, "ann", {})])[0]
    assert (found.ties, found.first, found.p) == (12, 0, 1.0)
    assert not found.share.is_known


def test_the_interval_covers_with_facts_and_raters_that_differ() -> None:
    """Each fact and each rater has a leaning of its own; the interval should hold the mean leaning's share mostly."""
    chance = random.Random(0)
    own = make_study(texts("one", 20, 1), texts("two", 20, 1))
    covered = 0
    for trial in range(60):
        fact = {pair.id: chance.gauss(0, 0.15) for pair in own.pairs}
        judged = []
        for name in "abcdefgh":
            leaning = chance.gauss(0, 0.1)
            wanted = {i: "one" if chance.random() < 0.6 + fact[i] + leaning else "two" for i in fact}
            judged.append(answered(own, name, wanted))
        share = score(own, judged, resamples=400, seed=trial)[0].share
        covered += share.low <= 0.6 <= share.high
    assert covered >= 54


def test_choices_must_be_this_page_s_and_one_file_a_rater(tmp_path: Path) -> None:
    own = study()
    ann = answered(own, "ann", {})
    with pytest.raises(InputError, match="The rater 'ann' comes twice"):
        score(own, [ann, ann])
    with pytest.raises(InputError, match="are of another page"):
        score(own, [replace(ann, study="other")])
    with pytest.raises(InputError, match="Nobody chose anything"):
        score(own, [replace(ann, choices={})])
    path = tmp_path / "ben.json"
    path.write_text(json.dumps({"rater": " ", "study": own.id, "choices": {"1": {"fluent": "left"}}}))
    assert read_choices(path).rater == "ben"
    for content in ("[]", "no", json.dumps({"choices": {}}), json.dumps({"rater": "", "study": "", "choices": [1]})):
        path.write_text(content)
        with pytest.raises(RecordError, match="holds no choices of a rating page"):
            read_choices(path)
    path.write_text(json.dumps({"rater": "", "study": "", "choices": {"1": {"fluent": "up"}}}))
    with pytest.raises(RecordError, match="holds the choice 'up'"):
        read_choices(path)


def test_a_key_comes_back_and_a_changed_one_does_not() -> None:
    own = study()
    record = json.loads(json.dumps(own.to_json()))
    assert Study.from_json(record) == own
    record["pairs"][0]["left"] = "else"
    with pytest.raises(RecordError, match="was changed since the page was made"):
        Study.from_json(record)
    with pytest.raises(RecordError, match="is no key of a rating page"):
        Study.from_json({})


def test_texts_of_a_run(tmp_path: Path) -> None:
    written = {"statement": "The Louvre is in Rome.", "texts": {"The Louvre": " stands", "Near the Louvre": " runs"}}
    lines = [
        {"id": "a", "relation": "place", "subject": "Louvre", "written": written},
        {"id": "b", "error": "failed"},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_written(tmp_path) == [
        Text("a", "Louvre", "The Louvre is in Rome.", "The Louvre", " stands"),
        Text("a", "Louvre", "The Louvre is in Rome.", "Near the Louvre", " runs"),
    ]
    (tmp_path / "samples.jsonl").write_text('{"id": "b", "error": "failed"}\n')
    with pytest.raises(InputError, match="holds no texts to rate; run palimpsest evaluate with --suite fluency"):
        read_written(tmp_path)
