"""The public face: what `palimpsest` exports, and that README and docs tell the truth."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import palimpsest
import palimpsest.errors

ROOT = Path(__file__).parents[1]


def test_exports_are_sorted_and_exist() -> None:
    assert palimpsest.__all__ == sorted(palimpsest.__all__)
    for name in palimpsest.__all__:
        assert getattr(palimpsest, name) is not None


def test_names_shared_by_a_room_and_a_function_are_the_function() -> None:
    import palimpsest.edit.methods.rome
    import palimpsest.evaluate.scores

    assert callable(palimpsest.edit)
    assert callable(palimpsest.evaluate)
    assert sys.modules["palimpsest.edit"].Edit is palimpsest.Edit


def test_import_is_light() -> None:
    code = "import sys, palimpsest; palimpsest.Fact; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        palimpsest.nonsense  # noqa: B018


def test_examples_in_errors() -> None:
    assert doctest.testmod(palimpsest.errors).failed == 0


def test_readme_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)
    scores = scope["scores"]
    assert scores.records[0]["pre"]["es"] == 1.0
    assert (tmp_path / "rome.safetensors").is_file()


def test_readme_commands_exist() -> None:
    from palimpsest.cli.main import COMMANDS

    used = re.findall(r"^palimpsest (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert used
    assert set(used) <= set(COMMANDS)


def test_links_in_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
