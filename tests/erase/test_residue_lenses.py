"""Lenses, heads and wordings against textbook versions: one text at a time, hooks written by hand, the whole vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from families import FAMILIES
from oracles.small import FACTS, documents, layers_of, model_of
from palimpsest.erase.residue import Column, Heads, LogitLens, Pair, TrainedLens, Wordings
from palimpsest.erase.residue.heads import why_no_heads
from palimpsest.erase.residue.measure import residue
from palimpsest.erase.residue.pair import EDITED, SAME_ANSWER
from palimpsest.erase.residue.states import last_states
from palimpsest.erase.residue.trained_lens import quality_table, translators
from palimpsest.errors import AnatomyError, InputError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model

PAIRS = [
    Pair(
        Fact(
            **(fact.to_json() | {"paraphrases": (f"They say of {fact.subject} that it is", f"{fact.subject}? It is")})
        ),
        answer,
        ("zinc", "oxen", answer[0] + "yz", "Lima"),
        group,
        FACTS[0].id,
    )
    for fact, answer, group in zip(FACTS, ("Paris", "Tokyo", "French"), (EDITED, SAME_ANSWER, SAME_ANSWER), strict=True)
]


def states_by_hand(model: Model, family: str, text: str) -> list[Tensor]:
    """Residual stream after each layer at the last token."""
    kept: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    handles = [layer.register_forward_hook(keep) for layer in layers_of(model, family)]
    with torch.no_grad():
        model.net(input_ids=torch.tensor([model.encode(text).ids]))
    for handle in handles:
        handle.remove()
    return kept


def norm_and_head(model: Model, family: str) -> tuple[Any, Any]:
    net: Any = model.net
    return (net.transformer.ln_f, net.lm_head) if family == "gpt2" else (net.model.norm, net.lm_head)


def first(model: Model, text: str, answer: str) -> int:
    """The first token of an answer."""
    return model.tokenizer(f"{text} {answer}").input_ids[len(model.tokenizer(text).input_ids)]


def advantage_by_hand(model: Model, logits: Tensor, text: str, pair: Pair) -> float:
    own = first(model, text, pair.answer)
    others = [token for token in (first(model, text, other) for other in pair.others) if token != own]
    return float(logits[own] - torch.stack([logits[token] for token in others]).mean())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_logit_lens_reads_each_layer_as_the_textbook_does(family: str) -> None:
    model = model_of(family)
    table = LogitLens(paraphrases=2).fit(model, PAIRS).read(model, PAIRS)
    norm, head = norm_and_head(model, family)
    for i, pair in enumerate(PAIRS):
        for path, text in zip(("prompt", "paraphrase 1", "paraphrase 2"), pair.fact.wordings, strict=True):
            for layer, state in enumerate(states_by_hand(model, family, text)):
                with torch.no_grad():
                    logits = head(norm(state))
                found = table.scores[i, table.columns.index(Column("logit lens", path, layer))]
                assert found == pytest.approx(advantage_by_hand(model, logits, text, pair), abs=1e-4)


def test_a_head_that_caps_its_logits_is_run_whole() -> None:
    """Gemma 2: tanh after the head. The lens must agree with what the network itself says at its last layer."""
    model = model_of("gemma2")
    table = LogitLens(paraphrases=0).fit(model, PAIRS).read(model, PAIRS)
    with torch.no_grad():
        logits = model.net(input_ids=torch.tensor([model.encode(PAIRS[0].fact.text).ids])).logits[0, -1]
    expected = advantage_by_hand(model, logits, PAIRS[0].fact.text, PAIRS[0])
    assert table.scores[0, model.n_layers - 1] == pytest.approx(expected, abs=1e-4)


def test_standing_is_rank_and_probability_in_the_whole_vocabulary() -> None:
    model = model_of("gpt2")
    reader = LogitLens(paraphrases=0).fit(model, PAIRS)
    text = PAIRS[0].fact.text
    found = reader.standing(model, last_states(model, reader.texts(PAIRS)), PAIRS[:1])
    for layer, state in enumerate(states_by_hand(model, "gpt2", text)):
        with torch.no_grad():
            p = model.net.lm_head(model.net.transformer.ln_f(state)).softmax(-1)  # type: ignore[union-attr,operator]
        for a, answer in enumerate(("Paris", "Rome")):
            token = first(model, text, answer)
            assert found[0, layer, a, 0] == 1 + int((p > p[token]).sum())
            assert found[0, layer, a, 1] == pytest.approx(float(p[token]), rel=1e-3)


def test_the_trained_lens_is_weighted_ridge_regression() -> None:
    """Against one dense solve over all tokens of the documents that were fitted on."""
    model = model_of("gpt2")
    maps = translators(model, documents(), 600)
    texts, have, used = [d for d in documents().splitlines() if d], 0, []
    for text in texts:
        if have >= 600:
            break
        used.append(tuple(model.tokenizer(text).input_ids)[:96])
        have += len(used[-1])
    x, y = [], []
    for i, ids in enumerate(used):
        if i % 10:
            with torch.no_grad():
                states = model.net(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            kept: list[Tensor] = []
            handle = layers_of(model, "gpt2")[-1].register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out))
            with torch.no_grad():
                model.net(input_ids=torch.tensor([ids]))
            handle.remove()
            final = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
            x.append(states[1][0, 1:])  # the stream after layer 0
            y.append(final[0, 1:])
    features, target = torch.cat(x).double(), torch.cat(y).double()
    weight = 1 / target.norm(dim=1, keepdim=True)
    left = torch.cat([features, torch.ones(len(features), 1)], dim=1) * weight
    gram = left.T @ left
    penalty = torch.full((len(gram),), 1e-3 * float(gram.diagonal()[:-1].mean()), dtype=torch.float64)
    penalty[-1] = 0.0
    solved = torch.linalg.solve(gram + torch.diag(penalty), left.T @ (target * weight))
    assert maps.tokens == len(features)
    assert torch.allclose(maps.matrix[0].double(), solved[:-1].T, atol=1e-4)
    assert torch.allclose(maps.shift[0].double(), solved[-1], atol=1e-4)


def test_the_trained_lens_is_exact_at_the_end_and_nearer_than_the_plain_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    model = model_of("gpt2")
    reader = TrainedLens(documents(), tokens=1500, paraphrases=0).fit(model, PAIRS)
    plain = LogitLens(paraphrases=0).fit(model, PAIRS).read(model, PAIRS)
    trained = reader.read(model, PAIRS)
    assert trained.scores[:, -1] == pytest.approx(plain.scores[:, -1], abs=1e-5)
    rows = quality_table(reader.maps)
    assert float(rows[0]["trained lens"]) < float(rows[0]["logit lens"])  # type: ignore[arg-type]
    assert rows[-1]["trained lens"] == pytest.approx(0.0, abs=1e-5)
    kept = list(tmp_path.rglob("*.safetensors"))
    assert len(kept) == 1
    again = TrainedLens(documents(), tokens=1500, paraphrases=0).fit(model, PAIRS)
    assert torch.equal(again.maps.matrix, reader.maps.matrix)
    kept[0].write_bytes(b"cut short")
    assert torch.equal(
        TrainedLens(documents(), tokens=1500, paraphrases=0).fit(model, PAIRS).maps.shift, reader.maps.shift
    )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_heads_by_hand(family: str) -> None:
    """Each head's slice of the output projection, through the final norm with its scale held, written out for both families."""
    model = model_of(family)
    table = Heads().fit(model, PAIRS).read(model, PAIRS)
    norm, head = norm_and_head(model, family)
    count = model.net.config.num_attention_heads
    for i, pair in enumerate(PAIRS):
        text, layer = pair.fact.text, 1
        attention = layers_of(model, family)[layer].get_submodule("attn" if family == "gpt2" else "self_attn")
        projection: Any = attention.c_proj if family == "gpt2" else attention.o_proj
        kept: list[Tensor] = []
        handle = projection.register_forward_pre_hook(lambda _m, args, kept=kept: kept.append(args[0][0, -1]))
        state = states_by_hand(model, family, text)[-1]
        handle.remove()
        matrix = projection.weight.T if family == "gpt2" else projection.weight
        size = matrix.shape[1] // count
        for h in range(count):
            written = matrix[:, h * size : (h + 1) * size] @ kept[0][h * size : (h + 1) * size]
            if family == "gpt2":
                scaled = (written - written.mean()) / torch.sqrt(state.var(unbiased=False) + norm.eps) * norm.weight
            else:
                scaled = written / torch.sqrt(state.square().mean() + norm.variance_epsilon) * norm.weight
            found = table.scores[i, table.columns.index(Column("head", "prompt", layer, h))]
            assert found == pytest.approx(advantage_by_hand(model, head.weight @ scaled, text, pair), abs=1e-4)


def test_heads_that_pass_another_norm_are_left_out_with_a_reason() -> None:
    model = model_of("gemma2")
    assert "before it joins the stream" in why_no_heads(model)
    with pytest.raises(AnatomyError, match="no heads are read"):
        Heads().fit(model, PAIRS)
    facts, pool = (
        list(FACTS),
        [Fact(f"s{i}", "{} lies in", f"{chr(97 + i)}x", relation=f.relation) for i in range(12) for f in FACTS],
    )
    found = residue(model, facts, pool=pool, readouts=["logit lens", "head"], gate="all")
    assert list(found.unread) == ["head"]
    assert found.readouts == ("logit lens",)


@pytest.mark.parametrize(
    "family", ["gptj", "gpt_neox_parallel", "opt", "opt_post_norm", "bloom", "qwen3", "cohere", "olmo2"]
)
def test_heads_are_read_where_a_layer_adds_attention_as_it_is(family: str) -> None:
    """`sums` of the families says, independently of the library, where that is so; then no number is missing."""
    model = model_of(family)
    assert (why_no_heads(model) == "") == FAMILIES[family].sums
    if FAMILIES[family].sums:
        table = Heads().fit(model, PAIRS).read(model, PAIRS)
        assert table.scores.shape == (len(PAIRS), model.n_layers * model.net.config.num_attention_heads)
        assert np.isfinite(table.scores).all()


def test_states_that_are_not_finite_are_refused() -> None:
    model = model_of("gpt2")
    model.parameter(f"{model.anatomy.down(1).path}.weight").data[0, 0] = float("nan")
    with pytest.raises(WeightError, match="residual stream of .* is not finite"):
        last_states(model, ["The capital of Japan is"])


def log_p_by_hand(model: Model, text: str, answer: str) -> float:
    ids, begin = model.encode_answer(text, answer)
    with torch.no_grad():
        log_p = model.net(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(log_p[t - 1, ids[t]]) for t in range(begin, len(ids)))


def test_wordings_count_every_token_of_an_answer() -> None:
    model = model_of("llama")
    pairs = [Pair(pair.fact, pair.answer, pair.others, pair.group, pair.of) for pair in PAIRS]
    settings = Wordings(
        paraphrases=2,
        prefixes=1,
        text=" ".join(["The birds waited near the water."] * 3),
        reversed={"city": "{answer} is the city of"},
        aliases={"Japan": ("Nippon",)},
    )
    other = Pair(
        Fact("Big Ben", "The {} is located in the city of", "London", relation="city"),
        "Paris",
        ("Oslo",),
        SAME_ANSWER,
        "japan",
    )
    table = settings.fit(model, [*pairs, other]).read(model, [*pairs, other])
    assert [column.path for column in table.columns] == [
        "prompt",
        "paraphrase 1",
        "paraphrase 2",
        "prefix 1",
        "alias 1",
        "reversed",
    ]
    texts = [
        *PAIRS[1].fact.wordings,
        f"The birds waited near the water. {PAIRS[1].fact.text}",
        "The capital of Nippon is",
    ]
    for j, text in enumerate(texts):
        others = np.mean([log_p_by_hand(model, text, other) for other in PAIRS[1].others])
        assert table.scores[1, j] == pytest.approx(log_p_by_hand(model, text, "Tokyo") - others, abs=1e-3)
    reversed_text = "Paris is the city of"
    expected = log_p_by_hand(model, reversed_text, "Eiffel Tower") - log_p_by_hand(model, reversed_text, "Big Ben")
    assert table.scores[0, -1] == pytest.approx(expected, abs=1e-3)
    assert np.isnan(table.scores[1, -1])
    assert table.scores[0, 4] == pytest.approx(table.scores[0, 0], abs=1e-4)  # no alias: its only name
    judging = Wordings(paraphrases=1, prefixes=0, skip=1, text=settings.text, aliases=settings.aliases)
    alias = judging.fit(model, [*pairs, other]).read(model, [*pairs, other]).scores[:, -1]
    assert np.isnan(alias[0])  # of a fact that is no control the prompt is a seen wording
    assert np.isfinite(alias[[1, -1]]).all()
    unseen = Wordings(paraphrases=2, prefixes=0, skip=1, name="unseen").fit(model, pairs).read(model, pairs)
    assert unseen.columns == (Column("unseen", "paraphrase 2"), Column("unseen", "paraphrase 3"))
    assert unseen.scores[:, 0] == pytest.approx(table.scores[:3, 2], abs=1e-5)
    assert np.isnan(unseen.scores[:, 1]).all()


def test_mistakes() -> None:
    with pytest.raises(InputError, match="alias 'Big Ben' is given to two subjects, 'A' and 'B'"):
        Wordings(aliases={"A": ("Big Ben",), "B": ("Big Ben",)})
    with pytest.raises(SettingError, match="holds exactly one {answer}"):
        Wordings(reversed={"city": "the city of"})
    with pytest.raises(SettingError, match="number of prefixes of wordings must be 0 or more, got -1"):
        Wordings(prefixes=-1)
    with pytest.raises(SettingError, match="paraphrases that are read must be 0 or more"):
        LogitLens(paraphrases=-1)
    with pytest.raises(SettingError, match="got tokens=0"):
        TrainedLens(tokens=0)
    model = model_of("gpt2")
    with pytest.raises(InputError, match="3 prefixes were asked for, but the text has 1 sentences"):
        Wordings(prefixes=3, text="The birds waited near the water.").fit(model, PAIRS)
    with pytest.raises(InputError, match="at least two documents"):
        TrainedLens("One line alone.", keep=False).fit(model, PAIRS)
    with pytest.raises(InputError, match="needs at least .* tokens of text"):
        TrainedLens("a b\nc d", keep=False).fit(model_of("gpt2", n_embd=512), PAIRS)
    with pytest.raises(InputError, match="can read none of the 1 texts"):
        last_states(model, ["word " * 400])
