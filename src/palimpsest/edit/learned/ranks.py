"""Several processes that learn one editor: each takes every n-th record of a batch, and what they find is added up.

    gradient of a step  =  sum over ranks of (its records' gradients) / batch

so the editor is the one a single process learns, up to the order of a sum. Processes are told apart as torchrun and accelerate do,
by RANK and WORLD_SIZE (with MASTER_ADDR and MASTER_PORT); without them there is one.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from palimpsest.errors import SettingError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are."""

    rank: int = 0
    count: int = 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every count-th item."""
        return items[self.rank :: self.count]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in the place of `tensor`."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until every process is here."""
        self.total(torch.zeros(1))


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The processes of this run; a group is made where none is yet, and ended again.

    Raises:
        SettingError: RANK and WORLD_SIZE are no numbers, or RANK is not below WORLD_SIZE.
    """
    try:
        rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, count = -1, 0
    if not 0 <= rank < count:
        raise SettingError(
            f"RANK must be a number below WORLD_SIZE, got {os.environ.get('RANK')!r} and {os.environ.get('WORLD_SIZE')!r}; "
            f"start the processes with torchrun or accelerate."
        )
    made = count > 1 and not dist.is_initialized()
    if made:
        dist.init_process_group("gloo", rank=rank, world_size=count)
    try:
        yield Ranks(rank, count)
    finally:
        if made:
            dist.destroy_process_group()
