"""What the commands share: options that mean the same everywhere, reading facts, tables and progress."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from palimpsest.facts import CaseFile, FactFile, read_facts
from palimpsest.runs import Progress

model_argument = click.argument("model")
facts_argument = click.argument("facts", default="shipped")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of a table.")
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first N facts.")
out_option = click.option("--out", type=click.Path(file_okay=True), help="Folder for the results.")
required_out = click.option("--out", type=click.Path(file_okay=True), required=True, help="Folder for the results.")
device_option = click.option("--device", help="Where the model runs, such as cuda or cuda:1.  [default: cpu]")
preset_option = click.option("--preset", help="A named set of settings, such as rome-2022.")
seed_option = click.option("--seed", type=int, help="Seed of every draw.")


text_option = click.option(
    "--text", type=click.Path(dir_okay=False), help="Plain text for second moments; what ships by default."
)


def layer_list(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Layers as they are written on the command line: 9, or 5,6,7, or 5-9, or 0-29:3 for every third of them."""
    if value is None:
        return None
    try:
        layers: list[int] = []
        for part in value.split(","):
            ends, _colon, step = part.partition(":")
            first, _dash, last = ends.partition("-")
            layers += range(int(first), int(last or first) + 1, int(step or 1))
        if not layers:
            raise ValueError
        return tuple(layers)
    except ValueError:
        raise click.BadParameter(f"write layers as 9 or 5,6,7 or 5-9 or 0-29:3, got {value!r}") from None


layers_option = click.option(
    "--layers", callback=layer_list, help="Layers, counted from 0: 9, or 5,6,7, or 5-9, or 0-29:3."
)


def _settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"write a setting as name=value, got {value!r}")
        try:
            settings[name.strip()] = _tuples(json.loads(text))
        except json.JSONDecodeError:
            settings[name.strip()] = text  # a word, such as spread=root
    return settings


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="A setting of the method, such as steps=25, batch=100 or spread=root; may be given several times.",
)


def given(**settings: Any) -> dict[str, Any]:
    """Only the settings that were given on the command line, so that defaults stand in one place."""
    return {name: value for name, value in settings.items() if value is not None}


def read(source: str, limit: int | None = None) -> FactFile:
    """Facts of a file, with every bad record named on standard error."""
    file = read_facts(source, limit=limit)
    for problem in file.problems:
        click.echo(f"palimpsest: {problem}", err=True)
    return file


def read_text(path: str) -> str:
    """A plain text file; mistakes in one sentence."""
    from palimpsest.errors import InputError

    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise InputError(f"The text {path} cannot be read ({error.strerror}); name a plain text file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"The text {path} is not UTF-8 (byte {error.start}); convert it first.") from None


def read_object(path: str, what: str, example: str) -> dict[str, Any]:
    """A JSON object; mistakes in one sentence.

    Args:
        path: of the file.
        what: is in it, in the plural.
        example: the page that shows one.
    """
    from palimpsest.errors import InputError

    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"The {what} {path} cannot be read ({error.strerror}); name a JSON file.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"The {what} {path} are no JSON ({error}); see {example} for an example.") from None
    return found if isinstance(found, dict) else {}


def exit_code(file: FactFile | CaseFile, failed: int = 0, undone: str = "measured") -> None:
    """End with 1 when records were bad or facts failed: the others are done, and a script should notice these."""
    if file.problems:
        click.echo(f"palimpsest: {len(file.problems)} bad records of {file.source} were left out", err=True)
    if failed:
        click.echo(f"palimpsest: {failed} facts could not be {undone}; each is named above", err=True)
    if file.problems or failed:
        raise click.exceptions.Exit(1)


def table(rows: Sequence[Mapping[str, object]], columns: Iterable[str] | None = None) -> str:
    """Rows as aligned plain text, numbers to the right."""
    names = list(columns or (rows[0].keys() if rows else ()))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def show(as_json: bool, data: Any, text: Callable[[], str]) -> None:
    """`data` as JSON (no NaN: what is not a number is null), or `text()` for people."""
    from palimpsest.runs.json_text import plain

    click.echo(json.dumps(plain(data), ensure_ascii=False, indent=1) if as_json else text())


def progress_bar() -> Progress:
    """A bar on standard error for work over two seconds; none where standard error is not a terminal.

    One bar at a time: work inside a step of other work takes its place while it lasts.
    """
    from tqdm import tqdm

    current: list[Any] = []

    def report(done: int, total: int, label: str) -> None:
        if not current or current[0].total != total or done < current[0].n:
            for bar in current:
                bar.close()
            current[:] = [tqdm(total=total, delay=2, disable=None, leave=False)]
        bar = current[0]
        bar.set_description(label[:40], refresh=False)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            current.clear()

    return report
