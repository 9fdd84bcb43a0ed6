"""`palimpsest sweep MODEL [FACTS] --out DIR`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    facts_argument,
    given,
    json_option,
    layer_list,
    limit_option,
    model_argument,
    preset_option,
    progress_bar,
    read,
    read_text,
    required_out,
    seed_option,
    show,
    table,
    text_option,
)
from palimpsest.errors import SettingError

Given = Mapping[str, Any]


@click.command("sweep")
@model_argument
@device_option
@facts_argument
@required_out
@click.option("--method", default="rome", show_default=True, help="Edits each fact by itself, at one layer at a time.")
@click.option("--layers", callback=layer_list, help="9, or 5,6,7, or 5-9, or 0-29:3; ten over the depth by default.")
@click.option(
    "--tokens",
    help="Of subject_first, subject_middle, subject_last and last, with commas; by default all that the method has.",
)
@click.option(
    "--only",
    "gate",
    type=click.Choice(["all", "known", "eligible"]),
    default="all",
    show_default=True,
    help="Keep facts that pass a gate on the unedited model (before --limit).",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of the value search, where the method has one.")
@preset_option
@limit_option
@seed_option
@text_option
@click.option(
    "--metric", default="rewrite", show_default=True, help="Of the table: es, em, ps, pm, ns, nm, s, rewrite."
)
@click.option("--plot", is_flag=True, help="Write a figure beside the numbers (needs matplotlib).")
@click.option("--shard", help="i/n: this process's share.")
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    method: str,
    layers: tuple[int, ...] | None,
    tokens: str | None,
    gate: str,
    steps: int | None,
    preset: str | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    metric: str,
    plot: bool,
    shard: str | None,
    as_json: bool,
) -> None:
    """Edit each of FACTS by itself at every layer and token, measure, undo; propose a layer. Resumes an interrupted sweep."""
    file = read(facts, limit if gate == "all" else None)
    from palimpsest.edit.defaults import defaults
    from palimpsest.evaluate.sweep import sweep
    from palimpsest.evaluate.sweep_result import CELL_METRICS
    from palimpsest.locate import passing
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    if metric not in (*CELL_METRICS, "s"):
        raise SettingError(
            f"There is no metric {metric!r} of a sweep; choose one of: {', '.join((*CELL_METRICS, 's'))}."
        )
    folder = check_writable(Path(out))
    loaded, bar = load(model, device=device), progress_bar()
    chosen = passing(loaded, file.facts, gate, limit=limit, progress=bar)
    plain = read_text(text) if text else None
    roles = tuple(role.strip() for role in tokens.split(",")) if tokens else None
    settings = given(preset=preset, seed=seed, text=plain, steps=steps)
    found = sweep(
        loaded,
        chosen,
        method=method,
        layers=layers,
        tokens=roles,
        out=folder,
        shard=shard,
        progress=bar,
        **settings,
    )
    for item, reason in found.failed.items():
        click.echo(f"palimpsest: {item}: {reason}", err=True)
    failed = len(found.failed_facts)
    if shard:
        done = {"shard": shard, "items": len(found.records)}
        show(as_json, done, lambda: f"Shard {shard} is done: {len(found.records)} items. Run without --shard to merge.")
        return exit_code(file, failed)
    if plot:
        found.plot().savefig(folder / "sweep.png", dpi=150)
    stored = found.to_json()
    usual = defaults(loaded, method)
    stored["default"] = {
        "layers": list(usual.layers),
        "known": usual.known,
        "provenance": usual.provenance,
        "said": str(usual).replace("; `palimpsest sweep` proposes one", ""),
    }
    show(
        as_json,
        stored,
        lambda: (
            f"{metric} by edited layer and token\n{table(found.table(metric))}\n\n{_proposal(stored)}\n{_remarks(stored, out)}"
        ),
    )
    return exit_code(file, failed)


def _proposal(stored: Given) -> str:
    """The layer proposed, beside the default there is."""
    proposal, known = stored["proposal"], stored["default"]["said"]
    if proposal is None:
        return f"{known} No layer is proposed, because subject_last was not swept."
    if "withheld" in proposal:
        return f"{known} No layer is proposed: {proposal['withheld']}"
    others = ", ".join(map(str, proposal["as_good"]))
    reported = proposal["reported"]
    names = [name for name in ("s", "es", "ps", "ns", "rewrite") if name in reported]
    numbers = ", ".join(f"{name.upper()} {_interval(reported[name])}" for name in names)
    return (
        f"{known}\nProposed: layer {proposal['layer']}, chosen by {proposal['metric'].upper()} on half of the subjects "
        f"({proposal['chosen_on']} facts), reported on the other half ({proposal['reported_on']} facts): {numbers}."
        + (f"\nThe other half cannot tell layers {others} from it." if others else "")
    )


def _interval(estimate: Given) -> str:
    from palimpsest.statistics import Estimate

    return str(Estimate.from_json(estimate)).split(" (")[0]


def _remarks(stored: Given, out: str) -> str:
    return f"{stored['reads']}\nEverything is in {out}."
