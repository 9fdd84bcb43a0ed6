"""Contexts: short texts put before a prompt, so that an edit holds wherever the prompt stands.

ROME averages its key over contexts x_j that the model itself wrote (Meng et al. 2022, section 3.1 and appendix E.5; the
published code takes 10 texts of 5 tokens and 10 of 10, start token included, each followed by ". ", and the bare prompt).
The published draw is not seeded; here it is, and the texts are recorded in the edit.
"""

import unicodedata
from collections.abc import Sequence

import torch

from palimpsest.model import Model, align

BARE = ""


def sample_contexts(
    model: Model,
    lengths: Sequence[tuple[int, int]] = ((5, 10), (10, 10)),
    *,
    openings: Sequence[str] = (),
    top_k: int = 5,
    seed: int = 0,
) -> tuple[str, ...]:
    """The bare context "" and then, for each (length, count), `count` texts of `length` tokens that the model wrote.

    Args:
        model: writes the texts, each token drawn from its `top_k` likeliest.
        lengths: pairs of total tokens (the start token counts, as in the published code) and number of texts.
        openings: words the texts begin with, in turn, as in MEMIT's code; the model's start token when empty, as in ROME's.
        top_k: size of the choice at each token.
        seed: of the draw; the same model and seed give the same texts.

    Returns:
        texts to put before a prompt as they are: each ends in ". " but the bare one.
    """
    starts = [list(model.encode(word).ids) for word in openings] or [[_start_token(model)]]
    generator = torch.Generator().manual_seed(seed)
    texts = [BARE]
    for length, count in lengths:
        rows, prefix = [starts[i % len(starts)] for i in range(count)], None
        while min(len(row) for row in rows) < length:
            batch = align(rows, [len(row) - 1 for row in rows])  # the next tokens stand in one column
            with model.evaluating():
                logits, prefix = model.run_on(batch, torch.full((count, 1), batch.column), prefix)
            best = logits[:, 0].float().cpu().topk(top_k)
            choice = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
            rows = [[*row, int(best.indices[i, choice[i, 0]])] for i, row in enumerate(rows)]
        for row in rows:
            text = model.tokenizer.decode(row, skip_special_tokens=True)
            texts.append(unicodedata.normalize("NFKD", text).replace("\n\n", " ") + ". ")
    return tuple(texts)


def in_context(context: str, text: str) -> str:
    """`text` after `context`."""
    return context + text


def _start_token(model: Model) -> int:
    """The token that begins a text: end-of-text where the vocabulary has it (as in the published code), else BOS or EOS."""
    vocabulary = model.tokenizer.get_vocab()
    candidates = (vocabulary.get("<|endoftext|>"), model.tokenizer.bos_token_id, model.tokenizer.eos_token_id)
    return next((token for token in candidates if token is not None), 0)
