"""An edited checkpoint: a folder that plain transformers loads, and that can be taken back bit for bit.

    OUT/
      config.json, model.safetensors, tokenizer.json, ...    as save_pretrained writes them: nothing here is palimpsest's own
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
from safetensors.torch import load_file, save_file

from palimpsest.edit.artefact import Edit
from palimpsest.edit.folder import put_back, whole_folder
from palimpsest.edit.payload import Hook, in_plain_layout
from palimpsest.edit.rounding import Rounding
from palimpsest.errors import EditError, OutputError, WeightError
from palimpsest.model import Model, load
from palimpsest.model.model import hash_tensor
from palimpsest.model.quiet import quiet

CARD = "palimpsest-edit.json"
FORMAT = "palimpsest-checkpoint/1"


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
            folder or name is read in the type the edit was made for.
        out: must not hold files.
        dose: as in `Edit.apply`.

    Raises:
        EditError: the edit has a hook, or cannot be written (quantised weights, numbers that are not finite).
        WeightError: the weights are not those the edit was made for.
        OutputError: the folder cannot be written.
    """
    for payload in edit.payloads:
        if isinstance(payload, Hook):
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
    earlier = Path(model.name) if (Path(model.name) / CARD).is_file() else None
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
            found = _read_back(scratch, model, after)
    return Checkpoint(Path(out), len(entries), weights, found, rounding)


def undo_checkpoint(
    folder: str | PathLike[str], out: str | PathLike[str] | None = None, *, edit: Edit | None = None
) -> Checkpoint:
    """Take the last edit of an edited checkpoint back, and prove by hash that every weight is what it was.

    Args:
        folder: that `apply_to_checkpoint` wrote.
        out: where the restored checkpoint goes; in the place of `folder` when None.
        edit: the edit to undo; refused unless it is the last one. Whichever is last when None.

    Raises:
        EditError: `folder` is no edited checkpoint, its records are damaged, or `edit` is not the last.
        WeightError: its weights are not those the edit left.
        OutputError: the result cannot be written.
    """
    put_back(Path(folder))
    folder = Path(folder)
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
                model.parameter(path).copy_(original)
        for path, expected in made.weights.items():
            _require_same(path, hash_tensor(model.parameter(path)), expected, place)
            _require_same(path, entry["weights"][path]["before"], expected, folder / CARD)
        _require_same("all weights", model.fingerprint(), restored, place)
    except (KeyError, TypeError, OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise EditError(f"The records of the edit in {folder} are damaged ({error}); nothing was changed.") from None
    with whole_folder(Path(out or folder), replace=out is None) as scratch:
        _save_model(model, scratch, folder, entries[:-1])
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
    return card


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


def _place(folder: Path, i: int) -> Path:
    return folder / "palimpsest" / str(i)


def dtype_of(edit: Edit) -> torch.dtype | None:
    """The type of the weights an edit was made for; None (what `load` chooses) when it does not say or they differ."""
    names = {layout["dtype"] for layout in edit.layouts.values()}
    return _named_dtype(names.pop()) if len(names) == 1 else None


def _named_dtype(name: str) -> torch.dtype | None:
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else None
