"""`palimpsest world`: train the models of the made world, ask them, and write the world's facts."""

from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import json_option, model_argument, progress_bar, required_out, show, table


@click.group("world")
def command() -> None:
    """A small made world whose every fact is known, and models that know it."""


@command.command("train")
@click.argument("name")
@required_out
@click.option("--steps", type=click.IntRange(min=1), help="Steps of training, instead of the recipe's.")
@click.option(
    "--checkpoint-every", type=click.IntRange(min=1), default=250, show_default=True, help="Steps between check points."
)
@json_option
def train(name: str, out: str, steps: int | None, checkpoint_every: int, as_json: bool) -> None:
    """Train the model NAME (world, world-llama, world-plain or world-seed1) and write it to DIR, as transformers does.

    The same command goes on where an interrupted training stopped.
    """
    from dataclasses import replace

    from palimpsest.errors import SettingError, did_you_mean
    from palimpsest.world.recipes import RECIPES
    from palimpsest.world.train import train_model

    if name not in RECIPES:
        raise SettingError(f"There is no recipe {name!r}.{did_you_mean(name, RECIPES)}")
    recipe = RECIPES[name] if steps is None else replace(RECIPES[name], steps=steps)
    folder = train_model(recipe, Path(out), every=checkpoint_every, progress=progress_bar())
    show(
        as_json,
        {"model": str(folder), "steps": recipe.steps, "tokens": recipe.tokens},
        lambda: (
            f"{name} was trained on {recipe.tokens:,} tokens and is in {folder}; palimpsest world recall {folder} asks it."
        ),
    )


@command.command("recall")
@model_argument
@json_option
def recall(model: str, as_json: bool) -> None:
    """How many facts of the world MODEL gives by itself, on seen and on unseen wordings, and its perplexity."""
    from palimpsest.model import load
    from palimpsest.world import made_world, world_knowledge

    found = world_knowledge(load(model), made_world())
    show(as_json, found.to_json(), lambda: _recall_page(found))


def _recall_page(found: Any) -> str:
    rows = [
        {"wordings": "seen in training", "recall": str(found.seen)},
        {"wordings": "one of them for each fact", "recall": str(found.own)},
        {"wordings": "never seen", "recall": str(found.unseen)},
    ]
    relations = [
        {"relation": name, "seen": f"{seen:.3f}", "never seen": f"{unseen:.3f}"}
        for name, (seen, unseen) in found.by_relation.items()
    ]
    return "\n".join([table(rows), "", table(relations), "", f"Perplexity of held-out documents: {found.perplexity}"])


@command.command("facts")
@click.option("--out", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="A .jsonl file of facts.")
@click.option("--relation", "only", multiple=True, help="Only this relation; may be given more than once.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the new answers that edits will ask for.")
@json_option
def facts(out: str, only: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Write the world's facts, with a new answer for each and test prompts by stratum, as FACTS that other commands read."""
    import json

    from palimpsest.errors import SettingError, did_you_mean
    from palimpsest.runs import atomic_write
    from palimpsest.world import made_world, relations

    for name in only:
        if name not in relations():
            raise SettingError(f"There is no relation {name!r} in the world.{did_you_mean(name, relations())}")
    records = made_world().records(only or None, seed=seed)
    atomic_write(Path(out), "".join(json.dumps(fact.to_json()) + "\n" for fact in records))
    show(as_json, {"file": out, "facts": len(records)}, lambda: f"{len(records)} facts of the world are in {out}.")


@command.command("text")
@click.option("--out", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="A plain text file.")
@click.option("--words", type=click.IntRange(min=1), default=20_000, show_default=True, help="About so many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order and the wordings.")
@json_option
def text(out: str, words: int, seed: int, as_json: bool) -> None:
    """Write text like that the models were trained on, for the --text of other commands: their moments belong to it."""
    from palimpsest.runs import atomic_write
    from palimpsest.world import Corpus, made_world

    atomic_write(Path(out), Corpus(made_world(), seed=seed).text(words).replace("\n", "\n\n") + "\n")
    show(as_json, {"file": out, "words": words}, lambda: f"About {words:,} words about the world are in {out}.")


@command.command("organisms")
@required_out
@click.option(
    "--base",
    "bases",
    multiple=True,
    help="A model to plant in, or its folder; may be given more than once. [world, world-seed1]",
)
@click.option("--kind", "kinds", multiple=True, help="Only organisms of this kind; may be given more than once.")
@json_option
def organisms(out: str, bases: tuple[str, ...], kinds: tuple[str, ...], as_json: bool) -> None:
    """Plant new facts in places that are known, in DIR, and run the acceptance tests of each organism.

    About a minute an organism. The same command goes on where an interrupted one stopped; organisms that fail are kept and
    listed with the reasons.
    """
    from palimpsest.errors import SettingError, did_you_mean
    from palimpsest.model import load
    from palimpsest.world import made_world
    from palimpsest.world.organisms import make_organisms, planned
    from palimpsest.world.organisms.organism import KINDS

    for kind in kinds:
        if kind not in KINDS:
            raise SettingError(f"There are no organisms of the kind {kind!r}.{did_you_mean(kind, KINDS)}")
    models: dict[str, Any] = {}
    for base in dict.fromkeys(bases or ("world", "world-seed1")):
        label = Path(base).resolve().name  # an organism is a folder named after its base
        if label in models:
            raise SettingError(
                f"Two of the models to plant in are called {label!r}; plant in one at a time, each with an --out of its own."
            )
        models[label] = load(base)
    designs = planned(list(models), min(model.n_layers for model in models.values()))
    some = [design for design in designs if not kinds or design.kind in kinds]
    found = make_organisms(models, some, Path(out), made_world(), progress=progress_bar())
    show(as_json, {"out": out, "organisms": found}, lambda: _organisms_page(found))


def _organisms_page(found: list[dict[str, Any]]) -> str:
    rows = [
        {
            "organism": row["name"],
            "planted": row["planted"]["value"],
            "unseen wordings": row["paraphrase"]["value"],
            "base": row["base"]["value"],
            "largest drop": max(row["drops"].values(), default=0.0),
            "accepted": row["accepted"],
            "why not": "; ".join(row["reasons"]),
        }
        for row in found
        if "accepted" in row
    ]
    failed = [f"{row['id']}: {row['error']}" for row in found if "error" in row]
    return "\n".join(
        [table(rows), "", f"{sum(bool(row['accepted']) for row in rows)} of {len(rows)} are accepted.", *failed]
    )
