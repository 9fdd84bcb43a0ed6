"""The page of an audit: complete, escaped, linked, and honest about what was not measured."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from audit_report import EVIL, MEASURED, READINGS, TIERS, UNDERPOWERED, audit_report, estimate
from click.testing import CliRunner
from markupsafe import escape

from palimpsest.audit.nulls import NullAudit, NullRate
from palimpsest.cli.report import command
from palimpsest.errors import OutputError, RecordError
from palimpsest.report.audit_forest import Row, forest, position
from palimpsest.report.audit_graph import Edge, columns, graph
from palimpsest.report.audit_page import audit_page
from palimpsest.report.audit_records import Records
from palimpsest.report.svg import Scale, element, extent

VOID = {"meta", "br"}


class Structure(HTMLParser):
    """Elements in order, and the text in each, by a parser that is not the page's own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[list[str]] = []
        self._open: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.text.append([])
        if tag not in VOID:
            self._open.append(len(self.tags) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.text.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.tags[self._open[-1]][0] == tag, f"{tag} closes {self.tags[self._open[-1]]}"
        if tag in ("td", "th"):
            self.handle_data(" ")  # cells are words apart
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.text[place].append(data)

    def of(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of every element of a name whose attributes hold these words."""
        return [
            (attributes, " ".join("".join(said).split()))
            for (name, attributes), said in zip(self.tags, self.text, strict=True)
            if name == tag and all(word in attributes.get(key.rstrip("_"), "").split() for key, word in wanted.items())
        ]

    def section(self, anchor: str) -> str:
        """The text of a section."""
        return self.of("section", id=anchor)[0][1]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return audit_report()


@pytest.fixture(scope="module")
def html(report: dict[str, Any]) -> str:
    return audit_page(report)


@pytest.fixture(scope="module")
def page(html: str) -> Structure:
    return Structure(html)


def test_every_string_is_escaped_and_nothing_comes_from_outside(html: str, page: Structure) -> None:
    assert "<script>document" not in html
    assert html.count(str(escape(EVIL))) > 50
    assert [attributes.get("type", "") for attributes, _ in page.of("script")] == ["application/json", ""]
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not any("src" in attributes for _, attributes in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert all(attributes["href"].startswith("#") for _, attributes in page.tags if "href" in attributes)
    assert not re.search(r"https?://|@import|url\(", html)
    assert f"Facts about {EVIL} are stored" in page.of("h1")[0][1]


def test_only_the_pages_own_script_may_run(html: str) -> None:
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_every_link_has_its_target_and_no_anchor_stands_twice(page: Structure) -> None:
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    links = {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes}
    assert links <= set(anchors)
    assert {f"e-some-{endpoint}" for endpoint, *_ in MEASURED.values()} <= links


def test_each_reading_has_27_tiles_that_say_their_status_without_colour(
    page: Structure, report: dict[str, Any]
) -> None:
    tiles = page.of("a", class_="tile")
    assert len(tiles) == 27 * len(READINGS)
    said = dict(zip((a["aria-label"].split()[0] for a, _ in tiles[:27]), tiles[:27], strict=True))
    for criterion, (_, status, *_) in MEASURED.items():
        attributes, text = said[criterion]
        letter, icon, word = {
            "PASS": ("P", "✓", "pass"),
            "PARTIAL": ("½", "◑", "partial"),
            "WEAK": ("W", "≈", "weak"),
            "FAIL": ("F", "✗", "fail"),
            "NA": ("n", "∅", "not applicable"),
        }[status]
        assert text == f"{criterion}{letter} {icon}"
        assert f": {word}" in attributes["aria-label"]
        assert ("underpowered" in attributes["class"].split()) == (criterion in UNDERPOWERED)
        assert ("underpowered" in attributes["aria-label"]) == (criterion in UNDERPOWERED)
    assert said["I1"][0]["aria-label"].endswith("pass (narrow)")
    assert "not_tested" in said["V1"][0]["class"].split()
    extensions = [name for name, one in report["readings"][0]["criteria"].items() if one["extension"]]
    assert extensions
    assert not set(extensions) & set(said)
    assert all(f"{name} " in page.section("criteria") for name in extensions)


def test_the_lenses_stand_in_the_frameworks_order(page: Structure) -> None:
    assert [text for _, text in page.of("h4")[:5]] == [
        "Construct",
        "Internal",
        "External",
        "Measurement",
        "Interpretive",
    ]


def test_the_claim_is_struck_where_it_is_not_licensed(page: Structure) -> None:
    assert [text for _, text in page.of("del")] == ["stored"] * len(READINGS)
    assert [text for _, text in page.of("ins")] == ["mediated"] * len(READINGS)
    assert "Licensed: The fact is mediated there." in page.section("verdicts")


def test_each_ladder_names_the_rung_that_blocks(page: Structure) -> None:
    cards = page.of("li", class_="reading")
    for index, (_, text) in enumerate(cards):
        assert f"{TIERS[index + 1]} is blocked: I2 is partial" in text
    rungs = [
        attributes["class"] for attributes, _ in page.of("li") if attributes.get("title", "").split(":")[0] in TIERS
    ]
    assert rungs[:5] == ["reached", "blocked", "ahead", "ahead", "ahead"]
    assert rungs[15:] == ["reached"] * 4 + ["blocked"]
    assert "Disconfirmed · Mechanistically supported" in cards[2][1]
    assert "M5 fails" in page.section("ladders")


def test_three_headline_numbers_with_interval_and_link_or_reason(page: Structure) -> None:
    restoration, edit, index = (text for _, text in page.of("div", class_="headline"))
    assert "0.61" in restoration
    assert "0.55 to 0.67, 95 %" in restoration
    assert "n=52, 11 clusters" in restoration
    assert "Not measured: no evidence of it is in this report" in edit
    assert "0.8 to inf, 95 %" in index
    linked = [attributes["href"] for attributes, text in page.of("a") if text in ("0.61", "1.6")]
    assert linked[:2] == ["#e-some-restoration", "#e-some-therapeutic-index"]


def test_a_reason_comes_from_the_scoring_or_from_what_was_left_out(report: dict[str, Any]) -> None:
    told = audit_report(left_out=["edit-advantage: cut by the plan; about 40 minutes."])
    assert "Not measured: edit-advantage: cut by the plan; about 40 minutes." in Structure(audit_page(told)).section(
        "verdicts"
    )
    told["readings"][1]["criteria"]["I2"]["endpoints"].append(
        {
            "endpoint": "edit-advantage",
            "evidence": None,
            "status": "NOT_TESTED",
            "floor": 0,
            "bar": 0.1,
            "reason": "edits diverged",
        }
    )
    assert "Not measured: edits diverged" in Structure(audit_page(told)).section("verdicts")


def test_the_next_experiment_is_said_once_for_the_readings_that_share_it(page: Structure) -> None:
    text = page.of("div", class_="next")[0][1]
    assert text.count("Run edit-layers on 120 facts.") == 1
    assert f"mediates, changes, stored, {EVIL}:" in text


def test_every_measured_endpoint_is_in_the_forest(page: Structure) -> None:
    text = page.section("forest")
    for criterion, (endpoint, *_) in MEASURED.items():
        assert f"{criterion} {endpoint}" in text
    assert "floor 0.05, bar 0.1" in text
    assert len(page.of("rect", class_="null")) == 1  # the null by the claim's author does not count


def test_an_endpoints_place_in_the_forest_keeps_the_order_of_its_rule() -> None:
    row = Row("a", 0.6, 0.5, 0.7, 0.5, 0.7, None, None, "PARTIAL", "", "#x")
    assert position(0.5, row) == 0.0
    assert position(0.7, row) == 1.0
    places = [position(value, row) for value in (-5.0, 0.0, 0.45, 0.5, 0.6, 0.7, 0.75, 2.0, 9.0)]
    assert places == sorted(places)
    assert position(-5.0, row) == pytest.approx(0.5 - (1 + math.log(28)))
    same = Row("a", 0.2, -0.1, 0.5, 0.0, 0.0, None, None, "WEAK", "", "#x")
    assert [position(value, same) for value in (-0.5, 0.0, 0.5)] == [0.0, 1.0, pytest.approx(1.5 + math.log(1.5))]
    assert forest("nothing", [Row("a", None, None, None, 0.0, 1.0, None, None, "WEAK", "", "")]) == ""


def test_published_and_measured_stand_side_by_side(page: Structure) -> None:
    text = page.section("judged")
    assert f"I1 Necessity Weak judged {EVIL}" in text
    assert "lesion-mean: 0.31 [0.26, 0.36] share" in text
    assert "I6 " not in text


def test_all_panels_are_there_with_what_was_measured(page: Structure) -> None:
    assert "Share of the total effect by layer" in page.section("maps")
    assert "in logits, on one scale" in page.section("maps")
    assert "lesion at the place, by the mean" in page.section("dissociation")
    assert "ED50 0.90" in page.section("dose")
    assert "therapeutic window" in page.section("dose")
    assert "a random direction" in page.section("dose")
    assert "Methods should agree about one trait" in page.section("mtmm")
    assert any("circular: not counted" in attributes.get("title", "") for attributes, _ in page.of("td", class_="grey"))
    assert "Sensitivity: 0.83 [0.74, 0.90]" in page.section("planted")
    assert "cannot be told apart" in page.section("storage")
    assert "entity 50 %" in page.section("storage")
    assert "2 of 3 facts lose at least 0.1 log-odds" in page.section("storage")
    assert "0.5 is clean" in page.section("residual")
    assert page.of("path", class_="solid")
    assert "predicted" in page.section("network")
    assert "causal tracing" in page.section("levels")


def test_a_missing_part_is_shown_as_not_measured_with_its_reason() -> None:
    bare = Structure(
        audit_page(audit_report(evidence=[], readings=[], artefacts={"dose": {"why": "The budget ended."}}))
    )
    for anchor in (
        "forest",
        "judged",
        "maps",
        "dissociation",
        "mtmm",
        "planted",
        "storage",
        "residual",
        "graph",
        "network",
        "levels",
    ):
        assert "Not measured." in bare.section(anchor), anchor
    assert "Not measured. The budget ended." in bare.section("dose")
    assert "Not measured. No empty claims were put to this audit." in bare.section("nulls")
    assert "None is left that would." in bare.section("verdicts")


def test_a_gate_that_failed_is_said_first() -> None:
    shown = Structure(
        audit_page(audit_report(gates={"G0 environment": "", "G2 effect": f"the total effect is 0 {EVIL}"}))
    )
    text = shown.of("div", class_="gates-failed")[0][1]
    assert text == f"A gate failed, so no verdict is given. G2 effect: the total effect is 0 {EVIL}"
    assert "G0 environment passed" in shown.section("gates")
    assert not Structure(audit_page(audit_report())).of("div", class_="gates-failed")


def test_left_out_facts_provenance_and_command_are_shown(page: Structure) -> None:
    assert f"{EVIL}: the model does not know it." in page.section("gates")
    text = page.section("reproduce")
    assert "a" * 64 in text
    assert f"palimpsest audit world {EVIL}" in text
    assert "chosen on 2 discovery facts" in text


def test_false_pass_rates_of_empty_claims_are_printed() -> None:
    rate = estimate(0.04, 0.0, 0.09, n=60, unit="")
    found = NullAudit((NullRate("I1", "layers", 2, 60, rate),), {"layers": rate}, rate, estimate(0.96, 0.9, 0.99), {"layers": 60},
                      ("V1", "V5"), ("E2",), (f"storage: {EVIL}",), ())  # fmt: skip
    shown = Structure(audit_page(audit_report(nulls=found.to_json())))
    text = shown.section("nulls")
    assert "I1 another layer 2 60 0.040 [0.000, 0.090]" in text
    assert "Severity, one minus that: 0.960 [0.900, 0.990]" in text
    assert "an empty claim can meet them: V1, V5." in text
    assert "Without a matched null in this audit: E2." in text
    assert f"storage: {EVIL}" in text
    assert any(attributes.get("data-sort") == "0.04" for attributes, _ in shown.of("td"))


def test_evidence_shows_its_controls_and_can_be_saved(page: Structure, report: dict[str, Any]) -> None:
    row = next(text for attributes, text in page.of("tr") if attributes.get("id") == "e-some-lesion-mean")
    assert "0.31 [0.26, 0.36] share" in row
    assert "N1 0.07 [0.02, 0.12] share not as a null must be" in row
    assert "(claim-author)" in row
    assert "0.0100" in row
    saved = json.loads(page.of("script", type="application/json")[0][1])
    assert [one["id"] for one in saved["evidence"]] == [one["id"] for one in report["evidence"]]


def test_records_of_one_id_get_anchors_of_their_own() -> None:
    records = Records(
        [{"id": "a/b", "endpoint": "b"}, {"id": "a-b", "endpoint": "b"}, {"id": "c", "endpoint": "b", "about": "x"}]
    )
    assert [row["anchor"] for row in records.table()] == ["e-a-b", "e-a-b-2", "e-c"]
    assert records.href("a-b") == "#e-a-b-2"
    assert records.href("b") == "#e-a-b"
    assert records.href("nothing") == ""


def test_drawing_escapes_and_scales() -> None:
    assert (
        element("text", EVIL, x=1.0)
        == '<text x="1">&lt;script&gt;document.title=&#39;broken&#39;; alert(1)&lt;/script&gt;</text>'
    )
    scale = Scale(0.0, 3.0, 100.0, 400.0)
    assert [scale(value) for value in (-1.0, 0.0, 1.5, 9.0)] == [100.0, 100.0, 250.0, 400.0]
    assert scale.ticks(3) == [0.0, 1.0, 2.0, 3.0]
    assert extent([None, math.inf]) == (0.0, 1.0)


def test_a_graph_with_a_cycle_is_drawn() -> None:
    edges = [
        Edge("a", "b", "solid", ""),
        Edge("b", "c", "refuted", ""),
        Edge("c", "b", "double", ""),
        Edge("c", "nowhere", "solid", ""),
    ]
    places = columns(["a", "b", "c"], edges[:3])
    assert places["a"] == 0
    assert places["b"] > 0
    drawn = graph("cycle", {"a": "a", "b": "b", "c": EVIL}, edges)
    assert (
        drawn.count('class="edge') == 4
    )  # three, of which the double one has two lines; the one to nowhere has no end
    assert drawn.count('class="cross"') == 2
    assert "<script>" not in drawn


def test_what_is_no_report_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not the report of an audit"):
        audit_page({"schema": "palimpsest-claim/1"})
    for content, said in (
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"a": 1}', "fields a"),
    ):
        if content is not None:
            (tmp_path / "report.json").write_text(content)
        found = CliRunner().invoke(command, [str(tmp_path)])
        assert isinstance(found.exception, RecordError), content
        assert said in str(found.exception)
        assert not (tmp_path / "report.html").exists()


def test_the_command_writes_the_page(tmp_path: Path, report: dict[str, Any], html: str) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    found = CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)
    assert found.exit_code == 0
    assert "report.html: open it in any browser" in found.output
    assert (tmp_path / "report.html").read_text("utf-8") == html


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, report: dict[str, Any]) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "report.html").mkdir()
    found = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(found.exception, OutputError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
