"""How long work says how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A function called once before the first item and once after each."""

    def __call__(self, done: int, total: int, label: str) -> None:
        """Told of progress.

        Args:
            done: how many items are finished, those of earlier sittings included.
            total: how many there are to finish (of the shard, where there is one).
            label: the id of the item just finished, as text; empty on the first call.
        """
