"""Fine-tuning as a textbook does it: a copy of the network, torch's own Adam on its own weights, full forward passes of one fact at
a time. Serves fine-tuning, the attention edit and the joint edit; it shares nothing with them but the fact.

The published loss follows rome/baselines/ft/ft_main.py of github.com/kmeng01/rome: every token of the target is looked up in the
distribution after the prompt's last token.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from palimpsest.facts import Fact


def textbook_fine_tuning(
    net: nn.Module,
    tokenizer,
    bounds: Mapping[str, float | None],
    facts: Sequence[Fact],
    *,
    published_loss: bool = False,
    steps: int = 25,
    lr: float = 5e-4,
    weight_decay: float = 0.0,
    stop_below: float = 1e-2,
    batch: int = 64,
) -> tuple[dict[str, Tensor], list[float]]:
    """The change of each weight at a path of `bounds` (which gives its epsilon), and the mean loss of each pass."""
    net = copy.deepcopy(net)
    for name, weight in net.named_parameters():
        weight.requires_grad = name in bounds
    trained = {name: weight for name, weight in net.named_parameters() if name in bounds}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    adam = torch.optim.Adam(trained.values(), lr=lr, weight_decay=weight_decay)
    passes = []
    for _ in range(steps):
        losses = []
        for begin in range(0, len(facts), batch):
            chunk = facts[begin : begin + batch]
            adam.zero_grad()
            loss = sum(fact_loss(net, tokenizer, fact, published_loss) for fact in chunk) / len(chunk)
            losses += [loss.item()] * len(chunk)
            if loss.item() >= stop_below:
                loss.backward()
                adam.step()
            with torch.no_grad():
                for name, epsilon in bounds.items():
                    if epsilon is not None:
                        low, high = before[name] - epsilon, before[name] + epsilon
                        trained[name].copy_(torch.minimum(torch.maximum(trained[name], low), high))
        passes.append(sum(losses) / len(facts))
        if passes[-1] < stop_below:
            break
    return {name: weight.detach() - before[name] for name, weight in trained.items()}, passes


def fact_loss(net: nn.Module, tokenizer, fact: Fact, published: bool) -> Tensor:
    """Mean over the tokens of the target of -log p."""
    prompt = tokenizer(fact.prompt.replace("{}", fact.subject)).input_ids
    target = tokenizer(" " + fact.target_new, add_special_tokens=False).input_ids
    log_p = net(input_ids=torch.tensor([prompt + target])).logits[0].log_softmax(-1)
    last = len(prompt) - 1
    rows = [last] * len(target) if published else range(last, last + len(target))
    return -sum(log_p[row, token] for row, token in zip(rows, target, strict=True)) / len(target)
