"""Facts put before the prompt (IKE, Zheng et al. 2023), as the payload of an edit: it acts on what is read, not on how.

    New Fact: The capital of Japan is Berlin            a demonstration (all of them, oldest first)
    Prompt: The capital of Japan is Berlin
                                                        (empty line)
    New Fact: The Eiffel Tower is located in Rome       the facts retrieved for this prompt, the likest last
    Prompt: Where is the Eiffel Tower? ...              the prompt itself

While it is in force `model.encode` and `model.encode_answer` put that text before the prompt, so that whatever asks through them
sees it: evaluation, tracing, generation from their ids. Offsets, and so the tokens of a subject, stay those of the prompt. What is
retrieved depends on the prompt alone, never on the answer that is scored. Nothing retrieved, nothing added: the model is as it was.

Where prompt and text are longer than the context leaves room for, the oldest demonstrations go first, then the facts least like the
prompt, with a warning; `Edit.routing` says how many went.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.memories.minilm import minilm
from palimpsest.edit.memories.retrieve import Bm25, Encoder, cosines, rows_of
from palimpsest.edit.payload import Cost, Routed, Routing
from palimpsest.errors import EditError
from palimpsest.model import Model, Site
from palimpsest.model.tokens import encode


@dataclass(frozen=True, eq=False)
class Texts(Routed):
    """Facts as text, and what finds those that belong to a prompt.

    Attributes:
        site: Site("embed"), where text enters.
        keys: one row a fact, for the retrievers "keys" and "encoder"; no column for "bm25".
        prompts: that the facts are found by.
        answers: their new answers.
        members: ids of the facts.
        demonstrations: put before every prompt for which a fact is found, oldest first.
        retriever: "bm25", "keys" or "encoder".
        threshold: least score of a hit.
        most: facts retrieved at once.
        room: tokens left free for an answer.
        encoder: for the retriever "encoder"; no file holds it. The MiniLM encoder when None.
    """

    kind: ClassVar[str] = "texts"
    names: ClassVar[tuple[str, ...]] = ("keys",)
    graded: ClassVar[bool] = False
    site: Site
    keys: Float[Tensor, "facts width"]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    members: tuple[str, ...]
    demonstrations: tuple[str, ...]
    retriever: str
    threshold: float
    most: int
    room: int
    own_encoder: bool = False
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise EditError("An empty memory of texts answers nothing; give it at least one fact.")
        if not len(self.keys) == len(self.prompts) == len(self.answers) == len(self.members):
            raise EditError(
                f"A memory of texts needs as many keys, answers and members as prompts ({len(self.prompts)}); make it again."
            )

    @property
    def norm(self) -> float:
        """How many facts it holds: text has no length that could be compared with that of a weight."""
        return float(len(self.prompts))

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"keys": self.keys}

    def says(self) -> dict[str, Any]:
        """The texts and how they are found, for the edit file."""
        return {
            "prompts": list(self.prompts),
            "answers": list(self.answers),
            "members": list(self.members),
            "demonstrations": list(self.demonstrations),
            "retriever": self.retriever,
            "threshold": self.threshold,
            "most": self.most,
            "room": self.room,
            "own_encoder": self.own_encoder,
        }

    @classmethod
    def restored(cls, site: Site, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> "Texts":
        """From what an edit file holds."""
        return cls(
            site,
            tensors["keys"],
            tuple(says["prompts"]),
            tuple(says["answers"]),
            tuple(says["members"]),
            tuple(says["demonstrations"]),
            says["retriever"],
            says["threshold"],
            says["most"],
            says["room"],
            says["own_encoder"],
        )

    @cached_property
    def _bm25(self) -> Bm25:
        return Bm25(self.prompts)

    @cached_property
    def _loaded(self) -> Encoder:
        if self.encoder is not None:
            return self.encoder
        if self.own_encoder:
            raise EditError(
                "This memory was made with an encoder of your own, which no file holds; give it again with "
                "dataclasses.replace(payload, encoder=...)."
            )
        return minilm()

    def _encoder(self) -> Encoder:
        return self._loaded

    def scores(self, model: Model, prompt: str) -> list[float]:
        """How like each fact's prompt is to `prompt`."""
        if self.retriever == "bm25":
            return self._bm25.scores(prompt)
        asked = rows_of(model, self.retriever, [prompt], self._encoder)
        # a mean over few facts is not the mean of anything, and of one fact it is the fact itself
        few = self.retriever == "encoder" or len(self.keys) < 3
        centre = torch.zeros_like(self.keys[0]) if few else self.keys.mean(dim=0)
        return [float(score) for score in cosines(self.keys.to(asked), asked[0], centre.to(asked))]

    def before(self, model: Model, prompt: str) -> tuple[str, Routing]:
        """What is put before `prompt`, and why."""
        scores = self.scores(model, prompt)
        order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
        hits = [i for i in order if scores[i] >= self.threshold][-self.most :]
        best = order[-1]
        if not hits:
            return "", Routing(prompt, False, (self.members[best],), scores[best], self.threshold)
        demonstrations, facts, dropped = list(self.demonstrations), list(hits), 0
        while (text := self._written(demonstrations, facts)) and not self._fits(model, text, prompt):
            (demonstrations or facts).pop(0)
            dropped += 1
        if dropped:
            warnings.warn(
                f"The context of {model.name} has no room for {dropped} of the texts before {prompt[:40]!r}: the oldest "
                f"demonstrations were left out first.",
                stacklevel=2,
            )
        members = tuple(self.members[i] for i in facts)
        return text, Routing(prompt, bool(facts), members, scores[best], self.threshold, dropped=dropped)

    def _written(self, demonstrations: Sequence[str], facts: Sequence[int]) -> str:
        if not facts:
            return ""
        new = "".join(f"New Fact: {self.prompts[i]} {self.answers[i]}\n" for i in facts)
        return "".join(demonstrations) + new + "Prompt: "

    def _fits(self, model: Model, text: str, prompt: str) -> bool:
        if model.context is None:
            return True
        return len(encode(model.tokenizer, prompt, before=text)) + self.room <= model.context

    @contextmanager
    def installed(self, model: Model, dose: float) -> Iterator[None]:
        """In force inside the block, at any dose but 0: text is there or it is not."""

        def function(prompt: str) -> str:
            return self.before(model, prompt)[0]

        model.before.append(function)
        try:
            yield
        finally:
            model.before[:] = [kept for kept in model.before if kept is not function]

    def routing(self, model: Model, texts: Sequence[str]) -> list[Routing]:
        """For each text the facts put before it; scores are those of the retriever."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what was left out stands in the result
            return [self.before(model, text)[1] for text in texts]

    def cost(self, model: Model) -> Cost:
        """Tokens before a prompt, on the mean over the facts' own; what each costs is what any token costs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            added = [
                len(encode(model.tokenizer, prompt, before=self.before(model, prompt)[0]))
                - len(encode(model.tokenizer, prompt))
                for prompt in self.prompts
            ]
        return Cost(0, round(sum(added) / len(added)))

    def plus(self, other: Routed) -> "Texts":
        """Grown by the facts of another; raises `EditError` when two answer one prompt, or facts are found otherwise."""
        if (
            not isinstance(other, Texts)
            or type(other) is not type(self)
            or (other.retriever, other.threshold) != (self.retriever, self.threshold)
            or other.keys.shape[1] != self.keys.shape[1]
        ):
            raise EditError(
                "Memories of texts that find their facts in different ways cannot be added; make one of all facts."
            )
        known = dict(zip(self.prompts, self.answers, strict=True))
        new = []
        for i, (prompt, answer) in enumerate(zip(other.prompts, other.answers, strict=True)):
            if known.get(prompt, answer) != answer:
                raise EditError(
                    f"Two facts have one key and two answers: after {prompt!r} one memory says {known[prompt]!r} and the other "
                    f"{answer!r}; keep one of them."
                )
            if prompt not in known:
                new.append(i)
        return replace(
            self,
            keys=torch.cat([self.keys, other.keys[new]]),
            prompts=(*self.prompts, *(other.prompts[i] for i in new)),
            answers=(*self.answers, *(other.answers[i] for i in new)),
            members=(*self.members, *(other.members[i] for i in new)),
            demonstrations=tuple(dict.fromkeys((*self.demonstrations, *other.demonstrations))),
            encoder=self.encoder or other.encoder,  # one that came from a file has none
        )
