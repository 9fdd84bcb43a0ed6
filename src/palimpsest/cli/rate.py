"""`palimpsest rate make A B --out DIR` and `palimpsest rate score DIR CHOICES...`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palimpsest.cli.common import json_option, required_out, show, table

if TYPE_CHECKING:
    from palimpsest.evaluate.rating import Study

PAGE, KEY = "page.html", "key.json"


@click.group("rate")
def command() -> None:
    """Have people compare, blindly, what two editors make a model write."""


@command.command("make")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@required_out
@click.option("--limit", type=click.IntRange(min=1), help="At most so many pairs.")
@click.option("--seed", type=int, help="Of order and sides; drawn, and kept from everyone, when not given.")
def make(a: str, b: str, out: str, limit: int | None, seed: int | None) -> None:
    """Make a page of pairs from A and B (--out folders of evaluate --suite fluency), and the key to it."""
    from secrets import randbits

    from palimpsest.evaluate.rating import make_study, read_written
    from palimpsest.report.rating_page import rating_page
    from palimpsest.runs import atomic_write, check_writable
    from palimpsest.runs.json_text import to_document

    folder = check_writable(Path(out))
    study = make_study(
        read_written(a), read_written(b), names=(a, b), limit=limit, seed=randbits(63) if seed is None else seed
    )
    atomic_write(folder / KEY, to_document(study.to_json(), "the key"))
    atomic_write(folder / PAGE, rating_page(study))
    click.echo(f"{len(study.pairs)} pairs: give {folder / PAGE} to the raters, and keep {folder / KEY} from them.")
    for count, what in ((study.identical, "have the same text twice"), (study.unmatched, "are in one run only")):
        if count:
            click.echo(f"{count} prompts {what} and were left out.")


@command.command("score")
@click.argument("folder", type=click.Path())
@click.argument("choices", nargs=-1, required=True, type=click.Path())
@json_option
def score_choices(folder: str, choices: tuple[str, ...], as_json: bool) -> None:
    """What the raters' saved CHOICES say, by the key in FOLDER."""
    from palimpsest.evaluate.rating import read_choices, score

    study = _key(Path(folder) / KEY)
    found = score(study, [read_choices(path) for path in choices])
    rows = [
        {
            "more": preference.question,
            "A": str(preference.first),
            "B": str(preference.second),
            "ties": str(preference.ties),
            "odds A : B": str(preference.odds).split(" (")[0],
            "facts for A": str(preference.facts_first),
            "facts for B": str(preference.facts_second),
            "p": f"{preference.p:.4f}",
        }
        for preference in found
    ]
    said = f"A is {study.names[0]}, B is {study.names[1]}; {found[0].facts} facts, {found[0].raters} raters."
    data = {"names": study.names, "preferences": [preference.to_json() for preference in found]}
    show(as_json, data, lambda: f"{table(rows)}\n\n{said}")


def _key(path: Path) -> "Study":
    """The study of a key."""
    from palimpsest.errors import RecordError
    from palimpsest.evaluate.rating import Study

    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}; name the folder rate made.") from None
    except ValueError as error:
        raise RecordError(f"{path} is not JSON ({error}); restore it, or make the page again.") from None
    return Study.from_json(record, str(path))
