"""The reports of several workers as one, and their progress as one line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.messages import Progress
from lastcall.drain.report import Cut, StopReport
from lastcall.supervisor.report import WorkerEnd, merged, progress_of

CUT = Cut("stream", "cancelled", "GET", "/events", 12.0, "CANCELLING", 100, "127.0.0.1:5")


def report(**fields: object) -> dict[str, object]:
    return StopReport("SIGTERM", 0, 1.0, **{"lifespan": "complete", **fields}).as_dict()  # type: ignore[arg-type]


def test_sums_and_longest_times() -> None:
    ends = [
        WorkerEnd(1, 0, 0, report(in_flight={"request": 2}, finished=2, phases={"DRAINING": 0.5}), moved=3),
        WorkerEnd(
            2,
            1,
            0,
            report(
                in_flight={"request": 1, "stream": 1},
                finished=1,
                cancelled=1,
                cut=(CUT,),
                phases={"DRAINING": 0.2, "CLOSING": 1.0},
            ),
            moved=1,
        ),
    ]
    found = merged("SIGTERM", 0, 2.5, ends)
    assert found.in_flight == {"request": 3, "stream": 1}
    assert (found.finished, found.cancelled, found.moved) == (3, 1, 4)
    assert found.phases == {"DRAINING": 0.5, "CLOSING": 1.0}
    assert found.cut == (CUT,)
    assert found.outcome == "stopped"
    document = json.loads(found.as_json())
    assert document["cut"][0]["path"] == "/events"
    assert [one["worker"] for one in document["workers"]] == [1, 2]
    assert (
        json.loads(found.as_draft() + ', "outcome": "watchdog", "exit_code": 1, "seconds": 3}')["outcome"] == "watchdog"
    )


def test_a_worker_without_a_word_is_lost_and_counts_in_no_sum() -> None:
    found = merged("SIGTERM", 5, 2.5, [WorkerEnd(1, 0, -9), WorkerEnd(2, 1, 0, report(finished=1))])
    assert found.outcome == "lost"
    assert found.finished == 1
    assert found.workers[0] == {"worker": 1, "slot": 0, "exit_code": -9, "outcome": "lost", "seconds": None}


def test_the_worst_lifespan_is_the_services() -> None:
    ends = [WorkerEnd(n, n, 4, report(lifespan=word)) for n, word in enumerate(("complete", "timed out", "complete"))]
    assert merged("SIGTERM", 4, 1.0, ends).lifespan == "timed out"


def test_where_no_worker_has_said_how_its_lifespan_ended_it_was_not_started_or_is_lost() -> None:
    assert merged("SIGTERM", 0, 1.0, [WorkerEnd(1, 0, 0), WorkerEnd(2, 1, 0)]).lifespan == "not started"
    assert merged("SIGTERM", 1, 1.0, [WorkerEnd(1, 0, 1), WorkerEnd(2, 1, 1)]).lifespan == "lost"


@given(st.lists(st.dictionaries(st.sampled_from(["request", "stream"]), st.integers(1, 9)), max_size=5))
def test_each_entry_is_counted_once_however_they_are_spread(flights: list[dict[str, int]]) -> None:
    ends = [
        WorkerEnd(n, n, 0, report(in_flight=flight, finished=sum(flight.values()))) for n, flight in enumerate(flights)
    ]
    found = merged("SIGTERM", 0, 1.0, ends)
    assert found.total == found.finished == sum(sum(flight.values()) for flight in flights)


def task(name: str, age: float) -> dict[str, object]:
    return {"name": name, "kind": "stream", "age": age}


def test_progress_is_that_of_all_the_oldest_first() -> None:
    told = [
        Progress("CANCELLING", 1.0, 1, (task("GET /b", 5.0),)),
        Progress("DRAINING", 14.0, 2, (task("GET /a", 812.0), task("GET /c", 1.0))),
        Progress("CLOSING", 0.0, 0),
    ]
    found = progress_of(told)
    assert found is not None
    assert found.count == 3
    assert str(found).startswith("draining: 3 left in 2 workers, 14 s")
    assert [one.name for one in found.oldest] == ["GET /a", "GET /b", "GET /c"]


def test_progress_without_an_end_and_without_work() -> None:
    assert "no limit" in str(progress_of([Progress("DRAINING", None, 1, ())]))
    assert progress_of([Progress("DRAINING", 3.0, 0)]) is None
    assert progress_of([]) is None
