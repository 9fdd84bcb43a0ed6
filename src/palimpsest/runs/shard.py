"""One share of a plan: "2/5" is the second of five, so that five processes or machines can work on one run.

Shards deal items out like cards: shard i of n takes the items at positions i, i + n, i + 2n, ... of the plan (from 1),
so that each gets its part of every relation even where the plan is sorted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from palimpsest.errors import SettingError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The share `index` of `count`, counted from 1.

    Raises:
        SettingError: count is below 1, or index is not between 1 and count.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SettingError(
                f"A shard i/n must have i from 1 to n, got {self.index}/{self.count}; "
                f"the first of {max(self.count, 1)} is 1/{max(self.count, 1)}."
            )

    @classmethod
    def parse(cls, text: str | Shard) -> Shard:
        """The shard that text such as "2/5" names; a `Shard` is passed through.

        Raises:
            SettingError: the text is not two whole numbers with a slash, or they are out of range.
        """
        if isinstance(text, Shard):
            return text
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip()) if isinstance(text, str) else None
        if match is None:
            raise SettingError(
                f"A shard is written i/n, such as 2/5 for the second of five, got {text!r}; write it so."
            )
        return cls(int(match[1]), int(match[2]))

    def select(self, items: Sequence[Item]) -> list[Item]:
        """The items of this shard, in their order; empty where there are fewer items than `index`."""
        return list(items[self.index - 1 :: self.count])

    @property
    def suffix(self) -> str:
        """What stands in this shard's file names, as in "-2-of-5"."""
        return f"-{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
