"""An edited checkpoint: a folder that plain transformers loads, and that can be taken back bit for bit.

    OUT/
      config.json, model.safetensors, tokenizer.json, ...    as save_pretrained writes them: nothing here is palimpsest's own
      README.md, preprocessor_config.json, ...               copied: whatever else lay in the folder of the model
      palimpsest-edit.json           what was written: per edit its dose and, per weight, the hash before and after
      palimpsest/1/edit.safetensors          the edit
      palimpsest/1/original.safetensors      the values its weights had, because subtracting does not bring them back
      palimpsest/2/...               a second edit, written on top of the first

The extra tensors lie in a folder of their own, since some servers load every *.safetensors beside the config.

Undoing takes the last edit first. It is proven, not assumed: the hash of every weight is taken before the edit, the undone
folder is read back from the disk, and the two must agree; so must each restored weight and the hash its edit was made for.
A folder is written beside its place and renamed, so a kill at any moment leaves the target absent or whole.
"""

import json
import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from palimpsest.edit.artefact import Edit, check_dose
from palimpsest.edit.folder import carry_over, put_back, refuse_full, whole_folder
from palimpsest.edit.payload import Acting, in_plain_layout, refuse_memories
from palimpsest.edit.rounding import Rounding
from palimpsest.errors import EditError, OutputError, WeightError
from palimpsest.model import Model, load
from palimpsest.model.load import SHIPPED
from palimpsest.model.model import hash_tensor
from palimpsest.model.quiet import quiet

CARD = "palimpsest-edit.json"
FORMAT = "palimpsest-checkpoint/1"
RECORDS = (CARD, "palimpsest")
# what `_save_model` writes anew; everything else in an edited checkpoint is its owner's
WRITTEN = (*RECORDS, "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
# weights in any format, which are not the edited ones, and where Git and the Hub's downloads keep theirs
FORMATS = ("safetensors", "bin", "index.json", "pt", "pth", "ckpt", "h5", "msgpack", "ot", "gguf", "onnx")
WEIGHTS = (".git", ".cache", *(f"*.{ending}" for ending in FORMATS))
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was written.

    Attributes:
        folder: where it is.
        edits: how many edits are in its weights.
        weights: per path of a weight that was changed or restored, its hash before and after.
        fingerprint: SHA-256 over all weights, read back from the disk.
        rounding: per path, what the type of the weights cost; empty after an undo, which costs nothing.
    """

    folder: Path
    edits: int
    weights: dict[str, dict[str, str]]
    fingerprint: str
    rounding: dict[str, Rounding]


def apply_to_checkpoint(
    edit: Edit, source: str | PathLike[str] | Model, out: str | PathLike[str], dose: float = 1.0
) -> Checkpoint:
    """Write the model of `source` with `edit` in its weights as the folder `out`.

    Args:
        edit: made for the weights of `source`; of weights only.
        source: what `palimpsest.load` takes, an edited checkpoint among it, or a loaded model, which is left as it is. A
            folder or name is read in the type the edit was made for. What else lies in its folder is copied, other
            formats of its weights excepted.
        out: must not hold files.
        dose: as in `Edit.apply`.

    Raises:
        EditError: the edit has a hook, or cannot be written (quantised weights, numbers that are not finite).
        WeightError: the weights are not those the edit was made for.
        OutputError: the folder cannot be written.
        SettingError: the dose is not a finite number.
    """
    check_dose(dose)
    refuse_full(Path(out))
    refuse_memories(edit.payloads, "A checkpoint")
    for payload in edit.payloads:
        if isinstance(payload, Acting):
            raise EditError(
                f"A checkpoint holds weights, but this edit acts on the states at {payload.site}; keep it as an edit file and "
                f"use it with edit.applied(model)."
            )
    model = source if isinstance(source, Model) else load(source, dtype=dtype_of(edit), check=False)
    if model.applied:
        raise EditError(
            f"{model.name} has {model.applied[-1].edit!r} applied; undo it, and write the edits one after the other: each "
            f"checkpoint remembers the one before."
        )
    rounding = edit.rounding(model, dose)
    before = model.fingerprint()
    origin = _folder_of(model)
    earlier = origin if origin and (origin / CARD).is_file() else None
    entries = read_card(earlier)["edits"] if earlier else []
    dtype = str(model.net.dtype).removeprefix("torch.")
    if entries and entries[-1]["dtype"] != dtype:
        written = entries[-1]["dtype"]
        raise WeightError(
            f"{earlier} holds weights edited in {written}, but this edit was made for them as {dtype}; make it for "
            f"palimpsest.load({str(earlier)!r}, dtype=torch.{written}), so that both can be undone."
        )
    if entries and entries[-1]["all_weights"]["after"] != before:
        raise WeightError(
            f"The weights of {earlier} are not those its last edit left, so its history does not hold; undo that edit, or "
            f"remove {CARD} to begin anew."
        )
    with edit.applied(model, dose):
        originals = model.applied[-1].stored
        weights = {
            path: {"before": expected, "after": hash_tensor(model.parameter(path))}
            for path, expected in edit.weights.items()
        }
        after = model.fingerprint()
        entry = {
            "edit": edit.fingerprint(),
            "method": edit.method,
            "facts": len(edit.facts),
            "dose": dose,
            "dtype": dtype,
            "weights": weights,
            "all_weights": {"before": before, "after": after},
        }
        with whole_folder(Path(out)) as scratch:
            entries = [*entries, entry]
            _save_model(model, scratch, earlier, entries)
            place = _place(scratch, len(entries))
            place.mkdir(parents=True)
            edit.save(place / "edit.safetensors")
            save_file({path: in_plain_layout(t).cpu() for path, t in originals.items()}, place / "original.safetensors")
            if origin:
                names = (*RECORDS, *TOKENIZER, *getattr(model.tokenizer, "vocab_files_names", {}).values())
                carry_over(origin, scratch, without=names, below=WEIGHTS)
            found = _read_back(scratch, model, after)
    return Checkpoint(Path(out), len(entries), weights, found, rounding)


def undo_checkpoint(
    folder: str | PathLike[str], out: str | PathLike[str] | None = None, *, edit: Edit | None = None
) -> Checkpoint:
    """Take the last edit of an edited checkpoint back, and prove by hash that every weight is what it was.

    Args:
        folder: that `apply_to_checkpoint` wrote.
        out: where the restored checkpoint goes; in the place of `folder` when None. Files that are neither weights nor
            records come along.
        edit: the edit to undo; refused unless it is the last one. Whichever is last when None.

    Raises:
        EditError: `folder` is no edited checkpoint, its records are damaged, or `edit` is not the last.
        WeightError: its weights are not those the edit left.
        OutputError: the result cannot be written.
    """
    folder = Path(folder)
    put_back(folder)
    if out is not None:
        refuse_full(Path(out))
    entries = read_card(folder)["edits"]
    if not entries:
        raise EditError(f"{folder} has no edit left to undo.")
    entry, place = entries[-1], _place(folder, len(entries))
    if edit is not None:
        _check_last(entries, edit)
    made = Edit.load(place / "edit.safetensors")
    try:
        model = load(folder, dtype=_named_dtype(entry["dtype"]), check=False)
        left, restored = entry["all_weights"]["after"], entry["all_weights"]["before"]
        if model.fingerprint() != left:
            raise WeightError(
                f"The weights of {folder} are not those the edit left; something changed them since, so undoing would lose it."
            )
        originals = load_file(place / "original.safetensors")
        with torch.no_grad():
            for path, original in originals.items():
                weight = model.parameter(path)
                if weight.shape != original.shape:
                    raise ValueError(f"{path} has shape {tuple(weight.shape)}, its original {tuple(original.shape)}")
                weight.copy_(original)
        for path, expected in made.weights.items():
            _require_same(path, hash_tensor(model.parameter(path)), expected, place)
            _require_same(path, entry["weights"][path]["before"], expected, folder / CARD)
        _require_same("all weights", model.fingerprint(), restored, place)
    except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise EditError(f"The records of the edit in {folder} are damaged ({error}); nothing was changed.") from None
    with whole_folder(Path(out or folder), replace=out is None) as scratch:
        _save_model(model, scratch, folder, entries[:-1])
        carry_over(folder, scratch, without=WRITTEN, links=out is None)
        found = _read_back(scratch, model, restored)
    weights = {path: {"before": h["after"], "after": h["before"]} for path, h in entry["weights"].items()}
    return Checkpoint(Path(out or folder), len(entries) - 1, weights, found, {})


def read_card(folder: Path) -> dict[str, Any]:
    """The `palimpsest-edit.json` of an edited checkpoint; raises `EditError` when it is missing or damaged."""
    path = folder / CARD
    if not path.is_file():
        raise EditError(f"{folder} is not an edited checkpoint: it has no {CARD}; name a folder of `palimpsest apply`.")
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EditError(f"{path} is damaged ({error}).") from None
    found = card.get("format") if isinstance(card, dict) else None
    if found != FORMAT or not isinstance(card.get("edits"), list):
        raise EditError(
            f"{path} is not the record of an edited checkpoint: its format is {found!r}, expected {FORMAT!r}."
        )
    for i, entry in enumerate(card["edits"], 1):
        if (lacking := _lacking(entry)) is not None:
            raise EditError(f"{path} is damaged (its edit {i} has no {lacking}); restore it from a copy of the folder.")
    return card


def _lacking(entry: Any) -> str | None:
    """What the record of one edit should say and does not."""
    if not isinstance(entry, dict):
        return "record"
    for name, kind in {
        "edit": str,
        "method": str,
        "facts": int,
        "dtype": str,
        "weights": dict,
        "all_weights": dict,
    }.items():
        if not isinstance(entry.get(name), kind):
            return name
    for name, hashes in [("all_weights", entry["all_weights"]), *entry["weights"].items()]:
        if not isinstance(hashes, dict) or not all(isinstance(hashes.get(when), str) for when in ("before", "after")):
            return f"hashes of {name}"
    return None


def _check_last(entries: list[dict[str, Any]], edit: Edit) -> None:
    wanted, prints = edit.fingerprint(), [entry["edit"] for entry in entries]
    if wanted == prints[-1]:
        return
    if wanted in prints:
        last = entries[-1]
        raise EditError(
            f"Undo the last edit first: {last['method']} ({last['facts']} facts) was written on top of {edit!r}."
        )
    raise EditError(f"{edit!r} is not in this checkpoint, which holds {len(entries)} other edits.")


def _require_same(what: str, found: str, expected: str, where: Path) -> None:
    if found != expected:
        raise EditError(
            f"Undoing would not restore {what}: {where} gives the hash {found[:12]}, expected {expected[:12]}; "
            f"its records are damaged, and nothing was changed."
        )


def _save_model(model: Model, scratch: Path, earlier: Path | None, entries: list[dict[str, Any]]) -> None:
    """Weights, config, tokenizer, and the records of `entries`, all but the newest of which `earlier` holds."""
    with quiet():
        model.net.save_pretrained(scratch)
        model.tokenizer.save_pretrained(scratch)
    for i in range(1, len(entries) + 1):
        if earlier is not None and _place(earlier, i).is_dir():
            shutil.copytree(_place(earlier, i), _place(scratch, i))
    if entries:
        card = {"format": FORMAT, "edits": entries}
        (scratch / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _read_back(scratch: Path, model: Model, expected: str) -> str:
    """The fingerprint of what the disk holds; raises `OutputError` when it is not what was to be written."""
    found = load(str(scratch), tokenizer=model.tokenizer, dtype=model.net.dtype, check=False).fingerprint()
    if found != expected:
        raise OutputError(
            f"What was written to {scratch.parent} and read back is not the model ({found[:12]}, expected {expected[:12]}); "
            f"transformers does not save {type(model.net).__name__} exactly, or the disk is failing."
        )
    return found


def _folder_of(model: Model) -> Path | None:
    """The folder here that `model` was read from; None for a name, a model from the Hub, or one made in memory."""
    place = Path(model.name)
    return place if model.name not in SHIPPED and place.is_dir() else None


def _place(folder: Path, i: int) -> Path:
    return folder / "palimpsest" / str(i)


def dtype_of(edit: Edit) -> torch.dtype | None:
    """The type of the weights an edit was made for; None (what `load` chooses) when it does not say or they differ."""
    names = {layout["dtype"] for layout in edit.layouts.values()}
    return _named_dtype(names.pop()) if len(names) == 1 else None


def _named_dtype(name: str) -> torch.dtype | None:
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else None
