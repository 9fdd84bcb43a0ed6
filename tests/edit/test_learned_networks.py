"""The networks of MEND and KE against textbook versions: dense, in loops, by the equations of the papers."""

import pytest
import torch
from learned_examples import facts
from torch import Tensor

from oracles.small import EIFFEL, FACTS, JAPAN, model_of
from palimpsest.edit.learned.answers import answers_of, nll
from palimpsest.edit.learned.change import changed, network_of, requests, words_of
from palimpsest.edit.learned.ke import KeNetwork
from palimpsest.edit.learned.mend import MendNetwork
from palimpsest.edit.learned.settings import KeSettings, MendSettings
from palimpsest.edit.learned.signals import edited_maps, shapes_of, signals
from palimpsest.edit.training import in_place_of
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model import Model
from palimpsest.model.anatomy import stores_transposed


def gradients(model: Model, asked: list[tuple[str, str]], paths: list[str]) -> dict[str, Tensor]:
    """dL/dW as (out, in) by autograd alone, one text at a time, L the sum of the mean losses of the answers."""
    weights = {path: model.parameter(f"{path}.weight") for path in paths}
    total = {path: torch.zeros_like(weight) for path, weight in weights.items()}
    for text, answer in asked:
        ids, begin = model.encode_answer(text, answer)
        for weight in weights.values():
            weight.requires_grad_()
        with torch.enable_grad():
            logits = model.net(torch.tensor([ids])).logits[0]
            loss = -sum(logits[i - 1].log_softmax(-1)[ids[i]] for i in range(begin, len(ids))) / (len(ids) - begin)
            found = torch.autograd.grad(loss, list(weights.values()))  # type: ignore[arg-type]
        for path, gradient in zip(paths, found, strict=True):
            total[path] += gradient
            weights[path].requires_grad_(False)
    return {path: total[path].T if stores_transposed(model.net.get_submodule(path)) else total[path] for path in paths}


def randomised(network: torch.nn.Module, seed: int = 0) -> None:
    """Other numbers in every parameter, so that nothing is at its first value."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_errors_times_inputs_are_the_gradient(family: str) -> None:
    model = model_of(family)
    paths = edited_maps(model, None, "mlp", 2)
    assert len(paths) == (4 if family == "gpt2" else 6)
    asked = [(fact.text, str(fact.target_new)) for fact in FACTS]
    found, losses = signals(model, answers_of(model, asked), paths)
    expected = gradients(model, asked, paths)
    for path in paths:
        assert float(expected[path].norm()) > 1e-4
        product = found[path].errors.T @ found[path].inputs
        torch.testing.assert_close(product, expected[path], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses, nll(model, answers_of(model, asked)))
    assert not any(module._forward_hooks for module in model.net.modules())


def test_only_tokens_with_an_error_are_kept() -> None:
    """At the last layer of a model these are the tokens that are read: one for each token of the answer."""
    model = model_of("gpt2")
    top = model.anatomy.down(model.n_layers - 1).path
    ids, begin = model.encode_answer(JAPAN.text, str(JAPAN.target_new))
    found, _ = signals(model, answers_of(model, [(JAPAN.text, JAPAN.target_new)]), [top])
    assert len(found[top].inputs) == len(ids) - begin > 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_untrained_mend_is_gradient_descent(family: str) -> None:
    model = model_of(family)
    paths = edited_maps(model, (1,), "mlp", 3)
    network = network_of(model, MendSettings(edit_rate=0.25), paths)
    found, words, _ = requests(model, [EIFFEL], paths)
    expected = gradients(model, [(EIFFEL.text, str(EIFFEL.target_new))], paths)
    weights = changed(model, network.factors(found[0], words))
    for path in paths:
        after = weights[f"{path}.weight"].detach() - model.parameter(f"{path}.weight")
        step = after.T if stores_transposed(model.net.get_submodule(path)) else after
        torch.testing.assert_close(step, -0.25 * expected[path], rtol=1e-4, atol=1e-6)


def test_what_was_seen_normalises_inputs_and_errors() -> None:
    model = model_of("llama")
    paths = edited_maps(model, (0, 1), "mlp", 3)
    network = network_of(model, MendSettings(edit_rate=0.5), paths)
    assert isinstance(network, MendNetwork)
    found, words, _ = requests(model, list(FACTS), paths)
    network.add_scale(network.learn_scale(found))
    factors = network.factors(found[0], words[:1])
    for path in paths:
        alike = [p for p in paths if shapes_of(model, [p])[p] == shapes_of(model, [path])[path]]
        rows = torch.cat([torch.cat([s[p].inputs, s[p].errors], 1) for s in found for p in alike]).double()
        mine = torch.cat([found[0][path].inputs, found[0][path].errors], 1).double()
        z = (mine - rows.mean(0)) / rows.std(0)
        width = found[0][path].inputs.shape[1]
        u, v = factors[path]
        torch.testing.assert_close((u @ v).double(), -0.5 * z[:, width:].T @ z[:, :width], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_mend_is_its_equations_token_by_token() -> None:
    model = model_of("llama")
    paths = edited_maps(model, (0, 2), "mlp", 3)
    network = network_of(model, MendSettings(rank=5), paths)
    assert isinstance(network, MendNetwork)
    randomised(network)
    found, words, _ = requests(model, [EIFFEL], paths)
    factors = network.factors(found[0], words)
    for place, path in enumerate(paths):
        signal = found[0][path]
        transform, mode = network.transforms[network.kinds[path]], network.modes[path]
        first, second = transform.first, transform.second
        expected = torch.zeros(signal.errors.shape[1], signal.inputs.shape[1])
        for u, delta in zip(signal.inputs, signal.errors, strict=True):
            z = torch.cat([u, delta])
            h = z + torch.relu(first.scale[mode] * (first.u @ (first.v @ z) + first.bias) + first.offset[mode])
            y = h + second.scale[mode] * (second.u @ (second.v @ h) + second.bias) + second.offset[mode]
            expected -= network.rates[place] * torch.outer(y[len(u) :], y[: len(u)])
        left, right = factors[path]
        torch.testing.assert_close(left @ right, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_maps_of_one_shape_share_a_network_and_keep_their_own_scale() -> None:
    model = model_of("llama")
    paths = edited_maps(model, (0, 1), "mlp", 3)
    network = network_of(model, MendSettings(), paths)
    assert isinstance(network, MendNetwork)
    shapes = shapes_of(model, paths)
    assert len(network.transforms) == len(set(shapes.values())) == 2
    assert len(network.rates) == len(paths) == 6
    for kind in network.transforms:
        modes = sorted(network.modes[path] for path in paths if network.kinds[path] == kind)
        assert modes == list(range(len(modes)))
        assert network.transforms[kind].first.scale.shape[0] == len(modes)
    one, other = (path for path in paths if path.endswith("down_proj"))
    found, words, _ = requests(model, [EIFFEL], paths)
    same = {one: found[0][one], other: found[0][one]}
    with torch.no_grad():
        network.transforms[network.kinds[one]].first.u.fill_(0.1)
    before = network.factors(same, words)
    assert torch.equal(before[one][1], before[other][1])
    with torch.no_grad():
        network.transforms[network.kinds[one]].first.scale[network.modes[other]] *= 2
    after = network.factors(same, words)
    assert torch.equal(after[one][1], before[one][1])
    assert not torch.allclose(after[other][1], before[other][1])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_ke_is_its_equation_on_dense_gradients(family: str) -> None:
    model = model_of(family)
    paths = edited_maps(model, (1,), "mlp", 3)
    network = network_of(model, KeSettings(hidden=6, condition=7, largest=0.7), paths)
    assert isinstance(network, KeNetwork)
    randomised(network)
    found, words, _ = requests(model, [JAPAN], paths)
    factors = network.factors(found[0], words)
    dense = gradients(model, [(JAPAN.text, str(JAPAN.target_new))], paths)
    embedded = model.net.get_input_embeddings()
    parts = [
        list(model.encode(JAPAN.text).ids),
        *(
            list(ids[begin:])
            for ids, begin in (model.encode_answer(JAPAN.text, a) for a in ("Berlin or Xi'an", "Tokyo"))
        ),
    ]
    rows = [
        embedded(torch.tensor(parts[0])),
        network.separator[None],
        embedded(torch.tensor(parts[1])),
        network.separator[None],
        embedded(torch.tensor(parts[2])),
    ]
    states = network.reader(torch.cat(rows)[None])[0][0]
    h = network.condition(torch.cat([states[-1, :6], states[0, 6:]]))  # forward's last state, backward's last state
    for place, path in enumerate(paths):
        out, width = dense[path].shape
        made = network.gates[place](h)
        alpha, beta = (
            made[:out].exp() / made[:out].exp().sum(),
            made[out : 2 * out].exp() / made[out : 2 * out].exp().sum(),
        )
        gamma, delta, eta = made[2 * out : 2 * out + width], made[2 * out + width : 2 * (out + width)], made[-1]
        expected = torch.empty(out, width)
        for i in range(out):
            for j in range(width):
                expected[i, j] = alpha[i] * gamma[j] * dense[path][i, j] + beta[i] * delta[j]
        expected *= 0.7 / (1 + torch.exp(-eta))
        u, v = factors[path]
        assert u.shape[1] == len(found[0][path].inputs) + 1
        torch.testing.assert_close(u @ v, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_fact_without_an_old_answer_is_read_too() -> None:
    model = model_of("gpt2")
    fact = facts(1)[0]
    bare = type(fact)(fact.subject, fact.prompt, None, fact.target_new)
    embedded, ends = words_of(model, bare)
    assert ends[1] == ends[2] == len(embedded)
    network = network_of(model, KeSettings(hidden=4, condition=4), [model.anatomy.down(1).path])
    assert isinstance(network, KeNetwork)
    assert bool(torch.isfinite(network.read(embedded, ends)).all())


@pytest.mark.parametrize("settings", [MendSettings(rank=4), KeSettings(hidden=4, condition=4)])
def test_gradients_reach_every_parameter_through_the_changed_model(settings: MendSettings | KeSettings) -> None:
    model = model_of("gpt2")
    before = model.fingerprint()
    paths = edited_maps(model, (1, 2), "mlp", 3)
    network = network_of(model, settings, paths)
    randomised(network, 3)
    found, words, _ = requests(model, [EIFFEL], paths)
    with torch.enable_grad(), in_place_of(model, changed(model, network.factors(found[0], words))):
        loss = nll(model, answers_of(model, [(EIFFEL.text, "Rome")])).sum()
        loss.backward()
    names = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not names
    assert model.fingerprint() == before


def test_one_network_for_one_seed() -> None:
    model = model_of("gpt2")
    paths = edited_maps(model, None, "down", 3)
    state = torch.random.get_rng_state()
    one, same = (network_of(model, MendSettings(), paths).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_mistakes_of_layers() -> None:
    model = model_of("gpt2")
    assert edited_maps(model, None, "down", 3) == [model.anatomy.down(layer).path for layer in range(3)]
    with pytest.raises(SettingError, match="no layer 9"):
        edited_maps(model, (9,), "mlp", 3)
    with pytest.raises(AnatomyError, match="at least one layer"):
        edited_maps(model, (), "mlp", 3)
    with pytest.raises(AnatomyError, match="no single down-projection"):
        edited_maps(model_of("mixtral"), (0,), "mlp", 3)
