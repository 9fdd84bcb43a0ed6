"""Partial runs equal full runs: bit for bit where layers are skipped, to 1e-5 where tokens are, gradients included."""

import pytest
import torch

import families
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model import EMBED, Prefix, Site, Tap, align, pad
from palimpsest.model.partial import run_prefix

pytestmark = pytest.mark.floor

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def rows_of(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, families.VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def aligned():
    """Three rows of unequal length with unequal prefixes: 4, 2 and 1 tokens before the column."""
    return align(rows_of(9, 6, 4), [4, 2, 1])


def entering(model, batch, start):
    """The recorded residual that enters layer `start`, for all columns."""
    site = Site("resid_in", 0) if start == 0 else Site("resid_out", start - 1)
    return model.record(batch, [site])[site]


def equal_at_tokens(a, b, batch):
    kept = batch.mask.bool()
    return torch.equal(a[kept], b[kept])


def forwards(model):
    return [module.__dict__.get("forward") for module in model.net.modules()]


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_starting_at_any_layer_is_exact(tiny, name):
    model = tiny(name)
    for batch in (pad(rows_of(7, 7)), pad(rows_of(8, 3)), aligned()):
        full, patched, count = model.run(batch), forwards(model), hooks(model)
        assert torch.isfinite(full[batch.mask.bool()]).all()
        for start in range(model.n_layers + 1):
            partial = model.run(batch, start=start, resid=entering(model, batch, start))
            assert equal_at_tokens(partial, full, batch), f"start {start}"
        assert (forwards(model), hooks(model)) == (patched, count)


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_all_savings_together(tiny, name):
    model, batch = tiny(name), aligned()
    at = torch.stack([batch.last - 1, batch.last], dim=1)
    full = model.run(batch)[torch.arange(3)[:, None], at]
    torch.testing.assert_close(model.run(batch, at=at), full, **CLOSE)
    (prefix,) = model.run_prefixes(batch, [batch.column])
    torch.testing.assert_close(model.run(batch, prefix=prefix, at=at), full, **CLOSE)
    for start in range(model.n_layers + 1):
        resid = entering(model, batch, start)[:, batch.column :]
        partial = model.run(batch, start=start, resid=resid, prefix=prefix, at=at)
        torch.testing.assert_close(partial, full, **CLOSE)


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_prefixes_grow_and_repeat(tiny, name):
    model, batch = tiny(name), pad(rows_of(12, 12))
    full = model.run(batch)
    for prefix in model.run_prefixes(batch, [0, 1, 5, 5, 11]):
        for _ in range(2):  # a run works on a copy, so a prefix can be used again
            torch.testing.assert_close(model.run(batch, prefix=prefix), full[:, prefix.length :], **CLOSE)
        rows = torch.tensor([0, 0, 1, 1])
        many = batch.take(rows.tolist())
        torch.testing.assert_close(model.run(many, prefix=prefix.take(rows)), full[rows][:, prefix.length :], **CLOSE)
        kept = prefix.take(torch.tensor([1]))
        torch.testing.assert_close(model.run(batch.take([1]), prefix=kept), full[1:, prefix.length :], **CLOSE)


@pytest.mark.parametrize("name", families.NAMES)
def test_gradients_are_those_of_the_full_run(tiny, name):
    model, batch, layer = tiny(name), aligned(), 1
    kind = "value" if families.FAMILIES[name].down else "mlp_out"
    (prefix,) = model.run_prefixes(batch, [batch.column])
    resid = entering(model, batch, layer)[:, batch.column :]

    def gradient(column, **options):
        delta = torch.zeros(3, families.WIDTH, requires_grad=True)

        def add(v):
            moved = v.clone()
            moved[:, column] = moved[:, column] + delta
            return moved

        logits = model.run(batch, at=batch.last[:, None], taps=[Tap(Site(kind, layer), add)], **options)
        logits.log_softmax(-1)[:, 0, 7].sum().backward()
        return delta.grad

    full = gradient(batch.column)
    assert full.abs().max() > 1e-4
    torch.testing.assert_close(gradient(batch.column, start=layer, resid=entering(model, batch, layer)), full, **CLOSE)
    torch.testing.assert_close(gradient(0, prefix=prefix), full, **CLOSE)
    torch.testing.assert_close(gradient(0, start=layer, resid=resid, prefix=prefix), full, **CLOSE)


@pytest.mark.parametrize("name", families.SAMPLE)
def test_gradients_reach_the_residual_put_in(tiny, name):
    model, batch = tiny(name), pad(rows_of(5, 5))
    resid = entering(model, batch, 2).requires_grad_()
    model.run(batch, start=2, resid=resid)[:, -1].logsumexp(-1).sum().backward()
    direct = model.record(batch, [Site("resid_in", 2)])[Site("resid_in", 2)].requires_grad_()
    tap = Tap(Site("resid_in", 2), lambda _: direct)
    model.run(batch, taps=[tap])[:, -1].logsumexp(-1).sum().backward()
    torch.testing.assert_close(resid.grad, direct.grad, **CLOSE)


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(tiny, name):
    model = tiny(name)
    rows = rows_of(9, 5, 2)
    alone = torch.cat([model.last_logits(pad([row])) for row in rows])
    torch.testing.assert_close(model.last_logits(pad(rows)), alone, **CLOSE)
    torch.testing.assert_close(model.last_logits(align(rows, [len(row) - 1 for row in rows])), alone, **CLOSE)


@pytest.mark.parametrize("name", families.SAMPLE)
@torch.no_grad()
def test_layers_below_the_start_are_not_computed(tiny, name):
    model, batch = tiny(name), pad(rows_of(4))
    calls: list[int] = []
    handles = [
        layer.attention_projection.module.register_forward_hook(lambda *_, i=layer.index: calls.append(i))
        for layer in model.anatomy.layers
    ]
    try:
        model.run(batch, start=2, resid=torch.zeros(1, 4, families.WIDTH))
        assert calls == list(range(2, model.n_layers))
        calls.clear()
        model.run(batch, start=model.n_layers, resid=torch.zeros(1, 4, families.WIDTH))
        assert calls == []
    finally:
        for handle in handles:
            handle.remove()


def test_nothing_stays_behind_after_an_error(tiny):
    model, batch = tiny("llama"), pad(rows_of(4))
    before = forwards(model), hooks(model)

    def fails(_):
        raise RuntimeError("a tap that fails")

    with pytest.raises(RuntimeError, match="a tap that fails"):
        model.run(
            batch, start=1, resid=torch.zeros(1, 4, families.WIDTH), at=batch.last[:, None],
            taps=[Tap(Site("mlp_out", 2), fails)],
        )  # fmt: skip
    assert (forwards(model), hooks(model)) == before


def test_a_forward_put_on_a_layer_by_others_is_put_back(tokenizer):
    from palimpsest.model import load

    net = families.build("llama")
    block = net.model.layers[0]
    original = block.forward
    block.forward = replaced = lambda *args, **kwargs: original(*args, **kwargs)
    model = load(net, tokenizer=tokenizer)
    model.run(pad(rows_of(4)), start=2, resid=torch.zeros(1, 4, families.WIDTH))
    assert block.__dict__["forward"] is replaced


def test_an_empty_prefix_is_no_prefix(tiny):
    model, batch = tiny("gpt2"), pad(rows_of(4, 4))
    empty = run_prefix(model.net, model.anatomy, batch, 0)
    assert empty == Prefix(None, 0)
    assert torch.equal(model.run(batch, prefix=empty), model.run(batch))
    assert torch.equal(
        model.run(batch.take([0, 0, 1, 1]), prefix=empty.take(torch.tensor([0, 0, 1, 1]))),
        model.run(batch.take([0, 0, 1, 1])),
    )


def test_mistakes_are_named(tiny):
    model, batch = tiny("gpt2"), pad(rows_of(4))
    resid = torch.zeros(1, 4, families.WIDTH)
    (prefix,) = model.run_prefixes(batch, [2])
    (whole,) = model.run_prefixes(batch, [4])
    with pytest.raises(SettingError, match="A run starts at layer 0 to 3, got 4"):
        model.run(batch, start=4, resid=resid)
    with pytest.raises(SettingError, match=r"Starting at layer 1 needs a residual of shape \(1, 4, d\), got none"):
        model.run(batch, start=1)
    with pytest.raises(SettingError, match=r"needs a residual of shape \(1, 2, d\), got \(1, 4, 32\)"):
        model.run(batch, start=1, resid=resid, prefix=prefix)
    with pytest.raises(SettingError, match="Logits can be had at columns 2 to 3, got"):
        model.run(batch, prefix=prefix, at=torch.tensor([[1]]))
    with pytest.raises(SettingError, match="Logits can be had at columns 0 to 3, got"):
        model.run(batch, at=torch.tensor([[4]]))
    with pytest.raises(SettingError, match="nothing left to run"):
        model.run(batch, prefix=whole)
    for site in (EMBED, Site("mlp_out", 1), Site("resid_out", 0)):
        with pytest.raises(SettingError, match="starts at layer 2 never reaches the tap at"):
            model.run(batch, start=2, resid=resid, taps=[Tap(site, lambda _: None)])
    model.run(batch, start=2, resid=resid, taps=[Tap(Site("resid_out", 1), lambda _: None)])


def test_a_replaced_head_is_noticed(tokenizer):
    from palimpsest.model import load

    net = families.build("gpt2")
    model, batch = load(net, tokenizer=tokenizer), pad(rows_of(4))
    net.lm_head = torch.nn.Linear(families.WIDTH, families.VOCABULARY, bias=False)
    with pytest.raises(AnatomyError, match="head of this network was replaced"):
        model.last_logits(batch)


@pytest.mark.parametrize("name", families.NAMES)
@torch.no_grad()
def test_a_prefix_taken_for_a_later_start_continues_there(tiny, name):
    model, batch, start = tiny(name), aligned(), 2
    resid = entering(model, batch, start)
    full = model.run(batch)[:, batch.column :]
    (prefix,) = model.run_prefixes(batch, [batch.column])
    rows = torch.tensor([2, 0, 2, 1])
    taken = prefix.take(rows, start=start)
    for _ in range(2):
        logits = model.run(batch.take(rows), start=start, resid=resid[rows][:, batch.column :], prefix=taken)
        torch.testing.assert_close(logits, full[rows], **CLOSE)


@torch.no_grad()
def test_taps_of_prefixes_may_depend_on_the_column(tiny):
    model, batch = tiny("gpt2"), pad(rows_of(6))
    moved = torch.randn(1, 6, families.WIDTH, generator=torch.Generator().manual_seed(0))

    def taps(column):
        return [Tap(EMBED, lambda embedded: embedded + moved[:, column : column + embedded.shape[1]])]

    full = model.run(batch, taps=taps(0))
    for prefix in model.run_prefixes(batch, [1, 2, 5], taps=taps):
        rest = model.run(batch, prefix=prefix, taps=taps(prefix.length))
        torch.testing.assert_close(rest, full[:, prefix.length :], **CLOSE)
