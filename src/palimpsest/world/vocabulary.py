"""The tokenizer of the world's models: byte-level BPE of its own.

It is trained on *other* worlds (other seeds), which share the wordings and the syllables but none of the names. So words
are one token, while the names of this world fall into two tokens or more, as most names do in real models: what a model
knows of an entity has to be put together from its tokens.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from palimpsest.world.corpus import Corpus
from palimpsest.world.world import made_world

END = "<|endoftext|>"
OTHER_WORLDS, DOCUMENTS = range(1000, 1024), 1500


def trained_tokenizer(size: int = 2048) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` tokens, the same each time."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_text(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=END, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )


def _text() -> Iterator[str]:
    for seed in OTHER_WORLDS:
        corpus = Corpus(made_world(seed), seed=seed)
        for i in range(DOCUMENTS):
            yield corpus.document(i)
