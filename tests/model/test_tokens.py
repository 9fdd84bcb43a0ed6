"""Positions of subjects and answers, from the tokenizer's own offsets, whatever the tokenizer does at the seams."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import families
from palimpsest.errors import InputError, ModelError
from palimpsest.model import align, encode, pad
from palimpsest.model.tokens import encode_answer, token_strings

pytestmark = pytest.mark.floor

TOKENIZERS = {
    "bytes": families.byte_tokenizer(),
    "bytes_bos": families.byte_tokenizer(bos=True),
    "bytes_left": families.byte_tokenizer(padding_side="left"),
    "metaspace": families.metaspace_tokenizer(),
}
PROMPTS = [
    ("{} is located in the city of", "Eiffel Tower"),
    ("The {} is located in the city of", "Eiffel Tower"),
    ("The largest city of Switzerland is {}", "Zürich"),
    ("{} is in Switzerland", "Zürich"),
    ("The capital of Japan is 東京, that is {}, in", "東京"),
    ("{} is the capital of", "東京"),
    ('The owner of "{}" is', "Beats Music"),
    ("“{}” was written by", "The Little Prince"),
    ("(see {}) is in", "Space Needle"),
    ("Born in Kyoto,{} was", "Antoine de Saint-Exupéry"),
    ("The twin city of  {}  is", "Xi'an"),
    ("An emoji: {} means", "😀"),
]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(("prompt", "subject"), PROMPTS)
def test_the_tokens_of_a_subject_cover_it_and_no_other_word(name, prompt, subject):
    text = prompt.format(subject)
    start = prompt.index("{}")
    encoded = encode(TOKENIZERS[name], text)
    span = encoded.tokens_of(start, start + len(subject))
    covered = [range(*encoded.offsets[i]) for i in span]
    assert set(range(start, start + len(subject))) <= {place for one in covered for place in one}
    before = [encoded.offsets[i] for i in range(span.start)]
    after = [encoded.offsets[i] for i in range(span.stop, len(encoded))]
    assert all(end <= start for _, end in before)
    assert all(begin >= start + len(subject) for begin, _ in after)
    if start == 0:
        assert span.start == (1 if encoded.offsets[0] == (0, 0) else 0)


@pytest.mark.parametrize(("name", "first"), [("bytes", 0), ("bytes_bos", 1), ("metaspace", 1)])
def test_a_subject_at_the_beginning_comes_after_the_bos(name, first):
    encoded = encode(TOKENIZERS[name], "Paris is in")
    assert encoded.tokens_of(0, 5).start == first
    assert (encoded.ids[0] == 0) == bool(first)


def test_three_bytes_of_one_character_all_belong_to_it():
    encoded = encode(TOKENIZERS["bytes"], "東京 is")
    assert encoded.offsets[encoded.tokens_of(0, 1)[0]] == (0, 1)
    assert len(encoded.tokens_of(0, 2)) >= 2
    assert TOKENIZERS["bytes"].decode([encoded.ids[i] for i in encoded.tokens_of(0, 2)]) == "東京"


def test_text_without_tokens_is_refused():
    encoded = encode(TOKENIZERS["bytes_bos"], "Paris")
    with pytest.raises(InputError, match=r"No token of 'Paris' covers ''"):
        encoded.tokens_of(5, 9)
    with pytest.raises(InputError, match="The text '' has no token"):
        encode(TOKENIZERS["bytes"], "")


def test_a_text_longer_than_the_context_is_refused(tiny):
    with pytest.raises(InputError, match=r"tokens long but this model reads at most 64; shorten it \(it begins 'word"):
        tiny("gpt2").encode("word " * 90)
    with pytest.raises(InputError, match="reads at most 64"):
        tiny("gpt2").encode_answer("Paris " * 12, "word " * 60)
    assert tiny("bloom").context is None
    assert len(tiny("bloom").encode("word " * 90)) > 90


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="Slow gives no character offsets; load a fast tokenizer"):
        encode(Slow(), "text")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("answer", ["Paris", "Saint-Exupéry", "東京", "Xi'an", "the city of Paris"])
@pytest.mark.parametrize("text", ["The Eiffel Tower is located in the city of", "Who? ", 'He said "', "東京"])
def test_the_answer_begins_where_its_tokens_begin(name, answer, text):
    tokenizer = TOKENIZERS[name]
    ids, begin = encode_answer(tokenizer, text, answer)
    seam = "" if text[-1].isspace() else " "
    assert ids == tuple(tokenizer(text + seam + answer).input_ids)
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in ids:
        assert tokenizer.decode(ids[begin:]).strip() == answer
        assert tokenizer.decode(ids[:begin], skip_special_tokens=True).strip() == text.strip()
    prompt = encode(tokenizer, text).ids
    if not text[-1].isspace():
        assert ids[:begin] == prompt


def test_a_token_that_straddles_the_seam_belongs_to_the_answer():
    """The blank at the end of the prompt is merged into " Paris", so the prompt is cut before it."""
    tokenizer = TOKENIZERS["bytes"]
    text = "The capital of France is "
    ids, begin = encode_answer(tokenizer, text, "Paris")
    prompt = encode(tokenizer, text).ids
    assert ids[: len(prompt)] != prompt
    assert begin == len(prompt) - 1
    assert tokenizer.decode(ids[begin:]) == " Paris"


def test_a_merge_across_the_seam_is_the_answers():
    """Without words to split at, prompt and answer merge into one token; no token of the answer may be lost."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "a": 1, "b": 2, " ": 3, "b ": 4, "b a": 5}
    core = Tokenizer(models.BPE(vocabulary, [("b", " "), ("b ", "a")], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    ids, begin = encode_answer(PreTrainedTokenizerFast(tokenizer_object=core), "ab", "ab")
    assert (ids, begin) == ((1, 5, 2), 1)


def test_special_tokens_after_the_text_are_cut():
    from tokenizers import processors

    tokenizer = families.byte_tokenizer()
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.backend_tokenizer.post_processor = template
    plain = families.byte_tokenizer(bos=True)
    assert encode(tokenizer, "in the city of") == encode(plain, "in the city of")
    assert encode_answer(tokenizer, "in the city of", "Paris") == encode_answer(plain, "in the city of", "Paris")


def test_long_texts_are_tokenised_in_silence(caplog, capsys):
    tokenizer = families.byte_tokenizer()
    tokenizer.model_max_length = 4
    encode(tokenizer, "The Eiffel Tower is located in the city of")
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_labels_are_one_token_each():
    ids = encode(TOKENIZERS["bytes"], "The Eiffel Tower").ids
    strings = token_strings(TOKENIZERS["bytes"], ids)
    assert len(strings) == len(ids)
    assert "".join(strings) == "The Eiffel Tower"


@pytest.mark.parametrize("name", ["bytes", "bytes_left"])
def test_the_padding_side_of_the_tokenizer_changes_nothing(name, tiny):
    tokenizer = TOKENIZERS[name]
    texts = ["Paris", "The Eiffel Tower is located in the city of"]
    batch = pad([encode(tokenizer, text).ids for text in texts])
    expected = tiny("gpt2").last_logits(pad([encode(TOKENIZERS["bytes"], text).ids for text in texts]))
    assert expected.equal(tiny("gpt2").last_logits(batch))


def test_a_tokenizer_without_a_pad_token_is_enough():
    tokenizer = families.byte_tokenizer(pad=False)
    assert tokenizer.pad_token is None
    batch = pad([encode(tokenizer, text).ids for text in ("Paris", "The Eiffel Tower")])
    assert len(batch) == 2


ROWS = st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=9), min_size=1, max_size=5)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_pad_keeps_every_row(rows):
    batch = pad(rows)
    assert tuple(batch.ids.shape) == (len(rows), max(map(len, rows)))
    for i, row in enumerate(rows):
        assert batch.ids[i, : len(row)].tolist() == row
        assert batch.mask[i].tolist() == [1] * len(row) + [0] * (batch.ids.shape[1] - len(row))
        assert batch.positions[i, : len(row)].tolist() == list(range(len(row)))
    assert batch.last.tolist() == [len(row) - 1 for row in rows]
    assert batch.column == 0


@given(ROWS, st.data())
@settings(max_examples=60, deadline=None)
def test_align_puts_the_pivots_in_one_column(rows, data):
    pivots = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    batch = align(rows, pivots)
    assert batch.column == max(pivots)
    for i, (row, pivot) in enumerate(zip(rows, pivots, strict=True)):
        kept = batch.mask[i].bool()
        assert batch.ids[i, kept].tolist() == row
        assert batch.positions[i, kept].tolist() == list(range(len(row)))
        assert batch.ids[i, batch.column] == row[pivot]
        assert batch.mask[i, batch.column] == 1
        assert batch.positions[i, batch.column] == pivot
        assert batch.ids[i, batch.last[i]] == row[-1]
    assert 0 <= int(batch.positions.min()) <= int(batch.positions.max()) < max(map(len, rows))
    assert batch.mask.any(dim=0).all(), "no column is padding in every row"
    kept = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    taken = batch.take(kept)
    assert taken.ids.tolist() == [batch.ids[i].tolist() for i in kept]
    assert (len(taken), taken.column) == (len(kept), batch.column)


def test_rows_that_are_no_batch_are_refused():
    for rows in ([], [[]], [[1], []]):
        with pytest.raises(InputError, match="at least one row, and every row at least one token"):
            pad(rows)
    for pivot in (-1, 2):
        with pytest.raises(InputError, match=f"The pivot {pivot} is not a position of a row of 2 tokens"):
            align([[1, 2]], [pivot])
