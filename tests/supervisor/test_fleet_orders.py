"""Recycling, scaling, stopping, upgrades: one order, or two that meet."""

from __future__ import annotations

import math

import pytest

from lastcall.base.exit_code import ExitCode
from lastcall.base.options import NetOptions, ReloadOptions, ServerOptions, WorkerOptions
from lastcall.drain.ladder import Budgets
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.policy import FleetPolicy
from lastcall.supervisor.stopping import merged
from testing.fleet import SIGKILL, SIGTERM, Sim, World


def service(policy: FleetPolicy, slow: tuple[int, ...] = ()) -> World:
    """A service that has served for a while; the workers ``slow`` (by number) never become ready."""
    world = World(policy, lambda sim: "hang" if sim.number in slow else "")
    world.settle()
    world.pass_time(60.0)
    return world


def wants(world: World, sim: Sim, cause: str) -> None:
    world.tell(on.WantsToRetire(sim.number, cause))


# -- recycling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["max-requests", "SIGTERM", "lifespan-died"])
def test_a_worker_that_asks_drains_when_its_successor_accepts(cause: str) -> None:
    world = service(FleetPolicy(count=2))
    old = world.holder(0)
    wants(world, old, cause)
    successor = world.sims[world.actions(do.Spawn)[-1].worker]
    for _ in range(3):
        world.deliver(successor) if successor.pending else world.boot(successor)
        assert not old.told
    world.settle(finish=False)
    assert world.actions(do.Retire) == [do.Retire(old.number, cause, successor.number)]
    assert world.holder(0) is successor


def test_two_slots_are_never_recycled_at_once() -> None:
    world = service(FleetPolicy(count=3), slow=(4,))
    for sim in list(world.sims.values()):
        wants(world, sim, "max-requests")
    world.settle(finish=False)
    assert len(world.actions(do.Spawn)) == 4, "the first successor is not there yet"
    world.behaviour = lambda sim: ""
    world.settle(finish=False)
    assert len(world.actions(do.Retire)) == 2, "two drain: the third slot waits"
    world.settle()
    assert [one.number for one in map(world.holder, range(3))] == [4, 5, 6]


def test_age_is_jittered_so_that_workers_of_one_start_are_replaced_apart() -> None:
    jitter = iter([0.0, 0.5, 1.0, *[0.0] * 9])
    world = World(FleetPolicy(count=3, limit_age=100.0, jitter=lambda: next(jitter)))
    world.settle()
    for _ in range(60):
        world.pass_time(2.0)
        world.settle()
    retired = [when - 100.0 for when in world.times(do.Retire)]
    assert [round(when / 2) * 2 for when in retired] == [102, 106, 112] or retired == sorted(retired)
    assert all(100.0 <= when <= 114.0 for when in retired)
    assert len(retired) == 3


def test_a_worker_that_holds_too_much_memory_is_replaced() -> None:
    world = service(FleetPolicy(count=2, limit_rss=1000))
    sim = world.holder(1)
    world.measure(sim, 0.1, 1000)
    assert world.actions(do.Retire) == []
    world.measure(sim, 0.1, 1001)
    world.settle()
    assert [one.cause for one in world.actions(do.Retire)] == ["rss"]


def test_a_recycling_whose_successor_fails_keeps_the_old_worker_and_is_tried_again() -> None:
    world = World(FleetPolicy(count=1), lambda sim: "3" if sim.number == 2 else "")
    world.settle()
    world.pass_time(60.0)
    wants(world, world.holder(0), "max-requests")
    world.settle()
    assert world.holder(0).number == 1
    world.pass_time(0.2)
    world.settle()
    assert world.holder(0).number == 3


def test_recycling_waits_for_a_roll_and_the_roll_does_it() -> None:
    world = service(FleetPolicy(count=2), slow=(3, 4))
    request = world.reload()
    wants(world, world.holder(1), "max-requests")
    assert len(world.actions(do.Spawn)) == 4
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.answers[request].ok
    assert len(world.actions(do.Spawn)) == 4


def test_the_holder_of_a_slot_that_dies_while_it_is_recycled_is_followed_by_the_successor_on_its_way() -> None:
    world = service(FleetPolicy(count=2))
    wants(world, world.holder(0), "max-requests")
    world.die(world.holder(0))
    world.settle()
    assert world.holder(0).number == 3
    assert len(world.actions(do.Spawn)) == 3


# -- scaling -----------------------------------------------------------------------------------------------------------


def test_a_new_slot_is_attended_by_a_neighbour_until_its_worker_accepts() -> None:
    world = service(FleetPolicy(count=1), slow=(2,))
    request = world.scale(2)
    assert world.actions(do.OpenSlot) == [do.OpenSlot(1)]
    world.settle()
    assert world.attendants(1) == [1]
    assert request not in world.answers
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.answers[request].ok
    assert world.attendants(1) == [2]


def test_the_last_slot_is_steered_away_from_emptied_and_closed_and_then_its_worker_drains() -> None:
    world = service(FleetPolicy(count=3))
    last = world.holder(2)
    request = world.scale(2)
    assert world.actions(do.CloseSlot) == [do.CloseSlot(2)]
    assert not last.told
    world.settle()
    assert [(one.worker, one.cause) for one in world.actions(do.Retire)] == [(last.number, "scale")]
    assert world.actions(do.Retire)[0].successor in (1, 2), "its idle connections are passed on"
    assert world.answers[request].ok


@pytest.mark.parametrize("slots", [0, -1, 10**6])
def test_at_least_one_slot_and_no_slip_of_the_hand(slots: int) -> None:
    world = service(FleetPolicy(count=1))
    assert not world.answers[world.scale(slots)].ok
    assert world.fleet.wanted == 1


def test_three_ttin_in_a_row_are_three_slots_more() -> None:
    world = service(FleetPolicy(count=1))
    requests = [world.scale(world.fleet.wanted + 1) for _ in range(3)]
    world.settle()
    assert sorted(world.generations) == [0, 1, 2, 3]
    assert [world.answers[one].ok for one in requests] == [False, False, True]
    assert "Superseded" in world.answers[requests[0]].text


def test_an_order_back_while_a_slot_is_being_closed_opens_it_again() -> None:
    world = service(FleetPolicy(count=2))
    world.scale(1)
    request = world.scale(2)
    world.settle()
    assert world.answers[request].ok
    assert world.generations == {0: 1, 1: 1}


def test_a_scale_during_a_roll_follows_it() -> None:
    world = service(FleetPolicy(count=2), slow=(3,))
    world.reload()
    request = world.scale(3)
    assert world.actions(do.OpenSlot) == []
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.answers[request].ok
    assert world.generations == {0: 2, 1: 2, 2: 2}


def test_a_slot_that_cannot_be_made_is_refused_in_a_line_and_nothing_changes() -> None:
    world = service(FleetPolicy(count=1))
    request = world.scale(4)
    world.slot_events.clear()
    world.tell(on.SlotFailed(1, "Too many open files"))
    assert not world.answers[request].ok
    assert "Too many open files" in world.answers[request].text
    assert world.fleet.wanted == 1


def test_a_new_slots_worker_that_fails_is_told_and_tried_again() -> None:
    world = World(FleetPolicy(count=1), lambda sim: "1" if sim.number == 2 else "")
    world.settle()
    request = world.scale(2)
    world.settle()
    assert not world.answers[request].ok
    world.pass_time(1.0)
    world.settle()
    assert sorted(world.generations) == [0, 1]


def test_a_service_that_has_never_served_is_scaled_when_it_does() -> None:
    world = World(FleetPolicy(count=1))
    request = world.scale(2)
    assert world.actions(do.OpenSlot) == []
    world.settle()
    assert world.answers[request].ok


# -- the final stop ----------------------------------------------------------------------------------------------------


def test_the_final_stop_shuts_the_door_drains_all_closes_and_leaves() -> None:
    world = service(FleetPolicy(count=2))
    mark = world.mark()
    world.stop()
    kinds = [type(action) for _, action in world.log[mark:]]
    assert kinds == [do.Notify, do.ShutDoor, do.Drain, do.Drain]
    first, second = world.sims.values()
    world.deliver(first)
    assert world.actions(do.CloseListeners) == []
    world.deliver(second)
    assert len(world.actions(do.CloseListeners)) == 1
    world.die(first, 0)
    assert world.left is None
    world.die(second, 0)
    assert world.left == 0


def test_the_door_stays_open_for_the_delay_of_the_ladder() -> None:
    world = service(FleetPolicy(budgets=Budgets(delay=5.0)))
    world.stop()
    world.pass_time(4.9)
    assert world.actions(do.ShutDoor) == []
    world.pass_time(0.2)
    assert len(world.actions(do.ShutDoor)) == 1


def test_a_worker_that_dies_in_a_stop_has_a_neighbour_answer_those_who_wait_in_its_queue() -> None:
    world = service(FleetPolicy(count=3, budgets=Budgets(delay=4.0)))
    world.stop()
    mark = world.mark()
    world.die(world.sims[2])
    assert world.since(mark, do.SetAccepting) == [do.SetAccepting(1, (0, 1))]
    world.die(world.sims[1])
    assert world.since(mark, do.SetAccepting)[1:] == [do.SetAccepting(3, (0, 1, 2))]
    world.pass_time(5.0)
    world.settle()
    assert world.left == 1


def test_a_queue_that_was_emptied_in_the_stop_needs_no_neighbour() -> None:
    world = service(FleetPolicy(count=2))
    world.stop()
    mark = world.mark()
    world.deliver(world.sims[1])
    world.die(world.sims[1], 0)
    assert world.since(mark, do.SetAccepting) == []


def test_a_worker_that_hangs_in_a_stop_has_a_neighbour_and_one_that_leaves_is_none() -> None:
    world = service(FleetPolicy(count=2))
    world.tell(on.WantsToRetire(2, "max-requests"))
    while not world.sims[2].told:
        sim = world.sims[3]
        world.deliver(sim) if sim.pending else world.boot(sim)
    world.stop()
    mark = world.mark()
    world.measure(world.sims[1], 2.0)
    assert world.since(mark, do.SetAccepting) == [do.SetAccepting(3, (0, 1))]


def test_a_sigint_ends_the_delay_and_shortens_the_kill_timers() -> None:
    world = service(FleetPolicy(budgets=Budgets(delay=5.0)))
    world.stop()
    world.stop(interactive=True)
    assert len(world.actions(do.ShutDoor)) == 1
    assert [one.interactive for one in world.actions(do.Drain)] == [False, True]
    world.stop(interactive=True)
    assert len(world.actions(do.Drain)) == 2, "it hurries once"
    world.pass_time(11.9)
    assert world.actions(do.Kill) == []
    world.pass_time(0.2)  # 3 + 2 + 5 + 1 and a second
    assert [one.signal for one in world.actions(do.Kill)] == [SIGKILL]


def test_a_second_signal_cancels_and_a_start_that_does_not_end_is_killed() -> None:
    world = service(FleetPolicy(count=2), slow=(3,))
    world.die(world.holder(0))
    world.settle()
    world.stop()
    world.tell(on.ForceOrdered("SIGTERM"))
    assert world.actions(do.Force) == [do.Force(2, "SIGTERM")]
    assert world.actions(do.Kill) == [do.Kill(3, SIGTERM), do.Kill(3, SIGKILL)]
    world.pass_time(9.1)  # 2 + 5 + 1 and a second
    assert world.actions(do.Kill)[2:] == [do.Kill(2, SIGKILL)]
    world.settle()
    assert world.left == 5


def test_a_force_without_a_stop_is_both() -> None:
    world = service(FleetPolicy())
    world.tell(on.ForceOrdered("SIGQUIT"))
    assert world.actions(do.Drain) == [do.Drain(1, "SIGQUIT")]
    assert world.actions(do.Force) == [do.Force(1, "SIGQUIT")]


def test_without_a_limit_of_the_grace_only_a_force_brings_a_kill_timer() -> None:
    world = service(FleetPolicy(budgets=Budgets(graceful=math.inf)))
    world.stop()
    assert world.fleet.next_deadline() == math.inf
    world.tell(on.ForceOrdered("SIGTERM"))
    assert math.isclose(world.fleet.next_deadline() - world.now, 9.0)


@pytest.mark.parametrize("phase", ["first", "rolling", "opening", "trying", "holding", "back", "scaling", "recycling"])
def test_sigterm_is_honoured_at_once_in_every_phase(phase: str) -> None:
    world = service(FleetPolicy(count=2), slow={"first": (3,), "rolling": (4,), "trying": (3,)}.get(phase, ()))
    if phase in ("first", "rolling"):
        world.reload()
        world.settle()
    elif phase == "scaling":
        world.scale(3)
    elif phase == "recycling":
        wants(world, world.holder(0), "max-requests")
    else:
        world.reload(canary=True)
        if phase != "opening":
            world.settle()
        if phase == "back":
            world.order(on.RollBackOrdered)
    mark = world.mark()
    world.stop()
    told = {one.worker for one in world.since(mark, do.Drain)} | {one.worker for one in world.since(mark, do.Kill)}
    assert told == set(world.sims)
    assert all(one.signal == SIGTERM for one in world.since(mark, do.Kill))
    world.behaviour = lambda sim: ""
    world.settle()
    assert world.left == 0
    assert set(world.answers) == set(world.asked)


def test_orders_after_the_stop_are_refused() -> None:
    world = service(FleetPolicy(count=2))
    world.stop()
    orders = [world.reload(), world.scale(3), world.order(on.PromoteOrdered), world.order(on.RollBackOrdered)]
    world.settle()
    orders.append(world.reload())
    assert not any(world.answers[one].ok for one in orders)


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 6], 6), ([6, 1], 1), ([1, 4], 4), ([4, 5], 5), ([0, -11], 1), ([7, 0], 1), ([3, 6], 1), ([], 0)],
)
def test_the_exit_code_is_that_of_the_worst_end(codes: list[int], code: int) -> None:
    world = service(FleetPolicy(count=max(1, len(codes))))
    world.stop()
    for sim, one in zip(list(world.sims.values()), codes or [0], strict=True):
        world.die(sim, one)
    assert world.left == code


def test_a_crash_at_noon_is_no_part_of_the_code_of_the_stop_in_the_evening() -> None:
    world = service(FleetPolicy())
    world.die(world.holder(0), -11)
    world.settle()
    world.stop()
    world.settle()
    assert world.left == 0


def test_the_ranks_are_those_of_one_process() -> None:
    assert merged([ExitCode.CUT, ExitCode.ERROR]) == ExitCode.ERROR
    assert merged([ExitCode.STOPPED, ExitCode.LIFESPAN, ExitCode.ABANDONED]) == ExitCode.ABANDONED


# -- an upgrade --------------------------------------------------------------------------------------------------------


def test_an_upgrade_leaves_the_door_to_the_new_parent() -> None:
    world = service(FleetPolicy(count=2))
    request = world.reload()
    world.tell(on.UpgradeReady())
    assert not world.answers[request].ok
    assert {one.successor for one in world.actions(do.Retire)} == {None}
    assert world.actions(do.Drain) == []
    world.settle()
    assert world.left == 0
    assert world.actions(do.ShutDoor) == []
    assert world.actions(do.CloseListeners) == []


def test_a_sigterm_during_an_upgrade_changes_nothing_and_a_sigint_hurries() -> None:
    world = service(FleetPolicy(count=2))
    world.tell(on.UpgradeReady())
    mark = world.mark()
    world.stop()
    assert world.log[mark:] == []
    world.stop(interactive=True)
    assert [one.short for one in world.since(mark, do.Retire)] == [True, True]
    world.tell(on.ForceOrdered("SIGTERM"))
    assert len(world.since(mark, do.Force)) == 2
    assert world.actions(do.ShutDoor) == []


def test_a_worker_that_dies_while_another_parent_serves_is_not_replaced() -> None:
    world = service(FleetPolicy(count=2))
    spawned = len(world.actions(do.Spawn))
    world.tell(on.UpgradeReady())
    world.die(next(iter(world.sims.values())), -9)
    assert len(world.actions(do.Spawn)) == spawned


# -- the policy --------------------------------------------------------------------------------------------------------


def test_the_policy_is_made_of_the_options() -> None:
    options = ServerOptions(net=NetOptions(), workers=WorkerOptions(count=4, timeout_boot=9.0, limit_rss=5))
    policy = FleetPolicy.of(options, jitter=lambda: 0.5, shared=True)
    assert (policy.count, policy.timeout_boot, policy.limit_rss, policy.shared) == (4, 9.0, 5, True)
    assert policy.kill_after() == 29.0
    development = ServerOptions(workers=WorkerOptions(count=4), reload=ReloadOptions(wanted=True))
    assert FleetPolicy.of(development, jitter=lambda: 0.0).count == 1


def test_what_moves_listeners_is_known() -> None:
    """Another parent must not be given them meanwhile."""
    world = service(FleetPolicy(count=2))
    assert not world.fleet.moves_listeners
    world.scale(3)
    assert world.fleet.moves_listeners
    world.settle()
    assert not world.fleet.moves_listeners
    world.reload()
    assert not world.fleet.moves_listeners
    world.reload(canary=True)
    assert world.fleet.moves_listeners, "it follows"
    world.settle()
    assert world.fleet.roll is not None
    assert world.fleet.moves_listeners
    world.judges[-1].says = "roll back"
    world.pass_time(5.0)
    world.settle()
    assert not world.fleet.moves_listeners


@pytest.mark.parametrize(("how", "code"), [(2, 2), (3, 3), (1, 3), (-11, 3)])
def test_a_new_parent_ends_where_one_of_its_workers_does_not_start(how: int, code: int) -> None:
    """Else the old parent would wait for ever, and both would serve."""
    world = World(FleetPolicy(count=2), lambda sim: "hang" if sim.number == 2 else "")
    world.fleet.guest = True
    world.settle()
    assert world.fleet.crew.ready_once
    world.die(world.sims[2], how)
    world.settle()
    assert world.left == code
