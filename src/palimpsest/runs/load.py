"""What a finished run found, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from palimpsest.errors import RecordError
from palimpsest.runs.journal import read_lines
from palimpsest.runs.run import RESULTS_FILE, SAMPLES_FILE, Record


def load_results(folder: Path | str) -> dict[str, Any]:
    """The contents of results.json.

    Args:
        folder: what was given as --out.

    Raises:
        RecordError: the run is not finished, or the file is not a JSON object.
    """
    path = Path(folder) / RESULTS_FILE
    try:
        results = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordError(
            f"{folder} holds no finished run: {RESULTS_FILE} is not there; run its command again to finish it."
        ) from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}; check the folder.") from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON ({error}); run its command again, or restore the file.") from error
    if not isinstance(results, dict):
        raise RecordError(f"{path} must hold a JSON object, got {type(results).__name__}; restore the file.")
    return results


def load_samples(folder: Path | str) -> list[Record]:
    """The records of samples.jsonl, in the order of the file; an unfinished run gives those finished so far.

    Args:
        folder: what was given as --out.

    Raises:
        RecordError: there is no such file, or it is damaged.
    """
    path = Path(folder) / SAMPLES_FILE
    if not path.is_file():
        raise RecordError(f"{folder} holds no records: {SAMPLES_FILE} is not there; pass the folder given as --out.")
    return [json.loads(line) for _, line in read_lines(path)]
