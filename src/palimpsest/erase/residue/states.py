"""The states at the last token of many texts, run once for every readout that reads them.

    states = last_states(model, texts, heads=True)
    states.resid[i, l]       residual stream after layer l at the last token of text i
    states.mixed[i, l]       what enters the output projection of attention there: all heads side by side

`OutputBasis` brings states into the basis of the vocabulary, but computes only the logits that are asked for: the network's own
final norm runs on all of them, its head only on the few rows of W_U that belong to the answers (of 49,152 for `smollm2`). Where a
network does more after its head than scale nothing (Gemma 2 caps its logits, Granite divides them), the whole head runs instead;
which it is, is found by trying.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from palimpsest.erase.residue.advantage import require_finite
from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.readout import Table
from palimpsest.errors import AnatomyError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.answers import PADDING, by_length
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.reading.lens import decode
from palimpsest.model import Model, Site, pad
from palimpsest.model.anatomy import is_linear, matrix_of
from palimpsest.model.taps import Tap

STATES_AT_ONCE = 4096
PARAPHRASES = 3


@dataclass(frozen=True, eq=False)
class LastStates:
    """States at the last token of each text.

    Attributes:
        place: row of each text; a text that the model cannot read has none.
        resid: residual stream after each layer.
        mixed: input of each attention's output projection; None where it was not asked for.
    """

    place: dict[str, int]
    resid: Float[Tensor, "texts layers width"]
    mixed: tuple[Float[Tensor, "texts _"], ...] | None = None


@torch.no_grad()
def last_states(model: Model, texts: Sequence[str], *, heads: bool = False) -> LastStates:
    """Run each distinct text once.

    Args:
        model: as it stands now.
        texts: one too long for the model is left out.
        heads: keep what enters the output projections too.

    Raises:
        InputError: the model can read none of the texts.
        WeightError: a state is not finite.
        AnatomyError: `heads`, and a layer has no output projection (see `heads.why_no_heads`).
    """
    encoded: dict[str, tuple[int, ...]] = {}
    for text in dict.fromkeys(texts):
        try:
            encoded[text] = model.encode(text).ids
        except InputError as error:
            reason = str(error)
    if not encoded:
        raise InputError(f"The model can read none of the {len(texts)} texts: {reason if texts else 'there is none'}")
    ids = list(encoded.values())
    resid = torch.empty(len(ids), model.n_layers, model.anatomy.width)
    mixed: dict[int, Tensor] = {}
    for rows in by_length([len(row) for row in ids], padding=PADDING):
        batch = pad([ids[i] for i in rows]).to(model.device)
        row, last = torch.arange(len(rows), device=model.device), batch.last

        def keep(layer: int, states: Tensor, rows: list[int] = rows, row: Tensor = row, last: Tensor = last) -> None:
            resid[rows, layer] = at_least_float32(states[row, last]).to("cpu", resid.dtype)

        def mix(layer: int, states: Tensor, rows: list[int] = rows, row: Tensor = row, last: Tensor = last) -> None:
            read = at_least_float32(states[row, last]).cpu()
            mixed.setdefault(layer, torch.empty(len(ids), read.shape[1], dtype=read.dtype))[rows] = read

        layers = range(model.n_layers)
        taps = [Tap(Site("resid_out", l), partial(keep, l)) for l in layers]
        handles = [_before(model, l, partial(mix, l)) for l in layers] if heads else []
        try:
            with model.evaluating():
                model.run(batch, at=last[:, None], taps=taps)
        finally:
            for handle in handles:
                handle.remove()
    require_finite(resid.numpy(), "residual stream", model)
    place = {text: i for i, text in enumerate(encoded)}
    return LastStates(place, resid, tuple(mixed[l] for l in range(model.n_layers)) if heads else None)


def _before(model: Model, layer: int, keep: Callable[[Tensor], None]) -> RemovableHandle:
    """A hook on the input of a layer's attention output projection."""
    part = model.anatomy.layers[layer].attention_projection
    if part is None:
        raise AnatomyError(
            f"Layer {layer} of {model.name} has no output projection of attention, so no heads are read."
        )

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        keep(args[0])

    return part.module.register_forward_pre_hook(hook)


class OutputBasis:
    """The final norm and head of a network as it stands now, for a few tokens at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._linear: bool | None = None

    @torch.no_grad()
    def normed(self, states: Float[Tensor, "states width"]) -> Float[Tensor, "states width"]:
        """What enters the head for each residual state: the network's own final norm, whatever it is."""
        parts = []
        for part in states.split(STATES_AT_ONCE):
            part = part.to(self.model.device, self.model.anatomy.embedding.weight.dtype)
            parts.append(at_least_float32(_entering_head(self.model, part)).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def logits(
        self, states: Float[Tensor, "rows layers width"], tokens: Int[Tensor, "rows wanted"]
    ) -> Float[Tensor, "rows layers wanted"]:
        """Logits of a few tokens a row, at every layer."""
        rows, layers, width = states.shape
        flat = states.reshape(rows * layers, width)
        if not self._is_linear(flat[:1]):
            each = tokens.repeat_interleave(layers, dim=0)
            whole = torch.cat([logits.cpu() for logits in decode(self.model, self._here(flat))])
            return whole.gather(1, each).reshape(rows, layers, -1)
        weight, bias = self.unembedding(tokens)
        read = torch.einsum("rlw,rkw->rlk", self.normed(flat).reshape(rows, layers, width), weight)
        return read + bias[:, None, :]

    def unembedding(self, tokens: Int[Tensor, "rows wanted"]) -> tuple[Tensor, Tensor]:
        """Rows of W_U, shape (rows, wanted, width), and of its bias (0 where there is none)."""
        head = self.model.anatomy.head
        weight = at_least_float32(matrix_of(head)[tokens.to(self.model.device)]).cpu()
        bias = getattr(head, "bias", None)
        return weight, torch.zeros(tokens.shape) if bias is None else at_least_float32(
            bias[tokens.to(bias.device)]
        ).cpu()

    def _is_linear(self, state: Float[Tensor, "one width"]) -> bool:
        """Whether the logits are W_U times the normed state, and nothing else, tried on one state."""
        if self._linear is None:
            head = self.model.anatomy.head
            if not is_linear(head):
                self._linear = False
                return False
            tokens = torch.arange(matrix_of(head).shape[0])[None]
            weight, bias = self.unembedding(tokens)
            mine = (weight[0] @ self.normed(state)[0]) + bias[0]
            theirs = next(iter(decode(self.model, self._here(state))))[0].cpu()
            self._linear = bool(torch.allclose(mine, theirs.to(mine.dtype), rtol=1e-3, atol=1e-3))
        return self._linear

    def _here(self, states: Tensor) -> Tensor:
        return states.to(self.model.device, self.model.anatomy.embedding.weight.dtype)  # type: ignore[arg-type]


class _Seen(BaseException):
    """Leaves the network before its head. Not an Exception, so that no handler inside it swallows it."""


def _entering_head(model: Model, states: Float[Tensor, "states width"]) -> Float[Tensor, "states width"]:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0][:, 0].clone())
        raise _Seen

    handle = model.anatomy.head.register_forward_pre_hook(keep)
    try:
        with model.evaluating():
            model.run(pad([(0,)] * len(states)), start=model.n_layers, resid=states[:, None])
    except _Seen:
        pass
    finally:
        handle.remove()
    if not seen:
        raise AnatomyError(f"The output head of {model.name} was replaced since it was loaded; load it again.")
    return seen[0]


class StreamReader(ABC):
    """A fitted readout that needs nothing but states at last tokens; several share one run of each text."""

    heads = False  # whether it needs `LastStates.mixed`

    def __init__(self) -> None:
        self.first_tokens = FirstTokens()

    @abstractmethod
    def texts(self, pairs: Sequence[Pair]) -> list[str]:
        """Every text whose states it reads."""

    @abstractmethod
    def score(self, model: Model, states: LastStates, pairs: Sequence[Pair]) -> Table:
        """The table, from states of the model as it stands now."""

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """The table of this readout alone."""
        return self.score(model, last_states(model, self.texts(pairs), heads=self.heads), pairs)


def asked_as(fact: Fact, paraphrases: int) -> dict[str, str]:
    """Path to text: the prompt and the first paraphrases of a fact."""
    return {"prompt": fact.text} | {
        f"paraphrase {i + 1}": text for i, text in enumerate(fact.paraphrases[:paraphrases])
    }


class FirstTokens:
    """First tokens of answers after texts, each tokenised once: the same pairs are read before and under every edit."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int | None] = {}

    def of(self, model: Model, text: str, pair: Pair) -> list[int] | None:
        """First tokens of the answer and then of its others; None where they cannot be told apart after `text`.

        Others that begin with the answer's own first token are dropped: they say nothing about it.
        """
        own, *others = (self._first(model, text, answer) for answer in (pair.answer, *pair.others))
        rivals = [token for token in others if token is not None and token != own]
        return [own, *rivals] if own is not None and rivals else None

    def _first(self, model: Model, text: str, answer: str) -> int | None:
        """None where text and answer are too long, or a token straddles their seam: the last state would not be the one read."""
        key = (text, answer)
        if key not in self._known:
            try:
                ids, begin = model.encode_answer(text, answer)
                whole = begin < len(ids) and ids[:begin] == model.encode(text).ids
                self._known[key] = ids[begin] if whole else None
            except InputError:
                self._known[key] = None
        return self._known[key]


def above_others(
    values: Float[Tensor, "rows places wanted"], counts: Sequence[int]
) -> Float[np.ndarray, "rows places"]:
    """First value of each row minus the mean of the `count - 1` after it; padding beyond is not read."""
    others = torch.arange(values.shape[2])[None] < torch.tensor(counts)[:, None]
    others[:, 0] = False
    mean = (values * others[:, None, :]).sum(2) / others.sum(1)[:, None]
    return (values[:, :, 0] - mean).double().numpy()


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which pairs can be read at one text each: rows among the pairs, rows among the states, tokens (padded), and how many."""

    pairs: list[int]
    states: list[int]
    tokens: Int[Tensor, "rows wanted"]
    counts: list[int]

    @classmethod
    def on(
        cls, model: Model, states: LastStates, pairs: Sequence[Pair], asked: Sequence[str | None], first: FirstTokens
    ) -> "Wanted":
        """Those of `pairs` whose text in `asked` was run, and whose answer can be told there from others."""
        rows: list[tuple[int, int, list[int]]] = []
        for i, (pair, text) in enumerate(zip(pairs, asked, strict=True)):
            if text is None or text not in states.place:
                continue
            tokens = first.of(model, text, pair)
            if tokens is not None:
                rows.append((i, states.place[text], tokens))
        most = max((len(tokens) for _, _, tokens in rows), default=1)
        padded = torch.tensor(
            [[*tokens, *[tokens[0]] * (most - len(tokens))] for _, _, tokens in rows], dtype=torch.long
        )
        return cls(
            [i for i, _, _ in rows],
            [at for _, at, _ in rows],
            padded.reshape(len(rows), most),
            [len(t) for _, _, t in rows],
        )


def paths(paraphrases: int) -> list[str]:
    """The paths of `asked_as`, whether a fact has them or not."""
    return ["prompt", *(f"paraphrase {i + 1}" for i in range(paraphrases))]
