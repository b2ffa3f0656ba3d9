"""The rolling reload, its canary, and the reload of development."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lastcall.base.options import CanaryOptions
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.policy import FleetPolicy
from lastcall.supervisor.roll import FINAL, TRANSITIONS, Stage, Turn
from testing.fleet import SIGKILL, SIGTERM, Sim, World


def service(behaviour: Callable[[Sim], str] = lambda sim: "", **options: object) -> World:
    """A service that has served for a while; ``behaviour`` is that of workers behind the first generation."""
    policy = FleetPolicy(**{"count": 3, **options})  # type: ignore[arg-type]
    world = World(policy, lambda sim: "" if sim.generation == 1 else behaviour(sim))
    world.settle()
    world.pass_time(60.0)
    return world


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in FINAL], ids=lambda stage: stage.name)
def test_the_end_of_the_service_ends_a_roll_in_every_stage_and_every_stage_has_a_way_out(stage: Stage) -> None:
    assert TRANSITIONS[stage, Turn.END] is Stage.INTERRUPTED
    reached, before = {stage}, set[Stage]()
    while reached != before:
        before = set(reached)
        reached |= {
            target for (source, turn), target in TRANSITIONS.items() if source in reached and turn is not Turn.END
        }
    assert reached & FINAL


# -- slot by slot ------------------------------------------------------------------------------------------------------


def test_successor_first_in_each_slot() -> None:
    world = service()
    mark = world.mark()
    request = world.reload()
    world.settle()
    order = [(type(one).__name__, one.worker) for one in (action for _, action in world.log[mark:])
             if isinstance(one, do.Spawn | do.Smoke | do.SetAccepting | do.Retire)]  # fmt: skip
    for old, new in ((1, 4), (2, 5), (3, 6)):
        steps = [("Spawn", new), ("Smoke", new), ("SetAccepting", new), ("Retire", old)]
        assert [step for step in order if step in steps] == steps
    assert all(one.successor is not None for one in world.since(mark, do.Retire))
    assert world.answers[request].ok
    assert world.generations == {0: 2, 1: 2, 2: 2}
    assert [one.state for one in world.since(mark, do.Notify)] == ["RELOADING", "READY"]


def test_two_successors_boot_at_the_same_time_and_either_may_be_first() -> None:
    world = service()
    mark = world.mark()
    world.reload()
    assert [one.slot for one in world.since(mark, do.Spawn)] == [0, 1]
    assert world.status["roll"]["slots"] == [0, 1]
    world.boot(world.sims[5])
    while world.sims[5].pending:
        world.deliver(world.sims[5])
    assert [one.worker for one in world.since(mark, do.Retire)] == [2]
    assert world.status["roll"]["slots"] == [0]
    world.settle()
    assert world.generations == {0: 2, 1: 2, 2: 2}


def test_the_third_slot_waits_until_each_predecessor_accepts_no_more_and_one_is_gone() -> None:
    world = service()
    first, second = world.holder(0), world.holder(1)
    mark = world.mark()
    world.reload()
    for new in (world.sims[4], world.sims[5]):
        world.boot(new)
        while new.pending:
            world.deliver(new)
    world.deliver(first)
    world.finish(first)
    assert first.number not in world.sims
    assert second.told
    assert len(world.since(mark, do.Spawn)) == 2
    world.deliver(second)
    assert [one.slot for one in world.since(mark, do.Spawn)] == [0, 1, 2]


def test_when_one_of_two_fails_before_anybody_was_replaced_the_other_is_ended_and_nothing_has_changed() -> None:
    world = service(lambda sim: "3" if sim.number == 5 else "hang")
    mark = world.mark()
    request = world.reload()
    world.settle()
    assert not world.answers[request].ok
    assert world.since(mark, do.Retire) == []
    assert (4, SIGTERM) in [(one.worker, one.signal) for one in world.since(mark, do.Kill)]
    assert world.generations == {0: 1, 1: 1, 2: 1}


def test_at_most_two_drain_at_once() -> None:
    world = service(count=4)
    world.reload()
    world.settle(finish=False)
    assert len(world.actions(do.Retire)) == 2
    assert len(world.actions(do.Spawn)) == 6, "nor is anybody started who would have to wait"
    world.settle()
    assert world.generations == dict.fromkeys(range(4), 2)


@pytest.mark.parametrize("how", ["3", "1", "-11", "smoke"])
def test_a_deploy_that_cannot_boot_changes_nothing(how: str) -> None:
    world = service(lambda sim: how)
    request = world.reload()
    world.settle()
    assert not world.answers[request].ok
    assert "No worker was replaced" in world.answers[request].text
    assert world.generations == {0: 1, 1: 1, 2: 1}
    assert [one for one in world.actions(do.Retire) if one.worker <= 3] == []
    assert world.left is None


def test_a_deploy_that_hangs_is_ended_by_the_boot_time_out_or_by_a_person() -> None:
    world = service(lambda sim: "hang", timeout_boot=30.0)
    request = world.reload()
    world.pass_time(31.0)
    assert "not ready after 30 s" in world.answers[request].text
    request = world.reload()
    back = world.order(on.RollBackOrdered)
    assert not world.answers[request].ok
    assert world.answers[back].ok
    world.pass_time(5.0)
    assert world.actions(do.Kill)[-1].signal == SIGKILL


def test_one_that_fails_later_stops_the_roll_and_the_report_says_which_slots_run_what() -> None:
    world = service(lambda sim: "3" if sim.number == 5 else "")
    request = world.reload()
    world.settle()
    answer = world.answers[request]
    assert not answer.ok
    assert "Slots 0 run generation 2, slots 1, 2 an older one" in answer.text
    assert answer.report is not None
    assert answer.report["slots"] == {"0": 2, "1": 1, "2": 1}


def test_after_a_stopped_roll_old_workers_are_not_replaced_new_ones_are_and_a_reload_heals() -> None:
    world = service(lambda sim: "3" if sim.number == 5 else "")
    world.reload()
    world.settle()
    world.pass_time(60.0)
    mark = world.mark()
    world.die(world.holder(1))
    assert world.since(mark, do.Spawn) == []
    assert world.attendants(1) == [world.holder(2).number], "one of the same generation keeps its slot"
    assert any("slot 1 has no worker" in line and "reload" in line for line in world.status["degraded"])
    world.die(world.holder(0))
    assert [one.generation for one in world.since(mark, do.Spawn)] == [2]
    world.settle()
    assert not world.answers[world.scale(4)].ok, "there is no code to scale up with"
    again = world.mark()
    request = world.reload()
    assert world.since(again, do.Spawn)[0].slot == 1, "the slot that has nobody comes first"
    world.settle()
    assert world.answers[request].ok
    assert world.status["degraded"] == []


def test_after_a_failed_reload_a_worker_that_wants_to_retire_has_to_wait() -> None:
    world = service(lambda sim: "3" if sim.generation == 2 else "")
    world.reload()
    world.settle()
    mark = world.mark()
    world.tell(on.WantsToRetire(world.holder(0).number, "max-requests"))
    assert world.since(mark, do.Spawn) == []
    world.reload()
    world.settle()
    assert world.generations == {0: 3, 1: 3, 2: 3}


def test_when_the_last_old_worker_dies_what_is_on_the_disk_is_tried() -> None:
    world = service(lambda sim: "3" if sim.number == 2 else "", count=1)
    world.reload()
    world.settle()
    world.die(world.holder(0))
    world.settle()
    assert world.generations == {0: 2}


def test_an_old_worker_that_dies_in_a_roll_is_replaced_by_its_turn_only() -> None:
    world = service(lambda sim: "hang" if sim.number in (4, 5) else "")
    mark = world.mark()
    request = world.reload()
    world.die(world.holder(2))
    assert [one.slot for one in world.since(mark, do.Spawn)] == [0, 1]
    assert world.attendants(2) == [1] or world.attendants(2) == [2]
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.answers[request].ok


def test_a_new_worker_that_does_not_survive_its_first_clients_stops_the_roll() -> None:
    world = service(lambda sim: "hang" if sim.number == 5 else "")
    request = world.reload()
    world.settle()
    world.pass_time(2.0)
    world.die(world.holder(0), -11)
    assert not world.answers[request].ok
    assert world.sims[5].told == "end"


def test_a_new_worker_that_dies_later_in_a_roll_is_replaced_and_the_roll_goes_on() -> None:
    world = service(lambda sim: "hang" if sim.number == 5 else "")
    request = world.reload()
    world.settle()
    world.pass_time(20.0)
    world.die(world.holder(0), -11)
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.answers[request].ok
    assert set(world.generations.values()) == {2}


def test_a_reload_during_a_reload_follows_it_and_several_become_one() -> None:
    world = service(lambda sim: "hang" if sim.number == 4 else "")
    first = world.reload()
    second, third = world.reload(), world.reload()
    assert not {second, third} & set(world.answers)
    world.behaviour = lambda sim: ""
    world.settle()
    assert [world.answers[one].ok for one in (first, second, third)] == [True] * 3
    assert set(world.generations.values()) == {3}


def test_a_reload_before_the_service_serves_waits_for_its_start() -> None:
    world = World(FleetPolicy(count=2))
    request = world.reload()
    assert len(world.actions(do.Spawn)) == 2
    world.settle()
    assert world.answers[request].ok
    assert set(world.generations.values()) == {2}


def test_a_reload_ends_successors_that_are_on_their_way_with_code_that_nobody_knows() -> None:
    world = service(lambda sim: "")
    world.tell(on.WantsToRetire(world.holder(1).number, "max-requests"))
    world.reload()
    assert world.actions(do.Kill) == [do.Kill(4, SIGTERM)]
    world.settle()
    assert set(world.generations.values()) == {2}


def test_a_worker_that_was_told_to_accept_is_not_ended_by_a_reload_before_a_successor_accepts() -> None:
    """Whether it serves already is not known yet, or never: it answers with fewer slots than it was told."""
    for says in (None, frozenset[int]()):
        world = World(FleetPolicy(), lambda sim: "" if sim.generation == 1 else "3")
        first = world.sims[1]
        while not first.ordered:
            world.deliver(first) if first.pending else world.boot(first)
        if says is not None:
            world.deliver(first, says=says)
        mark = world.mark()
        request = world.reload()
        world.settle()
        assert not world.answers[request].ok
        assert world.since(mark, do.Retire) == []
        assert list(world.sims) == [1]
        world.behaviour = lambda sim: ""
        again = world.reload()
        world.settle()
        assert world.answers[again].ok
        assert [one.worker for one in world.since(mark, do.Retire)] == [1]


def test_what_all_workers_share_is_enough_where_slots_have_nothing_of_their_own() -> None:
    world = World(FleetPolicy(count=1, shared=True, only_shared=True))
    for generation in (1, 2):
        sim = world.sims[generation]
        while not (sim.pending and isinstance(sim.pending[0], on.AcceptsNow)):
            world.deliver(sim) if sim.pending else world.boot(sim)
        world.deliver(sim, says=frozenset({-1}))
        assert world.generations == {0: generation}
        request = world.reload() if generation == 1 else 1
    world.settle()
    assert world.answers[request].ok


def test_a_successor_that_does_not_accept_replaces_nobody() -> None:
    world = service(count=2, timeout_stall=60.0)
    mark = world.mark()
    world.reload()
    new = world.sims[3]
    while not (new.pending and isinstance(new.pending[0], on.AcceptsNow)):
        world.deliver(new) if new.pending else world.boot(new)
    world.deliver(new, says=frozenset({1}))
    world.settle()
    assert 1 not in [one.worker for one in world.since(mark, do.Retire)], "slot 0 has nobody else"
    assert any("slot 0" in line and "worker 3" in line for line in world.status["degraded"])


def test_a_newer_change_keeps_who_may_accept_already_from_a_slot_that_has_nobody() -> None:
    world = World(FleetPolicy(count=1, development=True))
    world.reload(development=True)
    new = world.sims[2]
    while not (new.pending and isinstance(new.pending[0], on.AcceptsNow)):
        world.deliver(new) if new.pending else world.boot(new)
    mark = world.mark()
    request = world.reload(development=True)
    assert world.since(mark, do.Retire) == []
    world.settle()
    assert world.answers[request].ok
    assert [one.worker for one in world.since(mark, do.Retire)] == [2]


def test_a_reload_brings_the_new_options_and_the_number_of_workers_if_it_was_changed() -> None:
    world = service(count=2)
    world.scale(3)
    world.settle()
    world.reload(policy=FleetPolicy(count=2, timeout_boot=7.0))
    world.settle()
    assert len(world.generations) == 3, "the file says what it said: the order to scale holds"
    world.reload(policy=FleetPolicy(count=4, timeout_boot=7.0))
    world.settle()
    assert len(world.generations) == 4
    world.die(world.holder(0))
    assert world.fleet.next_deadline() - world.now <= 7.0


def test_a_person_can_stop_a_roll_that_has_begun_but_not_take_it_back() -> None:
    world = service(lambda sim: "hang" if sim.number in (5, 6) else "")
    request = world.reload()
    world.settle()
    back = world.order(on.RollBackOrdered)
    assert not world.answers[back].ok
    assert "stopped where it stands" in world.answers[back].text
    assert not world.answers[request].ok
    assert world.generations == {0: 2, 1: 1, 2: 1}


def test_orders_about_a_canary_that_is_not_there_are_refused() -> None:
    world = service()
    assert not world.answers[world.order(on.PromoteOrdered)].ok
    assert not world.answers[world.order(on.RollBackOrdered)].ok


# -- the canary --------------------------------------------------------------------------------------------------------


def holding(**options: object) -> tuple[World, int]:
    """A service whose canary has its share."""
    world = service(**options)  # type: ignore[arg-type]
    request = world.reload(canary=True)
    world.settle()
    return world, request


def test_the_canary_gets_no_client_before_it_is_clean() -> None:
    world = service()
    world.reload(canary=True)
    assert world.actions(do.OpenSlot) == [do.OpenSlot(3, 0.0)]
    world.next_slot_event()
    assert world.actions(do.Spawn)[-1] == do.Spawn(4, 3, 2)
    assert world.attendants(3), "somebody attends the slot all the same"
    canary = world.sims[4]
    while not canary.accepts:
        assert world.actions(do.Steer) == []
        world.deliver(canary) if canary.pending else world.boot(canary)
    assert world.actions(do.Steer) == [do.Steer(3, 0.25)]
    assert world.actions(do.HandOver) == [do.HandOver(number, 4, 0.25) for number in (1, 2, 3)]


def test_its_share_can_be_given() -> None:
    world, _ = holding(canary=CanaryOptions(share=0.1))
    assert world.actions(do.Steer) == [do.Steer(3, 0.1)]


def test_the_looks_come_each_second_and_wait_a_second_for_who_does_not_answer() -> None:
    world, _ = holding()
    (judge,) = world.judges
    assert judge.workers == 3
    assert judge.looks == [(True, (1, 2, 3))]
    world.pass_time(1.0)
    world.sims[2].pending.clear()
    world.settle()
    assert len(judge.looks) == 1
    world.pass_time(1.0)
    assert judge.looks[1] == (True, (1, 3))
    for _ in range(3):
        world.pass_time(1.0)
        world.settle()
    assert len(judge.looks) >= 3


def test_a_promoted_canary_takes_the_first_slot_with_its_connections_and_the_rest_is_rolled() -> None:
    world, request = holding()
    world.judges[0].says = "promote"
    world.pass_time(1.0)
    mark = world.mark()
    world.settle()
    assert do.Retire(1, "reload", 4) in world.since(mark, do.Retire)
    assert world.since(mark, do.CloseSlot) == [do.CloseSlot(3)]
    assert world.holder(0).number == 4
    assert world.holder(0).ordered == {0}
    assert world.generations == {0: 2, 1: 2, 2: 2}
    answer = world.answers[request]
    assert answer.ok
    assert answer.report is not None
    assert answer.report["looks"] == 2


def test_a_canary_that_is_worse_is_steered_away_from_drains_and_hands_its_connections_back() -> None:
    world, request = holding()
    world.judges[0].says = "roll back"
    world.pass_time(1.0)
    mark = world.mark()
    world.settle()
    steer, retire, close = (
        next(index for index, (_, action) in enumerate(world.log[mark:]) if isinstance(action, kind))
        for kind in (do.Steer, do.Retire, do.CloseSlot)
    )
    assert steer < retire < close
    assert world.since(mark, do.Steer) == [do.Steer(3, 0.0)]
    assert [(one.worker, one.cause) for one in world.since(mark, do.Retire)] == [(4, "canary")]
    assert world.since(mark, do.Retire)[0].successor in (1, 2, 3)
    assert not world.answers[request].ok
    assert "the judge said so" in world.answers[request].text
    assert world.generations == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("how", ["3", "smoke"])
def test_a_canary_that_does_not_start_ends_the_reload_and_its_slot_is_closed(how: str) -> None:
    world = service(lambda sim: how)
    request = world.reload(canary=True)
    world.settle()
    assert not world.answers[request].ok
    assert world.actions(do.Steer) == []
    assert world.slots == {0, 1, 2}


def test_a_canary_that_dies_is_rolled_back_and_nobody_notices() -> None:
    world, request = holding()
    world.die(world.sims[4], -11)
    assert world.actions(do.CloseSlot) == [do.CloseSlot(3)], "all that hold it empty it, and close it"
    world.settle()
    assert "signal 11" in world.answers[request].text
    assert world.slots == {0, 1, 2}


def test_a_canary_that_stalls_is_rolled_back() -> None:
    world, request = holding()
    world.stall(world.sims[4], 62.0)
    world.settle()
    assert "stalled" in world.answers[request].text
    world.pass_time(6.0)
    world.settle()
    assert 4 not in world.sims


def test_an_old_worker_that_dies_during_a_canary_is_not_replaced_and_the_canary_does_not_stand_in() -> None:
    world, _ = holding()
    mark = world.mark()
    world.die(world.sims[2])
    world.settle()
    assert world.since(mark, do.Spawn) == []
    assert world.attendants(1)[0] in (1, 3)
    assert world.status["degraded"] != []


def test_when_no_old_worker_is_left_the_canary_is_promoted() -> None:
    world, request = holding(count=1)
    world.die(world.sims[1])
    world.settle()
    assert world.answers[request].ok
    assert world.generations == {0: 2}


@pytest.mark.parametrize("approved", [True, False])
def test_a_person_may_decide(approved: bool) -> None:
    world, request = holding()
    answer = world.order(on.PromoteOrdered if approved else on.RollBackOrdered)
    world.settle()
    assert world.answers[answer].ok
    assert world.answers[request].ok is approved


def test_a_reload_and_a_scale_during_a_canary_are_refused_in_a_line() -> None:
    world, _ = holding()
    for request in (world.reload(), world.scale(5)):
        assert not world.answers[request].ok
        assert "canary is under way" in world.answers[request].text


def test_a_canary_without_a_listener_is_refused() -> None:
    world = service()
    request = world.reload(canary=True)
    world.slot_events.clear()
    world.tell(on.SlotFailed(3, "Too many open files"))
    assert "Too many open files" in world.answers[request].text
    assert world.generations == {0: 1, 1: 1, 2: 1}


def test_a_canary_refused_before_its_slot_is_open_closes_it_afterwards() -> None:
    world = service()
    request = world.reload(canary=True)
    assert world.answers[world.order(on.RollBackOrdered)].ok
    assert request not in world.answers
    world.settle()
    assert not world.answers[request].ok
    assert world.slots == {0, 1, 2}


def test_with_shared_listeners_the_canary_has_its_part_only_while_it_is_compared() -> None:
    world = service(shared=True)
    world.reload(canary=True)
    while not world.actions(do.Steer):
        canary = next((sim for sim in world.sims.values() if sim.generation == 2), None)
        assert canary is None or -1 not in canary.ordered
        if canary is None:
            world.next_slot_event()
        else:
            world.deliver(canary) if canary.pending else world.boot(canary)
    assert -1 in world.sims[4].ordered


def test_the_real_judge_promotes_a_canary_that_nobody_came_to_with_a_warning() -> None:
    world = World(FleetPolicy(count=2, canary=CanaryOptions(hold=2.0)), real_judge=True)
    world.settle()
    request = world.reload(canary=True)
    for _ in range(25):
        world.settle()
        world.pass_time(1.0)
    world.settle()
    assert world.answers[request].ok
    assert any(one.level == 30 and "promoted" in one.text for one in world.actions(do.Say))
    assert world.generations == {0: 2, 1: 2}


# -- development -------------------------------------------------------------------------------------------------------


def development(behaviour: Callable[[Sim], str] = lambda sim: "") -> World:
    world = World(FleetPolicy(development=True), behaviour)
    world.settle()
    return world


def test_a_change_replaces_the_worker_and_the_old_one_has_the_short_ladder() -> None:
    world = development()
    request = world.reload(development=True)
    assert world.attendants(0) == [1], "the old one serves meanwhile"
    world.settle(finish=False)
    assert world.actions(do.Retire) == [do.Retire(1, "reload", 2, short=True)]
    assert world.answers[request].ok
    world.pass_time(11.9)
    assert world.actions(do.Kill) == []
    world.pass_time(0.2)
    assert world.actions(do.Kill) == [do.Kill(1, SIGKILL)]


def test_a_syntax_error_keeps_the_old_worker_and_says_so_once() -> None:
    world = development(lambda sim: "3" if sim.number == 2 else "")
    mark = world.mark()
    world.reload(development=True)
    world.settle()
    world.pass_time(100.0)
    world.settle()
    assert world.generations == {0: 1}
    assert len([one for one in world.since(mark, do.Say) if "Reload failed" in one.text]) == 1
    assert len(world.since(mark, do.Spawn)) == 1, "it is not tried again before the next change"
    world.reload(development=True)
    world.settle()
    assert world.generations == {0: 3}


def test_a_first_start_that_fails_waits_for_the_next_change() -> None:
    world = development(lambda sim: "3" if sim.number <= 2 else "")
    world.pass_time(100.0)
    assert world.left is None
    assert world.sims == {}
    assert world.status["state"] == "waiting for a change"
    for ok in (False, True):
        request = world.reload(development=True)
        world.settle()
        assert world.answers[request].ok is ok
    assert world.status["state"] == "serving"
    world.stop()
    world.settle()
    assert world.left == 0


def test_a_stop_while_a_change_is_waited_for_ends_at_once() -> None:
    world = development(lambda sim: "3")
    world.stop()
    assert world.left == 0


def test_the_newest_change_counts() -> None:
    world = development(lambda sim: "hang" if sim.number == 2 else "")
    first = world.reload(development=True)
    second = world.reload(development=True)
    assert "superseded" in world.answers[first].text
    assert world.actions(do.Kill) == [do.Kill(2, SIGTERM)]
    world.settle()
    assert world.answers[second].ok


def test_a_change_during_the_first_start_starts_again() -> None:
    world = World(FleetPolicy(development=True), lambda sim: "hang" if sim.number == 1 else "")
    request = world.reload(development=True)
    assert world.actions(do.Kill) == [do.Kill(1, SIGTERM)]
    world.settle()
    assert world.answers[request].ok


def test_a_crash_in_development_with_code_that_does_not_start_waits_too() -> None:
    world = development(lambda sim: "3" if sim.number >= 2 else "")
    world.pass_time(60.0)
    world.die(world.holder(0), -11)
    world.settle()
    world.pass_time(100.0)
    assert len(world.actions(do.Spawn)) == 2
    assert world.status["state"] == "waiting for a change"


def test_there_is_one_worker_in_development() -> None:
    world = development()
    assert not world.answers[world.scale(2)].ok
