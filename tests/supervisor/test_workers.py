"""What a parent hears of its workers."""

from __future__ import annotations

from lastcall.supervisor.workers import Worker


def test_a_heartbeat_in_time_is_news_at_first_and_behind_a_late_one() -> None:
    worker = Worker(1, 0, 1, 0, "")
    ages = [0.1, 0.2, 0.0, 0.25, 0.7, 1.2, 65.0, 0.1, 0.2]
    assert [worker.beat_is_news(age) for age in ages] == [True, False, False, False, True, True, True, True, False]
