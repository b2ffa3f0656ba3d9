"""SIGTERM in every phase of everything that a service can be at, at random moments; and signals that come twice.

``LASTCALL_SOAK_SEED`` repeats the moments of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.process import ProcessFailure
from testing.service import Service, alive, children
from testing.storm import exit_code, marked, reaping
from tests.process.test_fleet_limits import order
from tests.soak.test_soak import seed

TWO = ("--workers", "2")
BUDGETS = ("--timeout-graceful-shutdown", "4", "--timeout-cancel", "1", "--timeout-lifespan-shutdown", "2")
BOUND = 4 + 1 + 2 + 1 + 1 + 10
"""Seconds that a stop may take: its budgets, the kill timers' margin, and ten for a machine that is busy."""

NOT_TOGETHER = 0.6
BOOTS = "time.sleep(0.2)\n\nasync def startup():\n    await asyncio.sleep(0.1)\n\nasync def shutdown():\n    pass"


# -- at any moment -----------------------------------------------------------------------------------------------------


def nothing(service: Service) -> None:
    """It serves."""


def reload(service: Service) -> None:
    service.deploy(generation="2", extra=BOOTS)
    service.signal(signal.SIGHUP)


def reload_twice(service: Service) -> None:
    reload(service)
    time.sleep(0.1)
    reload(service)


def broken_reload(service: Service) -> None:
    service.deploy(text="import time\ntime.sleep(0.3)\nimport no_such_module")
    service.signal(signal.SIGHUP)


def scale(service: Service) -> None:
    service.signal(signal.SIGTTIN)


def scale_down(service: Service) -> None:
    service.signal(signal.SIGTTOU)


def retire(service: Service) -> None:
    with suppress(ProcessLookupError):
        os.kill(service.workers[0], signal.SIGTERM)


def kill(service: Service) -> None:
    with suppress(ProcessLookupError):
        os.kill(service.workers[0], signal.SIGKILL)


def upgrade(service: Service) -> None:
    service.deploy(generation="2", extra=BOOTS)
    service.signal(signal.SIGUSR2)


CANARY = ("--canary", "--canary-hold", "1", "--canary-min-requests", "1")
PHASES: dict[str, tuple[Callable[[Service], None], float, tuple[str, ...]]] = {
    "start": (nothing, 1.5, ()),
    "serving": (nothing, 0.2, ()),
    "roll": (reload, 2.5, ()),
    "two rolls": (reload_twice, 3.0, ()),
    "broken roll": (broken_reload, 1.5, ()),
    "canary": (reload, 4.0, CANARY),
    "scale up": (scale, 1.0, ()),
    "scale down": (scale_down, 1.0, ()),
    "retirement": (retire, 1.5, ()),
    "death": (kill, 1.0, ()),
    "upgrade": (upgrade, 3.0, ()),
}
"""What is under way, for how long (in seconds) it may be on a machine that does nothing else, and options for it."""


def stop_somewhere(directory: Path, phase: str, wait: float, number: signal.Signals, *, group: bool) -> str:
    """One service, told to stop at one moment: what was wrong with its end, or nothing."""
    act, _, options = PHASES[phase]
    directory.mkdir()
    mark = f"LASTCALL_TEST_MARK={directory}"
    name, _, value = mark.partition("=")
    name = name.removeprefix("LASTCALL_")
    mark = f"{name}={value}"
    pidfile = directory / "service.pid"
    options = (*TWO, *BUDGETS, "--pidfile", str(pidfile), *options)
    what = f"{phase}, {number.name} after {wait:.3f} s{', to all' if group else ''}"
    with Service(directory, *options, extra=BOOTS, env={name: value}, ready=False) as service:
        if phase != "start":
            service.process.wait_ready(60)
        act(service)
        time.sleep(wait)
        for pid in (service.process.pid, *(marked(mark) if group else ())):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        since = time.monotonic()
        while service.process.returncode is None and time.monotonic() - since < BOUND:
            time.sleep(0.01)
        code = service.process.returncode
        said = service.process.stderr
        if phase == "start" and code == -number and "lastcall" not in said and "INFO" not in said:
            code = 0  # the interpreter had not come to our first line yet
        # One SIGQUIT is two signals: a start that is under way is not waited for, which is code 5.
        if code != 0 and not (code == 5 and number == signal.SIGQUIT):
            return f"{what}: exit code {code}\n{marked(mark)}\n{said}"
        if phase == "upgrade":
            fault = end_of_successor(service, pidfile, mark)
            if fault:
                return f"{what}: {fault}\n{service.process.stderr}"
        try:
            eventually(lambda: not marked(mark), 10)
        except AssertionError:
            return f"{what}: left behind: {marked(mark)}\n{service.process.stderr}"
        if "Traceback" in service.process.stderr.replace("no_such_module", "") and phase != "broken roll":
            return f"{what}: {service.process.stderr}"
        if "please report this" in service.process.stderr:
            return f"{what}: {service.process.stderr}"
    return ""


def end_of_successor(service: Service, pidfile: Path, mark: str) -> str:
    """The old parent has gone: there is nobody, or somebody who serves and ends as well; what is wrong with it."""
    since = time.monotonic()
    while time.monotonic() - since < BOUND:
        if not marked(mark):
            return ""
        with suppress(OSError, ValueError, EOFError):
            parent = int(pidfile.read_text())
            with Peer(str(service.control)) as control:
                if control.get("/status").status == 200 and service.ask("/generation") == "2":
                    os.kill(parent, signal.SIGTERM)
                    code = exit_code(parent, BOUND)
                    return "" if code == 0 else f"the new parent's exit code is {code}"
        time.sleep(0.05)
    return f"neither gone nor serving: {marked(mark)}"


AT_ONCE = 3


def check(directory: Path, moments: int) -> None:
    chance = random.Random(seed())
    running: list[Future[str]] = []
    phases = list(PHASES)
    # Some at a time: a service waits most of its life.
    with reaping(), ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(moments):
            phase = phases[number % len(phases)]
            wait = chance.uniform(0, PHASES[phase][1])
            signum = chance.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
            group = chance.random() < 0.3
            running.append(pool.submit(stop_somewhere, directory / str(number), phase, wait, signum, group=group))
        faults = [fault for one in running if (fault := one.result())]
    assert not faults, "\n\n".join(faults)


@pytest.mark.timeout(300)
def test_a_stop_at_a_moment_of_each_phase(tmp_path: Path) -> None:
    check(tmp_path, len(PHASES))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_stop_at_300_moments(tmp_path: Path) -> None:
    check(tmp_path, int(os.environ.get("LASTCALL_SOAK_MOMENTS", "300")))


# -- second and third signals ------------------------------------------------------------------------------------------

STUBBORN = ("--timeout-graceful-shutdown", "60", "--timeout-interrupt", "60", "--timeout-cancel", "60")
HANGS = "print('boots', flush=True)\ntime.sleep(600)"


def hold(service: Service, peers: list[Peer], path: str, said: str) -> None:
    """Requests that run in the workers."""
    before = service.process.stdout.count(said)
    for peer in peers:
        peer.request(path)
    assert service.process._stdout.wait(lambda text: text.count(said) == before + len(peers), 10)


def in_a_roll(service: Service) -> None:
    service.deploy(generation="2", extra=HANGS)
    service.signal(signal.SIGHUP)
    assert service.process._stdout.wait(lambda text: "boots" in text, 10)


def after_a_roll(service: Service) -> None:
    """The old workers drain, with what they still do."""
    service.deploy(generation="2")
    assert order(service, "reload")[0] == 200


def in_an_upgrade(service: Service) -> None:
    service.deploy(generation="2", extra=HANGS)
    service.signal(signal.SIGUSR2)
    assert service.process._stdout.wait(lambda text: "boots" in text, 10)


BUSY = pytest.mark.parametrize("busy", [in_a_roll, after_a_roll, in_an_upgrade], ids=lambda one: one.__name__)


@BUSY
@pytest.mark.timeout(60)
def test_the_second_signal_cancels_and_a_doubled_first_does_not(
    tmp_path: Path, busy: Callable[[Service], None]
) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(Service(tmp_path, *TWO, *STUBBORN, env={"TEST_MARK": str(tmp_path)}))
        service.wait_workers(2)
        peers = [stack.enter_context(service.connect()) for _ in range(6)]
        hold(service, peers, "/slow/60", "slow began")
        busy(service)
        everybody = marked(f"TEST_MARK={tmp_path}")
        for pid in (*everybody, *everybody):  # as a terminal does, and a service manager that signals the group, too
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        time.sleep(NOT_TOGETHER)
        assert service.process.returncode is None, "the doubled signal was taken for a second one"
        service.signal(signal.SIGINT)
        assert service.process.wait(15) == 0
        eventually(lambda: not marked(f"TEST_MARK={tmp_path}"))


@BUSY
@pytest.mark.timeout(60)
def test_the_third_signal_kills(tmp_path: Path, busy: Callable[[Service], None]) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(Service(tmp_path, *TWO, *STUBBORN, env={"TEST_MARK": str(tmp_path)}))
        service.wait_workers(2)
        peers = [stack.enter_context(service.connect()) for _ in range(6)]
        hold(service, peers, "/stubborn", "stubborn began")
        busy(service)
        for _ in range(3):
            with suppress(ProcessLookupError, ProcessFailure):
                service.signal(signal.SIGTERM)
            time.sleep(NOT_TOGETHER)
        assert service.process.wait(15) == 5
        eventually(lambda: not marked(f"TEST_MARK={tmp_path}"))


@pytest.mark.timeout(60)
def test_signals_during_the_drain_of_an_old_parent_are_its_own(tmp_path: Path) -> None:
    """After an upgrade: the second signal to the old parent cancels there, and the new one serves on."""
    pidfile = tmp_path / "service.pid"
    with reaping(), ExitStack() as stack:
        options = (*TWO, *STUBBORN, "--pidfile", str(pidfile))
        service = stack.enter_context(Service(tmp_path, *options))
        old = service.process.pid
        service.wait_workers(2)
        peers = [stack.enter_context(service.connect()) for _ in range(6)]
        hold(service, peers, "/slow/60", "slow began")
        service.deploy(generation="2")
        service.signal(signal.SIGUSR2)
        eventually(lambda: int(pidfile.read_text() or old) != old, 20)
        fresh = int(pidfile.read_text())
        stack.callback(lambda: os.kill(fresh, signal.SIGKILL) if alive(fresh) else None)
        address = service.address
        time.sleep(NOT_TOGETHER)
        assert service.process.returncode is None
        service.signal(signal.SIGTERM)
        time.sleep(NOT_TOGETHER)
        if service.process.returncode is None:
            service.signal(signal.SIGTERM)
        eventually(lambda: service.process.returncode is not None, 15)
        assert service.process.returncode == 0
        for _ in range(5):
            with Peer(address) as peer:
                assert peer.get("/generation").body == b"2"
        workers = children(fresh)
        os.kill(fresh, signal.SIGTERM)
        assert exit_code(fresh) == 0
        assert not any(map(alive, workers))
