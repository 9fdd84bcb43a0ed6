"""Many asks answered at once: one forward pass for each distinct prompt, whoever asks and whatever is asked about it.

    answers = answer(model, [Likelihood("The Louvre is in", "Paris"), Likelihood("The Louvre is in", "Rome"), ...])
    answers.nll("The Louvre is in", "Paris")

CounterFact compares two answers after each of 13 prompts. Asked one by one that is 26 runs a record, and every prompt is run
twice. Here

    texts become tokens once, and asks that share the tokens before the answer share a prompt: on ids, never on text,
        because a token may straddle the seam;
    prompts of all cases, sorted by length, run in batches up to their last token, whose distribution answers `NextToken`
        and the first token of every answer;
    answers of several tokens go on from the cached keys and values of their prompt;
    `Written` and `Passage` run in batches of their own (`writing`, `passages`).

Which batch an ask falls into changes its answer only by the rounding of the arithmetic, about 1e-6 nats in float32.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from palimpsest.errors import FactError, InputError, PalimpsestError
from palimpsest.evaluate.answer_cache import AnswerCache
from palimpsest.evaluate.asks import (
    Answer,
    Ask,
    Likelihood,
    LikelihoodAnswer,
    NextToken,
    NextTokenAnswer,
    Passage,
    Written,
)
from palimpsest.evaluate.passages import read
from palimpsest.evaluate.suite import Answers
from palimpsest.evaluate.writing import write
from palimpsest.locate.answers import BATCH_TOKENS, PADDING, by_length
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model
from palimpsest.model.partial import Prefix
from palimpsest.model.tokens import Batch, align
from palimpsest.runs import Progress

Ids = tuple[int, ...]
CPU_TOKENS, DEVICE_TOKENS = 1536, 16384  # of one batch: past these a batch only costs memory


@torch.no_grad()
def answer(
    model: Model,
    asks: Iterable[Ask],
    *,
    cache: AnswerCache | None = None,
    tokens: int | None = None,
    progress: Progress | None = None,
) -> Answers:
    """What the model, with the edits applied to it now, answers to everything asked.

    Args:
        model: the model.
        asks: in any order; the same ask twice is answered once.
        cache: answers known already, and where new ones go.
        tokens: of one batch, padding counted; chosen for the device when None.
        progress: called with (answered, all, kind of ask).

    Returns:
        the answers; what cannot be asked (a prompt longer than the context) raises its error when it is looked up, so that
        other cases are unharmed.
    """
    wanted = list(dict.fromkeys(asks))
    found: dict[Ask, Answer | PalimpsestError] = {}
    if cache is not None:
        found.update({ask: known for ask in wanted if (known := cache.get(ask)) is not None})
    work = _Work(model, tokens or (CPU_TOKENS if model.device.type == "cpu" else DEVICE_TOKENS))
    done = len(found)
    if progress is not None:
        progress(done, len(wanted), "")
    encoded: dict[Ask, tuple[Ids, int]] = {}
    for ask in wanted:
        if ask not in found:
            try:
                encoded[ask] = _encoded(model, ask)
            except PalimpsestError as error:
                found[ask] = error
                done += 1
    with model.evaluating():
        for answered in work.all(encoded):
            found.update(answered)
            if cache is not None:
                cache.put(answered)
            done += len(answered)
            if progress is not None:
                progress(done, len(wanted), "asked")
    return Answers(found)


def _encoded(model: Model, ask: Ask) -> tuple[Ids, int]:
    """All tokens of an ask, and how many of them come before the answer."""
    try:
        if not isinstance(ask, Likelihood):
            ids = model.encode(ask.text).ids
            return ids, len(ids)
        ids, begin = model.encode_answer(ask.text, ask.answer)
    except PalimpsestError:
        raise
    except Exception as error:  # a tokenizer may raise anything; half a surrogate pair is enough
        raise InputError(
            f"The tokenizer of {model.name} cannot read {ask.text[:60]!a} ({error}); correct it."
        ) from error
    if begin >= len(ids):
        raise FactError(f"The answer {ask.answer!r} has no token after {ask.text!r}; give visible characters.")
    if begin == 0:
        raise FactError(f"Nothing of the prompt {ask.text!r} is left before the tokens of {ask.answer!r}; lengthen it.")
    return ids, begin


@dataclass
class _Prompt:
    """Tokens that several asks begin with, and how each goes on."""

    ids: Ids
    tails: dict[Ids, list[Likelihood]] = field(default_factory=dict)
    next_token: list[NextToken] = field(default_factory=list)


@dataclass(frozen=True)
class _Work:
    """A model and how many tokens it takes at once."""

    model: Model
    tokens: int

    def all(self, encoded: dict[Ask, tuple[Ids, int]]) -> Iterator[dict[Ask, Answer]]:
        """The answers, batch by batch."""
        prompts: dict[Ids, _Prompt] = {}
        written: list[tuple[Written, Ids]] = []
        passages: list[tuple[Passage, Ids]] = []
        for ask, (ids, begin) in encoded.items():
            if isinstance(ask, Written):
                written.append((ask, ids))
            elif isinstance(ask, Passage):
                passages.append((ask, ids))
            else:
                prompt = prompts.setdefault(ids[:begin], _Prompt(ids[:begin]))
                if isinstance(ask, NextToken):
                    prompt.next_token.append(ask)
                else:
                    prompt.tails.setdefault(ids[begin:], []).append(ask)
        # a batch must be the same whatever order the asks come in
        rows = sorted(prompts.values(), key=lambda prompt: (len(prompt.ids), prompt.ids))
        for group in by_length(
            [len(prompt.ids) for prompt in rows], self.tokens, self.tokens * PADDING // BATCH_TOKENS
        ):
            yield self._prompts([rows[i] for i in group])
        written.sort(key=lambda one: (len(one[1]), one[1], one[0].tokens, one[0].top_k, one[0].seed))
        for group in by_length([len(ids) + ask.tokens for ask, ids in written], self.tokens):
            yield write(self.model, [written[i] for i in group])
        passages.sort(key=lambda one: (len(one[1]), one[1]))
        for group in by_length([len(ids) for _, ids in passages], self.tokens):
            yield read(self.model, [passages[i] for i in group])

    def _prompts(self, prompts: Sequence[_Prompt]) -> dict[Ask, Answer]:
        """One batch of prompts, then what goes on from them."""
        batch = align([prompt.ids for prompt in prompts], [len(prompt.ids) - 1 for prompt in prompts])
        last = torch.full((len(batch), 1), batch.column)
        longer = any(len(tail) > 1 for prompt in prompts for tail in prompt.tails)
        if longer:
            logits, prefix = self.model.run_on(batch, last)
        else:
            logits, prefix = self.model.run(batch, at=last.to(self.model.device)), None
        log_p = _log_p(logits)[:, 0]
        best = log_p.argmax(-1).tolist()
        answers: dict[Ask, Answer] = {}
        going_on: list[tuple[int, Ids]] = []
        for row, prompt in enumerate(prompts):
            for ask in prompt.next_token:
                answers[ask] = NextTokenAnswer(log_p[row].float().clone())
            for tail, asks in prompt.tails.items():
                if len(tail) > 1:
                    going_on.append((row, tail))
                else:
                    known = LikelihoodAnswer(-float(log_p[row, tail[0]]), (best[row] == tail[0],), (best[row],))
                    answers.update(dict.fromkeys(asks, known))
        if prefix is not None:
            lengths = [len(prompts[row].ids) + len(tail) for row, tail in going_on]
            for group in by_length(lengths, self.tokens):
                answers.update(self._tails(prompts, log_p, prefix, [going_on[i] for i in group]))
        return answers

    def _tails(
        self, prompts: Sequence[_Prompt], first: Tensor, prefix: Prefix, going_on: Sequence[tuple[int, Ids]]
    ) -> dict[Ask, Answer]:
        """Answers of several tokens, each from the cached keys and values of its prompt."""
        batch = _continued(
            [prompts[row].ids for row, _ in going_on], [tail[:-1] for _, tail in going_on], prefix.length
        )
        most = max(len(tail) for _, tail in going_on) - 1
        at = prefix.length + torch.arange(most).expand(len(going_on), most)
        rows = torch.tensor([row for row, _ in going_on])
        taken = prefix.take(rows.to(self.model.device))
        log_p = _log_p(self.model.run(batch, prefix=taken, at=at.to(self.model.device)))
        answers: dict[Ask, Answer] = {}
        for i, (row, tail) in enumerate(going_on):
            told = torch.cat([first[row][None], log_p[i, : len(tail) - 1]])
            wanted = torch.tensor(tail)
            best = told.argmax(-1)
            right = tuple((best == wanted).tolist())
            nll = -float(told.gather(1, wanted[:, None]).double().mean())
            answers.update(dict.fromkeys(prompts[row].tails[tail], LikelihoodAnswer(nll, right, tuple(best.tolist()))))
        return answers


def _continued(prompts: Sequence[Ids], tails: Sequence[Ids], length: int) -> Batch:
    """Rows whose prompts end in column `length - 1`, as in the batch their prefix was run in."""
    rows = [prompt + tail for prompt, tail in zip(prompts, tails, strict=True)]
    pivots = [len(prompt) - 1 for prompt in prompts]
    holder = (0,) * length  # the longest prompt of that batch may not go on, but it gave the batch its width
    return align([*rows, holder], [*pivots, length - 1]).take(slice(0, len(rows)))


def _log_p(logits: Tensor) -> Tensor:
    return at_least_float32(logits).log_softmax(-1).cpu()
