"""Clients that ask and ask while something is done to a server, and what became of each of their requests.

Some open a connection for each request, which says ``Connection: close``; others keep theirs, as the pool of a load
balancer does. Whether a request meets the moment in which a kept-alive connection is closed without a word is luck: so
that is counted, too, whether or not one was on its way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from lastcall_drill.client import HTTPClient, Response
from lastcall_drill.harness import Harness
from lastcall_drill.process import HaltedError
from lastcall_drill.scenario import Failed

PAUSE: Final = 0.03
"""Seconds that a client waits after an answer."""

PATIENCE: Final = 5.0
"""Seconds after which a request has had no answer."""

LATEST: Final = 20
"""Answers that have to be the same, before a server counts as changed."""


class Traffic:
    """``fresh`` and ``kept`` clients of a harness, from entering it as a context manager to leaving it.

    ``answered`` is how many requests were; ``lost`` has words for each that was not, ``unannounced`` for each
    kept-alive connection that the server closed without having said so; ``told`` counts those where it had.
    """

    def __init__(self, harness: Harness, *, fresh: int = 0, kept: int = 0, path: str = "/ok") -> None:
        self.answered = 0
        self.told = 0
        self.lost: list[str] = []
        self.unannounced: list[str] = []
        self._harness = harness
        self._path = path
        self._bodies: list[bytes] = []
        self._changed = threading.Lock()
        self._over = threading.Event()
        self._threads = [self._thread(self._ask_afresh, f"fresh-{number}") for number in range(fresh)]
        self._threads += [self._thread(self._ask_on_one, f"kept-{number}") for number in range(kept)]

    @property
    def sent(self) -> int:
        """How many requests have been answered or lost."""
        return self.answered + len(self.lost)

    def latest(self) -> set[bytes]:
        """The different bodies among the latest answers; empty while there are few answers."""
        with self._changed:
            return set(self._bodies[-LATEST:]) if len(self._bodies) >= LATEST else set()

    def forget(self) -> None:
        """Let the next answers be the first ones."""
        with self._changed:
            self._bodies.clear()

    def must_lose_nothing(self) -> None:
        """Raise Failed if a request had no answer, or a kept-alive connection was closed without a word."""
        if self.lost:
            raise Failed(f"{len(self.lost)} of {self.sent} requests had no answer; the first: {self.lost[0]}")
        if self.unannounced:
            times = "once" if len(self.unannounced) == 1 else f"{len(self.unannounced)} times"
            raise Failed(
                f"all {self.sent} requests were answered, but {times} a kept-alive connection was closed without "
                f"Connection: close{self.unannounced[0]}"
            )

    def must_become(self, body: bytes, within: float, what: str) -> float:
        """Wait until the latest answers are ``body``, up to ``within`` seconds after the signal. Returns when.

        Raises Failed, with ``what`` as its subject.
        """
        harness = self._harness
        if not harness.wait_for(lambda: self.latest() == {body}, within - harness.since_signal()):
            if self.lost:
                self.must_lose_nothing()
            seen = ", ".join(sorted(one.decode("latin-1")[:20] for one in self.latest())) or "nothing"
            raise Failed(
                f"{within:.0f} s after the signal {what} did not answer everyone; the latest answers were {seen}"
            )
        return harness.since_signal()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _thread(self, ask: Callable[[str], None], name: str) -> threading.Thread:
        def run() -> None:
            try:
                ask(name)
            except HaltedError:
                return

        return threading.Thread(target=run, name=f"drill-{name}", daemon=True)

    def _ask_afresh(self, name: str) -> None:
        while not self._over.is_set():
            try:
                response = self._harness.ask(self._path, name, within=PATIENCE)
            except OSError as error:
                self._lose(f"a new connection was not made: {type(error).__name__}")
            else:
                self._take(response)
            self._over.wait(self._harness.long(PAUSE))

    def _ask_on_one(self, name: str) -> None:
        while not self._over.is_set():
            try:
                client = self._harness.connect(name)
            except OSError as error:
                self._lose(f"a new connection was not made: {type(error).__name__}")
                self._over.wait(self._harness.long(PAUSE))
            else:
                with client:
                    self._keep(client)

    def _keep(self, client: HTTPClient) -> None:
        """Ask on a connection until it ends, or says that it will."""
        while not self._over.is_set():
            response = client.get(self._path, self._harness.long(PATIENCE))
            if not self._take(response):
                return
            if response.says_close:
                with self._changed:
                    self.told += 1
                return
            self._over.wait(self._harness.long(PAUSE))
            if client.end is not None:
                with self._changed:
                    self.unannounced.append(self._when(client.ended))
                return

    def _take(self, response: Response) -> bool:
        if not response.complete or response.status != 200:
            self._lose(response.outcome)
            return False
        with self._changed:
            self.answered += 1
            self._bodies.append(response.body)
        return True

    def _lose(self, how: str) -> None:
        with self._changed:
            self.lost.append(how + self._when())

    def _when(self, at: float | None = None) -> str:
        """How long after the signal, to follow other words; nothing where the scenario has sent none."""
        return f", {self._harness.since_signal(at):.2f} s after the signal" if self._harness.timeline.signalled else ""
