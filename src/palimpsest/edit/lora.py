"""An edit as a LoRA adapter, in the folder format of PEFT: for PEFT itself, lm-eval and vLLM.

    W x + scaling * B (A x),     B = dose * U (out, r),  A = V (r, in),  scaling = lora_alpha / r = 1

A low-rank edit is such an adapter already; a dense one becomes one by its singular value decomposition, without what is
below the rounding of float32 beside its largest part (`Adapter.notes` says how much that was). `r` is the true rank of each
weight's change: the largest is the adapter's, smaller ones stand in `rank_pattern` and `alpha_pattern`, so that scaling is 1
everywhere. Modules are named by their whole path, so that no other one is touched.

The base model need not be at hand, and may be quantised: this is how an edit reaches a model to whose weights nothing can
be added. Where it is at hand and not quantised, its weights must be those the edit was made for. What vLLM asks beyond PEFT
is said in `Adapter.notes`:

    rank       its server takes --max-lora-rank 8, 16, 32, 64, 128, 256, 320 or 512, at least `r`
    modules    it serves the projections of attention and MLP, not an edited head
"""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from palimpsest.edit.artefact import Edit, check_dose, layout_of
from palimpsest.edit.checkpoint import dtype_of
from palimpsest.edit.folder import refuse_full, whole_folder
from palimpsest.edit.payload import Acting, LowRank, refuse_memories, refuse_quantised
from palimpsest.edit.sums import true_factors
from palimpsest.errors import EditError
from palimpsest.model import Model, load

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Adapter:
    """An adapter that was written.

    Attributes:
        folder: that holds adapter_config.json and adapter_model.safetensors.
        ranks: module path to the true rank of its change.
        rank: the largest of them, PEFT's `r`.
        vllm_rank: the --max-lora-rank a vLLM server needs; None when none is large enough.
        notes: what to know before serving it, one sentence each.
    """

    folder: Path
    ranks: dict[str, int]
    rank: int
    vllm_rank: int | None
    notes: tuple[str, ...]


def write_adapter(
    edit: Edit,
    folder: str | PathLike[str],
    *,
    dose: float = 1.0,
    model: str | PathLike[str] | Model | None = None,
) -> Adapter:
    """Write `edit` as an adapter that `peft.PeftModel.from_pretrained(base, folder)` loads.

    Args:
        edit: of the weights of linear maps.
        folder: made whole or not at all; it must not hold files.
        dose: scales the edit.
        model: the base, loaded or as `palimpsest.load` takes it: its weights must be those the edit was made for, unless
            they are quantised, and the adapter names it as its base. When None, the base that the edit names, unchecked.

    Raises:
        EditError: the edit has a hook, changes what is no linear map, or changes nothing.
        WeightError: the weights of `model` are not those the edit was made for.
        OutputError: the folder cannot be written.
        SettingError: the dose is not a finite number.
    """
    check_dose(dose)
    refuse_full(Path(folder))
    refuse_memories(edit.payloads, "A LoRA adapter")
    for payload in edit.payloads:
        if isinstance(payload, Acting):
            raise EditError(
                f"An adapter changes weights, but this edit acts on the states at {payload.site}; use it with "
                f"edit.applied(model), and hand it on as the file that edit.save writes."
            )
        if not all(bool(torch.isfinite(tensor).all()) for tensor in payload.tensors().values()):
            raise EditError(f"The edit of {payload.path} holds numbers that are not finite; make it again.")
    if model is not None and not isinstance(model, Model):
        model = load(model, dtype=dtype_of(edit), check=False)
    notes = _of_the_base(edit, model)
    factors: dict[str, LowRank] = {}
    transposed = set()
    left_out = {}
    for payload in edit.payloads:
        assert not isinstance(payload, Acting)
        order = _order(edit, payload.path, model)
        module = payload.path.removesuffix(".weight")
        low, left_out[module] = true_factors(payload, transposed=order == "in out")
        if low.rank and dose:
            factors[module] = LowRank(payload.path, dose * low.u, low.v)
            if order == "in out":
                transposed.add(module)
    if not factors:
        raise EditError("This edit changes nothing at this dose, so there is no adapter to write.")
    ranks = {module: low.rank for module, low in factors.items()}
    base = edit.settings.get("model") if model is None else model.name
    config = _config(base, ranks, transposed_modules=transposed)
    with whole_folder(Path(folder)) as scratch:
        tensors = {}
        for module, low in factors.items():
            tensors[f"base_model.model.{module}.lora_A.weight"] = low.v.cpu().contiguous()
            tensors[f"base_model.model.{module}.lora_B.weight"] = low.u.cpu().contiguous()
        save_file(tensors, scratch / "adapter_model.safetensors", metadata={"format": "pt"})
        (scratch / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    largest = max(ranks.values())
    fits = next((rank for rank in VLLM_RANKS if rank >= largest), None)
    return Adapter(Path(folder), ranks, largest, fits, (*notes, *_notes(ranks, fits, left_out)))


def _of_the_base(edit: Edit, model: Model | None) -> tuple[str, ...]:
    """What is not known of the base; raises `WeightError` when its weights are not those the edit was made for."""
    if model is None:
        return ("That the base has the weights the edit was made for was not checked, because no model was given.",)
    for path in edit.weights:
        try:
            refuse_quantised(model, path)
        except EditError:
            return (
                f"{model.name} is quantised, so that it was made of the weights the edit was made for is not checked.",
            )
    edit.check_fits(model)
    return ()


def _order(edit: Edit, path: str, model: Model | None) -> str:
    if path in edit.layouts:
        layout = edit.layouts[path]
    elif model is not None:
        layout = layout_of(model, path)
    else:
        raise EditError(
            f"This edit file does not say how {path} is stored; give the model too: edit.to_lora(folder, model=model)."
        )
    order = str(layout["order"])
    if not order:
        raise EditError(
            f"A LoRA adapter changes linear maps, and {path} belongs to none; write an edited checkpoint instead, with "
            f"edit.apply_to_checkpoint(model, folder) or `palimpsest apply` without --lora."
        )
    return order


def _config(base: str | None, ranks: dict[str, int], *, transposed_modules: set[str]) -> dict[str, Any]:
    largest = max(ranks.values())
    smaller = {module: rank for module, rank in ranks.items() if rank < largest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": bool(transposed_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


def _notes(ranks: dict[str, int], fits: int | None, left_out: dict[str, float]) -> tuple[str, ...]:
    notes = [f"The adapter has rank {max(ranks.values())}."]
    module, most = max(left_out.items(), key=lambda item: item[1])
    if most:
        notes.append(
            f"Left out as rounding: {most:.1g} of the norm of the change of {module}, no larger a part of any other."
        )
    else:
        notes.append("Nothing of the change was left out.")
    if fits is None:
        notes.append(f"vLLM serves no adapter of more than rank {VLLM_RANKS[-1]}: serve an edited checkpoint instead.")
    else:
        notes.append(f"Start vLLM with --enable-lora --max-lora-rank {fits}.")
    outside = [module for module in ranks if not any(step.isdecimal() for step in module.split("."))]
    if outside:
        notes.append(f"vLLM serves projections of attention and MLP only, so it will not serve {outside[0]}.")
    return tuple(notes)
