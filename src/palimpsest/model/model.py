"""`Model`: a causal language model of transformers that one can look inside. Nothing of the original is hidden."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from palimpsest.errors import WeightError, did_you_mean
from palimpsest.model import partial
from palimpsest.model.anatomy import Anatomy
from palimpsest.model.partial import Prefix
from palimpsest.model.sites import Site
from palimpsest.model.taps import Tap, record
from palimpsest.model.tokens import Batch, Encoded, encode, encode_answer


@dataclass(eq=False)
class Model:
    """A network, its tokenizer and its anatomy. Made by `palimpsest.load`.

    Attributes:
        net: the transformers model, unchanged: everything else in the ecosystem works on it.
        tokenizer: its (fast) tokenizer.
        anatomy: where its sites are.
        name: what it was loaded from.
        applied: the edits that are in its weights now, oldest first (kept by `palimpsest.edit`).
        before: what puts text before a prompt now (an in-context memory): functions of the prompt, of which the last one added
            stands furthest from it (kept by `palimpsest.edit`).
    """

    net: PreTrainedModel
    tokenizer: Any
    anatomy: Anatomy
    name: str
    applied: list[Any] = field(default_factory=list)
    before: list[Callable[[str], str]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.anatomy.embedding.weight.device  # type: ignore[return-value]

    @property
    def n_layers(self) -> int:
        """Number of decoder layers L; layers count from 0."""
        return len(self.anatomy)

    @property
    def context(self) -> int | None:
        """Longest input in tokens, where the config says so."""
        config = self.net.config.get_text_config(decoder=True)
        return getattr(config, "max_position_embeddings", None)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {type(self.net).__name__}, {self.n_layers} layers, width {self.anatomy.width})"

    def encode(self, text: str) -> Encoded:
        """`text` as token ids with offsets; longer than the context raises `InputError`.

        Where an in-context memory puts text before it, the ids begin with that; the offsets are still those of `text`.
        """
        return encode(self.tokenizer, text, context=self.context, before=self._before(text))

    def encode_answer(self, text: str, answer: str) -> tuple[tuple[int, ...], int]:
        """Ids of `text` then `answer`, and where the answer begins."""
        return encode_answer(self.tokenizer, text, answer, context=self.context, before=self._before(text))

    def _before(self, text: str) -> str:
        return "".join(function(text) for function in reversed(self.before))

    def run(
        self,
        batch: Batch,
        *,
        start: int = 0,
        resid: Float[Tensor, "rows columns width"] | None = None,
        prefix: Prefix | None = None,
        at: Int[Tensor, "rows positions"] | None = None,
        taps: Iterable[Tap] = (),
    ) -> Float[Tensor, "rows positions vocabulary"]:
        """Logits, computing only what is asked for: see `palimpsest.model.partial.run`."""
        return partial.run(
            self.net, self.anatomy, batch.to(self.device), start=start, resid=resid, prefix=prefix, at=at, taps=taps
        )

    def run_prefixes(
        self, batch: Batch, lengths: Sequence[int], *, taps: Iterable[Tap] | Callable[[int], Iterable[Tap]] = ()
    ) -> Iterator[Prefix]:
        """Cached prefixes of increasing lengths: see `palimpsest.model.partial.run_prefixes`."""
        return partial.run_prefixes(self.net, self.anatomy, batch.to(self.device), lengths, taps=taps)

    def run_on(
        self, batch: Batch, at: Int[Tensor, "rows positions"], prefix: Prefix | None = None
    ) -> tuple[Float[Tensor, "rows positions vocabulary"], Prefix]:
        """Logits at some columns and the prefix to go on from: see `palimpsest.model.partial.run_on`."""
        return partial.run_on(self.net, self.anatomy, batch.to(self.device), at.to(self.device), prefix)

    @torch.no_grad()
    def record(
        self,
        batch: Batch,
        sites: Sequence[Site],
        *,
        start: int = 0,
        resid: Float[Tensor, "rows columns width"] | None = None,
        prefix: Prefix | None = None,
        taps: Iterable[Tap] = (),
    ) -> dict[Site, Float[Tensor, "rows columns _"]]:
        """The tensor at each site on one run that ends once all were seen; `taps` act before the reading.

        With a `prefix` only the columns after it run and are returned; with `start` and `resid` only the layers from there.
        """
        batch = batch.to(self.device)

        def run() -> Tensor:
            return partial.run(self.net, self.anatomy, batch, start=start, resid=resid, prefix=prefix)

        return record(self.anatomy, run, sites, taps=taps)

    @torch.no_grad()
    def last_logits(self, batch: Batch) -> Float[Tensor, "rows vocabulary"]:
        """Logits after the last token of each row."""
        return self.run(batch, at=batch.last[:, None])[:, 0]

    def parameter(self, path: str) -> torch.nn.Parameter:
        """The weight at a dotted path of `net`; raises `WeightError` when there is none."""
        parameters = dict(self.net.named_parameters())
        if path not in parameters:
            raise WeightError(f"{self.name} has no weight {path!r}.{did_you_mean(path, parameters)}")
        return parameters[path]

    def fingerprint(self, paths: Iterable[str] | None = None) -> str:
        """SHA-256 over names and bytes of the weights at `paths`, of all weights when None."""
        digest = hashlib.sha256()
        wanted = None if paths is None else set(paths)
        for path, weight in self.net.named_parameters():
            if wanted is None or path in wanted:
                digest.update(path.encode())
                digest.update(hash_tensor(weight).encode())
        return digest.hexdigest()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off inside the block, whatever mode the network was left in."""
        with evaluating(self.net):
            yield


@contextmanager
def evaluating(net: PreTrainedModel) -> Iterator[None]:
    """`net` in eval mode inside the block; every module gets its own mode back after it."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def hash_tensor(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes of a tensor, wherever it lives."""
    flat = tensor.detach().to("cpu").contiguous()
    digest = hashlib.sha256(f"{flat.dtype}{tuple(flat.shape)}".encode())
    digest.update(flat.view(-1).view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()
