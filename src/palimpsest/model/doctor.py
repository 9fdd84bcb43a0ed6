"""The doctor: on one small batch, prove that every site means what its name says and that partial runs are exact.

Each `Check` states a property that would be false if a site were wired to the wrong module:

    found        every layer has attention, and an MLP
    stream       resid_out of layer l is, bit for bit, resid_in of layer l + 1
    widths       attn_out, value and mlp_out are as wide as the stream
    projection   W k + b = v at every layer (catches a wrong module, a transposed weight, a wrong key)
    last         a change of value moves mlp_out in the same direction: nothing but a gate comes after the projection
    identity     with attn_out and mlp_out both zero, the layer passes the stream on unchanged
    mixing       attn_out at later tokens depends on earlier tokens; with it held, mlp_out does not
    alive        changing the site changes the logits
    layers       starting at layer l from a recorded residual gives the full run's logits bit for bit
    tokens       continuing from a cached prefix gives them to 1e-5 (relative to their size)
    head         logits at chosen positions are those of the full run
    padding      padding on either side does not change them
    clean        no hook is left behind

A short form (layer properties at a few layers) runs on the first load of a kind of model on a machine, and what depends on
the weights (`OF_THE_WEIGHTS`) on every load; `palimpsest doctor MODEL` runs all of it. A check that
cannot be run at all counts as failed, with the error as its reason.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from palimpsest.errors import AnatomyError
from palimpsest.model.anatomy import matrix_of
from palimpsest.model.model import Model
from palimpsest.model.sites import EMBED, Site
from palimpsest.model.taps import Tap
from palimpsest.model.tokens import Batch, align, pad

OF_THE_WEIGHTS = ("stream", "projection")
TOKENS = 6
EXACT = 0.0
# float32 results agree to 1e-5 of their size; a half-precision model rounds at every step and is held to its own epsilon
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Check:
    """One property: what was compared, the largest deviation seen (and where), and the allowed one."""

    name: str
    meaning: str
    deviation: float
    allowed: float
    where: str = ""
    required: bool = True
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the check could be run and the deviation is allowed."""
        return not self.error and self.deviation <= self.allowed

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.name}{place}{f' ({self.error})' if self.error else ''}"


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    model: str
    architecture: str
    layers: int
    width: int
    parts: tuple[tuple[str, str, str], ...]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether every required property holds."""
        return all(check.passed for check in self.checks if check.required)

    @property
    def verdict(self) -> str:
        """One line."""
        failed = [check for check in self.checks if not check.passed]
        if self.healthy:
            noted = "".join(f"; note: {check.name} ({check.meaning}) does not hold" for check in failed)
            return f"{self.model}: every site means what its name says, and partial runs are exact{noted}."
        return f"{self.model}: failed: {', '.join(str(check) for check in failed if check.required)}."

    def raise_on_failure(self) -> None:
        """Raise `AnatomyError` naming the first required property that failed."""
        for check in self.checks:
            if check.required and not check.passed:
                place = f" at {check.where}" if check.where else ""
                found = (
                    f"it could not be run: {check.error}" if check.error else f"it deviates by {check.deviation:.3g}"
                )
                raise AnatomyError(
                    f"The model {self.model} failed the check {check.name!r}{place}: {check.meaning} should hold to "
                    f"{check.allowed:g} but {found}; name its parts by hand with Anatomy.find(net, ...)."
                )


@torch.no_grad()
def examine(model: Model, *, thorough: bool = True, only: Collection[str] | None = None) -> Diagnosis:
    """Run the checks on `model`, at every layer or (`thorough=False`) at four of them; `only` some properties by name."""
    with model.evaluating():
        hooks = _hooks(model)
        last = model.n_layers - 1
        layers = range(model.n_layers) if thorough else sorted({0, (last + 1) // 3, 2 * (last + 1) // 3, last})
        properties: tuple[tuple[str, Callable[[], Sequence[Check]]], ...] = (
            ("found", lambda: _found(model)),
            ("stream", lambda: _stream(model)),
            ("widths", lambda: _widths(model)),
            ("projection", lambda: _projection(model)),
            ("last", lambda: _last(model, layers)),
            ("identity", lambda: _identity(model, layers)),
            ("mixing", lambda: _mixing(model, layers)),
            ("alive", lambda: _alive(model, layers)),
            ("layers", lambda: _layers(model, layers)),
            ("tokens", lambda: _tokens(model)),
            ("head", lambda: _head(model)),
            ("padding", lambda: _padding(model)),
        )
        checks = [check for name, ask in properties if only is None or name in only for check in _asked(name, ask)]
        checks.append(Check("clean", "no hook left behind", float(_hooks(model) != hooks), EXACT))
    architecture = type(model.net).__name__
    return Diagnosis(model.name, architecture, model.n_layers, model.anatomy.width, _parts(model), tuple(checks))


def _asked(name: str, ask: Callable[[], Sequence[Check]]) -> Sequence[Check]:
    """The checks of one property, or one failed check where the network cannot even be asked."""
    try:
        return ask()
    except Exception as error:  # whatever a network that does not fit raises is the finding
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        return [Check(name, "the property", math.inf, EXACT, error=reason)]


def _batch(model: Model, rows: int, tokens: int = TOKENS) -> Batch:
    """Rows of seeded random tokens, the same for a model every time."""
    generator = torch.Generator().manual_seed(0)
    size = min(model.net.get_input_embeddings().weight.shape[0], len(model.tokenizer) if model.tokenizer else 10**9)
    ids = torch.randint(size, (1, tokens), generator=generator).expand(rows, -1)
    return pad(ids.tolist()).to(model.device)


def _allowed(model: Model) -> float:
    """The tolerance of the coarsest weights of the model."""
    kinds = {weight.dtype for weight in model.net.parameters() if weight.is_floating_point()}
    return max(TOLERANCE.get(kind, TOLERANCE[torch.bfloat16]) for kind in kinds)


def _relative(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the largest entry of `b` (at least 1e-3); infinite where anything is not finite."""
    deviation = float((a.double() - b.double()).abs().max()) / max(float(b.double().abs().max()), 1e-3)
    return deviation if math.isfinite(deviation) else math.inf


def _worst(deviations: Iterable[tuple[float, str]]) -> tuple[float, str]:
    """The first of the largest deviations, and where it was."""
    return max(deviations, key=lambda one: one[0], default=(0.0, ""))


def _shifted(tensor: Tensor) -> Tensor:
    """`tensor` with a ramp added that is as large as its largest entry, and so a change of every part of it."""
    size = tensor.abs().max().clamp(min=1e-2)
    return tensor + size * torch.linspace(-1, 1, tensor.shape[-1], dtype=tensor.dtype, device=tensor.device)


def _found(model: Model) -> list[Check]:
    """What was not found cannot be checked below: a token mixer is needed, a layer without an MLP is only noted."""
    checks = []
    for name, needed in (("attention", True), ("mlp", False)):
        lacking = [layer.index for layer in model.anatomy.layers if getattr(layer, name) is None]
        where = f"layer {lacking[0]}" if lacking else ""
        checks.append(Check(f"found: {name}", f"every layer has its {name}", float(len(lacking)), EXACT, where, needed))
    return checks


def _stream(model: Model) -> Sequence[Check]:
    pairs = [(Site("resid_out", l), Site("resid_in", l + 1)) for l in range(model.n_layers - 1)]
    states = model.record(_batch(model, 1), [site for pair in pairs for site in pair])
    worst = _worst((_relative(states[a], states[b]), str(a)) for a, b in pairs)
    return [Check("stream", "resid_out[l] = resid_in[l + 1]", worst[0], EXACT, worst[1])]


def _widths(model: Model) -> Sequence[Check]:
    layers, kinds = range(model.n_layers), ("attn_out", "value", "mlp_out")
    sites = [site for layer in layers for kind in kinds if _exists(model, site := Site(kind, layer))]
    states = model.record(_batch(model, 1), sites) if sites else {}
    wrong = [site for site in sites if states[site].shape[-1] != model.anatomy.width]
    meaning = "attn_out, value and mlp_out are as wide as the stream"
    return [Check("widths", meaning, float(len(wrong)), EXACT, str(wrong[0]) if wrong else "")]


def _projection(model: Model) -> list[Check]:
    layers = [layer.index for layer in model.anatomy.layers if layer.down]
    if not layers:
        return []
    states = model.record(_batch(model, 1), [Site(kind, l) for l in layers for kind in ("key", "value")])
    deviations = []
    for l in layers:
        down = model.anatomy.down(l).module
        key = states[Site("key", l)].double()
        bias = getattr(down, "bias", None)
        value = key @ matrix_of(down).double().T + (0 if bias is None else bias.double())
        deviations.append((_relative(value, states[Site("value", l)]), f"layer {l}"))
    worst = _worst(deviations)
    return [Check("projection", "W k + b = v", worst[0], _allowed(model), worst[1])]


def _last(model: Model, layers: Sequence[int]) -> Sequence[Check]:
    layers = [l for l in layers if model.anatomy.layers[l].mlp and model.anatomy.layers[l].down]
    if not layers:
        return []
    sites = [Site(kind, l) for l in layers for kind in ("value", "mlp_out")]
    batch = _batch(model, len(layers), 3)
    before = model.record(batch, sites)
    after = model.record(batch, sites, taps=_per_row(layers, "value", _shifted))
    deviations = []
    for row, l in enumerate(layers):
        change, moved = (
            (after[site][row].double() - before[site][row].double()).flatten(1)
            for site in (Site("value", l), Site("mlp_out", l))
        )
        cosine = torch.nn.functional.cosine_similarity(change, moved, dim=-1)
        deviations.append((_relative(cosine, torch.ones_like(cosine)), f"layer {l}"))
    worst = _worst(deviations)
    meaning = "a change of value moves mlp_out in the same direction"
    return [Check("last", meaning, worst[0], _allowed(model), worst[1])]


def _per_row(layers: Sequence[int], kind: str, change: Callable[[Tensor], Tensor]) -> list[Tap]:
    """Taps that change row i at layer layers[i] only, so that one pass tests every layer."""
    return [Tap(Site(kind, layer), partial(_change_row, row, change)) for row, layer in enumerate(layers)]


def _change_row(row: int, change: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[row] = change(tensor[row])
    return changed


def _with_parts(model: Model, layers: Sequence[int]) -> list[int]:
    return [l for l in layers if model.anatomy.layers[l].attention and model.anatomy.layers[l].mlp]


def _identity(model: Model, layers: Sequence[int]) -> list[Check]:
    layers = _with_parts(model, layers)
    if not layers:
        return []
    taps = [*_per_row(layers, "attn_out", torch.zeros_like), *_per_row(layers, "mlp_out", torch.zeros_like)]
    sites = [Site(kind, l) for l in layers for kind in ("resid_in", "resid_out")]
    states = model.record(_batch(model, len(layers), 3), sites, taps=taps)
    worst = _worst(
        (_relative(states[Site("resid_out", l)][row], states[Site("resid_in", l)][row]), f"layer {l}")
        for row, l in enumerate(layers)
    )
    meaning = "a layer whose attn_out and mlp_out are zero changes nothing"
    # false in post-norm decoders, whose layers also normalise the stream; their sites can still be used
    return [Check("identity", meaning, worst[0], _allowed(model), worst[1], required=False)]


def _mixing(model: Model, layers: Sequence[int]) -> list[Check]:
    layers = _with_parts(model, layers)
    if not layers:
        return []
    batch = _batch(model, len(layers))
    sites = [Site(kind, l) for l in layers for kind in ("attn_out", "mlp_out")]
    clean = model.record(batch, sites)

    def shift_first(row: Tensor) -> Tensor:
        shifted = row.clone()
        shifted[0] = row[0].flip(-1) + row.abs().mean()
        return shifted

    taps = _per_row(layers, "resid_in", shift_first)
    mixed = model.record(batch, sites, taps=taps)

    def hold(row: int, layer: int) -> Tap:
        def function(tensor: Tensor) -> Tensor:
            held = tensor.clone()
            held[row, 1:] = clean[Site("attn_out", layer)][row, 1:]
            return held

        return Tap(Site("attn_out", layer), function)

    held = model.record(batch, sites, taps=[*taps, *(hold(row, l) for row, l in enumerate(layers))])
    still, leak = [], []
    for row, l in enumerate(layers):
        attention, mlp = Site("attn_out", l), Site("mlp_out", l)
        moved = _relative(mixed[attention][row, 1:], clean[attention][row, 1:])
        still.append((float(moved <= _allowed(model)), f"layer {l}"))
        leak.append((_relative(held[mlp][row, 1:], clean[mlp][row, 1:]), f"layer {l}"))
    (fixed, where), (leaked, place) = _worst(still), _worst(leak)
    alone = "given attn_out, mlp_out depends on its own token only"
    return [
        Check("mixing: attention", "attn_out depends on earlier tokens", fixed, EXACT, where),
        Check("mixing: MLP", alone, leaked, _allowed(model), place),
    ]


def _alive(model: Model, layers: Sequence[int]) -> list[Check]:
    checks = []
    for kind in ("attn_out", "key", "mlp_out", "resid_out"):
        usable = [l for l in layers if _exists(model, Site(kind, l))]
        if not usable:
            continue
        batch = _batch(model, len(usable), 3)
        changed = model.run(batch, at=batch.last[:, None], taps=_per_row(usable, kind, _shifted))
        clean = model.last_logits(batch)
        dead = [l for row, l in enumerate(usable) if torch.equal(changed[row, 0], clean[row])]
        where = f"layer {dead[0]}" if dead else ""
        checks.append(Check(f"alive: {kind}", "changing the site changes the logits", float(len(dead)), EXACT, where))
    batch = _batch(model, 1, 3)
    changed = model.run(batch, at=batch.last[:, None], taps=[Tap(EMBED, _shifted)])
    dead_embedding = torch.equal(changed[:, 0], model.last_logits(batch))
    checks.append(Check("alive: embed", "changing the site changes the logits", float(dead_embedding), EXACT))
    return checks


def _exists(model: Model, site: Site) -> bool:
    try:
        model.anatomy.module_of(site)
    except AnatomyError:
        return False
    return True


def _layers(model: Model, layers: Sequence[int]) -> Sequence[Check]:
    batch = _batch(model, 2)
    full = model.run(batch)
    starts = [*layers, model.n_layers]
    states = model.record(batch, [Site("resid_out", l - 1) for l in starts if l > 0])
    deviations = []
    for l in starts:
        if l == 0:
            continue
        skipped = model.run(batch, start=l, resid=states[Site("resid_out", l - 1)])
        deviation = 0.0 if torch.equal(skipped, full) else max(_relative(skipped, full), 1e-12)
        deviations.append((deviation, f"layer {l}"))
    worst = _worst(deviations)
    return [Check("layers", "starting at layer l gives the full run bit for bit", worst[0], EXACT, worst[1])]


def _tokens(model: Model) -> list[Check]:
    """Rows of unequal length whose pivots are aligned: a prefix, and at each layer a continuation."""
    ids = _batch(model, 1, 8).ids[0].tolist()
    batch = align([ids, ids[:5]], [4, 2]).to(model.device)
    full = model.run(batch, at=batch.last[:, None])
    (prefix,) = model.run_prefixes(batch, [batch.column])
    middle = model.n_layers // 2
    states = model.record(batch, [Site("resid_in", middle)])
    resid = states[Site("resid_in", middle)][:, batch.column :]
    both = model.run(batch, start=middle, resid=resid, prefix=prefix, at=batch.last[:, None])
    tokens = model.run(batch, prefix=prefix, at=batch.last[:, None])
    meaning, allowed = "continuing from a cached prefix gives the full run", _allowed(model)
    return [
        Check("tokens", meaning, _relative(tokens, full), allowed),
        Check("tokens and layers", meaning + " from any layer", _relative(both, full), allowed, f"layer {middle}"),
    ]


def _head(model: Model) -> Sequence[Check]:
    batch = _batch(model, 2)
    at = torch.tensor([[1, 3], [0, TOKENS - 1]], device=model.device)
    rows = torch.arange(2, device=model.device)[:, None]
    deviation = _relative(model.run(batch, at=at), model.run(batch)[rows, at])
    return [Check("head", "logits at chosen positions are those of the full run", deviation, _allowed(model))]


def _padding(model: Model) -> list[Check]:
    ids = _batch(model, 1, 8).ids[0].tolist()
    alone = model.last_logits(pad([ids[:5]]))
    right = model.last_logits(pad([ids, ids[:5]]))[1:]
    left = model.last_logits(align([ids, ids[:5]], [7, 4]))[1:]
    return [
        Check("padding: right", "padding does not change the logits", _relative(right, alone), _allowed(model)),
        Check("padding: left", "padding does not change the logits", _relative(left, alone), _allowed(model)),
    ]


def _hooks(model: Model) -> list[int]:
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in module.__dict__)
        for module in model.net.modules()
    ]


def _parts(model: Model) -> tuple[tuple[str, str, str], ...]:
    """(part, path with the layer number as *, kind of module), once per kind of layer."""
    rows: dict[tuple[str, str, str], None] = {}
    for layer in model.anatomy.layers:
        for name in ("block", "attention", "attention_projection", "mlp", "down"):
            part = getattr(layer, name)
            if part is None:
                why = layer.why_no_down if name == "down" else "not found"
                rows[(name, "-", why)] = None
            else:
                path = part.path.replace(layer.block.path, layer.block.path.rsplit(".", 1)[0] + ".*")
                rows[(name, path, type(part.module).__name__)] = None
    return tuple(rows)
