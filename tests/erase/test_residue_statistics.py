"""The residue AUC and the certificate on made tables, where the truth is planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.erase.residue import Column, Pair, Residue
from palimpsest.erase.residue.certificate import quantile_rank
from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER
from palimpsest.erase.residue.standard import Table, folds_of, maxima
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.statistics.ranking import auroc, auroc_estimate, compared_estimate

COLUMNS = (*(Column("logit lens", "prompt", l) for l in range(6)), *(Column("head", "prompt", 0, h) for h in range(6)))


def made(
    seed: int, *, facts: int = 60, residue: float = 0.0, at: int = 3, columns: tuple[Column, ...] = COLUMNS
) -> Residue:
    """Noise of an own place and size in every column; edited facts have `residue` more at one column after the edit."""
    draw = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for i in range(facts):
        fact = Fact(f"s{i}", "{} is in", "a", "b", id=f"f{i}", relation=f"r{i % 5}")
        pairs.append(Pair(fact, "a", ("c", "d"), EDITED, fact.id))
        pairs += [
            Pair(Fact(f"c{i}-{k}", "{} is in", "e", relation=fact.relation), "a", ("c",), SAME_ANSWER, fact.id)
            for k in range(4)
        ]
        other = Fact(f"u{i}", "{} is in", "a", id=f"u{i}", relation=fact.relation)
        pairs.append(Pair(other, "a", ("c",), NEVER_KNOWN, other.id))
    size, place = draw.lognormal(0, 2, len(columns)), draw.normal(0, 10, len(columns))
    edited = np.array([pair.group == EDITED for pair in pairs])

    def scores(plus: float) -> np.ndarray:
        noise = draw.standard_normal((len(pairs), len(columns)))
        noise[edited, at] += plus
        return noise * size + place

    return Residue(tuple(pairs), columns, scores(8.0), scores(residue))


def test_without_residue_the_auc_is_a_half_and_95_percent_are_certified() -> None:
    """Averaged over made tables: no maximum over columns, and no control compared with itself, may tilt either number."""
    several = [made(seed) for seed in range(30)]
    assert np.mean([found.auc().value for found in several]) == pytest.approx(0.5, abs=0.02)
    certified = [found.certificates() for found in several]
    for name in ("share", "controls", "unknown"):
        assert np.mean([getattr(one, name).value for one in certified]) == pytest.approx(0.95, abs=0.015), name
    assert np.mean([one.unedited.value for one in certified]) < 0.05


def test_the_interval_covers_a_half_where_there_is_nothing() -> None:
    covered = [not made(seed, facts=40).auc(seed=1).excludes(0.5) for seed in range(40)]
    assert np.mean(covered) >= 0.85


def test_planted_residue_is_found_and_named() -> None:
    found = made(1, residue=8.0, at=9)
    assert found.auc().value > 0.98
    assert found.auc(readouts=["head"]).value > 0.98
    assert found.auc(readouts=["logit lens"]).value < 0.65
    certificates = found.certificates()
    assert certificates.share.value < 0.05
    for certificate in certificates.facts:
        assert certificate.erased == (not certificate.shows)
    named = [certificate.shows[0] for certificate in certificates.facts if certificate.shows]
    assert np.mean([column == Column("head", "prompt", 0, 3) for column in named]) > 0.95
    assert "shows at" in str(next(one for one in certificates.facts if not one.erased))
    assert found.column_auc()[9] > 0.99
    assert found.column_auc()[2] == pytest.approx(0.5, abs=0.15)


def test_a_hole_is_seen_as_an_auc_below_a_half() -> None:
    """An answer pushed down at one column of one stays below its controls; the table says which side of 0.5 it is on."""
    assert made(2, residue=-8.0, at=0, columns=COLUMNS[:1]).auc().value < 0.02


def test_shares_by_fact_average_to_the_auc() -> None:
    found = made(3, residue=1.5)
    assert np.mean(found.shares()) == pytest.approx(found.auc().value, abs=1e-12)
    assert np.mean(found.shares(when="before")) == pytest.approx(found.auc(when="before").value, abs=1e-12)


@given(
    seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), shift=st.floats(-100.0, 100.0), column=st.integers(0, 11)
)
@settings(max_examples=6, deadline=None)
def test_units_of_columns_and_order_of_pairs_do_not_matter(seed: int, scale: float, shift: float, column: int) -> None:
    found = made(seed, facts=20, residue=2.0)
    changed = found.after.copy()
    changed[:, column] = changed[:, column] * scale + shift
    order = np.random.default_rng(seed).permutation(len(found.pairs))
    other = Residue(
        tuple(found.pairs[i] for i in order),
        found.columns,
        found.before[order],
        changed[order],
        settings=found.settings,
    )
    assert other.maximum() == pytest.approx(found.maximum()[order], rel=1e-6, abs=1e-6)
    assert other.auc().to_json()["value"] == pytest.approx(found.auc().value, abs=1e-9)
    mine = {one.fact: one.erased for one in found.certificates().facts}
    assert {one.fact: one.erased for one in other.certificates().facts} == mine


def test_standardising_by_hand() -> None:
    """One column: z of each pair is by mean and spread of the controls of all other folds."""
    found = made(4, facts=12, at=0, columns=COLUMNS[:2])
    controls, folds = found.group(SAME_ANSWER), folds_of(found.pairs)
    z = Table(found.after, controls, folds).z()
    for i in (0, 1, 17, 40):
        others = [found.after[j, 1] for j in range(len(found.pairs)) if controls[j] and folds[j] != folds[i]]
        assert z[i, 1] == pytest.approx((found.after[i, 1] - np.mean(others)) / np.std(others, ddof=1))
    subjects: dict[str, set[int]] = {}
    for pair, fold in zip(found.pairs, folds, strict=True):
        subjects.setdefault(pair.fact.subject, set()).add(int(fold))
    assert all(len(own) == 1 for own in subjects.values())


def test_missing_and_constant_columns_are_not_used() -> None:
    found = made(5, residue=8.0)
    after = found.after.copy()
    after[:, 0] = 1 / 3  # no spread
    after[found.group(SAME_ANSWER), 1] = np.nan  # no standard
    after[0, 2:] = np.nan  # an edited pair that can be read nowhere else
    holey = Residue(found.pairs, found.columns, found.before, after)
    assert np.isnan(holey.z()[:, :2]).all()
    assert np.isnan(holey.maximum()[0])
    assert np.isnan(holey.shares()[0])
    assert holey.auc().n == found.auc().n - 1
    unread, *others = holey.certificates().facts
    assert unread.erased is None
    assert "nothing can be said, for 0 controls" in str(unread)
    assert holey.certificates().share.n == len(others) == 59


def test_what_no_control_shows_counts() -> None:
    """A budget that no control meets: facts that meet it show, and a hundred equal controls standardise nothing away."""
    found = made(8, at=1, columns=COLUMNS[:2])
    after = found.after.copy()
    after[:, 0] = 0.0
    shown = [i for i, pair in enumerate(found.pairs) if pair.group == EDITED][:10]
    after[shown, 0] = 1.0
    planted = Residue(found.pairs, found.columns, found.before, after)
    z = planted.z()[:, 0]
    others = planted.group(SAME_ANSWER)
    n = int((others & (folds_of(found.pairs) != folds_of(found.pairs)[shown[0]])).sum())
    assert z[shown[0]] == pytest.approx(n / np.sqrt(n + 1))
    alone = np.array([0.0] * n + [1.0])
    assert z[shown[0]] == pytest.approx((1 - alone.mean()) / alone.std(ddof=1))
    assert set(z[others]) == {0.0}
    assert not any(one.erased for one in planted.certificates().facts[:10])
    assert planted.certificates().facts[0].shows[0] == COLUMNS[0]


@pytest.mark.parametrize("fewer", [EDITED, SAME_ANSWER])
def test_pairs_with_fewer_columns_are_compared_over_those(fewer: str) -> None:
    """Where nothing is to be found, neither many columns of facts nor of controls may look like residue or its absence."""
    values, shares = [], []
    for seed in range(16):
        found = made(seed)
        after = found.after.copy()
        some = np.flatnonzero(found.group(fewer))
        after[np.ix_(some[np.random.default_rng(seed).random(len(some)) < 0.8], range(2, 12))] = np.nan
        holey = Residue(found.pairs, found.columns, found.before, after)
        values.append(holey.auc().value)
        assert np.mean(holey.shares()) == pytest.approx(holey.auc().value, abs=1e-12)
        shares.append(holey.certificates().share.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)
    assert np.mean(shares) == pytest.approx(0.95, abs=0.015)


def test_control_tasks_never_enter_the_maximum() -> None:
    columns = (*COLUMNS[:4], Column("probe control", "last", 0))
    found = made(6, residue=50.0, at=4, columns=columns)
    assert found.auc().value < 0.65
    assert found.auc(readouts=["probe control"]).value > 0.99


def test_the_quantile_is_conformal() -> None:
    assert [quantile_rank(n, 0.95) for n in (19, 20, 39, 99)] == [19, 20, 38, 95]
    with pytest.raises(InputError, match="needs at least 19 controls"):
        quantile_rank(18, 0.95)
    with pytest.raises(SettingError, match="strictly between 0 and 1"):
        quantile_rank(100, 1.0)


def against(own: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """`Table.won` of rows and controls given, each of a fold of its own, in units of which all columns share one."""
    scores = np.concatenate([own, controls])
    which = np.arange(len(scores)) >= len(own)
    table = Table(scores, which, np.arange(len(scores)))
    return table.won(np.arange(len(own)), np.ones(scores.shape[1], dtype=bool))


def test_ties_count_half_and_holes_are_not_compared() -> None:
    controls = np.array([[1.0], [1.0], [3.0], [np.nan], *[[v] for v in (0.0, 2.0, 4.0, 5.0, 6.0)]])
    compared = against(np.array([[1.0], [2.0], [np.nan]]), controls)
    assert compared[:2, :3].tolist() == [[0.5, 0.5, 0.0], [1.0, 1.0, 0.0]]
    assert np.isnan(compared[2]).all()
    assert np.isnan(compared[:, 3]).all()
    assert np.isnan(maxima(np.array([[np.nan, np.nan]])))[0]


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_budget_that_few_controls_meet_tilts_nothing(rate: float) -> None:
    """Equal scores are equal whatever fold they are in: 0.5 and no more than 5 % uncertified where there is nothing."""
    values, shares = [], []
    for seed in range(24):
        found = made(seed, facts=40, at=0, columns=COLUMNS[:1])
        after = (np.random.default_rng(seed).random(found.after.shape) < rate).astype(float)
        after[-1] = 1.0  # else there is nothing to read where nobody meets it
        rare = Residue(found.pairs, found.columns, found.before, after)
        values.append(rare.auc().value)
        shares.append(rare.certificates().share.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)
    assert np.mean(shares) >= 0.94


def test_what_is_equal_to_nearly_all_controls_does_not_show() -> None:
    found = made(1, facts=40, at=0, columns=COLUMNS[:1])
    after = np.zeros_like(found.after)
    after[np.flatnonzero(found.group(SAME_ANSWER))[7]] = 1.0
    rare = Residue(found.pairs, found.columns, found.before, after)
    assert all(one.erased for one in rare.certificates().facts)
    assert rare.auc().value == pytest.approx(0.5 - 0.5 / 160)


def test_a_certificate_says_at_how_many_columns_it_was_read() -> None:
    found = made(9, residue=50.0, at=0)
    whole = found.certificates().facts[0]
    assert (whole.erased, whole.read, whole.as_much, whole.shows[0]) == (False, 12, 0, COLUMNS[0])
    after = found.after.copy()
    after[0, :11] = np.nan
    less = Residue(found.pairs, found.columns, found.before, after).certificates().facts[0]
    assert less.read == 1
    assert "of 1 columns" in str(less) or "at 1 columns" in str(less)
    after[found.group(SAME_ANSWER)] = np.nan
    after[np.flatnonzero(found.group(SAME_ANSWER))[:200]] = found.after[np.flatnonzero(found.group(SAME_ANSWER))[:200]]
    after[0] = np.nan
    nothing = Residue(found.pairs, found.columns, found.before, after).certificates().facts[0]
    assert nothing.erased is None
    after[found.group(EDITED)] = np.nan
    with pytest.raises(InputError, match="needs at least 19 controls .* got 0"):
        Residue(found.pairs, found.columns, found.before, after).certificates()


def test_compared_estimate_is_auroc_where_all_can_be_compared() -> None:
    """And where some cannot, it is the mean of what can, whatever the order of the cells."""
    draw = np.random.default_rng(0)
    scores, right = draw.standard_normal(60), draw.random(60) < 0.4
    clusters = np.array([f"r{i % 4}/s{i // 2}" for i in range(60)])
    order = np.concatenate([np.flatnonzero(right), np.flatnonzero(~right)])
    compared = (scores[right][:, None] > scores[~right][None, :]).astype(float)
    labels = [tuple(label.split("/")) for label in clusters[order]]
    found = compared_estimate(compared, labels, scores[order], resamples=200, seed=3)
    plain = auroc_estimate(scores[order], right[order], labels, resamples=200, seed=3)
    assert (found.value, found.n, found.clusters) == (pytest.approx(plain.value), plain.n, plain.clusters)
    assert (found.low, found.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    compared[0, 1:] = np.nan
    compared[1] = np.nan
    holey = compared_estimate(compared, labels, scores[order], resamples=200, seed=3)
    assert holey.value == pytest.approx(np.mean([compared[0, 0], *compared[2:].mean(1)]))
    assert holey.n == 59


def test_auroc_estimate_is_auroc_of_the_resampled_records() -> None:
    """Against the plain way: copy every record as often as it is drawn, and take the AUROC."""
    from palimpsest.statistics.hierarchy import arrange

    draw = np.random.default_rng(0)
    scores, right = draw.integers(0, 8, 60).astype(float), draw.random(60) < 0.4
    clusters = [(f"r{i % 4}", f"s{i // 2}") for i in range(60)]
    rows = arrange(np.stack([scores, right.astype(float)], axis=1), clusters).resampled_rows(200, 3)
    plain = np.sort([auroc(block[:, 0], block[:, 1]) for block in rows])
    found = auroc_estimate(scores, right, clusters, resamples=200, seed=3)
    assert found.value == auroc(scores, right)
    assert found.low == pytest.approx(min(plain[4], found.value))
    assert found.high == pytest.approx(max(plain[-5], found.value))
    assert (found.n, found.clusters) == (60, 4)


def test_mistakes() -> None:
    found = made(7, facts=3)
    with pytest.raises(SettingError, match="no controls 'same answers'.*same answer"):
        found.auc("same answers")
    with pytest.raises(SettingError, match="before or after the edit"):
        found.scores("later")
    with pytest.raises(SettingError, match="Nothing was read by 'lens'"):
        found.auc(readouts=["lens"])
    few = Residue(found.pairs[:5], found.columns, found.before[:5], found.after[:5])
    with pytest.raises(InputError, match="Standardising needs more than 5 controls"):
        few.auc()
    with pytest.raises(InputError, match="No pair of the group 'never known'"):
        few.auc("never known")
    assert few.to_json()["certificates"]["withheld"].startswith("Standardising needs")
    assert few.table()[0]["after, same answer"] == ""
