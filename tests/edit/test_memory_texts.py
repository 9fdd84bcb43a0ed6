"""The in-context editor: text before prompts, spans, demonstrations, retrievers."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_memories import UNRELATED, made
from torch import Tensor

from oracles.small import EIFFEL, FACTS, JAPAN, model_of, with_probes
from palimpsest.edit import Edit
from palimpsest.edit.payload import Routed
from palimpsest.errors import EditError, InputError
from palimpsest.model import Model


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


@pytest.fixture(scope="module")
def edits(gpt2: Model) -> dict[str, Edit]:
    return {"in-context": made(gpt2, "in-context")}


def test_text_before_a_prompt_leaves_its_spans_right(gpt2: Model, edits: dict[str, Edit]) -> None:
    plain = gpt2.encode(EIFFEL.text)
    start, end = EIFFEL.subject_span
    subject = [plain.ids[i] for i in plain.tokens_of(start, end)]
    with edits["in-context"].applied(gpt2):
        encoded = gpt2.encode(EIFFEL.text)
        whole, begin = gpt2.encode_answer(EIFFEL.text, "Rome")
    assert gpt2.tokenizer.decode(encoded.ids) == (f"New Fact: {EIFFEL.text} Rome\nPrompt: {EIFFEL.text}")
    assert [encoded.ids[i] for i in encoded.tokens_of(start, end)] == subject
    assert encoded.tokens_of(start, end)[0] > plain.tokens_of(start, end)[0]
    assert whole[:begin] == encoded.ids
    assert gpt2.tokenizer.decode(whole[begin:]).strip() == "Rome"
    assert gpt2.encode(EIFFEL.text) == plain
    with edits["in-context"].applied(gpt2):
        assert gpt2.encode(UNRELATED).text == UNRELATED
        unrelated = gpt2.encode(UNRELATED)
    assert unrelated == gpt2.encode(UNRELATED)  # no hit: as unedited


def test_demonstrations_come_first_and_the_oldest_goes_first(gpt2: Model) -> None:
    shown = with_probes(JAPAN, ["Japan is ruled from"], [("The capital of Chile is", "Santiago")])
    edit = made(gpt2, "in-context", [EIFFEL], demonstrations=[shown])
    with edit.applied(gpt2):
        text = gpt2.tokenizer.decode(gpt2.encode(EIFFEL.text).ids)
    parts = text.split("\n\n")
    assert [part.split("Prompt: ")[1] for part in parts] == [
        "The capital of Japan is Berlin or Xi'an",
        "Japan is ruled from Berlin or Xi'an",
        "The capital of Chile is Santiago",
        EIFFEL.text,
    ]
    length = len(gpt2.encode(text).ids)
    short = model_of("gpt2", n_positions=length + 40)
    edit = made(short, "in-context", [EIFFEL], demonstrations=[shown], room=60)
    with edit.applied(short), pytest.warns(UserWarning, match="no room for 1 of the texts"):
        cut = short.tokenizer.decode(short.encode(EIFFEL.text).ids)
    assert cut == "\n\n".join(parts[1:])
    ((routing,),) = edit.routing(short, [EIFFEL.text])
    assert (routing.dropped, routing.facts) == (1, ("eiffel",))


@pytest.mark.parametrize("retriever", ["keys", "encoder"])
def test_other_retrievers(retriever: str, gpt2: Model, tmp_path: Path) -> None:
    def letters(texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts])

    given: dict[str, Any] = {"encoder": letters} if retriever == "encoder" else {}
    edit = made(gpt2, "in-context", retriever=retriever, threshold=0.99, **given)
    found = edit.routing(gpt2, [fact.text for fact in FACTS])
    assert [one.facts for (one,) in found] == [("eiffel",), ("japan",), ("darrieux",)]
    assert all(one.answered for (one,) in found)
    ((none,),) = edit.routing(gpt2, ["zzz"])
    assert not none.answered
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    if retriever == "encoder":
        with pytest.raises(EditError, match="encoder of your own"):
            again.routing(gpt2, ["x"])
        payload = again.payloads[0]
        assert isinstance(payload, Routed)
        again = replace(again, payloads=(replace(payload, encoder=letters),))  # type: ignore[type-var]
    assert again.routing(gpt2, [EIFFEL.text]) == edit.routing(gpt2, [EIFFEL.text])


def test_a_prompt_longer_than_the_context_is_refused_as_ever(gpt2: Model, edits: dict[str, Edit]) -> None:
    with edits["in-context"].applied(gpt2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="at most 256"):
            gpt2.encode(EIFFEL.text + " word" * 300)
