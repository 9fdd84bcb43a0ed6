"""Does the model give a whole answer by itself: exact greedy recall.

An answer o = (o_1 .. o_T) counts as recalled where every token of it, and the full stop after it, is the model's first choice:

    o_t = argmax_x p(x | prompt, o_<t)   for t = 1 .. T,    "." = argmax_x p(x | prompt, o)

which is what greedy generation writes, found in one forward pass (the first token that is not the model's choice ends
both alike). The full stop is asked for so that an answer does not count as recalled where it is only how a longer one begins.
"""

from collections.abc import Sequence

import torch

from palimpsest.errors import InputError
from palimpsest.model import Model, pad

STOP = "."


@torch.no_grad()
def recalls(
    model: Model, prompts: Sequence[str], answers: Sequence[str], *, stop: str = STOP, batch: int = 256
) -> list[bool]:
    """Whether greedy generation after each prompt writes the answer and then `stop`.

    Args:
        model: read, never changed.
        prompts: complete texts.
        answers: one for each; a space is put before.
        stop: text that must follow; "" asks for the answer's tokens alone.
        batch: prompts run at once, those of like length together.

    Raises:
        InputError: there are not as many answers as prompts.
    """
    if len(prompts) != len(answers):
        raise InputError(
            f"Recall needs one answer for each prompt, got {len(prompts)} prompts and {len(answers)} answers."
        )
    begin = [model.tokenizer(prompt).input_ids for prompt in prompts]
    whole = [
        model.tokenizer(f"{prompt} {answer}{stop}").input_ids for prompt, answer in zip(prompts, answers, strict=True)
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(whole[i]))
    found = [False] * len(prompts)
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        wanted = [whole[i][len(begin[i]) :] for i in some]
        longest = max(map(len, wanted))
        # the token before each wanted one; rows with fewer ask their last place again, which is not looked at
        places = [
            [len(begin[i]) - 1 + min(t, len(w) - 1) for t in range(longest)] for i, w in zip(some, wanted, strict=True)
        ]
        said = model.run(pad([whole[i][:-1] for i in some]), at=torch.tensor(places)).argmax(-1).tolist()
        for i, w, row in zip(some, wanted, said, strict=True):
            found[i] = row[: len(w)] == w
    return found
