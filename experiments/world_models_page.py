"""docs/world-models.md from results/world/."""

import json
from pathlib import Path
from typing import Any

from pages import cell, table  # beside this file
from palimpsest.model.packaged import NAMES

PAGE = Path(__file__).parents[1] / "docs" / "world-models.md"
SEEN = 10  # wordings of a relation that training may use
WORDINGS = {
    "plain": 'plain: "{} was born in"',
    "relation-first": 'relation first: "The birthplace of {} is"',
    "long": 'long: "{}, as many ..., was born in"',
}
PLACES = (
    ("state", "first subject"),
    ("state", "middle subject"),
    ("state", "last subject"),
    ("state", "last"),
    ("mlp", "last subject"),
    ("attn", "last"),
    ("mlp", "last"),
)
WHAT = {"state": "States", "mlp": "MLP outputs", "attn": "Attention outputs"}


def recall_table(found: dict[str, dict[str, Any]]) -> str:
    """A line a model."""
    lines = []
    for name, one in found.items():
        recipe = one["training"]["recipe"]
        lines.append(
            [
                f"`{name}`",
                recipe["architecture"],
                "one a fact" if recipe["one_wording"] else "all",
                f"{one['parameters'] / 1e6:.2f} M",
                f"{one['training']['tokens'] / 1e6:.1f} M",
                cell(one["seen"]),
                cell(one["own"]),
                cell(one["unseen"]),
                cell(one["perplexity"], 2),
            ]
        )
    header = (
        "model",
        "architecture",
        "wordings",
        "parameters",
        "tokens read",
        "recall, seen wordings",
        "recall, one of them a fact",
        "recall, unseen wordings",
        "perplexity",
    )
    return table(header, lines)


def other_wordings(found: dict[str, Any]) -> str:
    """Recall in the seen wordings that are not a fact's own, from that in all ten and in its own."""
    return f"{(SEEN * found['seen']['value'] - found['own']['value']) / (SEEN - 1):.2f}"


def relation_table(found: dict[str, dict[str, Any]]) -> str:
    """Unseen recall of each relation, a column a model."""
    names = list(found)
    relations = list(next(iter(found.values()))["by_relation"])
    return table(
        ("relation", *(f"`{name}`" for name in names)),
        [
            [relation, *("{:.2f} / {:.2f}".format(*found[name]["by_relation"][relation]) for name in names)]
            for relation in relations
        ],
    )


def map_tables(name: str, found: dict[str, Any]) -> str:
    """Average indirect effects at the places that matter, a line a kind of wording."""
    parts = []
    for what, role in PLACES:
        lines = []
        for kind, title in WORDINGS.items():
            line = found[kind][what]["roles"][role]["mean"]
            lines.append([title, *(f"{value:.3f}" for value in line)])
        layers = [str(l) for l in found["plain"][what]["layers"]]
        parts.append(f"{WHAT[what]} at the {role} token:\n\n" + table(("wording", *layers), lines))
    totals = ", ".join(
        f"{title.split(':')[0]} {cell(found[kind]['state']['total_effect'], 2)}" for kind, title in WORDINGS.items()
    )
    return f"### `{name}`\n\nTotal effects of the noise: {totals}.\n\n" + "\n\n".join(parts)


def write(results: Path) -> None:
    """The page, from what is there."""
    from world_models_text import TEXT  # beside this file

    read = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(results.glob("*.json"))}
    recalls = {name: read[f"recall-{name}"] for name in NAMES if f"recall-{name}" in read}
    maps = {name.removeprefix("map-"): one for name, one in read.items() if name.startswith("map-")}
    drawn = "\n\n".join(map_tables(name, found) for name, found in maps.items())
    PAGE.write_text(
        f"""# What the models of the made world know

{TEXT["intro"]}

{recall_table(recalls)}

{TEXT["recall"].format(other=other_wordings(recalls["world-plain"]))}

Recall on seen / unseen wordings, by relation:

{relation_table(recalls)}

{TEXT["relations"]}

## Where tracing points

{TEXT["maps"]}

{drawn}

{TEXT["after maps"]}
""",
        "utf-8",
    )
