"""What people order, by signal or ``lastcall ctl``: looked at, given to the fleet, and answered."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lastcall.base.errors import ConfigError
from lastcall.channel.messages import Census
from lastcall.config import Config
from lastcall.observe.logs import reconfigure_logging
from lastcall.supervisor import events
from lastcall.supervisor.beats import resident
from lastcall.supervisor.changes import changes
from lastcall.supervisor.control import Outcome
from lastcall.supervisor.settings import pack

if TYPE_CHECKING:
    from lastcall.supervisor.parent import Parent
    from lastcall.supervisor.policy import FleetPolicy
    from lastcall.supervisor.upgrade import Upgrade
    from lastcall.supervisor.workers import Worker

logger = logging.getLogger("lastcall.error")

CENSUS_SECONDS: Final = 2.0
"""How long workers are waited for that are asked what they do: one whose loop is blocked does not answer."""

STATUS_SECONDS: Final = 0.5
"""The same for the status, which is asked for where something is wrong."""


class ParentService:
    """The orders, for the control socket (``control.Service``) and for signals (``signals.Orders``).

    ``upgrader`` carries an upgrade out, ``policy(config)`` is what a configuration is to the fleet, and
    ``changed(config)`` is called with each new one.
    """

    def __init__(
        self,
        parent: Parent,
        config: Config,
        *,
        policy: Callable[[Config], FleetPolicy],
        changed: Callable[[Config], object],
        upgrader: Upgrade,
    ) -> None:
        self.config = config
        self.facts: dict[str, Any] = {}  # for the status: what does not change
        self._since = time.monotonic()
        self._parent = parent
        self._policy = policy
        self._changed = changed
        self._upgrader = upgrader
        self._tasks: set[asyncio.Future[Any]] = set()
        self._orders: Mapping[str, Callable[..., Awaitable[Outcome]]] = {
            "reload": self._reload,
            "promote": lambda: parent.order(events.PromoteOrdered),
            "rollback": self._roll_back,
            "scale": self._scale,
            "stop": self._stop,
            "stacks": self._stacks,
            "upgrade": self._upgrade,
        }

    # -- for the control socket -----------------------------------------------------------------------------------

    def doing(self) -> str:
        """What is under way, in a line."""
        return self._parent.fleet.doing(time.monotonic()) or self._upgrader.doing()

    async def status(self) -> dict[str, Any]:
        """The fleet's own, what does not change, and what the workers tell of themselves."""
        told = await self._take_censuses(STATUS_SECONDS)
        now = time.monotonic()
        found = {**self.facts, "age": now - self._since, **self._parent.fleet.status(now)}
        found |= {"doing": self.doing(), "upgrade": self._upgrader.status()}
        for row in found["workers"]:
            worker = self._parent.workers.get(row["worker"])
            if worker is not None:
                row["rss"] = resident(worker.pid) or None
            census = told.get(row["worker"])
            for field in ("in_flight", "connections", "served", "errors"):
                row[field] = None if census is None else getattr(census, field)
        return found

    async def inflight(self) -> list[dict[str, Any]]:
        """What runs in all workers, longest first; workers that do not answer in time are left out."""
        told = await self._take_censuses(CENSUS_SECONDS, tasks=True)
        found = [{"worker": number, **task} for number, census in told.items() for task in census.tasks]
        return sorted(found, key=lambda task: -float(task.get("age", 0.0)))

    async def _take_censuses(self, seconds: float, *, tasks: bool = False) -> dict[int, Census]:
        """What the workers do, by their numbers; those that do not answer in time are left out."""
        found: dict[int, Census] = {}
        waiting = {worker.number for worker in self._parent.workers if worker.hello}
        done = asyncio.Event()

        def told(worker: Worker, census: Census) -> None:
            found[worker.number] = census
            if found.keys() >= waiting:
                done.set()

        questions = [self._parent.ask(number, told, tasks=tasks) for number in waiting]
        if questions:
            try:
                async with asyncio.timeout(seconds):
                    await done.wait()
            except TimeoutError:
                pass
            finally:
                for question in questions:
                    self._parent.forget(question)
        return found

    async def order(self, name: str, /, **arguments: Any) -> Outcome:
        """One of ``control.ORDERS``; returns when it is settled."""
        return await self._orders[name](**arguments)

    # -- by signals -----------------------------------------------------------------------------------------------

    def stop_signal(self, name: str, level: int) -> None:
        """The first signal, or the second."""
        interactive = name in ("SIGINT", "SIGHUP")
        self._parent.tell(events.ForceOrdered(name) if level >= 2 else events.StopOrdered(name, interactive))

    def reload(self) -> None:
        """SIGHUP."""
        self._by_signal(self._reload())

    def scale_by(self, more: int) -> None:
        """SIGTTIN, SIGTTOU."""
        self._by_signal(self._scale(max(1, self._parent.fleet.wanted + more)))

    def upgrade(self) -> None:
        """SIGUSR2."""
        self._by_signal(self._upgrade())

    def files_changed(self) -> None:
        """The watcher of ``--reload``."""
        self._by_signal(self._reload(development=True))

    def _by_signal(self, order: Awaitable[Outcome]) -> None:
        """Nobody waits for the answer, so the log gets it, where it has not got it already."""

        async def log() -> None:
            outcome = await order
            if outcome.text and not outcome.said:
                logger.log(logging.INFO if outcome.ok else logging.ERROR, "%s", outcome.text)

        task = asyncio.ensure_future(log())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- one by one -----------------------------------------------------------------------------------------------

    async def _reload(self, *, canary: bool = False, development: bool = False) -> Outcome:
        if self._upgrader.under_way:
            return Outcome(False, "Not reloaded: an upgrade is under way")
        try:
            config = Config.from_origin(self.config.origin, os.environ)
            if not config.says_where:  # systemd's sockets, which the parent has
                config = config.listening_on(self.config.options.net.binds)
            found = changes(self.config, config)
            if found.refusal:
                return Outcome(False, f"Not reloaded: {found.refusal}")
            settings = pack(config)
            reconfigure_logging(config.options.log)
        except ConfigError as exc:
            return Outcome(False, f"Not reloaded: {exc}")
        if found.warning:
            logger.warning("%s", found.warning)
        self.config = config
        self._changed(config)
        self._parent.workers.settings = settings
        wanted = canary or (config.options.canary.wanted and not development)
        policy = self._policy(config)
        return await self._parent.order(lambda request: events.ReloadOrdered(request, wanted, development, policy))

    async def _scale(self, workers: int) -> Outcome:
        if self._upgrader.under_way:
            return Outcome(False, "Not scaled: an upgrade is under way")
        return await self._parent.order(lambda request: events.ScaleOrdered(request, workers))

    async def _stop(self, *, force: bool = False) -> Outcome:
        self._parent.tell(events.StopOrdered("ctl"))
        if force:
            self._parent.tell(events.ForceOrdered("ctl"))
        code = await asyncio.shield(self._parent.done)
        return Outcome(True, f"Stopped; exit code {code}")

    async def _stacks(self) -> Outcome:
        asked = sum(self._parent.workers.write_stacks(worker) for worker in self._parent.workers)
        which = "1 worker writes its stacks" if asked == 1 else f"{asked} workers write their stacks"
        return Outcome(asked > 0, f"{which} to standard error")

    async def _upgrade(self) -> Outcome:
        if self._parent.stopping:
            return Outcome(False, "Not upgraded: the service stops")
        if busy := self._parent.fleet.moves_listeners:
            return Outcome(False, f"Not upgraded: {busy}")
        return await self._upgrader.run()

    async def _roll_back(self) -> Outcome:
        if self._upgrader.waiting:
            return await self._upgrader.roll_back()
        return await self._parent.order(events.RollBackOrdered)
