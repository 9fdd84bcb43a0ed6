"""Prompts with the answer that is read after them, as one batch, and what is measured there.

-(1/A) sum_a log p(o_a | prompt, o_<a)                   `nll`, nats a token, for each row
(1/A) sum_a KL(p(. | prompt, o_<a) || q(. | ...))        `divergence`, nats a token, for each row

A run may begin above layers that are the same for the edited and the unedited model (`palimpsest.edit.learned.frozen`). Answers
differ in length, so where many rows stand together the head sees only the tokens that are read: `stream_read`, then `spoken`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from palimpsest.errors import FactError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, Tap, pad


@dataclass(frozen=True)
class Answers:
    """Rows of prompt and answer: `at` are the columns read, `wanted` the tokens there, `weight` 1/A (0 where there is none).

    A run of them begins at layer `start`, which receives `resid`.
    """

    batch: Batch
    at: Int[Tensor, "rows positions"]
    wanted: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]
    start: int = 0
    resid: Float[Tensor, "rows columns width"] | None = None

    @property
    def reads(self) -> tuple[Int[Tensor, "reads"], Int[Tensor, "reads"]]:
        """Row and place in `at` of every token that is read, row by row."""
        row, place = self.weight.nonzero(as_tuple=True)
        return row, place


def answers_of(model: Model, asked: Sequence[tuple[str, str | None]]) -> Answers:
    """(text, answer) pairs as one batch; without an answer the next token alone is read, and none is wanted there.

    Raises:
        FactError: a text has no token before its answer.
    """
    ids: list[tuple[int, ...]] = []
    reads: list[list[tuple[int, int]]] = []
    for text, answer in asked:
        if answer is None:
            whole = model.encode(text).ids
            ids.append(whole)
            reads.append([(len(whole) - 1, 0)])
            continue
        whole, begin = model.encode_answer(text, answer)
        if not 0 < begin < len(whole):
            raise FactError(f"The prompt {text!r} and the answer {answer!r} must have a token each; change them.")
        ids.append(whole[:-1])
        reads.append([(at - 1, whole[at]) for at in range(begin, len(whole))])
    most = max(len(read) for read in reads)
    at, wanted = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weight = torch.zeros(len(ids), most)
    for row, read in enumerate(reads):
        at[row, : len(read)], wanted[row, : len(read)] = torch.tensor(read).T
        weight[row, : len(read)] = 1 / len(read)
    device = model.device
    return Answers(pad(ids).to(device), at.to(device), wanted.to(device), weight.to(device))


def beside(parts: Sequence[Answers]) -> Answers:
    """Answers of one row each, which begin at one layer, as one batch."""
    most = max(part.at.shape[1] for part in parts)
    at, wanted, weight = (
        torch.cat([_filled(getattr(part, name), most) for part in parts]) for name in ("at", "wanted", "weight")
    )
    batch = pad([part.batch.ids[0].tolist() for part in parts]).to(at.device)
    streams = [part.resid[0] for part in parts if part.resid is not None]
    resid = pad_sequence(streams, batch_first=True) if streams else None
    return Answers(batch, at, wanted, weight, parts[0].start, resid)


def log_p(model: Model, answers: Answers) -> Float[Tensor, "rows positions vocabulary"]:
    """Log-probabilities of every token at the columns read."""
    logits = model.run(answers.batch, start=answers.start, resid=answers.resid, at=answers.at)
    return at_least_float32(logits).log_softmax(-1)


def stream_read(model: Model, answers: Answers) -> Float[Tensor, "reads width"]:
    """The stream that leaves the last layer, at every token that is read."""
    row, place = answers.reads
    heard: list[Tensor] = []

    def hear(stream: Tensor) -> None:
        heard.append(stream[row.to(stream.device), answers.at[row, place].to(stream.device)])

    tap = Tap(Site("resid_out", model.n_layers - 1), hear)
    model.run(answers.batch, start=answers.start, resid=answers.resid, at=answers.at[:, :0], taps=[tap])
    return heard[0]


def spoken(model: Model, stream: Float[Tensor, "reads width"]) -> Float[Tensor, "reads vocabulary"]:
    """Log-probabilities of the next token where the last layer leaves `stream`: the final norm and the head alone."""
    column = torch.zeros(len(stream), 1, dtype=torch.long, device=model.device)
    one = Batch(column, torch.ones_like(column), column)
    logits = model.run(one, start=model.n_layers, resid=stream[:, None], at=column)
    return at_least_float32(logits[:, 0]).log_softmax(-1)


def nll(model: Model, answers: Answers) -> Float[Tensor, "rows"]:
    """Mean loss of each row's answer."""
    found = log_p(model, answers).gather(2, answers.wanted[:, :, None])[:, :, 0]
    return -(found * answers.weight.to(found.dtype)).sum(1)


def read_nll(answers: Answers, log_p: Float[Tensor, "reads vocabulary"]) -> Float[Tensor, "rows"]:
    """Mean loss of each row's answer, from the log-probabilities at every token that is read."""
    return _means(answers, -log_p.gather(1, answers.wanted[answers.reads][:, None])[:, 0])


def divergence(
    answers: Answers, before: Float[Tensor, "reads vocabulary"], after: Float[Tensor, "reads vocabulary"]
) -> Float[Tensor, "rows"]:
    """Mean KL(before || after) of each row, from the log-probabilities at every token that is read."""
    return _means(answers, (before.exp() * (before - after)).sum(-1))


def _means(answers: Answers, values: Float[Tensor, "reads"]) -> Float[Tensor, "rows"]:
    """Weighted sums over the tokens of each row."""
    weighted = values * answers.weight[answers.reads].to(values.dtype)
    return weighted.new_zeros(len(answers.batch)).index_add(0, answers.reads[0], weighted)


def _filled(tensor: Tensor, columns: int) -> Tensor:
    return functional.pad(tensor, (0, columns - tensor.shape[1]))
