"""The command line: finds commands by name, imports them when they run, and turns every mistake into one sentence.

Exit codes: 0 all is well; 1 a check failed or some records were bad; 2 a mistake in what was asked; 130 interrupted.
"""

import difflib
import os
import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

from palimpsest import __version__
from palimpsest.errors import PalimpsestError

# name -> one line for --help; the command is `command` in palimpsest/cli/<name>.py
COMMANDS = {
    "audit": "what may be claimed of a model: 27 criteria of validity, each measured beside its null",
    "apply": "write an edit into a checkpoint folder, or a LoRA adapter, that others load",
    "compare": "two runs of evaluate on the same records: paired differences, Holm, records needed",
    "demo": "the main job, end to end, on smollm2: trace, edit, measure, undo, report",
    "doctor": "check that every site of a model means what its name says",
    "edit": "write facts into a model, as an edit file that can be undone",
    "erase": "erase a concept (LEACE), or associations that must go, and try to bring them back",
    "evaluate": "measure facts before and after editing",
    "forensics": "which layers of a model look edited, and about whom; with its base, what differs",
    "known": "which facts a model knows",
    "moments": "second moments of the keys of some layers",
    "neurons": "knowledge neurons: which MLP neurons an answer is attributed to, and what cutting them does",
    "probe": "does the old answer of edited facts still show: layers, heads, wordings, beside controls",
    "rate": "a page on which people compare what two editors make a model write, and what their choices say",
    "report": "the page of an audit, from its report.json",
    "show": "what an edit file holds",
    "sweep": "edit facts at every layer and token, one edit at a time, and propose a layer",
    "trace": "causal tracing: which states or module outputs bring an answer back",
    "train": "learn an editor for a model: MEND or KE",
    "undo": "take the last edit of a checkpoint back, and prove it by hash",
    "world": "the made world: train the models that know it, ask them, write its facts",
}


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, so that --help loads no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, or None."""
        if name not in COMMANDS:
            return None
        return import_module(f"palimpsest.cli.{name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with a suggestion for a misspelt name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(sorted(COMMANDS))}."
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from `COMMANDS` alone."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="palimpsest")
def group() -> None:
    """Locate, edit and audit factual associations in causal language models.

    \b
    palimpsest VERB MODEL [FACTS] --out DIR
    MODEL is smollm2, world, a folder, or a Hub id; FACTS is a file, - for standard input, shipped or reasoning.
    """


def main() -> None:
    """Run the command line and exit."""
    told = warnings.showwarning
    try:
        if not os.environ.get("PALIMPSEST_DEBUG"):
            warnings.showwarning = _warn
        code = group.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _say(
            "interrupted; audit, edit, evaluate, moments, sweep, trace, train and world with --out go on where they stopped "
            "with the same call",
            130,
        )
    except click.ClickException as error:
        error.show()
        code = 2
    except PalimpsestError as error:
        code = _say(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get("PALIMPSEST_DEBUG"):
            traceback.print_exc()
        reason = str(error).strip().split("\n")[0] or "no reason given"
        code = _say(
            f"unexpected {type(error).__name__}: {reason}; set PALIMPSEST_DEBUG=1 to see where, and please report it", 2
        )
    finally:
        warnings.showwarning = told
    sys.exit(code if isinstance(code, int) else 0)


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """One line, as errors have; what a library will change some day is left to its developers."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
        _say(f"warning: {str(message).strip().split(chr(10))[0]}", 0)


def _say(message: str, code: int) -> int:
    click.echo(f"palimpsest: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
