"""A step that runs only what the editor can change, against the plain one: every layer of every text, each example alone."""

from pathlib import Path

import pytest
import torch
from learned_examples import facts, trained
from torch import Tensor

from oracles.small import model_of
from oracles.textbook_learned import Example, plain_judged, plain_step
from palimpsest.edit.learned.change import TOGETHER, chunks, network_of
from palimpsest.edit.learned.frozen import Frozen, Kept
from palimpsest.edit.learned.objective import judged
from palimpsest.edit.learned.ranks import Ranks
from palimpsest.edit.learned.settings import KeSettings, MendSettings
from palimpsest.edit.learned.signals import edited_maps
from palimpsest.edit.learned.training import add_gradients
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.facts import Probe
from palimpsest.model import Model

SETTINGS: dict[str, MendSettings | KeSettings] = {
    "mend": MendSettings(rank=4, edit_rate=1e-2),
    "ke": KeSettings(hidden=8, condition=8, largest=0.3),
}
MULTIPLIER, EDIT_WEIGHT = 0.7, 0.4


def batch_of(count: int) -> list[Example]:
    """Examples of unequal length; what must stay is read at one token, at several, and where no answer is named."""
    stays = (Probe("The king of the north is"), Probe("The old river of the east flows to", "Berlin or Rome"))
    return [(fact, fact.paraphrases[i % 2], (*stays, *fact.neighbours)[i % 3]) for i, fact in enumerate(facts(count))]


def gradients(network: torch.nn.Module) -> dict[str, Tensor]:
    """Of every parameter; 0 where there is none."""
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in network.named_parameters()
    }


def unlike_its_beginning(network: torch.nn.Module) -> None:
    """Every parameter a little off, so that every gradient has something to say."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=draw)


@pytest.mark.parametrize("method", list(SETTINGS))
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_losses_and_gradients_are_those_of_the_plain_step(family: str, method: str) -> None:
    model, batch = model_of(family), batch_of(5)
    paths = edited_maps(model, (1, 2), "mlp", 3)
    plain_network, network = (network_of(model, SETTINGS[method], paths) for _ in range(2))
    for made in (plain_network, network):
        unlike_its_beginning(made)
    frozen, before = Frozen(model, paths), model.fingerprint()
    assert frozen.start == 1
    for passes in range(2):  # the second finds everything kept
        expected = plain_step(model, plain_network, paths, batch, EDIT_WEIGHT, MULTIPLIER)
        assert float(expected.e.min()) > 1e-3
        assert float(expected.loc.min()) > 1e-6
        network.zero_grad()
        with model.evaluating():
            seen = add_gradients(frozen, network, batch, EDIT_WEIGHT, MULTIPLIER, Ranks())
        torch.testing.assert_close(
            seen.float(), torch.stack([expected.e.mean(), expected.loc.mean()]), rtol=1e-5, atol=1e-6
        )
        for name, gradient in gradients(network).items():
            scale = float(expected.gradients[name].abs().max())
            assert scale > 0, (name, passes)
            torch.testing.assert_close(gradient, expected.gradients[name], rtol=1e-4, atol=1e-5 * scale)
    assert model.fingerprint() == before
    assert not any(module._forward_hooks for module in model.net.modules())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_row_sees_the_change_of_its_own_example(family: str) -> None:
    """More examples than one run takes, each with another change, judged one by one and together."""
    model, batch = model_of(family), batch_of(TOGETHER + 2)
    paths = edited_maps(model, (2,), "mlp", 3)
    network = network_of(model, SETTINGS["mend"], paths)
    frozen = Frozen(model, paths)
    with torch.no_grad(), model.evaluating():
        asked = [frozen.request(fact) for fact, _, _ in batch]
        parts = [network.factors(signals, [words]) for signals, words in asked]
        for some in chunks(model, paths, len(batch)):
            e, loc = judged(frozen, [batch[i] for i in some], [parts[i] for i in some])
            expected = [plain_judged(model, batch[i], parts[i]) for i in some]
            torch.testing.assert_close(e, torch.stack([one for one, _ in expected]), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(loc, torch.stack([one for _, one in expected]), rtol=1e-4, atol=1e-5)
    assert [len(some) for some in chunks(model, paths, len(batch))] == [TOGETHER, 2]


def test_half_precision_is_judged_with_weights_that_are_rounded() -> None:
    model, batch = model_of("llama", dtype=torch.bfloat16), batch_of(2)
    paths = edited_maps(model, (1, 2), "down", 3)
    network = network_of(model, SETTINGS["mend"], paths)
    frozen = Frozen(model, paths)
    assert chunks(model, paths, 3) == [range(1), range(1, 2), range(2, 3)]
    with torch.no_grad(), model.evaluating():
        for example in batch:
            signals, words = frozen.request(example[0])
            factors = network.factors(signals, [words])
            e, loc = judged(frozen, [example], [factors])
            plain_e, plain_loc = plain_judged(model, example, factors)
            torch.testing.assert_close(
                e[0], plain_e, rtol=2e-2, atol=2e-2
            )  # a row alone and beside another differ by roundings
            torch.testing.assert_close(loc[0], plain_loc, rtol=0.1, atol=2e-2)


def test_layers_below_the_lowest_edited_one_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("gpt2"), batch_of(4)
    paths = edited_maps(model, (2,), "mlp", 3)
    network, frozen = network_of(model, SETTINGS["mend"], paths), Frozen(model, paths)
    ran: list[tuple[int, bool]] = []
    for layer in (1, 2):
        module = model.anatomy.layers[layer].attention
        assert module is not None
        module.module.register_forward_hook(lambda *_, layer=layer: ran.append((layer, torch.is_grad_enabled())))
    with model.evaluating():
        add_gradients(frozen, network, batch, 1.0, 1.0, Ranks())
        texts = 2 * len(batch) + len({(probe.prompt, probe.answer) for _, _, probe in batch})
        assert [layer for layer, _ in ran].count(1) == texts
        assert not any(graph for layer, graph in ran if layer == 1)
        ran.clear()
        add_gradients(frozen, network, batch, 1.0, 1.0, Ranks())
    assert ran == [(2, True)]  # eight rows in one run


@pytest.mark.parametrize("method", list(SETTINGS))
def test_what_is_kept_changes_no_bit_of_the_editor(method: str, tmp_path: Path) -> None:
    model = model_of("gpt2")
    settings = {"steps": 3, **({"rank": 4} if method == "mend" else {"hidden": 8, "condition": 8})}
    usual = trained(model, tmp_path / "usual", method, **settings)
    for name, memory in (("none", 0.0), ("little", 1e-5)):
        assert trained(model, tmp_path / name, method, memory=memory, **settings).read_bytes() == usual.read_bytes()


def test_memory_is_bounded_and_what_came_first_stays() -> None:
    kept = Kept[Tensor](100.0)
    sizes = {"a": 10, "b": 20, "c": 5}  # 40, 80 and 20 bytes
    found: list[str] = []

    def ask(name: str) -> Tensor:
        def find() -> Tensor:
            found.append(name)
            return torch.ones(sizes[name])

        return kept.get(name, find, lambda tensor: [tensor])

    for name in ("a", "b", "c", "a", "b", "c"):
        assert len(ask(name)) == sizes[name]
    assert found == ["a", "b", "c", "b"]
    assert kept.taken == 60


def test_mistakes(tmp_path: Path) -> None:
    model: Model = model_of("gpt2")
    with pytest.raises(AnatomyError, match=r"None of the maps \['lm_head'\] is inside a layer"):
        Frozen(model, ["lm_head"])
    with pytest.raises(SettingError, match="Learning's memory must be 0 or more, got -1.0"):
        trained(model, tmp_path, memory=-1.0)
