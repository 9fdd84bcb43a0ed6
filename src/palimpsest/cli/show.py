"""`palimpsest show FILE`."""

import click

from palimpsest.cli.common import json_option, show, table


@click.command("show")
@click.argument("edit")
@json_option
def command(edit: str, as_json: bool) -> None:
    """What the edit file EDIT (or the folder that holds it) changes: weights, norms, facts, settings, versions."""
    from palimpsest.edit import Edit, Hook, LowRank

    made = Edit.load(edit)
    rows = [
        {
            "changes": str(p.site) if isinstance(p, Hook) else p.path,
            "kind": type(p).__name__,
            "rank": p.rank if isinstance(p, LowRank) else "",
            "norm": p.norm,
        }
        for p in made.payloads
    ]
    facts = [
        {"fact": f.id, "prompt": f.text, "old": f.target_true or "", "new": f.target_new or ""} for f in made.facts
    ]
    settings = {k: v for k, v in made.settings.items() if k != "context_texts"}
    data = {
        "method": made.method,
        "payloads": rows,
        "facts": facts,
        "settings": dict(made.settings),
        "versions": dict(made.versions),
    }

    def text() -> str:
        lines = [f"{name}: {value}" for name, value in {**settings, **made.versions}.items()]
        return "\n\n".join([f"{made.method}, {len(facts)} facts", table(rows), table(facts), "\n".join(lines)])

    show(as_json, data, text)
