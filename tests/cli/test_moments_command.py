"""`palimpsest moments`: one file, a table of what can be solved, resumed and imported by the same command."""

import json
import sys

import numpy as np
import pytest

from palimpsest.edit.moments import collect, load_moments


def test_one_file_and_a_table(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    out = tmp_path / "m"
    code, printed, err = palimpsest("moments", tiny_folder, "--layers", "0-1", "--text", text_file, "--out", out)
    assert code == 0, err
    assert [path.name for path in out.iterdir()] == ["moments.safetensors"]
    found = load_moments(out / "moments.safetensors")
    assert sorted(found) == [0, 1]
    assert found[1].provenance["source"] == "plain.txt"
    header, first, second, *_ = printed.splitlines()
    assert header.split()[:4] == ["layer", "width", "tokens", "condition"]
    assert "null at threshold 0.02" in header
    assert "null at energy 0.01" in header
    assert first.split()[:3] == ["0", "48", "480"]
    assert second.split()[:3] == ["1", "48", "480"]
    assert str(out / "moments.safetensors") in printed


def test_json_is_the_report_of_each_layer(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    args = ("moments", tiny_folder, "--layers", "1", "--text", text_file, "--out", tmp_path, "--tokens", 600, "--json")
    code, printed, err = palimpsest(*args)
    assert code == 0, err
    data = json.loads(printed)
    assert data["file"] == str(tmp_path / "moments.safetensors")
    (report,) = data["layers"]
    assert (report["layer"], report["tokens"], report["width"]) == (1, 600, 48)
    assert set(report["null_space"]) == {"threshold 0.02", "threshold 0.01", "energy 0.01"}
    again = palimpsest(*args)
    assert json.loads(again[1]) == data


def test_the_same_command_goes_on_after_an_interruption(
    palimpsest, tiny_folder, text_file, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(collect, "BATCH_TOKENS", 100)
    monkeypatch.setattr(collect, "SECONDS_BETWEEN_SAVES", 0.0)
    out, real, read = tmp_path / "m", collect._keys, list[int]()

    def interrupted(model, layers, batch):
        read.append(len(batch))
        if len(read) == 3:
            raise KeyboardInterrupt
        return real(model, layers, batch)

    monkeypatch.setattr(collect, "_keys", interrupted)
    args = ("moments", tiny_folder, "--layers", "0-2:2", "--text", text_file, "--tokens", 700)
    code, _, err = palimpsest(*args, "--out", out)
    assert code == 130
    assert "edit, evaluate, moments, sweep, trace, train and world with --out go on where they stopped" in err
    assert [path.name for path in out.iterdir()] == ["moments.partial"]
    code, _, err = palimpsest(*args, "--out", out)
    assert code == 0, err
    resumed = len(read) - 3
    code, _, err = palimpsest(*args, "--out", tmp_path / "whole")
    assert code == 0, err
    assert len(read) - 3 - resumed == resumed + 2  # two batches were not read again
    assert [path.name for path in out.iterdir()] == ["moments.safetensors"]
    name = "moments.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    before = len(read)
    palimpsest(*args, "--out", out)
    assert len(read) == before


def test_too_few_tokens_are_told(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    code, printed, _ = palimpsest(
        "moments", tiny_folder, "--layers", 1, "--text", text_file, "--out", tmp_path, "--tokens", 20
    )
    assert code == 0
    assert "measured on 20 tokens; measure it on 480 tokens, the default," in printed
    assert printed.splitlines()[1].split() == ["1", "48", "20", "-", "-", "-", "-"]
    assert "directions are null" not in printed


def test_what_a_file_holds_is_not_lost_unasked(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    args = ("moments", tiny_folder, "--layers", 1, "--text", text_file, "--out", tmp_path / "m", "--tokens")
    assert palimpsest(*args, 500)[0] == 0
    before = (tmp_path / "m" / "moments.safetensors").read_bytes()
    code, _, err = palimpsest(*args, 600)
    assert code == 2
    assert "holds the second moment of layer 1 already, with other tokens; name another place (--out)" in err
    assert (tmp_path / "m" / "moments.safetensors").read_bytes() == before
    code, _, err = palimpsest(*args, 600, "--replace")
    assert code == 0, err
    assert load_moments(tmp_path / "m" / "moments.safetensors")[1].provenance["tokens"] == "600"


def test_an_npz_of_the_bau_lab(palimpsest, tiny_folder, tmp_path) -> None:
    keys = np.random.default_rng(0).normal(size=(200, 48))
    arrays = {"mom2.mom2": keys.T @ keys, "mom2.count": 200, "mom2.constructor": "x", "sample_size": 10}
    np.savez(tmp_path / "s.npz", **arrays)
    args = ("moments", tiny_folder, "--import", tmp_path / "s.npz", "--out", tmp_path / "m")
    code, printed, err = palimpsest(*args, "--layers", 2)
    assert code == 0, err
    moment = load_moments(tmp_path / "m" / "moments.safetensors")[2]
    np.testing.assert_allclose(moment.matrix.numpy(), keys.T @ keys / 200, rtol=1e-12)
    assert moment.provenance["module"] == "transformer.h.2.mlp.c_proj"
    assert "200" in printed
    for more in (("--layers", "1-2"), (), ("--layers", 2, "--tokens", 5)):
        code, _, err = palimpsest(*args, *more)
        assert code == 2
        assert "one layer" in err


def test_one_source_of_text(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    code, _, err = palimpsest(
        "moments", tiny_folder, "--text", text_file, "--dataset", "x", "--layers", 1, "--out", tmp_path
    )
    assert code == 2
    assert "one of --text, --dataset and --import" in err


def test_a_dataset_without_the_library(palimpsest, tiny_folder, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = palimpsest("moments", tiny_folder, "--dataset", "x", "--layers", 1, "--out", tmp_path / "m")
    assert code == 2
    assert "palimpsest[datasets]" in err
    assert not list((tmp_path / "m").iterdir())
