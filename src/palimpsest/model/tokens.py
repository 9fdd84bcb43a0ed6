"""Text to token ids, tokens of a subject, and batches of unequal rows.

Everything is tokenised as whole text, once, and positions come from the tokenizer's own offsets, so a byte-order mark,
a sentence-piece blank or a merged token cannot shift them. Batches are padded by palimpsest, never by the tokenizer, so
its `padding_side` changes nothing.

    prompt = encode(tokenizer, "The Eiffel Tower is located in the city of")
    prompt.tokens_of(4, 16)              # positions of the tokens that overlap "Eiffel Tower"
    batch = pad([a.ids, b.ids])          # rows on the left, padding on the right
    batch = align([a.ids, b.ids], [5, 7])  # position 5 of a and 7 of b in one column
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from palimpsest.errors import InputError, ModelError


@dataclass(frozen=True)
class Encoded:
    """One text as token ids, with the characters [start, end) each token covers; special tokens cover none."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def tokens_of(self, start: int, end: int) -> range:
        """Positions of the tokens that overlap characters [start, end); raises `InputError` when there are none."""
        hits = [i for i, (a, b) in enumerate(self.offsets) if a < end and b > start]
        if not hits:
            raise InputError(f"No token of {self.text!r} covers {self.text[start:end]!r}.")
        return range(hits[0], hits[-1] + 1)


@dataclass(frozen=True)
class Batch:
    """Rows of token ids of unequal length as one rectangle.

    Attributes:
        ids: token ids; padding holds 0 and is masked.
        mask: 1 for tokens, 0 for padding.
        positions: place of each token in its own row, counted from 0 without padding.
        column: for `align`, the column where every row's pivot stands; else 0.
    """

    ids: Int[Tensor, "rows tokens"]
    mask: Int[Tensor, "rows tokens"]
    positions: Int[Tensor, "rows tokens"]
    column: int = 0

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def last(self) -> Int[Tensor, "rows"]:
        """Column of the last token of each row."""
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (columns * self.mask).argmax(dim=1)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.positions.to(device), self.column)

    def take(self, rows: Sequence[int] | slice | Tensor) -> "Batch":
        """Some of the rows."""
        return Batch(self.ids[rows], self.mask[rows], self.positions[rows], self.column)


def encode(tokenizer: object, text: str, *, context: int | None = None, before: str = "") -> Encoded:
    """Tokenise whole text with the special tokens before it; those a tokenizer puts after it would end it, and are cut.

    What stands `before` the text is tokenised with it, but offsets count the characters of the text, of which it covers none.

    Raises:
        InputError: the text is longer than `context` tokens, or has no token at all.
        ModelError: the tokenizer cannot tell offsets (it is not a fast one).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} gives no character offsets; load a fast tokenizer "
            f"(AutoTokenizer.from_pretrained(..., use_fast=True))."
        )
    encoded = tokenizer(  # type: ignore[operator]
        before + text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        add_special_tokens=True,
        verbose=False,
    )
    special, length = encoded["special_tokens_mask"], len(encoded["input_ids"])
    while length > 1 and special[length - 1] and not all(special[:length]):
        length -= 1
    ids = tuple(encoded["input_ids"][:length])
    if not ids:
        raise InputError(f"The text {text!r} has no token.")
    if context is not None and len(ids) > context:
        raise InputError(
            f"The text is {len(ids)} tokens long but this model reads at most {context}; "
            f"shorten it (it begins {text[:40]!r})."
        )
    pairs = encoded["offset_mapping"][:length]
    return Encoded(text, ids, tuple((max(a - len(before), 0), max(b - len(before), 0)) for a, b in pairs))


def encode_answer(
    tokenizer: object, text: str, answer: str, *, context: int | None = None, before: str = ""
) -> tuple[tuple[int, ...], int]:
    """Token ids of `text` followed by `answer`, and the position where the answer begins.

    A blank is put between the two unless the text ends in one. Prompt and answer are tokenised together; should a token
    straddle the seam, the prompt is cut before it.

    >>> ids, begin = encode_answer(tokenizer, "The capital of France is", "Paris")   # doctest: +SKIP
    >>> tokenizer.decode(ids[begin:])                                                # doctest: +SKIP
    ' Paris'
    """
    seam = "" if text[-1:].isspace() else " "
    whole = encode(tokenizer, text + seam + answer, context=context, before=before)
    prompt = encode(tokenizer, text, context=context, before=before).ids
    if whole.ids[: len(prompt)] == prompt:
        return whole.ids, len(prompt)
    begin = next(i for i, (_, end) in enumerate(whole.offsets) if end > len(text))
    return whole.ids, begin


def token_strings(tokenizer: object, ids: Sequence[int]) -> list[str]:
    """Each token as readable text, decoded one by one (for labels)."""
    return [tokenizer.decode([i]) for i in ids]  # type: ignore[attr-defined]


def pad(rows: Sequence[Sequence[int]]) -> Batch:
    """Rows of ids as a batch, padded on the right."""
    return align(rows, [0] * len(rows))


def align(rows: Sequence[Sequence[int]], pivots: Sequence[int]) -> Batch:
    """Rows of ids as a batch in which position `pivots[i]` of row i stands in one common column.

    Rows are padded on both sides. Tokens before the column can then be run once and continued from
    (`palimpsest.model.partial`), whatever the lengths of the rows before it.

    Raises:
        InputError: there are no rows, a row is empty, or a pivot is not a position of its row.
    """
    if not rows or not all(len(row) for row in rows):
        raise InputError("A batch needs at least one row, and every row at least one token.")
    for row, pivot in zip(rows, pivots, strict=True):
        if not 0 <= pivot < len(row):
            raise InputError(f"The pivot {pivot} is not a position of a row of {len(row)} tokens.")
    column = max(pivots)
    width = column + max(len(row) - pivot for row, pivot in zip(rows, pivots, strict=True))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    for i, (row, pivot) in enumerate(zip(rows, pivots, strict=True)):
        start = column - pivot
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
        positions[i, start : start + len(row)] = torch.arange(len(row))
        positions[i, start + len(row) :] = len(row) - 1
    return Batch(ids, mask, positions, column)
