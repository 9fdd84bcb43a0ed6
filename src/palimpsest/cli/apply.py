"""`palimpsest apply MODEL EDIT --out DIR [--dose X] [--lora]`."""

from dataclasses import asdict
from typing import Any

import click

from palimpsest.cli.common import json_option, model_argument, required_out, show, table


@click.command("apply")
@model_argument
@click.argument("edit")
@required_out
@click.option(
    "--dose", type=float, default=1.0, show_default=True, help="0 writes nothing, 1 the edit, 2 twice as much."
)
@click.option("--lora", is_flag=True, help="Write a LoRA adapter for PEFT, lm-eval and vLLM instead of a checkpoint.")
@json_option
def command(model: str, edit: str, out: str, dose: float, lora: bool, as_json: bool) -> None:
    """Write MODEL with EDIT in its weights as the folder DIR, which plain transformers loads.

    EDIT is a file or a folder that holds edit.safetensors; it must be made for the weights of MODEL. `palimpsest undo DIR`
    takes it back, bit for bit.
    """
    from palimpsest.edit import Edit

    made = Edit.load(edit)
    if lora:
        _adapter(made, model, out, dose, as_json)
    else:
        _checkpoint(made, model, out, dose, as_json)


def _checkpoint(made: Any, model: str, out: str, dose: float, as_json: bool) -> None:
    done = made.apply_to_checkpoint(model, out, dose)
    rows = [asdict(one) for one in done.rounding.values()]
    data = {"folder": str(done.folder), "edits": done.edits, "dose": dose, "fingerprint": done.fingerprint}

    def text() -> str:
        shown = [
            {
                "weight": row["path"],
                "type": row["dtype"],
                "beside weight": f"{row['share']:.3g}",
                "lost to rounding": f"{row['relative_error']:.2g}",
                "unmoved": f"{row['unchanged']:.1%}",
            }
            for row in rows
        ]
        return (
            f"{table(shown)}\n\n{made!r} is in the weights of {done.folder} ({done.edits} in all), read back and right."
        )

    show(as_json, {**data, "weights": done.weights, "rounding": rows}, text)


def _adapter(made: Any, model: str, out: str, dose: float, as_json: bool) -> None:
    done = made.to_lora(out, dose=dose, model=model)
    data = {"folder": str(done.folder), "rank": done.rank, "ranks": done.ranks, "vllm_rank": done.vllm_rank}

    def text() -> str:
        rows = [{"module": module, "rank": rank} for module, rank in done.ranks.items()]
        return f"{table(rows)}\n\n{made!r} is an adapter in {done.folder}.\n" + "\n".join(done.notes)

    show(as_json, {**data, "notes": done.notes}, text)
