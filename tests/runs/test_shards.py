"""Shards: a partition of the plan, and merging them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError, OutputError, RecordError, SettingError
from palimpsest.runs import Plan, Run, Shard, merge

PLAN = Plan([f"fact-{index}" for index in range(11)], {"seed": 0})


def work(item):
    return {"length": len(item), "last": item[-1]}


def finish_whole(folder, plan=PLAN):
    with Run(folder, plan) as run:
        run.finish({"n": len(run.map(work))})
    return (folder / "samples.jsonl").read_bytes(), (folder / "results.json").read_bytes()


def finish_shard(folder, shard, plan=PLAN):
    with Run(folder, plan, shard=shard) as run:
        return run.map(work)


@settings(deadline=None)
@given(st.lists(st.integers(), unique=True, max_size=50), st.integers(1, 60))
def test_shards_are_a_partition_of_equal_parts_in_order(items, count):
    parts = [Shard(index, count).select(items) for index in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part == [item for item in items if item in part] for part in parts)


@settings(deadline=None)
@given(st.integers(1, 999), st.integers(0, 999))
def test_text_and_shard_are_the_same(index, more):
    shard = Shard(index, index + more)
    assert Shard.parse(str(shard)) == shard
    assert Shard.parse(shard) is shard


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "a/b", "1/2/3", "-1/2", "1.0/2", "٣/٤", None, 3])
def test_malformed_shards_are_refused(text):
    with pytest.raises(SettingError, match="written i/n, such as 2/5"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["0/2", "3/2", "0/0", "1/0"])
def test_shards_out_of_range_are_refused(text):
    with pytest.raises(SettingError, match=f"i from 1 to n, got {text}"):
        Shard.parse(text)


@pytest.mark.parametrize("count", [1, 3, 11, 13])
def test_merged_shards_equal_the_whole_run(tmp_path, count):
    whole = finish_whole(tmp_path / "whole")
    for index in range(count, 0, -1):
        finish_shard(tmp_path / "parts", f"{index}/{count}")
    records = merge(tmp_path / "parts")
    assert [record["id"] for record in records] == list(PLAN.items)
    with Run(tmp_path / "parts", PLAN) as run:
        assert run.remaining == []
        assert run.records == records
        run.finish({"n": len(records)})
    assert (
        (tmp_path / "parts" / "samples.jsonl").read_bytes(),
        (tmp_path / "parts" / "results.json").read_bytes(),
    ) == whole
    assert merge(tmp_path / "parts") == records


def test_shards_from_several_machines(tmp_path):
    whole = finish_whole(tmp_path / "whole")
    for index in (1, 2, 3):
        finish_shard(tmp_path / f"machine-{index}", f"{index}/3")
    merge(tmp_path / "all", [tmp_path / f"machine-{index}" for index in (1, 2, 3)])
    assert (tmp_path / "all" / "samples.jsonl").read_bytes() == whole[0]
    assert Plan.read(tmp_path / "all") == PLAN


def test_a_shard_sees_only_its_items(tmp_path):
    with Run(tmp_path, PLAN, shard="2/3") as run:
        assert run.total == 4
        assert run.remaining == ["fact-1", "fact-4", "fact-7", "fact-10"]
        with pytest.raises(InputError, match="'fact-0' is not in shard 2/3"):
            run.record("fact-0", {})
        with pytest.raises(SettingError, match="Shard 2/3 has no results of its own"):
            run.finish({})
    assert (tmp_path / "samples-2-of-3.jsonl").exists()
    assert not (tmp_path / "samples.jsonl").exists()


def test_shards_lock_apart_and_the_same_one_not_twice(tmp_path):
    first, second = Run(tmp_path, PLAN, shard="1/2"), Run(tmp_path, PLAN, shard="2/2")
    with first, second, pytest.raises(OutputError, match="at work on the same run"):
        Run(tmp_path, PLAN, shard="2/2")


def test_missing_items_are_named_with_the_shards_to_run(tmp_path):
    finish_shard(tmp_path, "1/3")
    with Run(tmp_path, PLAN, shard="2/3") as run:
        run.record("fact-1", work("fact-1"))
    with pytest.raises(
        InputError, match=r"6 of 11 items are missing \('fact-2', 'fact-4', 'fact-5' and 3 more\)"
    ) as caught:
        merge(tmp_path)
    assert "run --shard 2/3 and --shard 3/3." in str(caught.value)
    assert not (tmp_path / "samples.jsonl").exists()


def test_different_dealings_fit_as_long_as_records_agree(tmp_path):
    finish_shard(tmp_path, "1/2")
    finish_shard(tmp_path, "2/4")
    with pytest.raises(InputError, match="run the shards that hold them"):
        merge(tmp_path)
    finish_shard(tmp_path, "4/4")
    assert len(merge(tmp_path)) == 11
    finish_shard(tmp_path, "1/4")
    path = tmp_path / "samples-1-of-4.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"length": 6', b'"length": 7'))
    with pytest.raises(RecordError, match="Item 'fact-0' has one record in .* and another in"):
        merge(tmp_path)


def test_plans_that_differ_are_not_merged(tmp_path):
    finish_shard(tmp_path / "a", "1/2")
    finish_shard(tmp_path / "b", "2/2", Plan(PLAN.items, {"seed": 1}))
    with pytest.raises(SettingError, match="setting 'seed'"):
        merge(tmp_path / "a", [tmp_path / "b"])
    with pytest.raises(RecordError, match="holds no run"):
        merge(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="holds no run"):
        merge(tmp_path / "a", [tmp_path / "nowhere"])


def test_strangers_are_not_merged(tmp_path):
    finish_shard(tmp_path, "1/1")
    (tmp_path / "samples-1-of-2.jsonl").write_bytes(b'{"id": "stranger"}\n')
    with pytest.raises(RecordError, match="'stranger', which is not in the plan"):
        merge(tmp_path)
