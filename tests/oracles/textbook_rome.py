"""ROME as the published code does it: one fact, all rows, full forward passes, Adam, an explicit inverse.

Follows rome/compute_u.py and rome/compute_v.py of github.com/kmeng01/rome line by line, with the choices of the two
presets of `palimpsest.edit.methods.rome` as arguments. It shares nothing with them but the fact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.textbook_trace import find_token_range
from palimpsest.facts import Fact


@dataclass
class TextbookRome:
    """What came out: delta, the number of forward passes, the last loss, k used in both places, and dW (out, in)."""

    delta: Tensor
    steps: int
    loss: float
    key: Tensor
    value: Tensor
    update: Tensor


def textbook_rome(
    net: nn.Module,
    tokenizer,
    down: nn.Module,
    fact: Fact,
    contexts: Sequence[str],
    moment: Tensor,
    *,
    preset: str,
    steps: int = 20,
    lr: float = 0.5,
    kl_factor: float = 0.0625,
    decay: float = 0.5,
    clamp: float = 4.0,
    stop_below: float = 0.05,
) -> TextbookRome:
    """Run it.

    Args:
        net, tokenizer, down: the network and the linear map that is edited.
        fact: with `target_new`.
        contexts: texts before the prompt, the first of them empty.
        moment: C, in float64.
        preset: "rome-2022" or "fixed".
        steps, lr, kl_factor, decay, clamp, stop_below: as in the published code.
    """
    prompts = [context + fact.text for context in contexts]
    keys, values = zip(*[_key_and_value(net, tokenizer, down, prompt, fact.subject) for prompt in prompts], strict=True)
    if preset == "rome-2022":
        direction, key, value = torch.stack(keys).mean(0), keys[0], values[0]
    else:
        key = 0.5 * keys[0] + 0.5 * torch.stack(keys[1:]).mean(0)
        value = 0.5 * values[0] + 0.5 * torch.stack(values[1:]).mean(0)
        direction = key
    delta, used, loss = _search(
        net, tokenizer, down, fact, prompts, value.norm(), preset, steps, lr, kl_factor, decay, clamp, stop_below
    )
    u = torch.inverse(moment) @ direction.double()
    u = u / u.norm()
    right = ((value + delta) - value).double() / torch.dot(key.double(), u)
    return TextbookRome(delta, used, loss, key, value, torch.outer(right, u))


def _key_and_value(net, tokenizer, down, prompt: str, subject: str) -> tuple[Tensor, Tensor]:
    ids = tokenizer(prompt).input_ids
    last = _subject_last(tokenizer, ids, subject)
    kept = {}

    def hook(module, inputs, output):
        kept["key"], kept["value"] = inputs[0][0, last].detach().clone(), output[0, last].detach().clone()

    handle = down.register_forward_hook(hook)
    with torch.no_grad():
        net(input_ids=torch.tensor([ids]))
    handle.remove()
    return kept["key"], kept["value"]


def _search(net, tokenizer, down, fact, prompts, v_norm, preset, steps, lr, kl_factor, decay, clamp, stop_below):
    target = tokenizer(" " + fact.target_new, add_special_tokens=False).input_ids
    kl_prompt = f"{fact.subject} is a"
    rows = [tokenizer(prompt).input_ids + target[:-1] for prompt in prompts] + [tokenizer(kl_prompt).input_ids]
    lookup = [_subject_last(tokenizer, row, fact.subject) for row in rows]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    wanted = torch.full((len(prompts), longest), -100)
    for i, row in enumerate(rows[:-1]):
        wanted[i, len(row) - len(target) : len(row)] = torch.tensor(target)
    kl_at = lookup[-1] if preset == "rome-2022" else len(rows[-1]) - 1

    delta = torch.zeros(v_norm_width(down), dtype=v_norm.dtype, requires_grad=True)

    def add_delta(module, inputs, output):
        output = output.clone()
        for i, index in enumerate(lookup):
            output[i, index] += delta
        return output

    optimiser = torch.optim.Adam([delta], lr=lr)
    before = None
    for step in range(steps):
        optimiser.zero_grad()
        handle = down.register_forward_hook(add_delta)
        logits = net(input_ids=ids, attention_mask=mask).logits
        handle.remove()
        kl_log_p = F.log_softmax(logits[-1:, kl_at], dim=1)
        if before is None:
            before = kl_log_p.detach().clone()
        log_p = torch.log_softmax(logits[: len(prompts)], dim=2)
        picked = torch.gather(log_p, 2, wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
        told = (wanted != -100).to(log_p.dtype)
        nll = (-(picked * told).sum(1) / len(target)).mean()
        kl = kl_factor * F.kl_div(before, kl_log_p, log_target=True, reduction="batchmean")
        weight_decay = decay * (torch.norm(delta) / torch.norm(v_norm) ** 2)
        loss = nll + kl + weight_decay
        if loss < stop_below or step == steps - 1:
            break
        loss.backward()
        optimiser.step()
        bound = clamp * v_norm
        if delta.norm() > bound:
            with torch.no_grad():
                delta[...] = delta * bound / delta.norm()
    return delta.detach(), step + 1, float(loss.detach())


def v_norm_width(down: nn.Module) -> int:
    """Width of the output of a linear map, `nn.Linear` or GPT-2's `Conv1D`."""
    return down.out_features if isinstance(down, nn.Linear) else down.nf


def _subject_last(tokenizer, ids: Sequence[int], subject: str) -> int:
    return find_token_range(tokenizer, ids, subject)[1] - 1
