"""How likely a model finds an answer after a text, many pairs at a time.

    nll(o | x) = -(1/T) sum_t log p(o_t | x, o_<t)        in nats a token, T the tokens of o

is the quantity every score of CounterFact compares (Meng et al. 2022, section 3.4), and exp(-nll) is the geometric mean
probability of a token.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import FactError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, pad
from palimpsest.model.tokens import Encoded

BATCH_TOKENS, PADDING = 1536, 32


@torch.no_grad()
def answer_nll(model: Model, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """nll of the answer of each (text, answer), in the order given.

    Pairs are sorted by length into batches of about `BATCH_TOKENS` tokens; logits are computed where answers are read.
    """
    encoded = [model.encode_answer(text, answer) for text, answer in pairs]
    result = [0.0] * len(pairs)
    for rows in by_length([len(ids) for ids, _ in encoded], padding=PADDING):
        batch = pad([encoded[i][0] for i in rows]).to(model.device)
        most = max(len(encoded[i][0]) - encoded[i][1] for i in rows)
        at = torch.zeros(len(rows), most, dtype=torch.long)
        wanted, counted = torch.zeros_like(at), torch.zeros(len(rows), most, dtype=torch.float64)
        for row, i in enumerate(rows):
            ids, begin = encoded[i]
            n = len(ids) - begin
            at[row, :n] = torch.arange(begin - 1, len(ids) - 1)
            wanted[row, :n] = torch.tensor(ids[begin:])
            counted[row, :n] = 1 / n
        with model.evaluating():
            logits = model.run(batch, at=at.to(model.device))
        log_p = at_least_float32(logits).log_softmax(-1).cpu()
        nll = -(log_p.gather(2, wanted[:, :, None])[:, :, 0] * counted).sum(1)
        for row, i in enumerate(rows):
            result[i] = float(nll[row])
    return result


@torch.no_grad()
def next_token_logits(model: Model, texts: Sequence[str]) -> Float[Tensor, "texts vocabulary"]:
    """Logits of the token that follows each text, in the order given, in float32 or better on the CPU."""
    encoded = [model.encode(text).ids for text in texts]
    result: list[Tensor] = [torch.empty(0)] * len(texts)
    for rows in by_length([len(ids) for ids in encoded], padding=PADDING):
        with model.evaluating():
            logits = at_least_float32(model.last_logits(pad([encoded[i] for i in rows]))).cpu()
        for row, i in enumerate(rows):
            result[i] = logits[row]
    return torch.stack(result)


def prompt_and_token(model: Model, text: str, answer: str) -> tuple[Encoded, int]:
    """The prompt as tokens, and the first token of `answer` after it, from one tokenisation.

    Where a token straddles the seam (a prompt that ends in a blank, before " Paris"), the prompt ends before that token, so
    that what is scored is what the model would say next.

    Raises:
        FactError: the answer has no token, or prompt and answer cannot be told apart.
    """
    encoded = model.encode(text)
    ids, begin = model.encode_answer(text, answer)
    if begin >= len(ids):
        raise FactError(f"The answer {answer!r} has no token after {text!r}; give an answer of visible characters.")
    if not begin or ids[:begin] != encoded.ids[:begin]:
        raise FactError(
            f"The answer {answer!r} changes the tokens of {text!r} that come before it; end the prompt otherwise."
        )
    return Encoded(text, encoded.ids[:begin], encoded.offsets[:begin]), ids[begin]


def first_token(model: Model, text: str, answer: str) -> int:
    """The first token of `answer` after `text`."""
    ids, begin = model.encode_answer(text, answer)
    return ids[begin]


def by_length(lengths: Sequence[int], tokens: int | None = None, padding: int | None = None) -> Iterator[list[int]]:
    """Indices in order of length, cut into batches.

    Args:
        lengths: of the rows.
        tokens: of a batch, padding counted; `BATCH_TOKENS` when None.
        padding: of a batch; a batch that would hold more is cut before its longest row. Reading the weights once more costs
            about as much as computing `PADDING` tokens, so more padding than that is dearer than another batch. No bound
            when None.
    """
    most, padded = BATCH_TOKENS if tokens is None else tokens, 0
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longer = len(batch) * (lengths[i] - lengths[batch[-1]]) if batch else 0
        if batch and ((len(batch) + 1) * lengths[i] > most or (padding is not None and padded + longer > padding)):
            yield batch
            batch, padded, longer = [], 0, 0
        batch.append(i)
        padded += longer
    if batch:
        yield batch
