"""Every command on a tiny model: what it prints, what it writes, how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from palimpsest.cli.main import COMMANDS


def test_help_names_every_command_and_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['palimpsest', '--help']\n"
        "import palimpsest.cli.main as m\n"
        "try: m.main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules), 'help must stay quick'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert name in done.stdout


def test_each_command_has_help_without_torch() -> None:
    code = (
        "import sys\nfrom importlib import import_module\nfrom palimpsest.cli.main import COMMANDS\n"
        "for name in COMMANDS: assert import_module('palimpsest.cli.' + name).command.help\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctor_ends_in_one_verdict_line(palimpsest, tiny_folder) -> None:
    code, out, _ = palimpsest("doctor", tiny_folder)
    assert code == 0
    assert "transformer.h.*.mlp.c_proj" in out
    assert out.strip().splitlines()[-1].endswith("every site means what its name says, and partial runs are exact.")


def test_doctor_exits_1_when_a_site_fails(palimpsest, tiny_folder, monkeypatch) -> None:
    from palimpsest.model import anatomy

    real = anatomy.Anatomy.find.__func__

    def swapped(cls, net, **kwargs):
        return real(cls, net, attention="mlp", mlp="attn")

    monkeypatch.setattr(anatomy.Anatomy, "find", classmethod(swapped))
    code, out, _ = palimpsest("doctor", tiny_folder)
    assert code == 1
    assert "failed" in out.strip().splitlines()[-1]


def test_doctor_json(palimpsest, tiny_folder) -> None:
    code, out, _ = palimpsest("doctor", tiny_folder, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["healthy"]
    assert found["layers"] == 3


def test_known(palimpsest, tiny_folder, facts_file) -> None:
    code, out, _ = palimpsest("known", tiny_folder, facts_file)
    assert code == 0
    assert "of 2 facts" in out
    code, out, _ = palimpsest("known", tiny_folder, facts_file, "--each", "--json")
    assert {fact["fact"] for fact in json.loads(out)["facts"]} == {"a", "b"}


def test_edit_then_show_then_evaluate(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    out_folder = tmp_path / "run"
    code, out, err = palimpsest(
        "edit", tiny_folder, facts_file, "--layers", 1, "--text", text_file, "--out", out_folder
    )
    assert code == 0, err
    assert (out_folder / "edit.safetensors").is_file()
    code, out, _ = palimpsest("show", out_folder)
    assert code == 0
    assert "transformer.h.1.mlp.c_proj.weight" in out
    assert "old tower" in out
    code, out, _ = palimpsest("evaluate", tiny_folder, facts_file, "--edit", out_folder / "edit.safetensors", "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["n"] == 2
    assert summary["post"]["es"]["value"] == 1.0


def test_evaluate_resumes_to_the_same_bytes(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    command = ("evaluate", tiny_folder, facts_file, "--method", "rome", "--layers", 1, "--text", text_file)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert palimpsest(*command, "--out", whole)[0] == 0
    assert palimpsest(*command, "--out", broken)[0] == 0
    lines = (broken / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "samples.jsonl").write_bytes(lines[0] + lines[1][:20])  # killed in the middle of the second line
    (broken / "results.json").unlink()
    assert palimpsest(*command, "--out", broken)[0] == 0
    for name in ("samples.jsonl", "results.json", "plan.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_shards_merge_to_the_same_bytes(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    command = ("evaluate", tiny_folder, facts_file, "--out")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert palimpsest(*command, whole)[0] == 0
    for shard in ("1/2", "2/2"):
        assert palimpsest(*command, parts, "--shard", shard)[0] == 0
    assert palimpsest(*command, parts)[0] == 0
    for name in ("samples.jsonl", "results.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_trace_writes_a_run(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    out_folder = tmp_path / "trace"
    code, out, err = palimpsest("trace", tiny_folder, facts_file, "--samples", 2, "--out", out_folder)
    assert code == 0, err
    records = [json.loads(line) for line in (out_folder / "samples.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == ["state/a", "state/b"]
    assert len(records[0]["effect"]) == len(records[0]["tokens"])


def test_trace_of_three_kinds_resumes_and_plots(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    command = ["trace", tiny_folder, facts_file, "--samples", 2, "--kind", "state", "--kind", "mlp", "--kind", "attn"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, out, err = palimpsest(*command, "--plot", "--out", whole)
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines()[1:7]] == ["state"] * 2 + ["mlp"] * 2 + ["attn"] * 2
    assert "are not known to the model" in out
    assert "no figure" in err  # a random model knows nothing, so there is nothing to average
    assert palimpsest(*command, "--out", cut)[0] == 0
    lines = (cut / "samples.jsonl").read_text().splitlines(keepends=True)
    (cut / "samples.jsonl").write_text("".join(lines[:3]))
    (cut / "results.json").unlink()
    assert palimpsest(*command, "--out", cut)[0] == 0
    for name in ("samples.jsonl", "results.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    one = tmp_path / "one"
    assert palimpsest(*command, "--plot", "--limit", 1, "--out", one)[0] == 0
    assert (one / "maps.png").read_bytes()[:4] == b"\x89PNG"


def test_facts_from_standard_input(palimpsest, tiny_folder, facts_file) -> None:
    code, out, _ = palimpsest("known", tiny_folder, "-", stdin=facts_file.read_text())
    assert code == 0
    assert "of 2 facts" in out


def test_docs_name_every_command() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    docs = "".join(path.read_text() for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
    for name in COMMANDS:
        assert f"palimpsest {name}" in readme + docs or f"make {name}" in readme, name
