"""A tiny model in a folder, a file of facts it can be asked, and a way to call the command line."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from families import build, byte_tokenizer
from palimpsest.cli.main import main

TEXT = "\n\n".join(
    f"The {a} of the {b} is near the {c} and it is old."
    for a in ("king", "river", "house", "tower")
    for b in ("town", "north", "forest")
    for c in ("sea", "road", "market", "bridge")
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of three layers with its tokenizer, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build("gpt2").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    """Two good facts."""
    rows = [
        {
            "id": name,
            "relation": "place",
            "subject": subject,
            "prompt": "The {} is in",
            "target_true": "north",
            "target_new": "south",
            "paraphrases": [f"You find the {subject} in"],
            "neighbours": [{"prompt": "The river is in", "answer": "north"}],
        }
        for name, subject in (("a", "old tower"), ("b", "market"))
    ]
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Plain text enough for the second moments of a tiny model."""
    path = tmp_path / "plain.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def palimpsest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Call the command line in this process: palimpsest("doctor", "x") -> (exit code, stdout, stderr)."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))

    def call(*args: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["palimpsest", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as leaving:
            main()
        out, err = capsys.readouterr()
        return int(leaving.value.code or 0), out, err

    return call
