"""Memories written plainly, one number at a time: what the fast versions are held against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Code:
    """One entry of a codebook."""

    key: list[float]
    radius: float
    label: str


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """Euclidean distance."""
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def add_code(book: list[Code], key: list[float], label: str, radius: float) -> None:
    """GRACE's rules for a new key."""
    if not book:
        book.append(Code(key, radius, label))
        return
    near = min(book, key=lambda code: apart(code.key, key))
    d = apart(near.key, key)
    if d > radius + near.radius:
        book.append(Code(key, radius, label))
    elif near.label == label:
        near.radius = max(near.radius, d)
    else:
        near.radius = min(near.radius, d / 2 - 1e-5)
        book.append(Code(key, min(radius, d / 2), label))


def codes_in_force(book: Sequence[Code], states: Tensor) -> list[int]:
    """Of one text: the entry that answers at each token, -1 for none."""
    found, now = [], -1
    for state in states.tolist():
        distances = [apart(code.key, state) for code in book]
        i = distances.index(min(distances))
        if distances[i] <= book[i].radius:
            now = i
        found.append(now)
    return found


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """TIES-merging, entry by entry."""
    flat = [change.flatten().tolist() for change in changes]
    keep = max(1, round(density * len(flat[0])))
    for values in flat:
        for i in sorted(range(len(values)), key=lambda i: -abs(values[i]))[keep:]:
            values[i] = 0.0
    merged = []
    for entries in zip(*flat, strict=True):
        mass = sum(entries)
        agreeing = [x for x in entries if x * mass > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(merged, dtype=changes[0].dtype).view_as(changes[0])


def side_output(key: Tensor, value: Tensor, deltas: Tensor, thresholds: Tensor) -> tuple[Tensor, int | None]:
    """WISE's output for one token, and the memory that gave it."""
    changes = [delta @ key for delta in deltas]
    shares = [float(change.norm()) / float(epsilon) for change, epsilon in zip(changes, thresholds, strict=True)]
    j = shares.index(max(shares))
    return (value + changes[j], j) if shares[j] > 1 else (value, None)


def bm25(texts: Sequence[Sequence[str]], prompt: Sequence[str], i: int, c: float = 1.2, b: float = 0.75) -> float:
    """The score of text i, all given as words."""
    mean = sum(len(text) for text in texts) / len(texts)
    score = 0.0
    for word in sorted(set(prompt)):
        holding = sum(word in text for text in texts)
        f = texts[i].count(word)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        score += idf * f * (c + 1) / (f + c * (1 - b + b * len(texts[i]) / mean))
    return score
