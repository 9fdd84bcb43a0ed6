"""From a request to a change of weights: the part that learning and editing share.

    words, u, delta  ->  network  ->  U V of every edited map  ->  W + U V

Gradients flow from the changed model back to the network; the model's own weights are never written to. Rows of one run may see
different changes, because with y = W x a change of W is known by what it adds to y:

    (W + U V) x  =  W x + U (V x)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from palimpsest.edit.learned.answers import answers_of
from palimpsest.edit.learned.ke import KeNetwork
from palimpsest.edit.learned.mend import Factors, MendNetwork, Words
from palimpsest.edit.learned.settings import EditorSettings, MendSettings
from palimpsest.edit.learned.signals import Signal, shapes_of, signals
from palimpsest.edit.payload import module_of
from palimpsest.edit.training import in_place_of
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model
from palimpsest.model.anatomy import stores_transposed

Network = MendNetwork | KeNetwork
TOGETHER = 16  # changes judged in one run, which bounds the activations that are kept for the gradient


def network_of(model: Model, settings: EditorSettings, paths: Sequence[str]) -> Network:
    """An untrained editor network for the maps at `paths`, drawn by the seed of the settings."""
    shapes = shapes_of(model, paths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.learning.seed)
        if isinstance(settings, MendSettings):
            return MendNetwork(shapes, settings.rank, settings.edit_rate).to(model.device)
        width = embedded(model, [0]).shape[1]  # not always that of the stream
        made = KeNetwork(shapes, width, settings.hidden, settings.condition, settings.largest)
        return made.to(model.device)


def requests(
    model: Model, facts: Sequence[Fact], paths: Sequence[str]
) -> tuple[list[dict[str, Signal]], list[Words], list[float]]:
    """Of each fact: its signals, its words, and the loss of its new answer before the edit."""
    found, losses = signals(model, answers_of(model, [(fact.text, fact.target_new) for fact in facts]), paths)
    alone = [{path: _row(signal, row) for path, signal in found.items()} for row in range(len(facts))]
    return alone, [words_of(model, fact) for fact in facts], [float(loss) for loss in losses]


def words_of(model: Model, fact: Fact) -> Words:
    """Prompt, new answer and old answer as the model's own token embeddings, and where each part ends.

    A fact without an old answer has an empty third part.
    """
    ids, begin = model.encode_answer(fact.text, str(fact.target_new))
    ends = [begin, len(ids)]
    if fact.target_true is not None:
        old, start = model.encode_answer(fact.text, fact.target_true)
        ids = (*ids, *old[start:])
    ends.append(len(ids))
    return embedded(model, ids), tuple(ends)


@torch.no_grad()
def embedded(model: Model, ids: Sequence[int]) -> Float[Tensor, "tokens width"]:
    """Token embeddings of `ids`, in float32."""
    found: Tensor = model.anatomy.embedding(torch.tensor(ids, device=model.device))
    return found.float()


def changed(model: Model, factors: Factors) -> dict[str, Tensor]:
    """The weights that `factors` change, as the model stores them and in its own type; gradients flow through."""
    weights = {}
    for path, (u, v) in factors.items():
        name = f"{path}.weight"
        weight = model.parameter(name)
        delta = u @ v
        delta = delta.T if stores_transposed(module_of(model, name)) else delta
        weights[name] = (at_least_float32(weight.detach()) + delta).to(weight.dtype)
    return weights


def chunks(model: Model, paths: Sequence[str], count: int) -> list[range]:
    """Which of `count` changes are judged in one run.

    Weights in half precision are judged one change at a time: they are rounded when an edit is written, and U (V x) is not.
    """
    whole = all(model.net.get_submodule(path).weight.dtype in (torch.float32, torch.float64) for path in paths)
    size = TOGETHER if whole else 1
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


@contextmanager
def in_force(model: Model, parts: Sequence[Factors], owners: Int[Tensor, "rows"]) -> Iterator[None]:
    """In the block row i of a run sees the change `parts[owners[i]]`; a single one stands in the weights, rounded as they are."""
    with ExitStack() as stack:
        if len(parts) == 1:
            stack.enter_context(in_place_of(model, changed(model, parts[0])))
        else:
            for path in parts[0]:
                u = pad_sequence([part[path][0].T for part in parts], batch_first=True)[owners]
                v = pad_sequence([part[path][1] for part in parts], batch_first=True)[owners]
                stack.callback(model.net.get_submodule(path).register_forward_hook(_adding(u, v)).remove)
        yield


def _adding(u: Float[Tensor, "rows rank out"], v: Float[Tensor, "rows rank in_"]) -> Any:
    """A hook that adds U (V x) to what a linear map gives for x, in each row its own."""

    def add(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        x = arguments[0].reshape(len(v), -1, v.shape[2])  # OPT's maps see rows and tokens flattened into one
        return output + (x @ v.to(x.dtype).mT @ u.to(x.dtype)).reshape(output.shape)

    return add


def _row(signal: Signal, row: int) -> Signal:
    ours = signal.rows == row
    return Signal(signal.inputs[ours], signal.errors[ours], torch.zeros_like(signal.rows[ours]))


def together(parts: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> Factors:
    """The sum of several changes: factors side by side."""
    return {
        path: (torch.cat([part[path][0] for part in parts], dim=1), torch.cat([part[path][1] for part in parts]))
        for path in parts[0]
    }
