"""Which cases are asked together: a function of the whole plan, so that every process and every sitting asks alike.

Numbers depend on their batch in the last digit, so a run that is taken up again, or shared by several processes, must put
each case into the same batch as an unbroken one. Cases are dealt into `CLASSES` hands like cards, and each hand is cut into
chunks of `CHUNK`; a chunk is always asked whole. Shards deal too, so with 1, 2, 3, 4, 6 or 12 of them every chunk belongs to
one shard alone, and nothing is asked twice; with other numbers of shards chunks straddle, and some cases are asked by two.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

CHUNK, CLASSES = 16, 12

Item = TypeVar("Item")


def chunks_of(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The chunks, each in plan order; every item is in one."""
    for first in range(min(CLASSES, len(items))):
        hand = items[first::CLASSES]
        yield from (hand[i : i + CHUNK] for i in range(0, len(hand), CHUNK))
