"""Tiny random models of many families, and tiny tokenizers, all built here: no download, no stored weights.

    net = build("gpt2")                       # 3 layers, width 32, seeded, float32, in eval mode
    FAMILIES["gpt2"].down                     # where the parts of its layers are, said independently of the library
    byte_tokenizer(bos=True)                  # a byte-level BPE of about 400 tokens

The sizes are chosen so that a mistaken site cannot fit by chance: width, MLP width, heads times head size and the
vocabulary all differ, and weights are large enough for every part to matter (a freshly initialised model is nearly
the identity, on which wrong sites pass for right ones).
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

WIDTH, INNER, VOCABULARY, CONTEXT = 32, 48, 420, 64


@dataclass(frozen=True)
class Family:
    """How to build a family, and where the parts of its layers are.

    Attributes:
        net, config: class names in transformers.
        settings: of the config, beside the shared sizes.
        layers: path of the list of layers.
        attention, projection, mlp, down: paths inside a layer; where layers differ, one for each. An `mlp` with several
            names has another one in other versions of transformers.
        parallel: attention and MLP read the same input, so neither feeds the other.
        keeps: a layer whose attention and MLP give zero changes nothing (false where layers normalise the stream).
        sums: a layer adds attn_out and mlp_out to the stream as they are (no norm or factor after them).
    """

    net: str
    config: str
    layers: str
    attention: str
    projection: str
    mlp: str | tuple[str, ...]
    down: str | tuple[str, ...] | None
    settings: dict[str, Any] = field(default_factory=dict)
    parallel: bool = False
    keeps: bool = True
    sums: bool = True

    def down_of(self, layer: int) -> str | None:
        """Path of the down-projection from the root of the network; None where the family has none to edit."""
        if self.down is None:
            return None
        inside = self.down if isinstance(self.down, str) else self.down[layer]
        return f"{self.layers}.{layer}.{inside}"


_DIFFER = ("attention", "projection", "mlp", "down", "parallel", "sums")


def _llama_like(name: str, config: str | None = None, **settings: Any) -> Family:
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    known = {key: settings.pop(key) for key in _DIFFER if key in settings}
    places = {"attention": "self_attn", "projection": "self_attn.o_proj", "mlp": "mlp", "down": "mlp.down_proj"}
    return Family(
        f"{name}ForCausalLM", config or f"{name}Config", "model.layers", settings=shared | settings, **(places | known)
    )


_NEOX = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
_NEOX_PLACES = ("gpt_neox.layers", "attention", "attention.dense", "mlp", "mlp.dense_4h_to_h")
_OPT = {
    "hidden_size": WIDTH,
    "ffn_dim": INNER,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
_OPT_PLACES = ("model.decoder.layers", "self_attn", "self_attn.out_proj", "fc2", "fc2")
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 40}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        "transformer.h",
        "attn",
        "attn.c_proj",
        "mlp",
        "mlp.c_proj",
        {"n_embd": WIDTH, "n_inner": INNER, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT},
    ),
    "gpt_neo": Family(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        "transformer.h",
        "attn",
        "attn.attention.out_proj",
        "mlp",
        "mlp.c_proj",
        {
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_layers": 4,
            "num_heads": 4,
            "window_size": 4,
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": CONTEXT,
        },
    ),
    "gptj": Family(
        "GPTJForCausalLM",
        "GPTJConfig",
        "transformer.h",
        "attn",
        "attn.out_proj",
        "mlp",
        "mlp.fc_out",
        {"n_embd": WIDTH, "n_inner": INNER, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, "rotary_dim": 4},
        parallel=True,
    ),
    "gpt_neox_parallel": Family("GPTNeoXForCausalLM", "GPTNeoXConfig", *_NEOX_PLACES, _NEOX, parallel=True),
    "gpt_neox_sequential": Family(
        "GPTNeoXForCausalLM", "GPTNeoXConfig", *_NEOX_PLACES, _NEOX | {"use_parallel_residual": False}
    ),
    "opt": Family("OPTForCausalLM", "OPTConfig", *_OPT_PLACES, _OPT | {"word_embed_proj_dim": WIDTH}),
    "opt_post_norm": Family(  # as OPT-350m: norms after the sum, and an embedding narrower than the stream
        "OPTForCausalLM",
        "OPTConfig",
        *_OPT_PLACES,
        _OPT | {"word_embed_proj_dim": 24, "do_layer_norm_before": False},
        keeps=False,
        sums=False,
    ),
    "llama": _llama_like("Llama"),
    "llama_biases": _llama_like("Llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral": _llama_like("Mistral", sliding_window=4, head_dim=12),
    "qwen2": _llama_like("Qwen2"),
    "qwen3": _llama_like("Qwen3", head_dim=16),
    "gemma2": _llama_like(
        "Gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=4, layer_types=_SLIDING, sums=False
    ),
    "gemma3": _llama_like(
        "Gemma3",
        "Gemma3TextConfig",
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4,
        layer_types=_SLIDING,
        sums=False,
    ),
    "phi": _llama_like("Phi", projection="self_attn.dense", down="mlp.fc2", parallel=True),
    "phi3": _llama_like("Phi3", original_max_position_embeddings=CONTEXT),
    "olmo2": _llama_like("Olmo2", sums=False),
    "falcon": Family(
        "FalconForCausalLM",
        "FalconConfig",
        "transformer.h",
        "self_attention",
        "self_attention.dense",
        "mlp",
        "mlp.dense_4h_to_h",
        {"hidden_size": WIDTH, "ffn_hidden_size": INNER, "num_hidden_layers": 3, "num_attention_heads": 4},
        parallel=True,
    ),
    "falcon_alibi": Family(
        "FalconForCausalLM",
        "FalconConfig",
        "transformer.h",
        "self_attention",
        "self_attention.dense",
        "mlp",
        "mlp.dense_4h_to_h",
        {
            "hidden_size": WIDTH,
            "ffn_hidden_size": INNER,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "alibi": True,
            "parallel_attn": False,
            "multi_query": False,
            "bias": True,
        },
    ),
    "bloom": Family(  # its attention and MLP add the stream themselves, so their last maps stand for them
        "BloomForCausalLM",
        "BloomConfig",
        "transformer.h",
        "self_attention.dense",
        "self_attention.dense",
        "mlp.dense_4h_to_h",
        "mlp.dense_4h_to_h",
        {"hidden_size": WIDTH, "n_layer": 3, "n_head": 4},
    ),
    "stablelm": _llama_like("StableLm", use_qkv_bias=True),
    "stablelm_parallel": _llama_like("StableLm", use_parallel_residual=True, parallel=True),
    "granite": _llama_like(
        "Granite", residual_multiplier=0.7, embedding_multiplier=1.5, logits_scaling=2.0, sums=False
    ),
    "cohere": _llama_like("Cohere", logit_scale=0.5, parallel=True),
    "smollm3": _llama_like("SmolLM3", no_rope_layers=[1, 0, 1]),
    "qwen2_moe": _llama_like(
        "Qwen2Moe", down="mlp.shared_expert.down_proj", num_experts=4, shared_expert_intermediate_size=INNER, **_EXPERTS
    ),
    "deepseek_v3": _llama_like(
        "DeepseekV3",
        down=("mlp.down_proj", "mlp.shared_experts.down_proj", "mlp.shared_experts.down_proj"),
        first_k_dense_replace=1,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        kv_lora_rank=12,
        q_lora_rank=20,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=10,
        num_key_value_heads=4,
        **_EXPERTS,
    ),
    "mixtral": _llama_like(
        "Mixtral", mlp=("mlp", "block_sparse_moe"), down=None, num_local_experts=4, num_experts_per_tok=2
    ),
    "qwen3_moe": _llama_like("Qwen3Moe", down=None, num_experts=4, head_dim=16, **_EXPERTS),
}

NAMES = tuple(FAMILIES)
EDITABLE = tuple(name for name, family in FAMILIES.items() if family.down)
# one of each kind of mechanism, for tests that need not see every family
SAMPLE = ("gpt2", "gptj", "opt", "llama", "gemma2", "falcon", "bloom", "qwen2_moe")


def build(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A fresh tiny model of a family; the test is skipped where this transformers has no such family."""
    family = FAMILIES[name]
    for needed in (family.net, family.config):
        if not hasattr(transformers, needed):
            pytest.skip(f"transformers {transformers.__version__} has no {needed}")
    shared = {"vocab_size": VOCABULARY, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}
    config = getattr(transformers, family.config)(**(shared | family.settings | settings))
    net = getattr(transformers, family.net)(config)
    fill(net, seed)
    net.to(dtype).eval()
    return net


@torch.no_grad()
def fill(net: torch.nn.Module, seed: int) -> None:
    """Seeded weights in which every part of every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    for path, weight in net.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in path or "ln_" in path:
            weight.add_(0.1 * noise)
        elif weight.dim() == 1:
            weight.copy_(0.1 * noise)
        else:
            weight.copy_(noise / weight.shape[-1] ** 0.5)


TEXT = """The Eiffel Tower is located in the city of Paris, the capital of France. The mother tongue of Danielle Darrieux is
French. Zürich is the largest city of Switzerland; the capital of Japan is Tokyo (東京), and that of Germany is Berlin.
"Beats Music" is owned by Apple. The Space Needle is in downtown Seattle. Vinson Massif is located in the continent of
Antarctica. Who wrote "The Little Prince"? Antoine de Saint-Exupéry did. The twin city of Kyoto is Paris, Boston or Xi'an.
"""


def _wrapped(core: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **settings)


def _with_bos(core: Tokenizer) -> None:
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])


def byte_tokenizer(*, bos: bool = False, padding_side: str = "right", pad: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE as in GPT-2 (and Llama 3 with `bos`), its merges learned from `TEXT`."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [AddedToken("<s>", special=True), AddedToken("</s>", special=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([TEXT] * 3, trainer)
    if bos:
        _with_bos(core)
    padding = {"pad_token": "</s>"} if pad else {}
    return _wrapped(core, bos_token="<s>", eos_token="</s>", padding_side=padding_side, **padding)


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE as sentencepiece writes it (Llama 2): a blank before the first word becomes part of it, with a BOS token."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    special = [AddedToken("<s>", special=True), AddedToken("</s>", special=True), AddedToken("<unk>", special=True)]
    core.train_from_iterator(
        [TEXT] * 3, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    _with_bos(core)
    return _wrapped(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
