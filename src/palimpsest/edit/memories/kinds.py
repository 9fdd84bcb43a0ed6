"""The kinds of memory that an edit file can hold, by the name that stands in it."""

from palimpsest.edit.memories.codebook import Codebook
from palimpsest.edit.memories.scoped import Scoped
from palimpsest.edit.memories.side import Side
from palimpsest.edit.memories.texts import Texts
from palimpsest.edit.payload import Routed


def memory_kinds() -> dict[str, type[Routed]]:
    """Every kind by its name."""
    kinds: tuple[type[Routed], ...] = (Codebook, Side, Texts, Scoped)
    return {kind.kind: kind for kind in kinds}
