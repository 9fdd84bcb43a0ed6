"""What memories learn is what plain training learns, in which every token of every prompt runs in every step."""

from dataclasses import replace

import pytest
import torch
from small_memories import made

from oracles import textbook_memories as textbook
from oracles.small import FACTS, LAYER, down_of, model_of, precision_of
from palimpsest.edit.contexts import sample_contexts
from palimpsest.edit.memories.codebook import Codebook
from palimpsest.edit.memories.side import Side
from palimpsest.model import Site, pad

FAMILIES = ("gpt2", "llama", "gpt_neox_parallel", "mistral", "gemma2", "bloom", "falcon")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_value_of_grace_is_the_plain_one(family: str) -> None:
    dtype, close = precision_of(family)
    model = model_of(family, dtype=dtype)
    fact, sites = FACTS[1], (Site("value", LAYER),)
    asked = textbook.asked_of(model, fact)
    begin = model.record(pad([asked.ids[: asked.begin]]), sites)[sites[0]][0, -1]
    expected = textbook.trained_value(model.net, down_of(model, family), [asked], begin, 12, 0.1)
    (book,) = made(model, "grace", [fact], steps=12, learning_rate=0.1, stop_below=0.0).payloads
    assert isinstance(book, Codebook)
    torch.testing.assert_close(book.values[0].to(dtype), expected, atol=10 * close, rtol=1e-5)
    assert float((expected - begin).norm()) > 0.5


def test_the_value_of_two_facts_with_one_answer_is_the_plain_one() -> None:
    model = model_of("llama", dtype=torch.float64)
    same = replace(FACTS[1], target_new=FACTS[0].target_new, id="same")
    first, both = ([FACTS[0]], [FACTS[0], same])
    (book,) = made(model, "grace", first, steps=6, learning_rate=0.1, stop_below=0.0).payloads
    assert isinstance(book, Codebook)
    asked = [textbook.asked_of(model, fact) for fact in both]
    assert len(asked[0].ids) != len(asked[1].ids)
    expected = textbook.trained_value(model.net, down_of(model, "llama"), asked, book.values[0], 6, 0.1)
    (grown,) = made(model, "grace", both, steps=6, learning_rate=0.1, stop_below=0.0, radius=50.0).payloads
    assert isinstance(grown, Codebook)
    assert grown.members == (("eiffel", "same"),)
    torch.testing.assert_close(grown.values[0], expected, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_side_copy_of_wise_is_the_plain_one(family: str) -> None:
    dtype, _ = precision_of(family)
    model = model_of(family, dtype=dtype)
    prefixes = [text for text in sample_contexts(model, ((8, 2),), seed=0)[1:] if not {"{", "}"} & set(text)]
    asked = [
        textbook.asked_of(model, replace(fact, prompt=prefix + fact.prompt))
        for prefix in ("", *prefixes)
        for fact in FACTS[:2]
    ]
    site = Site("key", LAYER)
    examples = [FACTS[2], replace(FACTS[0], prompt="{} is made of", id="same subject")]  # the second is passed over
    texts = [model.encode(text).ids for text in (*sample_contexts(model, ((10, 3),), seed=1)[1:], FACTS[2].text)]
    elsewhere = torch.cat([model.record(pad([ids]), [site])[site][0] for ids in texts])
    width = model.record(pad([texts[0]]), [Site("value", LAYER)])[Site("value", LAYER)].shape[-1]
    begin = torch.randn((width, elsewhere.shape[1]), generator=torch.Generator().manual_seed(0)).to(dtype) * 1e-4
    down = down_of(model, family)
    expected = textbook.trained_side(model.net, down, asked, elsewhere, begin, 8, 1e-2)
    without = textbook.trained_side(
        model.net, down, asked, elsewhere[: -len(model.encode(FACTS[2].text))], begin, 8, 1e-2
    )
    assert float((expected - without).norm()) > 1e-3 * float(expected.norm())
    settings = {"shards": 1, "mask": 1.0, "density": 1.0, "prefixes": (8, 2), "unrelated": (10, 3)}
    edit = made(model, "wise", FACTS[:2], steps=8, learning_rate=1e-2, examples=examples, **settings)
    (side,) = edit.payloads
    assert isinstance(side, Side)
    close = 1e-6 if dtype == torch.float64 else 5e-5  # Adam divides by gradients that are next to nothing
    torch.testing.assert_close(side.deltas[0].to(dtype), expected, atol=close, rtol=1e-4)
    assert float(expected.norm()) > 10 * float(begin.norm())
