"""The edit file: one safetensors file that describes itself.

    tensors        "0.u", "0.v", "1.delta", "2.a", ...: the tensors of payload 0, 1, 2, ..., by the names of its class
    __metadata__   {"palimpsest": JSON}, with
                       format     "palimpsest-edit/1"
                       method     name of the method
                       settings   every setting, and the model's name
                       facts      list of facts, as `Fact.to_json`
                       payloads   list of {"kind": "low rank" | "dense" | "hook", "path": ... | "site": [kind, layer]};
                                  a memory has its own kind, a site, and "says", what it holds besides tensors
                       weights    {path: SHA-256 of the weight it was made for}
                       notes      what the method measured
                       versions   of palimpsest, torch and transformers
                       layouts    {path: {"dtype", "shape", "order": "out in" | "in out" | ""}} of the weights as stored

It is written beside its final place and renamed, so a kill leaves no half file; nothing in it is ever executed.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from palimpsest.edit.artefact import Edit
from palimpsest.edit.memories.kinds import memory_kinds
from palimpsest.edit.payload import Dense, Hook, LowRank, Payload, described, in_plain_layout
from palimpsest.errors import EditError
from palimpsest.facts import Fact
from palimpsest.model import Site
from palimpsest.runs import atomic_write

FORMAT = "palimpsest-edit/1"


def save_edit(edit: Edit, path: str | PathLike[str]) -> None:
    """Write `edit` to `path`; raises `OutputError` when the place cannot be written."""
    # a copy each: safetensors refuses tensors that share memory, as a Hook's A and B = A^T of rank 1 do
    tensors = {
        f"{i}.{name}": in_plain_layout(tensor).cpu()
        for i, payload in enumerate(edit.payloads)
        for name, tensor in payload.tensors().items()
    }
    card = {
        "format": FORMAT,
        "method": edit.method,
        "settings": dict(edit.settings),
        "facts": [fact.to_json() for fact in edit.facts],
        "payloads": [described(payload) for payload in edit.payloads],
        "weights": dict(edit.weights),
        "notes": dict(edit.notes),
        "versions": dict(edit.versions),
        "layouts": {path: dict(layout) for path, layout in edit.layouts.items()},
    }
    atomic_write(Path(path), to_bytes(tensors, metadata={"palimpsest": json.dumps(card, ensure_ascii=False)}))


def load_edit(path: str | PathLike[str]) -> Edit:
    """Read an edit file, or that of a folder: of `palimpsest edit`, or the last one in an edited checkpoint.

    Raises:
        EditError: there is no such file, it is damaged, or it is not an edit.
    """
    path = edit_file(path)
    if not path.is_file():
        raise EditError(f"There is no edit file {path}; name the file that Edit.save or `palimpsest edit` wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("palimpsest", "{}"))
            found = card.get("format") if isinstance(card, dict) else None
            if found != FORMAT:
                raise EditError(f"{path} is not an edit file: its format is {found!r}, expected {FORMAT!r}.")
            payloads = tuple(_restore(i, entry, file, path) for i, entry in enumerate(card["payloads"]))
            facts = tuple(Fact.from_json(record) for record in card["facts"])
            settings, weights, notes, versions = (card[n] for n in ("settings", "weights", "notes", "versions"))
            return Edit(card["method"], payloads, facts, settings, weights, notes, versions, card.get("layouts", {}))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise EditError(f"The edit file {path} is damaged ({error}); save it again.") from None


def edit_file(path: str | PathLike[str]) -> Path:
    """The edit file at `path`; in a folder its `edit.safetensors`, or the newest under `palimpsest/` of a checkpoint."""
    path = Path(path)
    if not path.is_dir():
        return path
    stacked = [entry for entry in (path / "palimpsest").glob("*/edit.safetensors") if entry.parent.name.isdecimal()]
    newest = max(stacked, key=lambda entry: int(entry.parent.name), default=None)
    return path / "edit.safetensors" if newest is None else newest


def _restore(i: int, entry: dict[str, Any], file: Any, path: str | PathLike[str]) -> Payload:
    kind = entry["kind"]
    if kind == "low rank":
        return LowRank(entry["path"], file.get_tensor(f"{i}.u"), file.get_tensor(f"{i}.v"))
    if kind == "dense":
        return Dense(entry["path"], file.get_tensor(f"{i}.delta"))
    if kind == "hook":
        tensors = (file.get_tensor(f"{i}.{name}") for name in ("a", "b", "c"))
        return Hook(Site(*entry["site"]), *tensors)
    memories = memory_kinds()
    if kind in memories:
        held = {name: file.get_tensor(f"{i}.{name}") for name in memories[kind].names}
        return memories[kind].restored(Site(*entry["site"]), held, entry["says"])
    raise EditError(
        f"The edit file {path} holds a payload of kind {kind!r}; this version knows low rank, dense, hook and the memories "
        f"{', '.join(memories)}."
    )
