"""Starts, crashes, back-off, neighbours, liveness: what becomes of workers without an order."""

from __future__ import annotations

import math

import pytest

from lastcall.drain.ladder import Budgets
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.life import REPORTS, TRANSITIONS, Cue, Life, Worker
from lastcall.supervisor.policy import BACK_OFF_MOST, FleetPolicy, back_off
from testing.fleet import SIGKILL, SIGTERM, Sim, World


@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("cue", Cue)
def test_a_report_may_cross_an_order_and_an_order_that_cannot_be_is_a_bug(life: Life, cue: Cue) -> None:
    worker = Worker(1, 0, 1, FleetPolicy(), 0.0)
    worker.life = life
    if (life, cue) in TRANSITIONS:
        assert worker.take(cue)
        assert worker.life is TRANSITIONS[life, cue]
    elif cue in REPORTS:
        assert not worker.take(cue)
        assert worker.life is life
    else:
        with pytest.raises(KeyError):
            worker.take(cue)


# -- the first start ---------------------------------------------------------------------------------------------------


def test_the_first_ready_worker_accepts_from_all_slots_until_the_others_are_ready() -> None:
    world = World(FleetPolicy(count=3))
    first, second, third = world.sims.values()
    for sim in (first, second):
        world.deliver(sim)
        world.boot(sim)
        world.deliver(sim)
        world.deliver(sim)
        assert world.actions(do.SetAccepting)[-1].worker == sim.number
        world.deliver(sim)
    assert first.ordered == {0, 2}, "the second has its own"
    assert second.ordered == {1}
    world.settle()
    assert [sim.ordered for sim in (first, second, third)] == [{0}, {1}, {2}]
    assert [one.state for one in world.actions(do.Notify)] == ["READY"]


def test_nobody_accepts_before_it_is_checked() -> None:
    world = World(FleetPolicy())
    (sim,) = world.sims.values()
    world.deliver(sim)
    world.boot(sim)
    world.deliver(sim)
    assert world.actions(do.Smoke) == [do.Smoke(sim.number)]
    assert world.actions(do.SetAccepting) == []


@pytest.mark.parametrize("code", [2, 3])
def test_a_worker_that_cannot_start_stops_a_service_that_has_never_served_and_the_others_are_ended_first(
    code: int,
) -> None:
    world = World(FleetPolicy(count=3), lambda sim: str(code))
    first, second, third = world.sims.values()
    world.boot(first)
    assert world.actions(do.Kill) == [do.Kill(second.number, SIGTERM), do.Kill(third.number, SIGTERM)]
    assert world.left is None
    world.boot(second)
    world.boot(third)
    assert world.left == code


def test_one_of_them_that_does_not_end_is_abandoned() -> None:
    world = World(FleetPolicy(count=2), lambda sim: "3" if sim.slot == 0 else "hang")
    world.settle()
    world.pass_time(4.1)  # --timeout-cancel, the teardown and a second
    assert [one.signal for one in world.actions(do.Kill)] == [SIGTERM, SIGKILL]
    world.settle()
    assert world.left == 5


def test_a_process_that_cannot_be_made_and_a_first_smoke_check_that_fails_are_failed_starts() -> None:
    world = World(FleetPolicy())
    world.sims.clear()
    world.tell(on.SpawnFailed(1, "Too many open files"))
    assert world.left == 3
    assert any("Too many open files" in one.text for one in world.actions(do.Say))
    world = World(FleetPolicy(), lambda sim: "smoke")
    world.settle()
    assert world.left == 3
    assert any("GET /docs: 500" in one.text for one in world.actions(do.Say))


def test_a_death_of_another_kind_in_the_first_start_is_tried_again() -> None:
    world = World(FleetPolicy(), lambda sim: "1" if sim.number == 1 else "")
    world.settle()
    assert world.sims == {}
    world.pass_time(0.2)
    world.settle()
    assert world.generations == {0: 1}


def test_a_boot_that_takes_too_long_says_what_it_hangs_in() -> None:
    world = World(FleetPolicy(timeout_boot=10.0), lambda sim: "hang")
    world.settle()
    world.pass_time(9.9)
    assert world.actions(do.Kill) == []
    world.pass_time(0.2)
    assert world.actions(do.WriteStacks) == [do.WriteStacks(1)]
    world.pass_time(5.0)
    assert [one.signal for one in world.actions(do.Kill)] == [SIGTERM, SIGKILL]
    world.settle()
    assert world.left == 5, "it was abandoned"


def test_a_stop_in_the_very_first_start_is_a_stop_as_asked() -> None:
    world = World(FleetPolicy(count=2))
    world.deliver(next(iter(world.sims.values())))
    world.stop()
    assert {one.signal for one in world.actions(do.Kill)} == {SIGTERM}
    assert world.actions(do.ShutDoor) == [], "nobody has listened yet"
    world.settle()
    assert world.left == 0


@pytest.mark.parametrize("how", ["3", "smoke"])
def test_why_a_start_or_a_reload_failed_is_said_once(how: str) -> None:
    world = World(FleetPolicy(count=2), lambda sim: how if sim.generation == 2 or sim.number > 2 else "")
    world.settle()
    world.reload()
    world.settle()
    lines = [one.text for one in world.actions(do.Say) if "worker 3" in one.text]
    assert len(lines) == 1
    assert lines[0].startswith("Reload failed: worker 3")
    world = World(FleetPolicy(), lambda sim: how)
    world.settle()
    assert len([one for one in world.actions(do.Say) if one.level == 40]) == 1


# -- crashes -----------------------------------------------------------------------------------------------------------


def service(**options: object) -> World:
    """A service that has served for a while."""
    behaviour = options.pop("behaviour", lambda sim: "")
    world = World(FleetPolicy(**options), behaviour)  # type: ignore[arg-type]
    world.settle()
    world.pass_time(60.0)
    return world


def test_a_worker_that_dies_has_a_successor_at_once_and_a_neighbour_meanwhile() -> None:
    world = service(count=2)
    dead, other = world.holder(0), world.holder(1)
    mark = world.mark()
    world.die(dead, -9)
    assert world.since(mark, do.SetAccepting) == [do.SetAccepting(other.number, (0, 1))]
    assert [one.slot for one in world.since(mark, do.Spawn)] == [0]
    world.settle()
    assert world.since(mark, do.SetAccepting)[-1] == do.SetAccepting(other.number, (1,)), "it gives the slot back"
    assert world.generations == {0: 1, 1: 1}


def test_early_deaths_have_an_exponential_back_off_and_late_ones_none() -> None:
    world = service(behaviour=lambda sim: "1" if 2 <= sim.number <= 9 else "")
    world.die(world.holder(0))
    waits = []
    world.settle()
    while not world.sims:
        waits.append(round(world.fleet.next_deadline() - world.now, 6))
        world.pass_time(waits[-1] + 0.001)
        world.settle()
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, BACK_OFF_MOST, BACK_OFF_MOST]
    assert world.generations == {0: 1}
    world.pass_time(60.0)
    mark = world.mark()
    world.die(world.holder(0))
    assert len(world.since(mark, do.Spawn)) == 1, "it has lived for long enough: at once"


def test_the_back_off_doubles_from_a_tenth_of_a_second_to_five() -> None:
    assert [back_off(n) for n in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert back_off(10**6) == 5.0


def test_a_death_within_five_seconds_of_ready_is_early() -> None:
    world = World(FleetPolicy())
    world.settle()
    world.pass_time(4.0)
    mark = world.mark()
    world.die(world.holder(0))
    assert world.since(mark, do.Spawn) == []
    assert math.isclose(world.fleet.next_deadline() - world.now, 0.1)
    world.pass_time(0.11)
    assert len(world.since(mark, do.Spawn)) == 1


def test_a_successor_that_cannot_start_stops_nothing_once_the_service_has_served() -> None:
    world = service(count=2, behaviour=lambda sim: "3" if sim.number == 3 else "")
    world.die(world.holder(0))
    world.settle()
    assert world.left is None
    assert world.attendants(0) == [world.holder(1).number]
    assert "slot 0 has no worker" in world.status["degraded"][0]
    world.pass_time(1.0)
    world.settle()
    assert world.status["degraded"] == []


def test_the_smoke_checks_of_a_crashed_workers_successor_count_too() -> None:
    world = service(count=2, behaviour=lambda sim: "smoke" if sim.number == 3 else "")
    world.die(world.holder(0))
    world.settle()
    assert [one.cause for one in world.actions(do.Retire)] == ["smoke"], "its lifespan is shut down"
    world.pass_time(1.0)
    world.settle()
    assert world.holder(0).number == 4


# -- liveness ----------------------------------------------------------------------------------------------------------


def test_a_late_heartbeat_brings_a_neighbour_and_a_heartbeat_gives_the_slot_back() -> None:
    world = service(count=2)
    late, other = world.holder(0), world.holder(1)
    world.measure(late, 0.9)
    assert other.ordered == {1}
    world.measure(late, 1.1)
    assert other.ordered == {0, 1}
    assert late.ordered == {0}, "it is not told anything: it would not hear it"
    world.measure(late, 0.1)
    assert other.ordered == {1}


def test_when_all_are_late_nobody_stands_in() -> None:
    world = service(count=2)
    mark = world.mark()
    for sim in list(world.sims.values()):
        world.measure(sim, 3.0)
    last = world.since(mark, do.SetAccepting)
    for sim in list(world.sims.values()):
        world.measure(sim, 3.5)
    assert world.since(mark, do.SetAccepting) == last


def test_a_stalled_worker_is_replaced_with_its_stacks_and_two_signals() -> None:
    world = service(count=2)
    stalled = world.holder(0)
    mark = world.mark()
    world.stall(stalled, 60.0)
    assert world.since(mark, do.WriteStacks) == [do.WriteStacks(stalled.number)]
    assert world.since(mark, do.Kill) == [do.Kill(stalled.number, SIGTERM)]
    assert [one.slot for one in world.since(mark, do.Spawn)] == [0], "its successor does not wait for its end"
    world.pass_time(4.9)
    assert len(world.since(mark, do.Kill)) == 1
    world.pass_time(0.2)
    assert world.since(mark, do.Kill)[1:] == [do.Kill(stalled.number, SIGKILL)]
    world.settle()
    assert stalled.number not in world.sims
    assert world.generations == {0: 1, 1: 1}


def test_a_stalled_worker_that_comes_round_at_the_sigterm_may_drain() -> None:
    world = service(count=2)
    stalled = world.holder(0)
    world.stall(stalled, 60.0)
    world.tell(on.WantsToRetire(stalled.number, "SIGTERM"))
    assert [one.worker for one in world.actions(do.Retire)] == [stalled.number]
    world.pass_time(10.0)
    assert [one.signal for one in world.actions(do.Kill)] == [SIGTERM]


def test_one_look_decides_nothing() -> None:
    """After a pause of the whole machine everybody is late once."""
    world = service(count=2)
    for sim in list(world.sims.values()):
        world.measure(sim, 90.0)
    world.pass_time(0.5)
    for sim in list(world.sims.values()):
        world.measure(sim, 0.1)
    assert world.actions(do.Kill) == []


def test_a_booting_worker_is_never_stalled() -> None:
    world = World(FleetPolicy())
    (sim,) = world.sims.values()
    for _ in range(3):
        world.pass_time(30.0)
        world.measure(sim, 1000.0, 5)
    assert world.actions(do.Kill) == []
    assert world.status["workers"][0]["rss"] == 5


def test_a_draining_worker_has_its_kill_timer_and_no_other() -> None:
    world = service(count=2)
    sim = world.holder(0)
    sim.pending.append(on.WantsToRetire(sim.number, "max-requests"))
    world.settle(finish=False)
    assert sim.told == "retire"
    for _ in range(14):
        world.pass_time(2.0)
        world.measure(sim, 70.0)
    assert world.actions(do.Kill) == []
    world.pass_time(1.1)  # 29 s: 0 + 20 + 2 + 5 + 1 and a second
    assert world.actions(do.Kill) == [do.Kill(sim.number, SIGKILL)]


def test_without_a_limit_of_the_grace_a_drain_has_no_kill_timer_but_a_blocked_loop_is_no_drain() -> None:
    world = service(count=2, budgets=Budgets(graceful=math.inf))
    sim = world.holder(0)
    sim.pending.append(on.WantsToRetire(sim.number, "max-requests"))
    world.settle(finish=False)
    world.pass_time(10_000.0)
    assert world.actions(do.Kill) == []
    world.stall(sim, 62.0)
    world.pass_time(6.0)
    assert world.actions(do.WriteStacks) == [do.WriteStacks(sim.number)]
    assert world.actions(do.Kill) == [do.Kill(sim.number, SIGKILL)]


def test_reports_of_workers_that_are_gone_mean_nothing() -> None:
    world = service(count=2)
    mark = world.mark()
    for event in (
        on.Booted(99, 1),
        on.BecameReady(99),
        on.SmokeDone(99),
        on.AcceptsNow(99, (0,)),
        on.StoppedAccepting(99),
        on.Emptied(99),
        on.SlotReleased(99, 0),
        on.WantsToRetire(99, "x"),
        on.Measured(99, 90.0),
        on.SlotOpened(7),
        on.SlotClosed(7),
        on.SlotFailed(7, "x"),
        on.SpawnFailed(99, "x"),
    ):
        world.tell(event)
    assert world.log[mark:] == []


def test_shared_listeners_are_accepted_from_by_all_where_there_are_any() -> None:
    world = World(FleetPolicy(count=2, shared=True))
    world.settle()
    assert [sorted(sim.ordered) for sim in world.sims.values()] == [[-1, 0], [-1, 1]]


def test_a_worker_that_was_ended_but_became_ready_meanwhile_drains() -> None:
    world = World(FleetPolicy(count=2), lambda sim: "hang" if sim.number == 3 else "")
    world.settle()
    world.reload()
    world.settle()
    sim: Sim = world.sims[3]
    world.order(on.RollBackOrdered)
    assert sim.told == "end"
    sim.ready = True
    world.tell(on.BecameReady(3))
    assert world.actions(do.Retire)[-1].worker == 3
