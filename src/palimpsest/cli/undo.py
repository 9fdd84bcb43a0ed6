"""`palimpsest undo DIR [--out DIR2]`."""

import click

from palimpsest.cli.common import json_option, show, table


@click.command("undo")
@click.argument("folder", metavar="DIR")
@click.option(
    "--out",
    type=click.Path(file_okay=True),
    help="Folder for the restored checkpoint; it takes the place of DIR when left out.",
)
@click.option("--edit", help="The edit that must be the last one (a file, or a folder that holds it).")
@json_option
def command(folder: str, out: str | None, edit: str | None, as_json: bool) -> None:
    """Take the last edit of the checkpoint DIR back, and prove by hash that every weight is what it was."""
    from palimpsest.edit import Edit
    from palimpsest.edit.checkpoint import undo_checkpoint

    done = undo_checkpoint(folder, out, edit=Edit.load(edit) if edit else None)
    data = {
        "folder": str(done.folder),
        "edits_left": done.edits,
        "weights": done.weights,
        "fingerprint": done.fingerprint,
    }

    def text() -> str:
        rows = [
            {"weight": path, "edited": hashes["before"][:12], "restored": hashes["after"][:12]}
            for path, hashes in done.weights.items()
        ]
        left = f"{done.edits} edits are left in it" if done.edits else "no edit is left in it"
        return f"{table(rows)}\n\nEvery weight of {done.folder} has the hash it had before the edit; {left}."

    show(as_json, data, text)
