"""`palimpsest train mend|ke MODEL FACTS --out DIR`."""

from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    given,
    json_option,
    layers_option,
    limit_option,
    model_argument,
    preset_option,
    progress_bar,
    read,
    required_out,
    seed_option,
    set_option,
    show,
    table,
)


@click.command("train")
@click.argument("method", type=click.Choice(["mend", "ke"]))
@model_argument
@device_option
@click.argument("facts")
@required_out
@preset_option
@layers_option
@limit_option
@seed_option
@click.option("--every", type=click.IntRange(min=1), default=100, show_default=True, help="Steps between check points.")
@set_option
@json_option
def command(
    method: str,
    model: str,
    device: str | None,
    facts: str,
    out: str,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    every: int,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Learn an editor for MODEL from FACTS, as DIR/editor.safetensors. The model itself is not changed.

    Each fact needs a new answer, a paraphrase, and a prompt that must stay. A fifth of the subjects validates and is never learned
    from. The same command goes on with a training that was interrupted. Use it with --method mend --set editor=DIR.
    """
    file = read(facts, limit)
    from palimpsest.edit.learned import Learned, train
    from palimpsest.model import load

    chosen = given(preset=preset, seed=seed, layers=layers) | settings
    loaded = load(model, device=device)
    path = train(loaded, file.facts, Path(out), method=method, every=every, progress=progress_bar(), **chosen)
    card = Learned.load(loaded, path).card
    history = card["history"]
    best = min(history, key=lambda entry: entry["score"])
    report = {
        "file": str(path),
        "best": best,
        **{name: card[name] for name in ("unedited", "history", "records", "paths")},
    }
    show(as_json, report, lambda: _page(report))
    exit_code(file)


def _page(report: dict[str, Any]) -> str:
    """Validations as rows, the unedited model first, then where the editor is."""
    shown = [report["unedited"], *_thinned(report["history"], report["best"])]
    rows = [
        {
            "step": "unedited" if entry["step"] is None else str(entry["step"]),
            "nll of the new answer": entry["nll"],
            "kl on what stays": f"{entry['kl']:.5f}",
            "score": entry["score"],
            "kept": "yes" if entry is report["best"] else "",
        }
        for entry in shown
    ]
    records = report["records"]
    left_out = "".join(f", {count} left out with {reason}" for reason, count in records["left_out"].items())
    return "\n".join(
        [
            table(rows),
            "",
            f"Learned from {records['learning']} records and validated on {records['validation']} of other subjects{left_out}.",
            f"The editor of {len(report['paths'])} maps is {report['file']}.",
        ]
    )


def _thinned(history: list[dict[str, Any]], best: dict[str, Any], most: int = 12) -> list[dict[str, Any]]:
    """About `most` validations, evenly, with the first, the best and the last among them."""
    every = max(1, len(history) // most)
    return [e for i, e in enumerate(history) if i % every == 0 or e is best or e is history[-1]]
