"""Error texts for a Kafka cluster that attn cannot use."""

from __future__ import annotations

from streams.kafka.diagnostics import Partition, find_problems


def partitions(count: int, leader: int = 1, in_sync: tuple[int, ...] = (1, 2, 3), needed: int = 2) -> list[Partition]:
    return [Partition(f"attn.log/{number}", leader, (1, 2, 3), in_sync, needed) for number in range(count)]


def test_no_problem_is_reported_while_all_replicas_are_in_sync() -> None:
    assert find_problems(partitions(8), {1, 2, 3}) == []
    assert find_problems([], set()) == []


def test_one_missing_broker_is_no_problem_while_enough_replicas_are_in_sync() -> None:
    assert find_problems(partitions(2, in_sync=(1, 2)), {1, 2}) == []


def test_too_few_in_sync_replicas_for_min_insync_replicas_are_reported() -> None:
    assert find_problems(partitions(1, in_sync=(1, 2), needed=3), {1, 2}) == [
        "broker 3 of 3 unreachable",
        "attn.log/0 with 2 of 3 replicas in sync, 3 needed to write (min.insync.replicas)",
    ]


def test_two_missing_brokers_of_three_are_reported() -> None:
    """The list of in-sync replicas is outdated: without a controller no broker can change it."""
    assert find_problems(partitions(5), {1}) == [
        "brokers 2, 3 of 3 unreachable",
        "attn.log/0, attn.log/1, attn.log/2 and 2 more with 1 of 3 replicas in sync, 2 needed to write "
        "(min.insync.replicas)",
    ]


def test_partitions_with_a_dead_leader_or_none_are_problems() -> None:
    assert find_problems(partitions(1, leader=2), {1, 3})[1:] == ["attn.log/0 without a leader"]
    assert find_problems(partitions(1, leader=-1), {1, 2, 3}) == ["attn.log/0 without a leader"]
