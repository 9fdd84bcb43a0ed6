"""What an editor is judged by, against the plain definition on an edited copy; and how KE's constraint moves."""

import copy

import pytest
import torch
from learned_examples import facts

from oracles.small import model_of
from palimpsest.edit.learned.answers import answers_of, log_p
from palimpsest.edit.learned.change import together
from palimpsest.edit.learned.frozen import Frozen
from palimpsest.edit.learned.objective import Constraint, judged
from palimpsest.edit.learned.settings import KeSettings, MendSettings
from palimpsest.errors import FactError
from palimpsest.facts import Probe
from palimpsest.model.anatomy import stores_transposed


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("answer", ["Berlin or Rome", None])
def test_the_two_losses_are_those_of_the_definition(family: str, answer: str | None) -> None:
    model = model_of(family)
    path = model.anatomy.down(1).path
    module = model.net.get_submodule(path)
    out, width = model.parameter(f"{path}.weight").shape[:: -1 if stores_transposed(module) else 1]
    draw = torch.Generator().manual_seed(0)
    u, v = torch.randn(out, 2, generator=draw) * 0.3, torch.randn(2, width, generator=draw)
    fact, probe = facts(1)[0], Probe("The river flows to", answer)
    frozen = Frozen(model, [path])
    e, loc = (found[0] for found in judged(frozen, [(fact, fact.paraphrases[0], probe)], [{path: (u, v)}]))

    edited = copy.deepcopy(model.net)
    with torch.no_grad():
        weight = edited.get_submodule(path).weight
        weight += (u @ v).T if stores_transposed(module) else u @ v
    ids, begin = model.encode_answer(fact.paraphrases[0], str(fact.target_new))
    log = edited(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -torch.stack([log[i - 1, ids[i]] for i in range(begin, len(ids))]).mean()
    torch.testing.assert_close(e, expected, rtol=1e-4, atol=1e-5)

    if answer is None:
        said = model.encode(probe.prompt).ids
        reads = [len(said) - 1]
    else:
        said, start = model.encode_answer(probe.prompt, answer)
        reads = list(range(start - 1, len(said) - 1))
        assert len(reads) > 1
    p, q = (net(torch.tensor([said])).logits[0].log_softmax(-1) for net in (model.net, edited))
    kl = torch.stack([(p[i].exp() * (p[i] - q[i])).sum() for i in reads]).mean()
    assert float(kl) > 1e-3
    torch.testing.assert_close(loc, kl, rtol=1e-3, atol=1e-5)
    unedited = judged(frozen, [(fact, fact.paraphrases[0], probe)], [{}])
    assert float(unedited[1]) == 0


def test_changes_add_up() -> None:
    draw = torch.Generator().manual_seed(1)
    parts = [{"a": (torch.randn(3, n, generator=draw), torch.randn(n, 5, generator=draw))} for n in (1, 2, 4)]
    u, v = together(parts)["a"]
    torch.testing.assert_close(u @ v, torch.stack([x @ y for part in parts for x, y in [part["a"]]]).sum(0))


def test_padding_changes_no_loss() -> None:
    model = model_of("gpt2")
    asked = [("The old king of the north is in", "Rome"), ("A", "Berlin or Xi'an")]
    both = log_p(model, answers_of(model, asked))
    for row, one in enumerate(asked):
        alone = answers_of(model, [one])
        count = alone.at.shape[1]
        torch.testing.assert_close(both[row, :count], log_p(model, alone)[0], rtol=1e-4, atol=1e-5)
    assert answers_of(model, asked).weight.sum(1).tolist() == pytest.approx([1, 1])


def test_the_multiplier_follows_the_constraint_and_the_margin_shrinks_where_it_is_kept() -> None:
    settings = KeSettings(margin=0.01, least_margin=0.007, multiplier_rate=2.0)
    constraint = Constraint.of(settings)
    assert (constraint.multiplier, constraint.margin) == (1.0, 0.01)
    constraint.after_step(settings, 0.11)
    assert constraint.multiplier == pytest.approx(1.2)
    constraint.after_step(settings, 0.0)
    assert constraint.multiplier == pytest.approx(1.18)
    constraint.after_validation(settings, 0.011)
    assert constraint.margin == 0.01
    constraint.after_validation(settings, 0.009)
    assert constraint.margin == pytest.approx(0.008)
    constraint.after_validation(settings, 0.0)
    assert constraint.margin == 0.007
    for _ in range(200):
        constraint.after_step(settings, 0.0)
    assert constraint.multiplier == 0
    mend = MendSettings()
    fixed = Constraint.of(mend)
    fixed.after_step(mend, 5.0)
    fixed.after_validation(mend, 0.0)
    assert (fixed.multiplier, fixed.margin) == (1.0, 0.0)


def test_a_prompt_without_a_token_is_named() -> None:
    model = model_of("gpt2")
    with pytest.raises(FactError, match="must have a token each"):
        answers_of(model, [(" ", "the")])
