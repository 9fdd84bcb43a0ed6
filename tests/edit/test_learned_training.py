"""Learning lowers the loss of subjects it never saw, goes on after a kill to the same bits, and names what is missing."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from learned_examples import facts, trained
from safetensors.torch import load_file

from oracles.small import FACTS, model_of
from palimpsest.edit.learned import Learned, Learning, train
from palimpsest.edit.learned.examples import LEAST, drawn, examples, needed, stays
from palimpsest.edit.learned.settings import settings_for
from palimpsest.errors import EditError, InputError, OutputError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import load
from palimpsest.world import made_world

METHODS = ["mend", "ke"]
FAST: dict[str, dict[str, Any]] = {
    "mend": {"rank": 8, "steps": 24, "edit_rate": 1e-3, "rate_rate": 3e-3},
    "ke": {"hidden": 16, "condition": 16, "steps": 24, "learning_rate": 1e-2, "margin": 1.0},
}


@pytest.mark.parametrize("method", METHODS)
def test_learning_lowers_the_loss_on_subjects_never_seen(method: str, tmp_path: Path) -> None:
    model = model_of("gpt2")
    before = model.fingerprint()
    card = Learned.load(model, trained(model, tmp_path, method, **FAST[method])).card
    assert model.fingerprint() == before
    history = card["history"]
    assert [entry["step"] for entry in history] == [0, 4, 8, 12, 16, 20, 24]
    best = min(history, key=lambda entry: entry["score"])
    assert best["nll"] < card["unedited"]["nll"] - 0.3
    assert best["score"] < history[0]["score"]
    assert card["unedited"]["kl"] == 0
    assert card["records"] == {"learning": 18, "validation": 6, "left_out": {}}


def test_a_training_that_must_end_early_keeps_its_best_validation(tmp_path: Path) -> None:
    model = model_of("gpt2")
    trained(model, tmp_path / "early", until=6)
    path = trained(model, tmp_path / "early", until=6, finish=True)
    assert path.name == "editor.safetensors"
    assert not (tmp_path / "early" / "training.safetensors").exists()
    history = Learned.load(model, path).card["history"]
    assert [entry["step"] for entry in history] == [0, 4]
    assert trained(model, tmp_path / "early") == path  # it is finished, and the same command does not go on
    whole = Learned.load(model, trained(model, tmp_path / "whole")).card["history"]
    assert history == whole[:2]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    model = model_of("gpt2")
    whole = trained(model, tmp_path / "whole", method, every=3)

    def kill(done: int, total: int, label: str) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(model, tmp_path / "killed", method, every=3, progress=kill)
    assert not (tmp_path / "killed" / "editor.safetensors").exists()
    stopped = trained(model, tmp_path / "killed", method, every=3, until=10)
    assert stopped.name == "training.safetensors"
    resumed = trained(model, tmp_path / "killed", method, every=3)
    assert resumed.read_bytes() == whole.read_bytes()
    assert not stopped.exists()
    calls: list[int] = []
    again = trained(model, tmp_path / "killed", method, every=3, progress=lambda done, total, label: calls.append(done))
    assert (again, calls) == (resumed, [])


@pytest.mark.slow
def test_a_kill_while_saving_leaves_the_old_check_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    point = trained(model, tmp_path, until=3, every=3)
    old = point.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            trained(model, tmp_path, every=3)
    assert point.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", point.name]
    finished = trained(model, tmp_path, every=3).read_bytes()
    assert finished == trained(model, tmp_path / "whole", every=3).read_bytes()


def test_check_points_of_another_training_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    model = model_of("gpt2")
    point = trained(model, tmp_path, until=2)
    with pytest.raises(EditError, match="of other records, settings or another model"):
        trained(model, tmp_path, seed=1)
    with pytest.raises(EditError, match="of other records, settings or another model"):
        trained(model_of("gpt2", seed=1), tmp_path)
    whole = bytearray(point.read_bytes())
    whole[-5] ^= 64
    point.write_bytes(whole)
    with pytest.raises(EditError, match="its numbers have changed"):
        trained(model, tmp_path)
    point.write_bytes(bytes(whole[:300]))
    with pytest.raises(EditError, match="is damaged"):
        trained(model, tmp_path)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    def second(done: int, total: int, label: str) -> None:
        with pytest.raises(OutputError, match="is at work on the same run"):
            trained(model_of("gpt2"), tmp_path, steps=1)

    assert trained(model_of("gpt2"), tmp_path, steps=1, progress=second).is_file()


def test_nothing_is_left_in_a_model_whose_weights_ask_for_gradients(tmp_path: Path) -> None:
    model = model_of("gpt2")
    quiet = trained(model, tmp_path / "a", steps=2).read_bytes()
    model.net.requires_grad_(True)
    assert trained(model, tmp_path / "b", steps=2).read_bytes() == quiet
    assert all(weight.requires_grad and weight.grad is None for weight in model.net.parameters())


def test_a_finished_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    model = model_of("gpt2")
    trained(model, tmp_path, steps=1)
    with pytest.raises(EditError, match="holds an editor of another training"):
        trained(model, tmp_path, steps=2)


def test_learning_stops_when_validation_does_not_become_better(tmp_path: Path) -> None:
    model = model_of("gpt2")
    settings = {"learning_rate": 0.5, "steps": 50, "validate_every": 2, "patience": 4, "edit_rate": 0.05}
    history = Learned.load(model, trained(model, tmp_path, **settings)).card["history"]  # so large a step spoils it
    best = min(history, key=lambda entry: entry["score"])
    assert history[-1]["step"] == best["step"] + 4 < 50


def test_three_records_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    model = model_of("gpt2")
    with pytest.raises(InputError, match=r"needs 25 usable records .* got 3 records of 3 subjects; give more") as error:
        train(model, facts(3), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "5 subjects to validate on, a share of 0.2, and a batch of 10" in str(error.value)
    with pytest.raises(
        InputError, match=r"got 0 records of 0 subjects \(3 more cannot be used: 3 with no paraphrase\)"
    ):
        train(model, FACTS, tmp_path)


def test_the_number_needed_is_enough_and_one_less_is_not() -> None:
    for batch, share in ((10, 0.2), (1, 0.5), (40, 0.3), (7, 0.13)):
        settings = Learning(batch=batch, validation=share)
        count = needed(settings)
        split = examples(facts(count), settings)
        assert len(split.validation) >= LEAST
        assert len(split.learning) >= batch
        with pytest.raises(InputError, match=f"needs {count} usable"):
            examples(facts(count - 1), settings)


def test_subjects_are_never_on_both_sides_and_reasons_are_counted() -> None:
    doubled = [
        *facts(30),
        *(
            Fact(f.subject, "{} lies in", f.target_true, f.target_new, paraphrases=f.paraphrases, far=f.far)
            for f in facts(30)
        ),
        Fact("x", "{} is in", "a"),
        Fact("y", "{} is in", "a", "b", paraphrases=("q",)),
    ]
    split = examples(doubled, Learning())
    sides = [{fact.subject for fact in side} for side in (split.learning, split.validation)]
    assert not sides[0] & sides[1]
    assert (len(split.learning), len(split.validation)) == (48, 12)
    assert split.left_out == {"no target_new": 1, "no neighbour, same_subject or far prompt": 1}


def test_draws_take_every_record_once_in_each_pass() -> None:
    records = facts(12)
    seen = [fact.id for step in range(3) for fact, _, _ in drawn(records, 4, step, 0)]
    assert sorted(seen) == sorted(fact.id for fact in records)
    assert seen != [fact.id for step in range(3, 6) for fact, _, _ in drawn(records, 4, step, 0)]
    for fact, wording, probe in drawn(records, 12, 0, 0):
        assert wording in fact.paraphrases
        assert probe in stays(fact)
    assert drawn(records, 4, 7, 5) == drawn(records, 4, 7, 5) != drawn(records, 4, 7, 6)


def test_an_edited_model_is_not_learned_from(tmp_path: Path) -> None:
    model = model_of("gpt2")
    path = trained(model, tmp_path / "a", steps=1)
    edit = Learned.load(model, path).edit(FACTS[:1])
    with edit.applied(model), pytest.raises(EditError, match="undo it, so that the editor learns from the base"):
        trained(model, tmp_path / "b")


def test_a_loss_that_is_not_finite_ends_learning(tmp_path: Path) -> None:
    with pytest.raises(EditError, match="not finite; lower"):
        trained(model_of("gpt2"), tmp_path, edit_rate=1e38)


@pytest.mark.parametrize(
    ("method", "preset", "settings", "message"),
    [
        ("mnd", "fixed", {}, "Did you mean 'mend'"),
        ("mend", "mend-2023", {}, "Did you mean 'mend-2022'"),
        ("mend", "fixed", {"rnk": 3}, "Did you mean 'rank'"),
        ("mend", "fixed", {"rank": 0}, "rank must be a whole number of 1 or more"),
        ("ke", "fixed", {"maps": "all"}, "maps is one of mlp and down"),
        ("ke", "fixed", {"margin": -1.0}, "margin must be 0 or more"),
        ("ke", "fixed", {"validation": 0.9}, "share above 0 and at most 0.5"),
        ("mend", "fixed", {"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ("mend", "fixed", {"patience": 0}, "patience must be a whole number"),
    ],
)
def test_mistakes_of_settings(method: str, preset: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        settings_for(method, preset, settings)


def test_the_published_presets_have_the_published_numbers() -> None:
    mend, ke = settings_for("mend", "mend-2022", {}), settings_for("ke", "ke-2021", {})
    assert (mend.rank, mend.edit_rate, mend.learning.learning_rate) == (1920, 1e-4, 1e-6)  # type: ignore[union-attr]
    assert (mend.learning.edit_weight, mend.learning.locality_weight, mend.learning.rate_rate) == (0.1, 1.0, 1e-4)
    assert (ke.hidden, ke.condition, ke.margin, ke.least_margin) == (128, 1024, 1e-3, 1e-5)  # type: ignore[union-attr]
    assert ke.learning.learning_rate == 3e-4


WORKER = """
import sys
sys.path[:0] = sys.argv[2:]
import torch
from learned_examples import trained
from oracles.small import model_of
trained(model_of("gpt2"), sys.argv[1], steps=4)
"""


@pytest.mark.slow
def test_two_processes_learn_the_editor_of_one(tmp_path: Path) -> None:
    alone = load_file(trained(model_of("gpt2"), tmp_path / "one", steps=4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "two"), *paths],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    shared = load_file(tmp_path / "two" / "editor.safetensors")
    assert shared.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=2e-4)


def test_ranks_that_are_no_numbers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="RANK must be a number below WORLD_SIZE, got '3' and '2'"):
        trained(model_of("gpt2"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "steps"), [("mend", 12), ("ke", 16)])
def test_in_the_made_world_a_few_steps_already_teach_new_subjects(method: str, steps: int, tmp_path: Path) -> None:
    model = load("world", check=False)
    records = [fact for fact in made_world().records() if fact.target_true and fact.target_new][::14]
    settings = {"batch": 4, "validation": 0.1, "steps": steps, "validate_every": steps, "edit_weight": 1.0}
    path = train(model, records, tmp_path, method=method, **settings)
    card = Learned.load(model, path).card
    assert card["history"][-1]["nll"] < card["unedited"]["nll"] - 0.3
