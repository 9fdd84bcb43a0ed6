"""What docs/audit-adding.md adds is added as it stands there, and the tables of docs/audit.md are what the code says."""

import json
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from audit_command import call, in_a_process

from palimpsest.audit.audit import NULL_DRAWS
from palimpsest.audit.choosing import LEAST, SIZES
from palimpsest.audit.claim import read_claim
from palimpsest.audit.evidence import NULLS
from palimpsest.audit.experiment import chosen_experiments, experiments
from palimpsest.audit.preparing import SAMPLES
from palimpsest.audit.rules import Rules, read_rules
from palimpsest.errors import SettingError

PACKAGE = import_module("palimpsest.audit.experiments")
DOCS = Path(__file__).parents[2] / "docs"
ADDING, PAGE = ((DOCS / name).read_text("utf-8") for name in ("audit-adding.md", "audit.md"))
FILES = dict(re.findall(r"`([\w-]+\.(?:json|py))`:\n\n```\w+\n(.*?)```", ADDING, re.DOTALL))
COMMANDS = re.findall(r"^palimpsest (audit .*)$", ADDING, re.MULTILINE)
ENTRY = re.search(r"```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)```", ADDING, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A folder with the page's files in it, which is the current one."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Make the folder look like an installed package with one entry point."""
    about = folder / "mine-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[{}]\n{}\n".format(ENTRY[1], value.replace('"', "")))
    monkeypatch.syspath_prepend(folder)


def ran(command: str, how: Callable[..., tuple[int, str, str]] = in_a_process) -> dict:
    """The report of a command of the page."""
    code, _, err = how(*shlex.split(command))
    assert code == 0, err
    return json.loads((Path(shlex.split(command)[-1]) / "report.json").read_text("utf-8"))


def test_the_page_has_three_files_and_a_command_for_each() -> None:
    assert sorted(FILES) == ["late.json", "preface.py", "state.json"]
    assert [next(word for word in command.split() if word.endswith("/")) for command in COMMANDS] == [
        "states/",
        "prefaced/",
        "late/",
    ]


def test_a_criterion_is_one_file_and_measures_nothing_again(folder: Path) -> None:
    found = ran(COMMANDS[0])["readings"][0]["criteria"]["X1"]
    assert found["status"] in ("PASS", "PARTIAL", "WEAK", "FAIL")
    assert found["endpoints"][0]["evidence"] == "tracing/restoration-state"
    assert found["extension"]
    before = (folder / "states" / "runs" / "tracing" / "samples.jsonl").stat().st_mtime_ns
    again = ran(COMMANDS[0].replace("--rules state.json ", "").replace("tracing", "tracing,instruments"))
    assert "X1" not in again["readings"][0]["criteria"]
    assert again["readings"][0]["criteria"]["M4"]["status"] != "NOT_TESTED"  # what was not run before is added
    assert (folder / "states" / "runs" / "tracing" / "samples.jsonl").stat().st_mtime_ns == before


def test_an_experiment_of_another_package_is_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(folder, monkeypatch, ENTRY[2])
    found = {one["id"]: one for one in ran(COMMANDS[1], call)["evidence"]}["preface/preface"]
    assert found["estimate"]["n"] == 12
    assert found["estimate"]["value"] > found["controls"][0]["estimate"]["value"]


def test_an_experiment_of_this_package_is_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PACKAGE.__path__
    monkeypatch.setattr(PACKAGE, "__path__", [*path, str(folder)])
    assert "preface" in experiments()


def test_a_claim_is_one_file(folder: Path) -> None:
    found = ran(COMMANDS[2])
    assert [one["reading"] for one in found["readings"]] == ["mediation"]
    assert found["setting"]["place"]["position"] == "last token"
    assert {one["id"] for one in found["readings"][0]["predictions"]} == {"restores", "needed", "again"}
    assert all(one["outcome"] != "not tested" for one in found["readings"][0]["predictions"])


def test_a_claim_may_name_a_criterion_of_its_rules(folder: Path) -> None:
    claim = json.loads(FILES["late.json"])
    claim["readings"][0]["decisive"] = ["X1"]
    Path("own.json").write_text(json.dumps(claim))
    assert read_claim("own.json", read_rules("state.json")).readings[0].decisive == ("X1",)
    code, _, err = call("audit", "world", "--dry-run", "--claim", "own.json")
    assert code == 2
    assert "names the criterion 'X1'" in err


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("bad = nowhere:Thing", "'nowhere:Thing' of another package cannot be loaded (No module named 'nowhere')"),
        ("bad = preface:proportion", "cannot be loaded"),
        ("bad = preface:Control.from_json", "cannot be loaded"),
        ("bad = collections:Counter", "'collections:Counter' of another package lacks name, criteria, needs, units"),
        (
            "bad = palimpsest.audit.experiments.tracing:Tracing",
            "Two experiments are called 'tracing'; give the one of your own another name",
        ),
    ],
)
def test_a_package_with_a_bad_experiment_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, sentence: str
) -> None:
    installed(folder, monkeypatch, value)
    with pytest.raises(SettingError) as told:
        chosen_experiments(None)
    assert sentence in str(told.value)


def criteria_table(rules: Rules) -> str:
    """Each criterion, its question, and the experiments that answer it."""
    lines = []
    for name, one in rules.criteria.items():
        parts = rules.parts[name]
        by = ["the claim"] if any(part.procedure for part in parts) else []
        by += [rules.endpoints[bar.endpoint].experiment for part in parts for bar in part.of]
        lines.append(f"| {name} {one.name} | {one.question} | {', '.join(dict.fromkeys(by))} |\n")
    return "".join(lines)


def test_the_tables_of_the_page_are_what_the_code_says() -> None:
    assert criteria_table(read_rules()) in PAGE
    for size, facts in SIZES.items():
        assert f"| `{size}` | {facts} | {LEAST[size]} | {SAMPLES[size]} | {NULL_DRAWS[size]} |\n" in PAGE
    for kind, said in NULLS.items():
        assert f"| {kind} | {said} |\n" in PAGE
    for one in read_claim("rome-2022").readings:
        assert re.search(rf"^\| `{one.id}` \| .* \| {one.tag} \|$", PAGE, re.MULTILINE)


def test_the_page_says_of_every_criterion_without_an_experiment_that_it_is_not_measured() -> None:
    folder = Path(PACKAGE.__path__[0])
    code, rules = "".join(path.read_text("utf-8") for path in folder.glob("*.py")), read_rules()
    nobody = [
        name
        for name, parts in rules.parts.items()
        if (of := [bar.endpoint for part in parts for bar in part.of])
        and not any(part.procedure for part in parts)
        and not any(f'"{endpoint}"' in code or f'"{endpoint.split("-")[0]}-{{' in code for endpoint in of)
    ]
    told = re.findall(r"^([A-Z]\d+d?): ", PAGE[PAGE.index("## What is not measured") :], re.MULTILINE)
    assert told == nobody
