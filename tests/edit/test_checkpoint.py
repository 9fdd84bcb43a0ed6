"""Edited checkpoints: plain transformers loads them, and undoing gives back every bit or says why not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_editors import dense, draw, hook, low_rank, made
from transformers import AutoModelForCausalLM, AutoTokenizer

from families import build, byte_tokenizer
from oracles.small import EIFFEL, FACTS, smollm2
from palimpsest.edit import Dense, Edit
from palimpsest.edit.checkpoint import CARD, apply_to_checkpoint, read_card, undo_checkpoint
from palimpsest.errors import EditError, OutputError, SettingError, WeightError
from palimpsest.model import Model, load, pad

MAKERS = {"low rank": low_rank, "dense": dense}


def folder_of(tmp_path: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **settings: object) -> Path:
    """A tiny model as save_pretrained writes it."""
    folder = tmp_path / "base"
    build(family, dtype=dtype, **settings).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def logits(model: Model) -> torch.Tensor:
    """Of a batch of prompts."""
    return model.last_logits(pad([model.encode(fact.text).ids for fact in FACTS]))


def names(folder: Path) -> set[str]:
    """Files and folders in it."""
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_plain_transformers_loads_it_and_undo_gives_every_bit_back(
    family: str, dtype: torch.dtype, kind: str, tmp_path: Path
) -> None:
    base = folder_of(tmp_path, family, dtype)
    model = load(base, dtype=dtype, check=False)
    edit, before, original = MAKERS[kind](model, [EIFFEL]), model.fingerprint(), logits(model)
    with edit.applied(model, 0.5):
        expected, edited = logits(model), model.fingerprint()
    done = edit.apply_to_checkpoint(base, tmp_path / "out", 0.5)  # the type is that of the edit
    assert (done.edits, done.fingerprint) == (1, edited)
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = load(net, tokenizer=tokenizer, check=False)
    assert net.dtype == dtype
    assert plain.fingerprint() == edited
    assert torch.equal(logits(plain), expected)
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert Edit.load(tmp_path / "out").fingerprint() == edit.fingerprint()
    undone = undo_checkpoint(tmp_path / "out", tmp_path / "back")
    assert (undone.edits, undone.fingerprint) == (0, before)
    back = load(tmp_path / "back", dtype=dtype, check=False)
    assert back.fingerprint() == before
    assert torch.equal(logits(back), original)
    assert names(tmp_path / "back") == names(tmp_path / "out") - {CARD, "palimpsest"}
    assert load(tmp_path / "out", dtype=dtype, check=False).fingerprint() == edited  # untouched by an undo elsewhere
    low = json.loads((tmp_path / "out" / CARD).read_text())["edits"][0]
    assert low["weights"] == {
        path: {"before": undone.weights[path]["after"], "after": undone.weights[path]["before"]}
        for path in edit.weights
    }
    assert {path: hashes["before"] for path, hashes in low["weights"].items()} == dict(edit.weights)


def test_undo_in_place(tmp_path: Path) -> None:
    base = folder_of(tmp_path)
    model = load(base, check=False)
    out = tmp_path / "out"
    low_rank(model, [EIFFEL]).apply_to_checkpoint(model, out)
    assert model.applied == []
    undo_checkpoint(out)
    assert load(out, check=False).fingerprint() == load(base, check=False).fingerprint()
    assert names(tmp_path) == {"base", "out"}
    with pytest.raises(EditError, match="not an edited checkpoint"):
        undo_checkpoint(out)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_stays_tied(tied: bool, tmp_path: Path) -> None:
    base = folder_of(tmp_path, tie_word_embeddings=tied)
    model = load(base, check=False)
    embedding = "model.embed_tokens.weight"
    edit = made(model, [EIFFEL], Dense(embedding, draw(*model.parameter(embedding).shape)))
    head, before = model.anatomy.head.weight.clone(), model.fingerprint()
    edit.apply_to_checkpoint(base, tmp_path / "out")
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    same = torch.equal(net.get_output_embeddings().weight, net.get_input_embeddings().weight)
    assert same == tied
    assert torch.equal(net.get_output_embeddings().weight, head) != tied
    undo_checkpoint(tmp_path / "out")
    back = load(tmp_path / "out", check=False)
    assert back.fingerprint() == before
    assert torch.equal(back.anatomy.head.weight, head)


def test_two_edits_are_undone_last_first(tmp_path: Path) -> None:
    base, one, two = folder_of(tmp_path), tmp_path / "one", tmp_path / "two"
    first = low_rank(load(base, check=False), [EIFFEL])
    first.apply_to_checkpoint(base, one)
    second = low_rank(load(one, check=False), [EIFFEL], seed=9)
    assert second.apply_to_checkpoint(one, two).edits == 2
    prints = {place: load(place, check=False).fingerprint() for place in (base, one, two)}
    assert len(set(prints.values())) == 3
    with pytest.raises(EditError, match="Undo the last edit first"):
        first.undo_checkpoint(two)
    with pytest.raises(EditError, match="not in this checkpoint"):
        undo_checkpoint(two, edit=low_rank(load(base, check=False), [EIFFEL], seed=5))
    assert load(two, check=False).fingerprint() == prints[two]
    assert second.undo_checkpoint(two).edits == 1
    assert load(two, check=False).fingerprint() == prints[one]
    assert Edit.load(two).fingerprint() == first.fingerprint()
    assert undo_checkpoint(two, edit=first).edits == 0
    assert load(two, check=False).fingerprint() == prints[base]
    assert names(two) == names(base)


def test_a_second_edit_made_in_another_type_is_refused(tmp_path: Path) -> None:
    base, one = folder_of(tmp_path, dtype=torch.bfloat16), tmp_path / "one"
    low_rank(load(base, dtype=torch.bfloat16, check=False), [EIFFEL]).apply_to_checkpoint(base, one)
    second = low_rank(load(one, check=False), [EIFFEL])  # in float32, as load reads on a CPU
    with pytest.raises(WeightError, match=r"edited in bfloat16, but .* as float32.*dtype=torch\.bfloat16"):
        second.apply_to_checkpoint(one, tmp_path / "two")
    assert names(tmp_path) == {"base", "one"}


def test_every_file_can_be_read_by_whoever_may_read_the_folder(tmp_path: Path) -> None:
    base = folder_of(tmp_path)
    low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, tmp_path / "out")
    usual = (tmp_path / "out").stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()} == {usual}


def test_dose_zero_writes_the_same_weights(tmp_path: Path) -> None:
    base = folder_of(tmp_path)
    before = load(base, check=False).fingerprint()
    done = low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, tmp_path / "out", 0.0)
    assert done.fingerprint == before
    assert undo_checkpoint(tmp_path / "out").fingerprint == before


def test_what_a_checkpoint_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    base, out = folder_of(tmp_path), tmp_path / "out"
    model = load(base, check=False)
    edit = low_rank(model, [EIFFEL])
    with pytest.raises(EditError, match="A checkpoint holds weights"):
        hook(model, [EIFFEL]).apply_to_checkpoint(base, out)
    with pytest.raises(WeightError, match="made for other weights"):
        low_rank(load(build("llama", seed=3), tokenizer=model.tokenizer, check=False), []).apply_to_checkpoint(
            base, out
        )
    with pytest.raises(EditError, match="not finite"):
        edit.apply_to_checkpoint(base, out, 1e39)
    with edit.applied(model), pytest.raises(EditError, match="applied; undo it"):
        low_rank(model, [EIFFEL], layer=2).apply_to_checkpoint(model, out)
    assert names(tmp_path) == {"base"}
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        edit.apply_to_checkpoint(base, out)
    assert names(out) == {"mine"}
    assert names(tmp_path) == {"base", "out"}


def altered(path: Path, add: float) -> None:
    """The first tensor of a safetensors file, changed."""
    tensors = load_file(path)
    first = sorted(tensors)[0]
    save_file(tensors | {first: tensors[first] + add}, path, metadata={"format": "pt"})


def test_undo_refuses_what_it_could_not_prove(tmp_path: Path) -> None:
    base, good = folder_of(tmp_path), tmp_path / "good"
    low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, good)

    def attempt(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    trained = attempt("trained")
    altered(trained / "model.safetensors", 0.1)
    with pytest.raises(WeightError, match="not those the edit left"):
        undo_checkpoint(trained)
    with pytest.raises(WeightError, match="its history does not hold"):
        low_rank(load(trained, check=False), [EIFFEL]).apply_to_checkpoint(trained, tmp_path / "more")
    forged = attempt("forged")
    altered(forged / "palimpsest" / "1" / "original.safetensors", 0.1)
    with pytest.raises(EditError, match="would not restore"):
        undo_checkpoint(forged)
    more = attempt("more than its own")
    originals = more / "palimpsest" / "1" / "original.safetensors"
    save_file(load_file(originals) | {"model.norm.weight": torch.ones(32)}, originals)
    with pytest.raises(EditError, match="would not restore all weights"):
        undo_checkpoint(more)
    agreed = attempt("agreed")  # originals and record forged alike: the hashes in the edit itself are left
    altered(agreed / "palimpsest" / "1" / "original.safetensors", 0.1)
    model = load(good, check=False)
    with torch.no_grad():
        for path, weight in load_file(agreed / "palimpsest" / "1" / "original.safetensors").items():
            model.parameter(path).copy_(weight)
    card = read_card(good)
    card["edits"][0]["all_weights"]["before"] = model.fingerprint()
    (agreed / CARD).write_text(json.dumps(card))
    with pytest.raises(EditError, match=r"would not restore model\.layers"):
        undo_checkpoint(agreed)
    lost = attempt("lost")
    (lost / "palimpsest" / "1" / "original.safetensors").unlink()
    with pytest.raises(EditError, match="damaged"):
        undo_checkpoint(lost)
    for text in ("{", "[]", '{"format": "palimpsest-checkpoint/9", "edits": []}'):
        broken = attempt(f"broken{len(text)}")
        (broken / CARD).write_text(text)
        with pytest.raises(EditError, match="palimpsest-edit.json"):
            undo_checkpoint(broken)
    with pytest.raises(EditError, match="not an edited checkpoint"):
        read_card(tmp_path)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_save_that_transformers_does_not_do_exactly_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = folder_of(tmp_path)
    model = load(base, check=False)
    edit, real = low_rank(model, [EIFFEL]), type(model.net).save_pretrained

    def careless(net: torch.nn.Module, folder: Path) -> None:
        real(net, folder)
        altered(folder / "model.safetensors", 1e-3)

    monkeypatch.setattr(type(model.net), "save_pretrained", careless)
    with pytest.raises(OutputError, match="read back is not the model"):
        edit.apply_to_checkpoint(model, tmp_path / "out")
    assert names(tmp_path) == {"base"}
    assert model.applied == []


REMOTE = """
raise SystemExit("remote code was executed")
"""


def furnished(folder: Path) -> Path:
    """A model's folder with what people and hubs put there, remote code and old weights among it."""
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Net"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": code}))
    (folder / "remote.py").write_text(REMOTE)
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "README.md").symlink_to(folder.parent / "card.md")
    (folder.parent / "card.md").write_text("a model")
    (folder / "lost").symlink_to(folder / "nowhere")
    for old in ("pytorch_model.bin", "model.gguf", ".git/pack", "original/consolidated.00.pth", "original/params.json"):
        (folder / old).parent.mkdir(exist_ok=True)
        (folder / old).write_text(old)
    return folder


def test_what_else_lies_in_a_models_folder_comes_along_and_is_not_run(tmp_path: Path) -> None:
    base = furnished(folder_of(tmp_path))
    bare = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, base / "out")  # a folder within the folder
    out = base / "out"
    others = {"README.md", "remote.py", "preprocessor_config.json", "original"}
    assert names(out) == bare | others | {CARD, "palimpsest"}
    assert names(out / "original") == {"params.json"}
    assert (out / "README.md").read_text() == "a model"
    assert not (out / "README.md").is_symlink()
    one = low_rank(load(out, check=False), [EIFFEL]).apply_to_checkpoint(out, tmp_path / "two").folder
    assert names(one) == names(out)
    assert not list(tmp_path.glob(".*"))


def test_undo_leaves_the_files_of_others(tmp_path: Path) -> None:
    base, out = folder_of(tmp_path), tmp_path / "out"
    low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, out)
    bare = names(base)
    mine = {"NOTES.md": "mine", "runs/model.safetensors": "kept", "adapter/deep/x.bin": "kept", "run.sh": "#!"}
    for name, text in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    (out / "run.sh").chmod(0o700)
    (out / "latest").symlink_to("runs")
    (out / "gone").symlink_to("nowhere")
    undo_checkpoint(out, tmp_path / "back")
    assert names(tmp_path / "back") == bare | {"NOTES.md", "runs", "adapter", "run.sh", "latest"}
    undo_checkpoint(out)
    assert names(out) == bare | {"NOTES.md", "runs", "adapter", "run.sh", "latest", "gone"}
    assert {name: (out / name).read_text() for name in mine} == mine
    assert (out / "run.sh").stat().st_mode & 0o777 == 0o700
    assert (out / "latest").readlink() == Path("runs")


def test_weights_in_several_files_are_written_anew(tmp_path: Path) -> None:
    base, out = folder_of(tmp_path), tmp_path / "out"
    model = load(base, check=False)
    low_rank(model, [EIFFEL]).apply_to_checkpoint(base, out)
    edited = load(out, check=False)
    (out / "model.safetensors").unlink()
    edited.net.save_pretrained(out, max_shard_size="40KB")
    assert (out / "model.safetensors.index.json").is_file()
    assert undo_checkpoint(out).fingerprint == model.fingerprint()
    assert names(out) == names(base)


def test_damaged_records_are_refused_in_one_sentence(tmp_path: Path) -> None:
    base, good = folder_of(tmp_path), tmp_path / "good"
    edit = low_rank(load(base, check=False), [EIFFEL])
    edit.apply_to_checkpoint(base, good)
    originals, card = good / "palimpsest" / "1" / "original.safetensors", read_card(good)
    whole, before = originals.read_bytes(), {path: path.read_bytes() for path in good.iterdir() if path.is_file()}

    def refused(sentence: str) -> None:
        with pytest.raises(EditError, match=sentence) as error:
            undo_checkpoint(good, edit=edit)
        assert "\n" not in str(error.value)
        assert "damaged" in str(error.value)

    originals.write_bytes(whole[:40])
    refused("records of the edit")
    save_file({next(iter(edit.weights)): torch.zeros(1)}, originals)
    refused("has shape")
    originals.write_bytes(whole)
    assert {path: path.read_bytes() for path in good.iterdir() if path.is_file()} == before
    (entry,) = card["edits"]
    for name in entry.keys() - {"dose"}:
        (good / CARD).write_text(json.dumps(card | {"edits": [{k: v for k, v in entry.items() if k != name}]}))
        refused(f"its edit 1 has no {name}")
    for broken, what in [(3, "record"), (entry | {"all_weights": {"before": "x"}}, "hashes of all_weights")]:
        (good / CARD).write_text(json.dumps(card | {"edits": [broken]}))
        refused(f"its edit 1 has no {what}")


def test_what_can_be_refused_at_once_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    edit = low_rank(load(folder_of(tmp_path), check=False), [EIFFEL])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        edit.apply_to_checkpoint("no such model", tmp_path / "full")
    with pytest.raises(SettingError, match="finite number, got nan"):
        edit.apply_to_checkpoint("no such model", tmp_path / "out", float("nan"))
    (edit.apply_to_checkpoint(tmp_path / "base", tmp_path / "out").folder / "model.safetensors").unlink()
    with pytest.raises(OutputError, match="not empty"):
        undo_checkpoint(tmp_path / "out", tmp_path / "full")


@pytest.mark.slow
def test_smollm2_is_edited_and_restored(tmp_path: Path) -> None:
    model = smollm2()
    before, edit = model.fingerprint(), low_rank(model, [EIFFEL], layer=9)
    apply_to_checkpoint(edit, "smollm2", tmp_path / "out")
    with edit.applied(model):
        expected = logits(model)
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(logits(load(net, tokenizer=model.tokenizer, check=False)), expected)
    assert undo_checkpoint(tmp_path / "out").fingerprint == before
