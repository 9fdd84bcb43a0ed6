"""Memories written plainly, one number or one prompt at a time: what the fast versions are held against."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.facts import Fact
from palimpsest.model import Model


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


@dataclass(frozen=True)
class Asked:
    """The ids of a prompt and its answer, and the position at which the answer begins."""

    ids: tuple[int, ...]
    begin: int


def asked_of(model: Model, fact: Fact) -> Asked:
    """A fact with its new answer."""
    return Asked(*model.encode_answer(fact.text, str(fact.target_new)))


def loss_with(
    net: nn.Module, down: nn.Module, asked: Asked, changed: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The loss of an answer (nats a token) and what the down-projection reads where it is read.

    From the last token of the prompt on, its output becomes `changed(input, output)`, by a hook of torch alone; every token runs.
    """
    first, read = asked.begin - 1, list[Tensor]()

    def replaced(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        read.append(args[0][0, first:])
        return torch.cat([output[:, :first], changed(args[0][:, first:], output[:, first:])], dim=1)

    handle = down.register_forward_hook(replaced)
    try:
        logits = net(input_ids=torch.tensor([asked.ids[:-1]])).logits[0, first:]
    finally:
        handle.remove()
    return nn.functional.cross_entropy(logits, torch.tensor(asked.ids[asked.begin :])), read[0]


def trained_value(
    net: nn.Module, down: nn.Module, asked: Sequence[Asked], begin: Tensor, steps: int, rate: float
) -> Tensor:
    """GRACE's value: what the down-projection must put out for the answers."""
    value = begin.clone().requires_grad_()
    adam = torch.optim.Adam([value], lr=rate)
    for _ in range(steps):
        losses = [loss_with(net, down, one, lambda _, output: value.expand_as(output))[0] for one in asked]
        (value.grad,) = torch.autograd.grad(torch.stack(losses).mean(), [value])
        adam.step()
    return value.detach()


def trained_side(
    net: nn.Module, down: nn.Module, asked: Sequence[Asked], elsewhere: Tensor, begin: Tensor, steps: int, rate: float
) -> Tensor:
    """WISE's D of one shard: the answers, and the three margins in mean lengths of the layer's own outputs."""
    lengths: list[float] = []

    def measure(_: Tensor, output: Tensor) -> Tensor:
        lengths.extend(output[0].norm(dim=-1).tolist())
        return output

    for one in asked:
        loss_with(net, down, one, measure)
    unit, delta = sum(lengths) / len(lengths), begin.clone().requires_grad_()
    adam = torch.optim.Adam([delta], lr=rate)
    for _ in range(steps):
        losses, scores = [], []
        for one in asked:
            loss, keys = loss_with(net, down, one, lambda read, output: output + read @ delta.T)
            losses.append(loss)
            scores.append((keys @ delta.T).norm(dim=-1) / unit)
        edited, others = torch.cat(scores), (elsewhere @ delta.T).norm(dim=-1) / unit
        margins = (others - 0.25).relu().mean() + (1.0 - edited).relu().mean()
        margins += (0.5 - (edited - others.max())).relu().mean()
        (delta.grad,) = torch.autograd.grad(torch.stack(losses).mean() + margins, [delta])
        adam.step()
    return delta.detach()
