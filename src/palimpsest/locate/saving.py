"""Results of instruments as JSON files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.runs import atomic_write


def save_json(record: Mapping[str, Any], path: str) -> None:
    """Write plain data to a file, whole or not at all; raises `OutputError` where that cannot be done."""
    atomic_write(Path(path), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
