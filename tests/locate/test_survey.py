"""Maps of many facts: the same numbers as one by one, nothing dropped, and the same bytes after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from families import byte_tokenizer
from oracles.small import model_of
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import lesion_facts, trace_facts
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.runs import load_results, load_samples

FACTS = (
    Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", id="eiffel", relation="city"),
    Fact("Japan", "The capital of {} is", "Tokyo", "Berlin", id="japan", relation="capital"),
    Fact("X", "{} is", "French", "Swiss", id="short", relation="language"),
    Fact("A very long name of many many tokens indeed, Ph.D.", "{} speaks", "French", "Swiss", id="long", relation="a"),
    Fact("Space Needle", "{}", "is", "was", id="whole", relation="b"),
    Fact("Danielle Darrieux", "The mother tongue of {} is", "French", "Swiss", id="darrieux", relation="language"),
)


@pytest.mark.parametrize("kind", ["state", "mlp"])
def test_facts_in_shared_batches_are_the_facts_one_by_one(kind: str) -> None:
    model = model_of("llama", dtype=torch.float64, tokenizer=byte_tokenizer(bos=True))
    made = Tracer.of(model, FACTS, kind=kind, window=2, samples=2, noise_level=1.0)
    together = made.each(model, FACTS)
    for fact, one in zip(FACTS, together, strict=True):
        (alone,) = made.each(model, [fact])
        assert not isinstance(one, Exception)
        assert not isinstance(alone, Exception)
        assert one.tokens == alone.tokens
        assert one.fact is fact
        np.testing.assert_allclose(one.log_p_patched, alone.log_p_patched, rtol=0, atol=1e-10)
        np.testing.assert_allclose(one.log_p_corrupted, alone.log_p_corrupted, rtol=0, atol=1e-10)


def test_the_padding_side_changes_nothing_in_shared_batches() -> None:
    net = model_of("gpt2").net
    found = []
    for side in ("left", "right"):
        model = pal.load(net, tokenizer=byte_tokenizer(padding_side=side), check=False)
        found.append(trace_facts(model, FACTS, samples=2, noise_level=1.0))
    assert found[0] == found[1]


def test_a_fact_that_cannot_be_traced_stops_no_other_and_is_named() -> None:
    model = model_of("gpt2", n_positions=64)
    long = Fact("Japan", "The capital of {} is " + "so " * 80, "Tokyo", "Berlin", id="too long")
    found = trace_facts(model, [FACTS[0], long, FACTS[1]], samples=1, noise_level=1.0)
    assert [record["id"] for record in found.maps("state")] == ["state/eiffel", "state/japan"]
    assert list(found.failed) == ["state/too long"]
    assert "at most 64" in found.failed["state/too long"]
    assert found.unknown == ["eiffel", "japan"]
    assert found.summary()["failed"] == found.failed
    assert "None of the 2 maps" in found.summary()["averages"]["state"]["withheld"]


def test_known_facts_are_averaged_and_unknown_ones_kept_apart() -> None:
    model = model_of("gpt2")
    swapped = [Fact(f.subject, f.prompt, f.target_new, f.target_true, id=f"{f.id} swapped") for f in FACTS]
    found = trace_facts(model, [*FACTS, *swapped], samples=1, noise_level=1.0, gate="foil")
    assert len(found.unknown) == len(FACTS)  # of two answers one is likelier
    profile = found.average("state")
    assert set(profile.unknown) == set(found.unknown)
    assert profile.n == len(FACTS)
    known = [record for record in found.maps("state") if record["known"]]
    last = np.mean([record["effect"][-1] for record in known], axis=0)
    np.testing.assert_allclose(profile.line("last")[0], last)


def test_a_killed_survey_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    settings: dict[str, Any] = {"kinds": ("state", "attn"), "samples": 2, "noise_level": 1.0}
    whole = trace_facts(model, FACTS, out=tmp_path / "whole", **settings)
    calls = []
    original = Tracer.each

    def killed(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Tracer, "each", killed)
    with pytest.raises(KeyboardInterrupt):
        trace_facts(model, FACTS, out=tmp_path / "cut", **settings)
    monkeypatch.setattr(Tracer, "each", original)
    lines = (tmp_path / "cut" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    assert 0 < len(lines) < 2 * len(FACTS)
    (tmp_path / "cut" / "samples.jsonl").write_bytes(b"".join(lines[:-2]))  # and the last chunk only in part
    again = trace_facts(model, FACTS, out=tmp_path / "cut", **settings)
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert again == whole
    assert load_results(tmp_path / "cut")["unknown"] == whole.unknown
    assert len(load_samples(tmp_path / "cut")) == 2 * len(FACTS)
    for name, other in (("samples", 3), ("layers", [0]), ("spread_of", FACTS[:2]), ("batch_tokens", 77)):
        with pytest.raises(SettingError, match="pool" if name == "spread_of" else name):
            trace_facts(model, FACTS, out=tmp_path / "cut", **(settings | {name: other}))


def test_a_map_that_is_not_finite_is_a_failure_with_its_reason() -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        next(iter(model.anatomy.layers[1].block.module.parameters())).fill_(float("nan"))
    found = trace_facts(model, FACTS[:1], samples=1, noise_level=1.0)
    assert "not finite" in found.failed["state/eiffel"]


def test_in_memory_and_on_disk_agree(tmp_path: Path) -> None:
    model = model_of("gpt2")
    one = lesion_facts(model, FACTS[:2], by="noise", samples=2, noise_level=1.0)
    other = lesion_facts(model, FACTS[:2], by="noise", samples=2, noise_level=1.0, out=tmp_path)
    assert one == other
    assert one.maps("state")[0]["what"] == "lesion effect"


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int, str]] = []
    trace_facts(
        model_of("gpt2"),
        FACTS,
        samples=1,
        noise_level=1.0,
        progress=lambda *step: seen.append(step),
        kinds=("state", "mlp"),
    )
    assert seen[-1][:2] == (12, 12)


def test_mistakes() -> None:
    model = model_of("gpt2")
    with pytest.raises(InputError, match="no facts"):
        trace_facts(model, [])
    with pytest.raises(InputError, match="Two facts have the id 'eiffel'"):
        trace_facts(model, [FACTS[0], FACTS[0]], noise_level=1.0)
    with pytest.raises(SettingError, match="Did you mean 'state'"):
        trace_facts(model, FACTS[:1], samples=1, noise_level=1.0).maps("sate")
