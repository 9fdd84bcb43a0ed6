"""Ready tiny models, facts, contexts and text for the tests of locate, edit and evaluate.

The sizes and weights are those of `families`, but the context is longer, so that contexts and prompts fit together, and
the head is louder, so that probabilities are far from uniform and a mistake cannot hide in the fifth digit.
"""

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

import palimpsest as pal
from families import CONTEXT, FAMILIES, TEXT, build, byte_tokenizer
from palimpsest.edit import SecondMoment, collect_moments
from palimpsest.errors import ModelError
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model

LAYER = 1
LOUD = 3.0
CONTEXTS = ("", "Paris. ", "The capital is {} here. ")  # braces are text like any other

EIFFEL = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", id="eiffel", relation="city")
JAPAN = Fact("Japan", "The capital of {} is", "Tokyo", "Berlin or Xi'an", id="japan", relation="capital")
DARRIEUX = Fact("Danielle Darrieux", "{} speaks", "French", "Swiss", id="darrieux", relation="language")
FACTS = (EIFFEL, JAPAN, DARRIEUX)


def model_of(
    family: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, tokenizer: Any = None, **settings: Any
) -> Model:
    """A tiny model as `palimpsest.load` gives it, with room for 256 tokens."""
    longer = {name: 256 for name, size in FAMILIES[family].settings.items() if size == CONTEXT and "position" in name}
    net = build(family, dtype=dtype, seed=seed, **({"tie_word_embeddings": False} | longer | settings))
    net.requires_grad_(False)
    net.get_output_embeddings().weight.mul_(LOUD)
    return pal.load(net, tokenizer=tokenizer or byte_tokenizer(), check=False)


def precision_of(family: str) -> tuple[torch.dtype, float]:
    """The best precision a family runs in, and how closely two ways of computing one number then agree.

    GPT-J computes parts of attention in float32 always. In float64, with transformers 5 on a CPU, Gemma 2 and BLOOM give
    NaN where there is padding (masks of the least float64 become infinite in their float32 softmax), and Qwen2-MoE's
    experts do not run.
    """
    if family in ("gemma2", "bloom", "qwen2_moe"):
        return torch.float32, 2e-5
    return torch.float64, 1e-6 if family == "gptj" else 1e-10


@cache
def smollm2() -> Model:
    """The shipped model, loaded once; the test is skipped, and says so, where its weights are not installed."""
    try:
        return pal.load("smollm2", check=False)
    except ModelError as error:
        pytest.skip(str(error))


def layers_of(model: Model, family: str) -> list[nn.Module]:
    """The decoder layers, found by the path written in `families`."""
    return list(model.net.get_submodule(FAMILIES[family].layers))


def down_of(model: Model, family: str, layer: int = LAYER) -> nn.Module:
    """The down-projection of a layer, found by the path written in `families`."""
    path = FAMILIES[family].down_of(layer)
    assert path is not None
    return model.net.get_submodule(path)


@cache
def documents(count: int = 40) -> str:
    """Plain text in `count` short documents: the words of `TEXT`, drawn anew."""
    words, draw = TEXT.split(), Random(0)
    return "\n\n".join(" ".join(draw.choices(words, k=25)) for _ in range(count))


def moment_of(model: Model, layer: int = LAYER) -> SecondMoment:
    """C of one layer over `documents`."""
    return collect_moments(model, [layer], documents(), tokens=1500)[layer]


def with_probes(fact: Fact, paraphrases: Sequence[str], neighbours: Sequence[tuple[str, str | None]]) -> Fact:
    """`fact` with the prompts that CounterFact asks."""
    record = fact.to_json() | {
        "paraphrases": tuple(paraphrases),
        "neighbours": tuple(Probe(prompt, answer) for prompt, answer in neighbours),
    }
    return Fact(**record)
