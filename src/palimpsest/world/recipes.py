"""What each model of the world is made of: architecture, training text, seeds. `palimpsest world train NAME` follows them.

world          GPT-2 architecture, every fact in many wordings
world-seed1    the same from other initial weights and another order of the text: the second base for organisms
world-llama    Llama architecture (RMS norms, rotary positions, gated MLP), the same text
world-plain    GPT-2, one wording a fact: facts that are stored and hard to extract
"""

from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from palimpsest.errors import SettingError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """How one model is made.

    Attributes:
        name: under which it loads.
        architecture: "gpt2" or "llama".
        one_wording: tell each fact in one wording only.
        seed: of the initial weights and of the order of the text (never of the world, which is one and the same).
        layers, width, heads: of the network; the MLP is four times as wide (8/3 times with the gate of a Llama).
        window: tokens read at once; documents are packed into windows, each of which begins with the beginning of a document.
        vocabulary: tokens.
        batch: windows a step.
        steps: of AdamW.
        learning_rate: the highest, after `warm_up` steps; then a cosine down to a twentieth.
        weight_decay: of AdamW, on matrices only.
    """

    name: str
    architecture: str = "gpt2"
    one_wording: bool = False
    seed: int = 0
    layers: int = 8
    width: int = 128
    heads: int = 4
    window: int = 128
    vocabulary: int = 2048
    batch: int = 32
    steps: int = 2000
    learning_rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.1

    @property
    def tokens(self) -> int:
        """Tokens read in training."""
        return self.window * self.batch * self.steps

    def network(self, end: int) -> PreTrainedModel:
        """The untrained network; `end` is the token between documents."""
        if self.architecture not in ARCHITECTURES:
            raise SettingError(
                f"There is no architecture {self.architecture!r}.{did_you_mean(self.architecture, ARCHITECTURES)}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return ARCHITECTURES[self.architecture](self, end)


def _gpt2(recipe: Recipe, end: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=recipe.vocabulary,
        n_positions=recipe.window,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, as one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config)


def _llama(recipe: Recipe, end: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        max_position_embeddings=recipe.window,
        hidden_size=recipe.width,
        intermediate_size=8 * recipe.width // 3 // 8 * 8,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    return LlamaForCausalLM(config)


ARCHITECTURES = {"gpt2": _gpt2, "llama": _llama}
_ALL = (
    Recipe("world"),
    Recipe("world-seed1", seed=1),
    Recipe("world-llama", architecture="llama"),
    Recipe("world-plain", one_wording=True),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
