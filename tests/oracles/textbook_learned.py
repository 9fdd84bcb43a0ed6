"""A step of a learned editor without any saving: every layer of every text, each example alone, the change formed whole.

    e    =  -log p(o* | paraphrase; W + dW)                     loc  =  KL( p(. | stays; W) || p(. | stays; W + dW) )

The signals of the whole batch are taken in one run, and each example is judged by an unedited and an edited run of both its texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest.edit.learned.answers import answers_of, log_p
from palimpsest.edit.learned.change import Network, changed, requests
from palimpsest.edit.learned.mend import Factors
from palimpsest.edit.training import in_place_of
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model

Example = tuple[Fact, str, Probe]


@dataclass(frozen=True)
class Plain:
    """What one step finds: e and loc of each example, and the gradient of every parameter of the network."""

    e: Tensor
    loc: Tensor
    gradients: dict[str, Tensor]


def plain_judged(model: Model, example: Example, factors: Factors) -> tuple[Tensor, Tensor]:
    """e and loc of one example with the change `factors`."""
    fact, wording, probe = example
    answers = answers_of(model, [(wording, fact.target_new), (probe.prompt, probe.answer)])
    with torch.no_grad():
        before = log_p(model, answers)
    with in_place_of(model, changed(model, factors)):
        after = log_p(model, answers)
    weight = answers.weight.to(after.dtype)
    e = -(after[:1].gather(2, answers.wanted[:1, :, None])[:, :, 0] * weight[:1]).sum()
    return e, ((before[1:].exp() * (before[1:] - after[1:])).sum(-1) * weight[1:]).sum()


@torch.enable_grad()
def plain_step(
    model: Model,
    network: Network,
    paths: list[str],
    batch: Sequence[Example],
    edit_weight: float,
    multiplier: float,
    alone: bool = False,
) -> Plain:
    """Losses and gradient of one step; what the network has seen grows by the batch, as in training.

    With `alone` the signals of each record are taken by themselves, which differs by rounding and by nothing else.
    """
    network.zero_grad()
    with model.evaluating():
        facts = [fact for fact, _, _ in batch]
        runs = [requests(model, some, paths) for some in ([[fact] for fact in facts] if alone else [facts])]
        found, words = ([one for run in runs for one in run[place]] for place in (0, 1))
        network.add_scale(network.learn_scale(found))
        losses = []
        for example, signals, said in zip(batch, found, words, strict=True):
            e, loc = plain_judged(model, example, network.factors(signals, [said]))
            ((edit_weight * e + multiplier * loc) / len(batch)).backward(inputs=list(network.parameters()))
            losses.append(torch.stack([e.detach(), loc.detach()]))
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in network.named_parameters()
    }
    return Plain(*torch.stack(losses).T, gradients)
