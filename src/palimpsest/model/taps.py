"""Taps: read or replace any site of an unmodified network while it runs, and stop early.

    with tapped(model.anatomy, [Tap(Site("value", 9), lambda v: v + delta)]):
        model.net(**inputs)

    states = record(model.anatomy, run, [Site("resid_out", l) for l in range(30)])

A tap's function takes the site's tensor, of shape (rows, tokens, width), and returns its replacement or None to leave
it. Taps are plain forward hooks: gradients flow through them, and they are gone when the `with` block ends, also after
an error. What is recorded or put in place is a copy, because some layers (Falcon's) add to their tensors in place.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from palimpsest.errors import AnatomyError
from palimpsest.model.anatomy import Anatomy
from palimpsest.model.sites import Site

TapFunction = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Tap:
    """`function` applied at `site` on every forward pass."""

    site: Site
    function: TapFunction


class _Stop(BaseException):
    """Leaves a forward pass early. Not an Exception, so that no handler inside the network swallows it.

    Where it is caught its traceback is dropped: hooks hold the exception and its frames hold the hooks, so everything that the pass
    had in hand would stay in memory until the garbage collector, which counts objects and not bytes, comes by.
    """


def first(output: Any) -> Any:
    """The tensor of a module's output, which is a tuple in some families and versions and a tensor in others."""
    return output[0] if isinstance(output, tuple) else output


def put(output: Any, tensor: Tensor) -> Any:
    """`output` with its tensor replaced, tuple or not."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


@contextmanager
def tapped(anatomy: Anatomy, taps: Iterable[Tap], *, stop_after: Site | None = None) -> Iterator[None]:
    """Install `taps` for the forward passes inside the block; later taps at one site see what earlier ones put there.

    Args:
        anatomy: of the network that will run.
        taps: what to do where.
        stop_after: end the pass (and the block) once this site has been reached.

    Raises:
        AnatomyError: the model has no such site.
        SettingError: a layer is out of range.
    """
    stop = _Stop()

    def halt(_: Tensor) -> None:
        raise stop

    wanted = list(taps)
    if stop_after is not None:
        wanted.append(Tap(stop_after, halt))
    handles = []
    try:
        shapes: dict[int, tuple[int, int]] = {}
        for layer in {tap.site.layer for tap in wanted if tap.site.kind in ("key", "value", "attn_out", "mlp_out")}:
            block = anatomy.layers[anatomy.check_layer(layer)].block.module
            handles.append(block.register_forward_pre_hook(partial(_note_shape, shapes, layer), with_kwargs=True))
        handles.extend(_Wire(tap, shapes).install(anatomy.module_of(tap.site)) for tap in wanted)
        yield
    except _Stop as raised:
        if raised is not stop:
            raise
        stop.__traceback__ = None
    finally:
        for handle in handles:
            handle.remove()


def record(
    anatomy: Anatomy,
    run: Callable[[], object],
    sites: Sequence[Site],
    *,
    taps: Iterable[Tap] = (),
    stop: bool = True,
) -> dict[Site, Float[Tensor, "rows tokens width"]]:
    """Run once and return a copy of the tensor at each site.

    Args:
        anatomy: of the network that `run` runs.
        run: calls the network, for instance `lambda: model.net(**inputs)`.
        sites: what to keep.
        taps: replacements, made before the reading also where both are at one site.
        stop: leave the pass once every site was seen (nothing above the deepest is computed).

    Raises:
        AnatomyError: the model has no such site, or the run did not reach it.
    """
    wanted, kept, done = set(sites), dict[Site, Tensor](), _Stop()

    def keep(site: Site, tensor: Tensor) -> None:
        kept[site] = tensor.clone()
        if stop and kept.keys() == wanted:
            raise done

    try:
        with tapped(anatomy, [*taps, *(Tap(site, partial(keep, site)) for site in wanted)]):
            run()
    except _Stop as raised:
        if raised is not done:
            raise
        done.__traceback__ = None
    if missed := sorted(wanted - kept.keys()):
        raise AnatomyError(f"The run did not reach {missed[0]}: its module exists but was not called.")
    return kept


def _note_shape(
    shapes: dict[int, tuple[int, int]], layer: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    hidden = args[0] if args else kwargs["hidden_states"]
    shapes[layer] = (hidden.shape[0], hidden.shape[1])


@dataclass(frozen=True)
class _Wire:
    """A tap as a pair of hooks, of which its site needs one; `shapes` holds (rows, tokens) of the layers that run."""

    tap: Tap
    shapes: dict[int, tuple[int, int]]

    def install(self, module: nn.Module) -> RemovableHandle:
        if self.tap.site.kind in ("resid_in", "key"):
            return module.register_forward_pre_hook(self.before, with_kwargs=True)
        return module.register_forward_hook(self.after)

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replaced = self.apply(args[0] if args else kwargs["hidden_states"])
        if replaced is None:
            return None
        if args:
            return (replaced, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": replaced}

    def after(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        replaced = self.apply(first(output))
        return None if replaced is None else put(output, replaced)

    def apply(self, tensor: Tensor) -> Tensor | None:
        shape = self.shapes.get(self.tap.site.layer)
        if tensor.dim() == 2 and shape is not None:  # OPT's MLP sees rows and tokens flattened into one
            replaced = self.tap.function(tensor.view(*shape, -1))
            return None if replaced is None else replaced.reshape(tensor.shape).clone()
        replaced = self.tap.function(tensor)
        return None if replaced is None else replaced.clone()
