"""Taps read and replace every site, leave nothing behind, and can end a run early."""

import gc
import weakref
from itertools import pairwise

import pytest
import torch

import families
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model import EMBED, Site, Tap, load, pad, record, tapped
from palimpsest.model.sites import KINDS

pytestmark = pytest.mark.floor

IDS = [[5, 17, 40, 8, 300, 77], [9, 9, 200, 31, 6, 12]]
SUMS = [name for name, family in families.FAMILIES.items() if family.sums]


def sites_of(model):
    kinds = [kind for kind in KINDS[1:] if kind not in ("key", "value") or model.anatomy.layers[0].down]
    return [EMBED, *(Site(kind, layer) for layer in range(model.n_layers) for kind in kinds)]


def width_of(site, name):
    if site.kind == "key":
        experts = name == "deepseek_v3" and site.layer > 0
        return 4 * families.WIDTH if name == "bloom" else 40 if experts else families.INNER
    return 24 if (name, site) == ("opt_post_norm", EMBED) else families.WIDTH


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_every_site_is_read_as_rows_tokens_width(tiny, name):
    model = tiny(name)
    sites = sites_of(model)
    states = model.record(pad(IDS), sites)
    assert set(states) == set(sites)
    for site, state in states.items():
        assert tuple(state.shape) == (2, 6, width_of(site, name)), site
        assert torch.isfinite(state).all()
    for below, above in pairwise(range(model.n_layers)):
        assert torch.equal(states[Site("resid_out", below)], states[Site("resid_in", above)])
    model.net(**{"input_ids": torch.tensor(IDS)})
    assert len({id(state) for state in states.values()}) == len(states)


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_every_site_is_replaced(tiny, name):
    """What is put in place is what the rest of the network sees, and only the token and row that were changed differ."""
    model, batch = tiny(name), pad(IDS)
    sites = sites_of(model)
    clean, logits = model.record(batch, sites), model.run(batch)
    for site in sites:

        def change(tensor):
            changed = tensor.clone()
            changed[1, 3] = 2 * tensor[1, 3].flip(-1) + 0.5
            return changed

        expected = change(clean[site])
        assert torch.equal(model.record(batch, [site], taps=[Tap(site, change)])[site], expected), site
        moved = model.run(batch, taps=[Tap(site, change)])
        torch.testing.assert_close(moved[0], logits[0], rtol=1e-5, atol=1e-5)  # experts mix rows, up to rounding
        torch.testing.assert_close(moved[1, :3], logits[1, :3], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(moved[1, 3], logits[1, 3], atol=1e-4), site
        returned = model.run(batch, taps=[Tap(site, lambda _, site=site: clean[site])])
        torch.testing.assert_close(returned, logits, rtol=1e-6, atol=1e-6)
    assert torch.equal(model.run(batch), logits)


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_the_stream_is_the_sum_of_what_is_added(tiny, name):
    """Catches tensors that a layer changes in place after they were read (Falcon), and modules that add the stream (BLOOM)."""
    model = tiny(name)
    states = model.record(pad(IDS), sites_of(model))
    for layer in range(model.n_layers):
        parts = (states[Site(kind, layer)] for kind in ("resid_in", "attn_out", "mlp_out"))
        torch.testing.assert_close(sum(parts), states[Site("resid_out", layer)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
@torch.no_grad()
def test_norms_after_the_mlp_come_after_the_site(tiny, name):
    model = tiny(name)
    states = model.record(pad(IDS), sites_of(model))
    for layer in model.anatomy.layers:
        block, at = layer.block.module, lambda kind, layer=layer: states[Site(kind, layer.index)]
        middle = at("resid_in") + block.post_attention_layernorm(at("attn_out"))
        torch.testing.assert_close(middle + block.post_feedforward_layernorm(at("mlp_out")), at("resid_out"))
        assert torch.equal(at("value"), at("mlp_out"))


@torch.no_grad()
def test_a_flattened_mlp_is_seen_in_rows_and_tokens(tiny):
    """OPT's fc2 runs on (rows * tokens, width); a tap sees the same numbers in the shape of the batch."""
    model, seen = tiny("opt"), []
    fc2 = model.anatomy.down(1).module
    handle = fc2.register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
    try:
        states = model.record(pad(IDS), [Site("key", 1), Site("resid_out", 1)])
    finally:
        handle.remove()
    assert torch.equal(states[Site("key", 1)].flatten(0, 1), seen[0].flatten(0, -2))


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_the_stream_is_what_transformers_calls_hidden_states(tiny, name):
    model, fresh = tiny(name), families.build(name)
    ids = torch.tensor(IDS)
    theirs = fresh(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    ours = model.record(pad(IDS), [Site("resid_in", layer) for layer in range(model.n_layers)])
    assert len(theirs) == model.n_layers + 1
    for layer in range(model.n_layers):
        torch.testing.assert_close(ours[Site("resid_in", layer)], theirs[layer], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", families.SAMPLE)
@torch.no_grad()
def test_a_run_ends_once_every_site_was_seen(tiny, name):
    model, calls = tiny(name), []
    handles = [
        layer.block.module.register_forward_pre_hook(lambda *_, i=layer.index: calls.append(i))
        for layer in model.anatomy.layers
    ]
    handles.append(model.anatomy.head.register_forward_pre_hook(lambda *_: calls.append("head")))
    try:
        model.record(pad(IDS), [Site("attn_out", 1), Site("resid_in", 0)])
        assert calls == [0, 1]
        calls.clear()
        with tapped(model.anatomy, [], stop_after=Site("resid_out", 0)):
            model.net(input_ids=torch.tensor(IDS))
            raise AssertionError("the block ends with the run")
        assert calls == [0]
        calls.clear()
        record(model.anatomy, lambda: model.net(input_ids=torch.tensor(IDS)), [Site("attn_out", 0)], stop=False)
        assert calls == [*range(model.n_layers), "head"]
    finally:
        for handle in handles:
            handle.remove()
    assert torch.isfinite(model.run(pad(IDS))).all()


def test_a_run_that_ends_early_keeps_nothing_in_memory(tiny):
    """No cycle of exception, frames and hooks holds a state until the garbage collector comes by."""
    model, site, held = tiny("gpt2"), Site("key", 0), []
    gc.collect()
    gc.disable()
    try:
        states = model.record(pad(IDS), [site], taps=[Tap(Site("mlp_out", 0), lambda v: held.append(weakref.ref(v)))])
        with tapped(model.anatomy, [Tap(site, lambda v: held.append(weakref.ref(v)))], stop_after=site):
            model.net(input_ids=torch.tensor(IDS))
        held.append(weakref.ref(states[site]))
        del states
        assert len(held) >= 2
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()


def test_one_stop_is_not_taken_for_another(tiny):
    """A recording inside a block that stops later ends itself only."""
    model, reached = tiny("gpt2"), []
    with tapped(model.anatomy, [], stop_after=Site("resid_out", 1)):
        states = model.record(pad(IDS), [Site("resid_out", 0)])
        reached.append("after the recording")
        model.net(input_ids=torch.tensor(IDS))
        reached.append("never")
    assert reached == ["after the recording"]
    assert Site("resid_out", 0) in states


def test_taps_at_one_site_act_in_order_and_before_the_reading(tiny):
    model, site = tiny("llama"), Site("value", 1)
    taps = [Tap(site, lambda v: v + 1), Tap(site, lambda v: 2 * v), Tap(site, lambda _: None)]
    clean = model.record(pad(IDS), [site])[site]
    for seen in (site, Site("mlp_out", 1)):
        torch.testing.assert_close(model.record(pad(IDS), [seen], taps=taps)[seen], 2 * (clean + 1))


def test_a_recording_is_a_copy(tiny):
    model, site = tiny("falcon"), Site("mlp_out", 1)
    states = model.record(pad(IDS), [site, Site("resid_out", 2)])
    again = model.record(pad(IDS), [site])
    assert torch.equal(states[site], again[site])
    states[site].zero_()
    assert torch.equal(model.record(pad(IDS), [site])[site], again[site])


def test_what_is_put_in_place_is_a_copy(tiny):
    """Falcon adds attention's output to the MLP's in place; the tensor a tap returned must not change."""
    model = tiny("falcon")
    mine = torch.ones(2, 6, families.WIDTH)
    model.run(pad(IDS), taps=[Tap(Site("mlp_out", 1), lambda _: mine)])
    assert torch.equal(mine, torch.ones_like(mine))


def test_taps_are_gone_after_an_error(tiny):
    model = tiny("gpt2")
    clean = model.run(pad(IDS))

    def fails():
        with tapped(model.anatomy, [Tap(Site("value", 1), torch.zeros_like)]):
            assert not torch.equal(model.net(input_ids=torch.tensor(IDS)).logits, clean)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert torch.equal(model.run(pad(IDS)), clean)
    with pytest.raises(SettingError, match="There is no layer 3"):  # the first tap is removed when the second fails
        model.run(pad(IDS), taps=[Tap(Site("value", 1), torch.zeros_like), Tap(Site("value", 3), torch.zeros_like)])
    assert torch.equal(model.run(pad(IDS)), clean)


def test_gradients_flow_through_taps(tiny):
    model, site = tiny("gpt2"), Site("value", 1)
    delta = torch.zeros(families.WIDTH, requires_grad=True)
    model.run(pad(IDS), taps=[Tap(site, lambda v: v + delta)])[:, -1].logsumexp(-1).sum().backward()
    assert delta.grad is not None
    assert delta.grad.abs().max() > 0


def test_a_site_that_is_not_reached_is_named(tokenizer):
    net = families.build("llama")
    model = load(net, tokenizer=tokenizer)
    net.model.layers[1].mlp.forward = lambda hidden: hidden
    with pytest.raises(AnatomyError, match=r"The run did not reach key\[1\]"):
        model.record(pad(IDS), [Site("key", 1), Site("resid_out", 0)])


def test_a_config_that_asks_for_hidden_states_is_no_trap(tokenizer):
    """Some versions collect them by patching `forward` during the run, which an early stop must not leave in place."""
    net = families.build("llama", attn_implementation="eager")
    model = load(net, tokenizer=tokenizer)
    clean = model.run(pad(IDS))
    net.config.output_hidden_states = net.config.output_attentions = True
    model.record(pad(IDS), [Site("attn_out", 1)])
    assert not [path for path, module in net.named_modules() if "forward" in module.__dict__]
    torch.testing.assert_close(model.run(pad(IDS)), clean, rtol=1e-5, atol=1e-5)
