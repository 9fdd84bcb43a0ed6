"""Roles of tokens, averages over facts, and what is read off them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import palimpsest as pal
from oracles.small import FACTS, model_of
from palimpsest.errors import InputError, SettingError
from palimpsest.locate import average, decisive_by_length, decisive_roles, roles_of, separability, share_of_total
from palimpsest.locate.tracing.controls import against_other_layers, against_random_sites
from palimpsest.locate.tracing.roles import ROLES, RoleProfile


def record(effect: Any, subject: tuple[int, int], **others: Any) -> dict[str, Any]:
    """A map as it is read back from a file."""
    effect = np.array(effect, dtype=float)
    name = others.pop("subject_text", "someone")
    fact = {"id": others.pop("id", name), "relation": others.pop("relation", "r"), "subject": name}
    usual = {
        "fact": fact,
        "known": True,
        "tokens": ["x"] * len(effect),
        "subject": list(subject),
        "layers": list(range(effect.shape[1])),
        "what": "indirect effect",
        "score": "probability",
        "clean": 0.9,
        "corrupted": 0.1,
        "total_effect": 0.8,
        "withheld": "",
        "effect": effect.tolist(),
        "settings": {"kind": "state"},
        "also": {},
    }
    return usual | others


@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5))
def test_every_token_has_one_role(before: int, subject: int, after: int) -> None:
    roles = roles_of(before + subject + after, (before, before + subject))
    assert len(roles) == before + subject + after
    assert roles[-1] == "last"
    assert roles.count("before") == before
    assert list(dict.fromkeys(roles)) == [role for role in ROLES if role in roles]
    assert roles.count("last subject") == (after > 0)
    assert roles.count("first subject") == (subject > 1)
    assert roles.count("middle subject") == max(0, subject - 2)
    assert roles.count("next") == (after > 1)
    assert roles.count("further") == max(0, after - 2)
    assert set(roles) <= set(ROLES)


def test_averages_are_means_over_facts_of_means_over_tokens() -> None:
    one = record([[0, 0], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], (1, 4), subject_text="a")  # middle: (3, 4)
    other = record([[2, 2], [4, 4], [6, 6], [9, 11]], (0, 3), subject_text="b")  # middle: (4, 4); no next
    found = average([one, other], label="made")
    assert found.roles == ["first subject", "middle subject", "last subject", "next", "last"]
    assert found.line("first subject")[0].tolist() == [1.5, 2]
    assert found.line("middle subject")[0].tolist() == [3.5, 4]
    assert found.line("next")[0].tolist() == [7, 8]
    assert found.line("last")[0].tolist() == [9, 10.5]
    assert found.n == 2
    assert found.total_effect is not None
    assert found.total_effect.value == pytest.approx(0.8)
    assert found.cells["next", 0].n == 1
    stored = found.to_json()
    assert stored["facts_with_role"]["next"] == 1
    assert stored["roles"]["last"]["mean"] == [9, 10.5]
    assert RoleProfile.from_json(stored).to_json() | {"clusters": 0} == stored | {"clusters": 0}


def test_pooled_averages_count_every_token_once() -> None:
    one = record([[1], [2], [6], [0], [0]], (0, 4), subject_text="a")  # two middle tokens: 2, 6
    other = record([[1], [10], [0], [0]], (0, 3), subject_text="b")  # one: 10
    assert average([one, other]).line("middle subject")[0][0] == 7
    assert average([one, other], pool="tokens").line("middle subject")[0][0] == 6
    with pytest.raises(SettingError, match="got 'words'"):
        average([one, other], pool="words")


def test_unknown_facts_are_named_and_not_averaged() -> None:
    maps = [record([[1], [2]], (0, 1), id="a"), record([[9], [9]], (0, 1), id="b", known=False)]
    found = average(maps)
    assert found.unknown == ("b",)
    assert found.line("last")[0].tolist() == [2]
    with pytest.raises(InputError, match="None of the 1 maps"):
        average(maps[1:])


def test_maps_that_differ_in_layers_are_not_averaged() -> None:
    with pytest.raises(InputError, match="agree in layers"):
        average([record([[1], [2]], (0, 1)), record([[1, 2], [2, 3]], (0, 1))])
    with pytest.raises(InputError, match='agree in kind, got "mlp", "state"'):
        average([record([[1], [2]], (0, 1)), record([[1], [2]], (0, 1), settings={"kind": "mlp"})])


def test_another_score_is_averaged_where_the_maps_have_it() -> None:
    also = {"log-probability": {"score": "log-probability", "effect": [[3], [4]], "total_effect": 5.0, "withheld": ""}}
    found = average([record([[1], [2]], (0, 1), also=also)], score="log-probability")
    assert found.score == "log-probability"
    assert found.line("last")[0].tolist() == [4]
    with pytest.raises(InputError, match="has no logit-difference"):
        average([record([[1], [2]], (0, 1), also=also)], score="logit-difference")


def test_decisive_roles_are_counted_with_wilsons_interval() -> None:
    early = record([[0, 0], [5, 1], [0, 0], [0, 9]], (1, 2))
    late = record([[0, 0], [0, 1], [3, 0], [0, 9]], (1, 2))
    shares = decisive_roles([early, early, early, late])
    assert shares["last subject"].value == 0.75
    assert shares["next"].value == 0.25
    assert "last" not in shares
    assert 0.3 < shares["last subject"].low < 0.75 < shares["last subject"].high < 1
    assert decisive_roles([early, late], read_out=True)["last"].value == 1
    small = record([[0], [5], [0]], (1, 2), withheld="too small")
    alone = record([[5]], (0, 1))
    assert decisive_roles([early, small, alone])["last subject"].n == 1
    with pytest.raises(InputError, match="None of the 2 known facts"):
        decisive_roles([small, alone])


def test_decisive_roles_are_told_apart_by_subject_length() -> None:
    one = record([[5], [0], [0], [9]], (0, 1))
    three = record([[0], [5], [0], [0], [9]], (0, 3))
    shares = decisive_by_length([one, one, three])
    assert list(shares) == ["1", "3 or more"]
    assert shares["1"]["last subject"].value == 1
    assert shares["1"]["last subject"].n == 2
    assert shares["3 or more"]["middle subject"].value == 1


def test_tokens_before_the_subject_are_averaged_where_something_has_an_effect() -> None:
    assert average([record([[0], [5], [1]], (1, 2))]).roles == ["last subject", "last"]
    assert average([record([[2], [5], [1]], (1, 2))]).roles == ["before", "last subject", "last"]


def test_separability_tells_two_sites_from_one() -> None:
    two = [record([[4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]], (0, 1), subject_text=name) for name in "abc"]
    one = [record([[0, 4, 0, 0], [0, 0, 0, 0], [0, 4, 0, 0]], (0, 1), subject_text=name) for name in "abc"]
    assert separability(two)["depth difference"].value == pytest.approx(1)
    assert separability(two)["overlap"].value == 0
    assert separability(one)["depth difference"].value == pytest.approx(0)
    assert separability(one)["overlap"].value == pytest.approx(1)
    ends = record([[4, 0], [0, 4]], (0, 2))
    assert separability([*two, ends])["overlap"].n == 3
    with pytest.raises(InputError, match="No fact"):
        separability([ends])


def test_ratios_leave_out_small_total_effects_and_say_so() -> None:
    good = record([[4, 2], [0, 0], [1, 1]], (0, 1), total_effect=8.0, id="good")
    small = record([[4, 2], [0, 0], [1, 1]], (0, 1), total_effect=0.001, id="small", withheld="too small")
    share, out = share_of_total([good, small], "last subject", [0, 1])
    assert share.value == pytest.approx(3 / 8)
    assert out == ["small: too small"]


def test_controls_compare_named_layers_with_others_and_with_random_sites() -> None:
    planted = [
        record(
            np.array([[0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]) + 0.01 * i, (0, 1), subject_text=str(i), relation="r"
        )
        for i in range(12)
    ]
    assert against_other_layers(planted, "last subject", [1]).value == pytest.approx(5)
    gap, p = against_random_sites(planted, "last subject", [1])
    assert gap.value > 3
    assert p == 1 / 200
    wrong, p = against_random_sites(planted, "next", [1])
    assert wrong.value < 0
    assert p > 0.5
    for control in (against_other_layers, against_random_sites):
        with pytest.raises(InputError, match=r"got \[9\]"):
            control(planted, "last subject", [9])
    with pytest.raises(InputError, match="not all"):
        against_other_layers(planted, "last subject", range(4))


def test_a_role_that_is_high_everywhere_does_not_make_its_layers_special() -> None:
    flat = [record([[0] * 8, [0] * 8, [0.5] * 8], (0, 1), subject_text=str(i)) for i in range(12)]
    assert against_other_layers(flat, "last", [3, 4]).value == 0
    assert against_random_sites(flat, "last", [3, 4])[1] > 0.2  # a third of the draws have the same role


def test_real_maps_average_like_what_is_read_back(tmp_path: Any) -> None:
    import json

    model = model_of("gpt2")
    maps = [pal.trace(model, fact, samples=2, noise_level=1.0, answer=None) for fact in FACTS]
    records = []
    for i, one in enumerate(maps):
        one.save(str(tmp_path / f"{i}.json"))
        records.append(json.loads((tmp_path / f"{i}.json").read_text("utf-8")) | {"known": True})
    found = average(records)
    last = np.mean([one.effect[-1] for one in maps], axis=0)
    np.testing.assert_allclose(found.line("last")[0], last)
