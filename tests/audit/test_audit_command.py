"""`palimpsest audit world --size smoke`, end to end: what it leaves, that it resumes, and a mistake of each kind."""

import json
import re
import shutil
import signal
import subprocess
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_command import call, in_a_process, started

import palimpsest as pal
from palimpsest.audit.claim import read_claim
from palimpsest.audit.experiment import experiments
from palimpsest.facts import write_facts
from palimpsest.world import made_world

SMOKE = ("audit", "world", "--size", "smoke")
MEASURED = 24  # of 27 criteria
STATUSES = {"PASS", "PARTIAL", "WEAK", "FAIL", "NOT_TESTED", "NA"}
READINGS = {
    "mediation": "causal-mechanistic",
    "edit": "functional",
    "storage": "storage",
    "transport": "transportable",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of an audit of the made world's model, all of it."""
    folder = tmp_path_factory.mktemp("audits") / "smoke"
    code, out, err = in_a_process(*SMOKE, "--out", folder)
    assert code == 0, err
    assert "licensed:" in out
    return folder


@pytest.fixture(scope="module")
def report(finished: Path) -> dict[str, Any]:
    """Its report."""
    return json.loads((finished / "report.json").read_text("utf-8"))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Its folder, to do something to."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def reading(report: dict[str, Any], name: str) -> dict[str, Any]:
    """One reading of a report."""
    return next(one for one in report["readings"] if one["reading"] == name)


def mistaken(*args: object) -> str:
    """The one sentence with which a call is refused."""
    code, out, err = call(*args)
    assert code == 2, out + err
    lines = [line for line in err.splitlines() if line.strip()]
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert len(lines) == 1, err
    return lines[0].removeprefix("palimpsest: ")


def stamps(folder: Path) -> dict[str, int]:
    """When each file of measured rows was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("samples.jsonl")}


def test_most_criteria_are_measured_and_none_is_filled_by_opinion(report: dict[str, Any]) -> None:
    found = reading(report, "storage")
    assert found["counts"]["criteria"] == 27
    assert found["counts"]["measured"] >= MEASURED
    evidence = {one["id"] for one in report["evidence"]}
    for one in found["criteria"].values():
        assert one["status"] in STATUSES
        assert one["reason"]
        assert set(one["evidence"]) <= evidence
        if one["status"] not in ("NOT_TESTED", "NA"):
            assert one["evidence"] or one["procedural"]


def test_each_reading_has_its_own_verdict_on_the_same_evidence(report: dict[str, Any]) -> None:
    assert {one["reading"]: one["tag"] for one in report["readings"]} == READINGS
    for one in report["readings"]:
        assert one["verdict"]["ladder"]
        assert one["verdict"]["lateral"] or one["verdict"]["tier"]
        assert one["wording"]["claimed"] == one["text"]
        assert one["predictions"]
    edit = reading(report, "edit")["criteria"]
    assert edit["I1"]["status"] == "NA"  # a claim about an edit needs no lesion, and says so
    assert reading(report, "storage")["criteria"]["I1"]["status"] != "NA"


def test_the_folder_holds_what_the_page_says(finished: Path, report: dict[str, Any]) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"claim.json", "setting.json", "runs", "evidence.jsonl", "report.json", "report.html"} <= names
    claim = json.loads((finished / "claim.json").read_text("utf-8"))
    assert claim["sha256"] == report["claim_sha256"] == read_claim("rome-2022").sha256
    lines = [json.loads(line) for line in (finished / "evidence.jsonl").read_text("utf-8").splitlines()]
    assert lines == report["evidence"]
    confirmation = set(report["setting"]["confirmation"])
    assert not confirmation & set(report["setting"]["discovery"])
    rows = [json.loads(line) for line in (finished / "runs" / "lesion" / "samples.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == confirmation
    assert all(said == "" for said in report["gates"].values())
    assert set(report["gates"]) == {"G0 environment", "G1 facts", "G2 effect", "G4 split"}


def test_every_effect_stands_beside_its_null_and_claims_known_to_be_empty_do_not_pass(report: dict[str, Any]) -> None:
    evidence = {one["endpoint"]: one for one in report["evidence"]}
    assert [control["kind"] for control in evidence["lesion-mean"]["controls"]] == ["N1"]
    assert report["nulls"]["claims"]["layers"] > 0
    assert report["nulls"]["rate"]["value"] <= 0.05
    assert evidence["severity"]["estimate"]["value"] >= 0.95


def test_the_page_is_made_again_from_the_report_alone(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "report.json", tmp_path)
    code, out, err = call("report", tmp_path)
    assert (code, err) == (0, "")
    assert "report.html" in out
    assert (tmp_path / "report.html").read_bytes() == (finished / "report.html").read_bytes()


def test_the_same_command_measures_nothing_again_and_gives_the_same_report(finished: Path) -> None:
    names = ("report.json", "report.html", "evidence.jsonl", "setting.json", "claim.json")
    before, kept = stamps(finished), {name: (finished / name).read_bytes() for name in names}
    assert call(*SMOKE, "--out", finished)[0] == 0
    assert stamps(finished) == before
    assert {name: (finished / name).read_bytes() for name in names} == kept


def test_a_changed_prediction_is_refused_once_there_is_evidence(copy: Path, tmp_path: Path) -> None:
    claim = json.loads(json.dumps(read_claim("rome-2022").record))
    claim["readings"][0]["predictions"][0]["floor"] = 0.1
    (tmp_path / "eased.json").write_text(json.dumps(claim))
    before = (copy / "claim.json").read_bytes()
    said = mistaken(*SMOKE, "--out", copy, "--claim", tmp_path / "eased.json")
    assert "was changed after evidence exists" in said
    assert "new folder" in said
    assert (copy / "claim.json").read_bytes() == before


def test_a_claim_may_change_as_long_as_there_is_no_evidence(tmp_path: Path, cache: Path) -> None:
    facts, out = tmp_path / "few.jsonl", tmp_path / "out"
    write_facts(facts, made_world().records(["capital"])[:4])
    mistaken("audit", "world", facts, "--size", "smoke", "--out", out)
    claim = {**read_claim("rome-2022").record, "text": "Facts are somewhere."}
    (tmp_path / "other.json").write_text(json.dumps(claim))
    said = mistaken("audit", "world", facts, "--size", "smoke", "--out", out, "--claim", tmp_path / "other.json")
    assert "needs 6 facts" in said
    assert json.loads((out / "claim.json").read_text("utf-8"))["text"] == "Facts are somewhere."


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("world-plain", (), "is of other weights (world); give another folder"),
        ("world", ("--seed", "1"), "was begun with seed 0, got 1; give another folder"),
        ("world", ("--minutes", "5"), "was begun with minutes None, got 5.0; give another folder"),
    ],
)
def test_evidence_of_another_audit_is_refused(copy: Path, model: str, options: tuple[str, ...], sentence: str) -> None:
    before = (copy / "report.json").read_bytes()
    assert sentence in mistaken("audit", model, "--size", "smoke", "--out", copy, *options)
    assert (copy / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--size", "smal"), "size of smoke, standard, full, got 'smal'"),
        (("--claim", "rome-2023"), "Did you mean 'rome-2022'?"),
        (("--rules", "mv27-formel"), "Did you mean 'mv27-formal'?"),
        (("--only", "tracing,leson"), "There is no experiment called 'leson'. Did you mean 'lesion'?"),
        (("--only", ","), "No experiment is named"),
        (("--claim", "nowhere.json"), "'nowhere.json' cannot be read"),
        (("--rules", "nowhere.json"), "'nowhere.json' cannot be read"),
    ],
)
def test_a_misspelt_name_is_told(tmp_path: Path, options: tuple[str, ...], sentence: str, cache: Path) -> None:
    out = tmp_path / "out"
    assert sentence in mistaken("audit", "world", "--out", out, *options)
    assert not out.exists()


def test_an_unknown_criterion_in_a_claim_is_told(tmp_path: Path, cache: Path) -> None:
    claim = json.loads(json.dumps(read_claim("rome-2022").record))
    claim["readings"][0]["predictions"][0]["criterion"] = "I22"
    (tmp_path / "mine.json").write_text(json.dumps(claim))
    said = mistaken(*SMOKE, "--out", tmp_path / "out", "--claim", tmp_path / "mine.json")
    assert "prediction 'restores', names the criterion 'I22'. Did you mean 'I2" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("size", "needed"), [("smoke", 6), ("standard", 30), ("full", 120)])
def test_too_few_facts_are_told_how_many_are_needed(tmp_path: Path, size: str, needed: int, cache: Path) -> None:
    facts = tmp_path / "few.jsonl"
    write_facts(facts, made_world().records(["capital"])[:3])
    said = mistaken("audit", "world", facts, "--size", size, "--out", tmp_path / "out")
    assert f"An audit of size '{size}' needs {needed} facts that report, got" in said
    assert "of 3 given" in said


def test_facts_that_the_model_does_not_know_are_told(tmp_path: Path, cache: Path) -> None:
    said = mistaken(*SMOKE[:2], "reasoning", "--size", "smoke", "--out", tmp_path / "out")
    assert "needs 6 facts that report, got 0 of 43 given (43 failed a gate)" in said


def test_facts_without_one_that_the_audit_measures_are_refused(copy: Path, report: dict[str, Any], cache: Path) -> None:
    missing, given = report["setting"]["confirmation"][0], list(made_world().records())
    write_facts(copy / "facts.jsonl", [one for one in given if one.id != missing] + [replace(given[0], id="another")])
    said = mistaken("audit", "world", copy / "facts.jsonl", "--size", "smoke", "--out", copy)
    assert f"measures the fact {missing!r}, which is not among those given; give the same." in said


def test_without_a_folder_there_is_only_a_plan_which_minutes_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*SMOKE)
    assert code == 2
    assert "say where the audit is kept, with --out DIR" in err
    code, out, err = call(*SMOKE, "--dry-run", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()[1:] if line} >= set(experiments())
    assert "about " in out
    cut = json.loads(call(*SMOKE, "--dry-run", "--json", "--minutes", "0.01")[1])
    steps = {step["experiment"]: (step["units"], step["asked"]) for step in cut["steps"]}
    assert steps["dose"] == (6, 12)
    assert "dose: 6 of 12 facts, to stay within 0.01 minutes." in cut["left_out"]
    assert "no experiment is cut further; name fewer with --only, or choose a smaller size." in cut["left_out"][-1]
    minutes = sum(step["minutes"] for step in cut["steps"])
    assert cut["besides"] > 0  # choosing facts and place, and the untrained model
    assert cut["estimated"] == pytest.approx(cut["besides"] + minutes, abs=0.2)
    assert list(tmp_path.iterdir()) == []


def test_what_was_cut_and_what_was_not_run_is_in_the_report(tmp_path: Path, cache: Path) -> None:
    code, out, err = in_a_process(*SMOKE, "--only", "dose", "--minutes", "0.01", "--out", tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert "dose: 6 of 12 facts, to stay within 0.01 minutes." in found["left_out"]
    assert {one["estimate"]["n"] for one in found["evidence"] if one["endpoint"] == "graded"} == {6}
    assert "dose: 6 of 12 facts" in (tmp_path / "report.html").read_text("utf-8")
    assert [step["experiment"] for step in found["plan"]["steps"]] == ["dose", "tracing"]
    assert reading(found, "storage")["criteria"]["E2"]["status"] != "NOT_TESTED"
    assert reading(found, "storage")["criteria"]["I1"]["status"] == "NOT_TESTED"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "No such file"), ("{", "is not JSON"), ("[]", "holds a list"), ("{}", "palimpsest audit")],
)
def test_a_folder_without_a_report_is_told(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    assert sentence in mistaken("report", tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a-file").write_text("")
    assert "a-file" in mistaken(*SMOKE, "--out", tmp_path / "a-file" / "below")


def test_from_python_without_a_folder_and_without_what_an_experiment_needs(tmp_path: Path, cache: Path) -> None:
    model = pal.load("world")
    before = model.fingerprint()
    found = pal.audit(model, size="smoke", only=["dissociation", "readout"])
    assert model.fingerprint() == before
    storage = found.readings[2]
    assert storage.criteria["C2"].status in ("PASS", "PARTIAL", "WEAK", "FAIL")
    assert storage.criteria["I6d"].status == storage.criteria["I1"].status == "NOT_TESTED"
    assert any(said.startswith("dissociation: ") for said in found.left_out)
    assert "storage: " in found.summary()
    found.to_html(tmp_path / "page.html")
    assert "<!doctype html>" in (tmp_path / "page.html").read_text("utf-8").lower()


@pytest.mark.slow
def test_an_audit_that_was_killed_goes_on_to_the_same_evidence(tmp_path: Path, cache: Path) -> None:
    asked = (*SMOKE, "--only", "tracing,lesion", "--out")
    code, _, err = in_a_process(*asked, tmp_path / "whole")
    assert code == 0, err
    process = started(*asked, tmp_path / "cut", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = tmp_path / "cut" / "runs" / "lesion" / "samples.jsonl"
    while process.poll() is None and not (rows.is_file() and rows.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rows.read_bytes().rpartition(b"\n")[0]
    assert not (tmp_path / "cut" / "evidence.jsonl").exists()
    code, _, err = in_a_process(*asked, tmp_path / "cut")
    assert code == 0, err
    assert rows.read_bytes().startswith(done)
    for name in ("evidence.jsonl", "claim.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_example_of_the_page_runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
    code = re.search(r"\n\n((?:    .*\n|\n)*?    import palimpsest as pal\n(?:    .*\n|\n)*)", page)[1]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "try")
    scope: dict[str, Any] = {}
    exec(compile(textwrap.dedent(code), "audit.md", "exec"), scope)
    assert {one.reading: one.tag for one in scope["report"].readings} == READINGS
    assert scope["report"].readings[2].reading == "storage"
    assert (tmp_path / "page.html").is_file()
