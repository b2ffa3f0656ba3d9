"""The next parent: started from what is installed now, it takes the listeners over, and says when it serves.

The old one starts it with its own command line, working directory and environment, and one end of a socketpair, and
sends it the listeners. Both accept from them until the new one's workers do; then the old one drains. What goes wrong
before that changes nothing: the new parent ends, and the old one serves on. If the old one is killed before that, the
new one has all that it needs, and goes on.

A new parent whose workers do not become ready is waited for: how long an application may take to start is
``--timeout-worker-boot``'s to say, which ends it. Until then a line each ``REMINDER`` seconds and the status tell of
it, and ``ctl rollback`` ends it. A second SIGUSR2 does not: a signal that comes twice must not undo what it has begun.

systemd has given its sockets, and speaks, to the old one only. So the new one takes over what it inherits where nobody
says other addresses, and gets ``NOTIFY_SOCKET``; it is silent until it serves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lastcall.base.errors import StartupError
from lastcall.base.options import BindSpec
from lastcall.channel.endpoint import Endpoint
from lastcall.channel.frames import DESCRIPTORS_AT_MOST
from lastcall.channel.messages import ChannelError, Inherit, Message, Serving
from lastcall.config.directory import started_in
from lastcall.supervisor.control import Outcome
from lastcall.supervisor.spawn import Process, start

if TYPE_CHECKING:
    from lastcall.config import Config

logger = logging.getLogger("lastcall.error")

VARIABLE: Final = "LASTCALL_UPGRADE"
"""In the environment of a new parent: the descriptor at which its predecessor waits."""

REMINDER: Final = 30.0
"""Seconds between two lines about a new parent that does not serve yet."""

ENDING: Final = 10.0
"""Seconds that a new parent has to end, when it is not wanted any more, before it is killed."""

State = dict[str, Any]
"""What ``net.slots`` needs to know of the listeners, as JSON."""


class Upgrade:
    """The old parent's side. ``listeners()`` are what the successor gets, ``serving(pid)`` is called when it serves.

    ``alone(yes)`` is told whether this parent alone has the listeners: not while there is a successor. ``environ`` is
    what the successor gets beside the variables of this process: those of the service manager, which were taken out.
    """

    def __init__(
        self,
        binds: Sequence[BindSpec],
        listeners: Callable[[], tuple[State, list[int]]],
        serving: Callable[[int], object],
        alone: Callable[[bool], object],
        environ: Mapping[str, str],
    ) -> None:
        self.control = ""
        self._binds = binds
        self._listeners = listeners
        self._serving = serving
        self._tell_alone = alone
        self._environ = environ
        self._process: Process | None = None
        self._endpoint: Endpoint | None = None
        self._answer: asyncio.Future[Outcome] | None = None
        self._since = 0.0
        self._unwanted = ""  # why it is being ended
        self._timer: asyncio.TimerHandle | None = None
        self.handed_over = False

    async def run(self) -> Outcome:
        """Start the successor; returns when it serves, or has failed."""
        if self._answer is not None:
            under_way = f"{self.doing()}; `lastcall ctl rollback` ends that" if self.waiting else "it is done"
            return Outcome(False, f"Not upgraded again: {under_way}")
        if os.getpid() == 1:
            return Outcome(False, "Not upgraded: this is process 1, with whose end a container ends; restart that")
        self._answer = asyncio.get_running_loop().create_future()
        self._tell_alone(False)
        try:
            self._start()
        except Exception as exc:
            if not isinstance(exc, OSError):
                logger.exception("lastcall: internal error in an upgrade; please report this")
            if self._endpoint is not None:
                self._endpoint.close()
                self._endpoint = None
            reason = getattr(exc, "strerror", None) or exc
            self._settle(Outcome(False, f"Not upgraded: the new parent could not be started: {reason}"))
        outcome = await asyncio.shield(self._answer)
        if not outcome.ok and self._process is None:
            self._over()
        return outcome

    def _over(self) -> None:
        """There is no successor any more: the listeners are this parent's alone."""
        if self._answer is not None:
            self._answer = None
            self._tell_alone(True)

    @property
    def under_way(self) -> bool:
        """Whether somebody else has the listeners, too: they have to stay as they are."""
        return self._answer is not None

    @property
    def waiting(self) -> bool:
        """Whether there is a successor that does not serve yet."""
        return self._process is not None and not self.handed_over

    def doing(self) -> str:
        """What is under way, in a line; empty if nothing is."""
        if self._process is None or self.handed_over:
            return ""
        seconds = time.monotonic() - self._since
        if self._unwanted:
            return f"upgrade: process {self._process.pid}, the new parent, is ended: {self._unwanted}"
        return f"upgrade: process {self._process.pid}, the new parent, does not serve yet, after {seconds:.0f} s"

    def status(self) -> dict[str, Any] | None:
        """The same as JSON; None if nothing is under way."""
        if self._process is None or self.handed_over:
            return None
        return {"pid": self._process.pid, "seconds": time.monotonic() - self._since, "ending": bool(self._unwanted)}

    def give_up(self) -> None:
        """The service stops: a successor that does not serve yet has nothing to take over."""
        if self.waiting:
            self._end("the service stops")
            self._settle(Outcome(False, "Not upgraded: the service stops"))

    async def roll_back(self) -> Outcome:
        """A person does not want to wait for the successor any longer; returns when it has ended."""
        answer = self._answer
        if answer is None or not self.waiting:
            return Outcome(False, "No upgrade is under way.")
        self._end("rolled back by order")
        outcome = await asyncio.shield(answer)
        return Outcome(not outcome.ok, "Rolled back: this parent serves on" if not outcome.ok else outcome.text)

    def _end(self, why: str) -> None:
        if self._process is None or self.handed_over or self._unwanted:
            return
        self._unwanted = why
        self._process.send(signal.SIGTERM)
        self._set_timer(ENDING, self._kill)

    def _kill(self) -> None:
        if self._process is not None and not self.handed_over:
            self._process.send(signal.SIGKILL)

    def _remind(self) -> None:
        logger.warning("%s; `lastcall ctl rollback` ends that.", _capital(self.doing()))
        self._set_timer(REMINDER, self._remind)

    def _set_timer(self, seconds: float, then: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """This process ends; a successor that serves goes on."""
        self._stop_timer()
        if self._process is not None:
            self._process.forget()
        if self._endpoint is not None:
            self._endpoint.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._endpoint = Endpoint(ours, self._heard, self._lost)
            state, fds = self._listeners()
            addresses = tuple(map(str, self._binds))
            for at in range(0, len(fds), DESCRIPTORS_AT_MOST):
                end = at + DESCRIPTORS_AT_MOST
                self._endpoint.send(Inherit({} if at else state, addresses, self.control, end < len(fds)), fds[at:end])
            fd = theirs.fileno()
            self._process = start(
                [sys.executable, *sys.orig_argv[1:]],
                self._ended,
                environ={**os.environ, **self._environ, VARIABLE: str(fd)},
                descriptors=(fd,),
                cwd=started_in(),
            )
        self._since, self._unwanted = time.monotonic(), ""
        self._set_timer(REMINDER, self._remind)
        logger.info("Upgrading: the new parent is process %d", self._process.pid)

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        for fd in descriptors:
            os.close(fd)
        if isinstance(message, Serving) and self._process is not None and not self._unwanted:
            self.handed_over = True
            self._stop_timer()
            self._settle(Outcome(True, f"Upgraded: process {message.pid} serves, and this one drains"))
            self._serving(message.pid)

    def _lost(self, error: ChannelError | None) -> None:
        if error is not None and self._process is not None:
            self._process.send(signal.SIGKILL)

    def _ended(self, code: int) -> None:
        if self._endpoint is not None:
            self._endpoint.read_rest()
            self._endpoint.close()
        how = f"exit code {code}" if code >= 0 else f"{signal.Signals(-code).name}"
        self._process = self._endpoint = None
        if not self.handed_over:
            self._stop_timer()
            why = self._unwanted or f"the new parent has ended with {how}; this one serves on"
            if self._answer is not None and self._answer.done():  # whoever waited has been told why
                self._over()
            self._settle(Outcome(False, f"Not upgraded: {why}"))

    def _settle(self, outcome: Outcome) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(outcome)


class Inheritance:
    """The new parent's side: ``take()`` gets the listeners, ``serving()`` tells the predecessor that it may go."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.set_inheritable(False)
        self._endpoint: Endpoint | None = None
        self._state: State = {}
        self._fds: list[int] = []
        self._all: asyncio.Future[Inherit] | None = None
        self._told = False
        self.on_alone: Callable[[], object] = lambda: None

    async def take(self, config: Config) -> tuple[Config, State, list[int], str]:
        """The configuration with what is inherited, the listeners, and where the control socket is.

        The listeners are the caller's from now on. Raises StartupError where it wants others. The configuration comes
        with the sockets of the service manager, where the predecessor had those.
        """
        self._all = asyncio.get_running_loop().create_future()
        self._endpoint = Endpoint(self._sock, self._heard, self._lost)
        last = await self._all
        if not config.says_where and (found := _given(last.addresses)):
            config = config.listening_on(found)
        binds = config.options.net.binds
        if last.addresses != tuple(map(str, binds)):
            for fd in self._fds:
                os.close(fd)
            raise StartupError(
                f"the addresses have changed from {', '.join(last.addresses)} to {', '.join(map(str, binds))}, "
                "which takes a restart"
            )
        return config, self._state, self._fds, last.control

    def serving(self) -> None:
        """The workers accept."""
        self._told = True
        if self._endpoint is not None:
            self._endpoint.send(Serving(os.getpid()))

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Inherit) and self._all is not None:
            self._state = self._state or message.state
            self._fds += descriptors
            if not message.more and not self._all.done():
                self._all.set_result(message)

    def _lost(self, error: ChannelError | None) -> None:
        if self._all is not None and not self._all.done():
            self._all.set_exception(StartupError(f"the old parent is gone{f': {error}' if error else ''}"))
            return
        if error is not None:
            logger.error("The old parent said what is no message: %s", error)
        if not self._told:
            logger.warning("The old parent is gone before this one served: going on alone")
            self.on_alone()


def _given(addresses: Sequence[str]) -> tuple[BindSpec, ...]:
    """The addresses where all are descriptors: the numbers that they had in the first parent of all."""
    found = [re.fullmatch(r"fd://(\d{1,9})", one) for one in addresses]
    return tuple(BindSpec("fd", fd=int(one[1])) for one in found if one) if all(found) else ()


def inheritance(environ: MutableMapping[str, str]) -> Inheritance | None:
    """What a predecessor left for this process; None where there is none. The variable is taken away."""
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        return Inheritance(int(text))
    except (ValueError, OSError) as exc:
        raise StartupError(f"{VARIABLE} is set, and says nothing that is of use: {exc}") from exc


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
