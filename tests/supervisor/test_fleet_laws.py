"""The laws of the fleet, for workers that boot, fail, die, stall and answer in any order, and any orders at any time.

``World`` checks after each event: each open slot is accepted from while anybody is able to, also in a stop until its
queue is empty; nobody is retired before somebody else says that it accepts from the same slot, whatever workers answer;
never two slots at once, two in a roll; at most two drain in a roll; actions name workers that live; nobody is spawned
after the stop order; each order is settled once; slots open and close at the end.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lastcall.base.options import CanaryOptions
from lastcall.drain.ladder import Budgets
from lastcall.supervisor import events as on
from lastcall.supervisor.policy import FleetPolicy
from testing.fleet import Sim, World

BOOTS = st.sampled_from(["", "", "", "", "", "smoke", "3", "1", "hang"])
SELDOM = st.integers(0, 20)


class FleetMachine(RuleBasedStateMachine):
    """A service, and whoever may do something to it."""

    world: World

    @initialize(
        count=st.integers(1, 4),
        development=st.sampled_from([False, False, True]),
        delay=st.sampled_from([0.0, 4.0]),
        age=st.sampled_from([float("inf"), 30.0]),
        boot=st.sampled_from([float("inf"), 20.0]),
        serves=st.sampled_from([True, True, False]),
        shared=st.sampled_from(["", "", "some", "all"]),
    )
    def begin(
        self, count: int, development: bool, delay: float, age: float, boot: float, serves: bool, shared: str
    ) -> None:
        self.boots: dict[int, str] = {}
        policy = FleetPolicy(
            count=1 if development else count,
            budgets=Budgets(delay=delay),
            timeout_boot=boot,
            limit_age=age,
            limit_rss=1000,
            canary=CanaryOptions(),
            development=development,
            shared=bool(shared),
            only_shared=shared == "all",
        )
        self.world = World(policy, lambda sim: self.boots.get(sim.number, ""))
        if serves:
            self.world.settle()

    def pick(self, data: st.DataObject, *, found: list[Sim] | None = None) -> Sim | None:
        sims = list(self.world.sims.values()) if found is None else found
        return data.draw(st.sampled_from(sims)) if sims else None

    # -- workers ------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), how=BOOTS)
    def boot(self, data: st.DataObject, how: str) -> None:
        sim = self.pick(data, found=[one for one in self.world.sims.values() if not one.ready and not one.pending])
        if sim is not None:
            self.boots[sim.number] = how
            self.world.boot(sim)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        sim = self.pick(data, found=[one for one in self.world.sims.values() if one.pending])
        if sim is not None:
            self.world.deliver(sim)

    @rule(data=st.data(), says=st.frozensets(st.integers(-1, 4), max_size=2))
    def answer_less(self, data: st.DataObject, says: frozenset[int]) -> None:
        """A worker accepts from fewer slots than it was told to."""
        sims = [one for one in self.world.sims.values() if one.pending and isinstance(one.pending[0], on.AcceptsNow)]
        if (sim := self.pick(data, found=sims)) is not None:
            self.world.deliver(sim, says=says)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if (sim := self.pick(data)) is not None:
            self.world.finish(sim)

    @rule(data=st.data(), code=st.sampled_from([-9, -11, 0, 1, 3, 4, 5]))
    def die(self, data: st.DataObject, code: int) -> None:
        if (sim := self.pick(data)) is not None and sim.ready:
            self.world.die(sim, code)

    @rule(data=st.data(), age=st.sampled_from([0.1, 0.1, 2.0, 61.0]), rss=st.sampled_from([10, 10, 2000]))
    def measure(self, data: st.DataObject, age: float, rss: int) -> None:
        sim = self.pick(data, found=[one for one in self.world.sims.values() if one.ready and one.told != "kill"])
        if sim is not None:
            self.world.measure(sim, age, rss)

    @rule(data=st.data())
    def ask_to_retire(self, data: st.DataObject) -> None:
        sim = self.pick(data, found=[one for one in self.world.sims.values() if one.clean and not one.told])
        if sim is not None:
            sim.pending.append(on.WantsToRetire(sim.number, "max-requests"))

    @rule(data=st.data(), steps=st.integers(1, 15), finish=st.booleans())
    def go_on(self, data: st.DataObject, steps: int, finish: bool) -> None:
        """Some of what waits happens, as it does where all is well."""
        world = self.world
        for _ in range(steps):
            sims = [
                one for one in world.sims.values() if one.pending or (not one.ready and one.number not in self.boots)
            ]
            sims += [one for one in world.sims.values() if finish and one.told and not one.pending]
            if bool(world.slot_events) and data.draw(st.booleans()):
                world.next_slot_event()
            elif (sim := self.pick(data, found=sims)) is not None:
                if sim.pending:
                    world.deliver(sim)
                elif sim.told:
                    world.finish(sim)
                else:
                    world.boot(sim)

    @rule()
    def all_is_well(self) -> None:
        for sim in self.world.sims.values():
            if sim.told != "kill":
                self.boots.setdefault(sim.number, "")
        self.world.settle()

    @precondition(lambda self: self.world.slot_events)
    @rule(fails=st.booleans())
    def listeners(self, fails: bool) -> None:
        event = self.world.slot_events[0]
        if fails and isinstance(event, on.SlotOpened):
            self.world.slot_events.popleft()
            self.world.tell(on.SlotFailed(event.slot, "too many open files"))
        else:
            self.world.next_slot_event()

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0, 35.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # -- orders -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.left is None)
    @rule(canary=st.booleans())
    def reload(self, canary: bool) -> None:
        development = self.world.policy.development
        self.world.reload(canary=canary and not development, development=development)

    @precondition(lambda self: self.world.left is None)
    @rule(slots=st.integers(1, 5))
    def scale(self, slots: int) -> None:
        self.world.scale(slots)

    @precondition(lambda self: self.world.fleet.roll is not None)
    @rule()
    def promote(self) -> None:
        self.world.order(on.PromoteOrdered)

    @precondition(lambda self: self.world.fleet.roll is not None)
    @rule()
    def roll_back(self) -> None:
        self.world.order(on.RollBackOrdered)

    @precondition(lambda self: self.world.judges)
    @rule(verdict=st.sampled_from(["promote", "roll back"]))
    def judge(self, verdict: str) -> None:
        self.world.judges[-1].says = verdict

    @rule(data=st.data(), interactive=st.booleans())
    def stop(self, data: st.DataObject, interactive: bool) -> None:
        if data.draw(SELDOM) == 7:
            self.world.stop(interactive=interactive)

    @rule(data=st.data())
    def force(self, data: st.DataObject) -> None:
        if data.draw(SELDOM) == 7:
            self.world.tell(on.ForceOrdered("SIGTERM"))

    @rule(data=st.data())
    def upgrade(self, data: st.DataObject) -> None:
        if data.draw(SELDOM) == 7 and self.world.fleet.crew.ready_once:
            self.world.tell(on.UpgradeReady())

    @invariant()
    def bounded(self) -> None:
        """After a stop order all is over within the bound, whatever the workers do: here they do nothing at all."""
        world = getattr(self, "world", None)
        if world is not None and world.left is None and world.now > world.stopped_at + world.policy.kill_after() + 1.0:
            assert all(sim.told == "kill" for sim in world.sims.values()), "somebody lives longer than it may"

    def teardown(self) -> None:
        """Whatever has happened: a stop ends it, and every order has its answer."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.stop()
        world.pass_time(world.policy.kill_after() + 1.0)
        for sim in list(world.sims.values()):
            assert sim.told == "kill", "its kill timer is over"
            world.deliver(sim)
        assert world.left is not None
        assert set(world.answers) == set(world.asked)


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(max_examples=80, stateful_step_count=60)
