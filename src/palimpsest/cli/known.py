"""`palimpsest known MODEL [FACTS]`."""

import dataclasses
from collections import Counter

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    facts_argument,
    json_option,
    limit_option,
    model_argument,
    progress_bar,
    read,
    show,
    table,
)


@click.command("known")
@model_argument
@device_option
@facts_argument
@limit_option
@json_option
@click.option("--each", is_flag=True, help="One line a fact.")
def command(model: str, device: str | None, facts: str, limit: int | None, as_json: bool, each: bool) -> None:
    """Which of FACTS (default: the shipped ones) MODEL knows: right on two of three wordings."""
    file = read(facts, limit)
    from palimpsest.locate import ask_each, knowledge
    from palimpsest.model import load

    answers, failures = ask_each(knowledge, load(model, device=device), file.facts, progress=progress_bar())
    for reason in failures.values():
        click.echo(f"palimpsest: {reason}", err=True)
    found = list(answers.values())
    relation = {fact.id: fact.relation for fact in file.facts}
    asked, known = Counter(relation.values()), Counter(relation[k.fact] for k in found if k.known)

    def text() -> str:
        if each:
            rows = [
                {"fact": k.fact, "known": k.known, "right": sum(k.right), "said first": k.said[0].strip()}
                for k in found
            ]
        else:
            rows = [{"relation": name, "facts": n, "known": known[name]} for name, n in sorted(asked.items())]
        return f"{table(rows)}\n\n{model} knows {sum(known.values())} of {len(found)} facts ({facts})."

    data = {"known": sum(known.values()), "facts": [{**dataclasses.asdict(k), "known": k.known} for k in found]}
    show(as_json, data, text)
    exit_code(file, len(failures))
