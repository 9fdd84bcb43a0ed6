"""A tiny GPT-2 that the tests teach a handful of made-up facts in a few seconds, and newcomers it knows nothing of.

    model, base, new = taught()      # new: facts of persons whose names are new pairs of names it knows

Names are two words, so that a person has to be put together from both; every fact has seven wordings that training reads
and two, made of the same words, that it does not.
"""

from functools import cache
from itertools import product
from random import Random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import palimpsest as pal
from palimpsest.facts import Fact
from palimpsest.model import Model, pad

FIRST = ("Anlo", "Brem", "Cado", "Delvi", "Enko", "Farru", "Gimo", "Hulda")
LAST = ("Isker", "Jolan", "Kreff", "Lumin", "Morv", "Nastor", "Opal", "Parn")
FORMS = {
    "home": ("{} lives in the town of", "The town where {} lives is", "Home of {} is the town of"),
    "work": ("{} works every day for", "The firm that pays {} is", "Each week {} goes to the office of"),
}
OPENINGS = ("", "As they say ,", "We all know that")
UNSEEN = ((0, 1), (1, 2))  # (form, opening) that training never reads together
OBJECTS = {
    "home": ("Quarn", "Rosk", "Selt", "Tumba", "Ulven"),
    "work": ("Vexo", "Wadrin", "Xylo", "Yostra", "Zamb"),
}


def fact(subject: str, relation: str, answer: str) -> Fact:
    """A fact with the seven seen wordings first and the two unseen ones last."""
    pairs = sorted(product(range(3), range(3)), key=lambda pair: (pair in UNSEEN, pair))
    first, *others = (f"{OPENINGS[opening]} {FORMS[relation][form]}".strip() for form, opening in pairs)
    paraphrases = tuple(wording.replace("{}", subject) for wording in others)
    return Fact(subject, first, answer, relation=relation, paraphrases=paraphrases)


def facts() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Facts of 24 persons to teach, and of 6 newcomers."""
    random = Random(0)
    persons = [f"{first} {last}" for first, last in product(FIRST, LAST)]
    random.shuffle(persons)
    made = [fact(person, name, random.choice(OBJECTS[name])) for person in persons[:30] for name in FORMS]
    return tuple(made[:48]), tuple(made[48:])


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    texts = (*FIRST, *LAST, *OPENINGS, *(text for some in (*FORMS.values(), *OBJECTS.values()) for text in some), ".")
    words = sorted({word for text in texts for word in text.split()} - {"{}"})
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", *words])}, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")


def network(architecture: str, vocabulary: int) -> PreTrainedModel:
    """Four layers of width 32."""
    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_positions=32, n_embd=32, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, max_position_embeddings=32, hidden_size=32, intermediate_size=80, num_hidden_layers=4,
            num_attention_heads=4, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


@cache
def taught(architecture: str = "gpt2", steps: int = 400) -> tuple[Model, tuple[Fact, ...], tuple[Fact, ...]]:
    """The model, the facts it was taught, and those of newcomers."""
    base, new = facts()
    tokenizer = word_tokenizer()
    net = network(architecture, len(tokenizer))
    texts = [f"{prompt} {one.target_true} ." for one in base for prompt in one.wordings[:-2]]
    batch = pad([tokenizer(text).input_ids for text in texts])
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    with torch.enable_grad():
        for step in range(steps):
            adam.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
            some = batch.take(torch.randint(len(texts), (96,)))
            logits = net(input_ids=some.ids, attention_mask=some.mask).logits
            wanted = some.ids.masked_fill(some.mask == 0, -100)
            functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=-100
            ).backward()
            adam.step()
            adam.zero_grad()
    net.eval()
    return pal.load(net, tokenizer=tokenizer, check=False), base, new
