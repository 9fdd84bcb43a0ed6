"""What of an example does not depend on the editor: found once for each text, and kept for later passes as far as memory allows.

    h_s    the stream that enters layer s, the lowest that is edited       same with and without an edit; no gradient flows below it
    h_L    the unedited stream that leaves the last layer, where a text that must stay is read
    u, d   of every edited map, for the loss of the new answer             (`palimpsest.edit.learned.signals`)

A step that meets them again runs the layers from s on, forward and back, and nothing else: 3 of 30 layers with the defaults on
smollm2. h_s takes a text's tokens x d numbers, and u and d a fact's tokens x the widths of all edited maps, which is 20 to 40
times as much; they have half of the memory, so that they do not crowd out what saves the most.

Every text runs alone. What is found for it does not depend on what else is asked in a step, or on what was kept: a training that
was killed and goes on with nothing kept comes to the same bits.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.learned.answers import Answers, answers_of, stream_read
from palimpsest.edit.learned.change import words_of
from palimpsest.edit.learned.mend import Words
from palimpsest.edit.learned.signals import Signal, signals
from palimpsest.errors import AnatomyError
from palimpsest.facts import Fact
from palimpsest.model import Model, Site

MEMORY = 2.0  # GiB
Asked = tuple[str, str | None]  # a text and the answer read after it
Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by name, until `room` bytes are taken; later ones are found anew each time.

    What came first stays. Records come round in passes, where the oldest is the next to be asked for: a memory that drops the
    oldest and is a little too small for a pass would hardly ever have what is wanted.
    """

    def __init__(self, room: float) -> None:
        self.room, self.taken = room, 0
        self._values: dict[Any, Value] = {}

    def get(self, name: Any, find: Callable[[], Value], tensors: Callable[[Value], list[Tensor]]) -> Value:
        """The value of that name; `tensors` are those in it that take memory."""
        if name in self._values:
            return self._values[name]
        found = find()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(found))
        if self.taken + size <= self.room:
            self._values[name] = found
            self.taken += size
        return found


class Frozen:
    """A model, the maps that are edited in it, and what is known of texts.

    Args:
        model: its weights must stay as they are as long as this is in use.
        paths: the edited maps.
        memory: GiB that may be taken on the model's device, in each process.
    """

    def __init__(self, model: Model, paths: list[str], memory: float = MEMORY) -> None:
        self.model, self.paths = model, paths
        self.start = lowest_layer(model, paths)
        room = memory * 2**30
        self._texts = Kept[Answers](0.4 * room)
        self._unedited = Kept[Tensor](0.1 * room)
        self._signals = Kept[tuple[dict[str, Signal], Words]](0.5 * room)

    @property
    def taken(self) -> int:
        """Bytes that are taken."""
        return self._texts.taken + self._unedited.taken + self._signals.taken

    def answers(self, text: str, answer: str | None) -> Answers:
        """The one row of a text and its answer, with the stream that enters the lowest edited layer."""
        return self._texts.get((text, answer), lambda: self._run(text, answer), lambda found: [_resid(found)])

    def unedited(self, text: str, answer: str | None) -> Float[Tensor, "reads width"]:
        """The stream that leaves the last layer of the unedited model, at every token that is read."""
        return self._unedited.get((text, answer), lambda: self._last(text, answer), lambda found: [found])

    def request(self, fact: Fact) -> tuple[dict[str, Signal], Words]:
        """u and d of every edited map for the new answer of a fact, and its words."""
        name = (fact.text, fact.target_new, fact.target_true)
        return self._signals.get(name, lambda: self._request(fact), _numbers)

    def _run(self, text: str, answer: str | None) -> Answers:
        alone, site = answers_of(self.model, [(text, answer)]), Site("resid_in", self.start)
        resid = self.model.record(alone.batch, [site])[site]
        return Answers(alone.batch, alone.at, alone.wanted, alone.weight, self.start, resid)

    @torch.no_grad()
    def _last(self, text: str, answer: str | None) -> Tensor:
        return stream_read(self.model, self.answers(text, answer))

    def _request(self, fact: Fact) -> tuple[dict[str, Signal], Words]:
        found, _ = signals(self.model, self.answers(fact.text, fact.target_new), self.paths)
        return found, words_of(self.model, fact)


def lowest_layer(model: Model, paths: list[str]) -> int:
    """The lowest layer that holds one of the maps at `paths`."""
    for layer in model.anatomy.layers:
        if any(path.startswith(f"{layer.block.path}.") for path in paths):
            return layer.index
    raise AnatomyError(f"None of the maps {paths} is inside a layer of {model.name}; name maps of its layers.")


def _resid(answers: Answers) -> Tensor:
    assert answers.resid is not None
    return answers.resid


def _numbers(request: tuple[dict[str, Signal], Words]) -> list[Tensor]:
    found, (words, _) = request
    return [words, *(tensor for signal in found.values() for tensor in (signal.inputs, signal.errors))]
