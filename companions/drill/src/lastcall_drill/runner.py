"""Runs scenarios on servers, several at a time, and judges each twice before it says "fail"."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, TypeVar

from lastcall_drill.errors import DrillError
from lastcall_drill.harness import Harness
from lastcall_drill.process import HaltedError, end_children, halt
from lastcall_drill.scenario import Failed, NotOffered, Scenario
from lastcall_drill.servers import Asked, Target, expected
from lastcall_drill.verdicts import Moment, Result, Run, Source, Verdict

T = TypeVar("T")

TRIES: Final = 2
OUTPUT: Final = 8192  # characters of a server's output that a result keeps: the last ones

MOMENTS: Final = 400
"""Moments that a result keeps, about."""

_TRAFFIC: Final = frozenset({"connect", "request", "bytes", "response", "task-end", "fin"})

FEATURES: Final = {
    "lifespan": "the lifespan protocol",
    "websocket": "WebSocket",
    "notice": "a drain notice for applications",
    "workers": "several workers",
    "unix": "unix sockets",
    "keep_alive": "an option for the keep-alive timeout",
    "max_requests": "recycling of workers",
    "reload": "a reloader",
    "restart": "a signal that replaces its workers",
    "scale": "signals for more workers and fewer",
    "upgrade": "a signal that upgrades the server itself",
}


class Watcher(Protocol):
    """Who is told how a run goes. Called from several threads."""

    def begun(self, server: str, scenario: str, attempt: int) -> None:
        """A scenario is started for the first or second time."""

    def done(self, result: Result) -> None:
        """A scenario is judged."""


def judge(
    target: Target, scenario: Scenario, *, scale: float = 1.0, tries: int = TRIES, watcher: Watcher | None = None
) -> Result:
    """Run one scenario on one server: again, up to ``tries``, if it was no pass. ``scale`` makes every time longer."""
    expectation = expected(target, scenario.id)
    missing = scenario.needs - target.features
    if missing:
        words = ", ".join(FEATURES.get(name, name) for name in sorted(missing))
        result = Result(scenario.id, target.label, Verdict.UNSUPPORTED, f"needs {words}", expected=expectation)
    else:
        begin = time.monotonic()
        sentences: list[str] = []
        for attempt in range(1, tries + 1):
            if watcher is not None:
                watcher.begun(target.label, scenario.id, attempt)
            verdict, sentence, harness = _attempt(target, scenario, scale)
            sentences.append(sentence)
            if verdict in (Verdict.PASS, Verdict.UNSUPPORTED):
                break
        if len(sentences) > 1 and verdict is Verdict.PASS:
            sentence = f"{sentence} (at the second try; at the first: {sentences[0]})"
        result = Result(
            scenario.id,
            target.label,
            verdict,
            sentence,
            few(harness.timeline.moments),
            len(sentences),
            round(time.monotonic() - begin, 3),
            harness.server.exit_code if harness.started else None,
            expectation,
            harness.server.output()[-OUTPUT:] if harness.started else "",
        )
    if watcher is not None:
        watcher.done(result)
    return result


def cannot_start(target: Target, scale: float = 1.0, tries: int = TRIES) -> str:
    """Why a server does not come as far as its first answer, however little is asked of it; empty if it does."""
    sentence = ""
    for _ in range(tries):
        with tempfile.TemporaryDirectory(prefix="drill-") as name, Harness(target, Path(name), scale=scale) as harness:
            try:
                harness.serve()
            except HaltedError:
                raise
            except (DrillError, OSError) as error:
                sentence = str(error)
            else:
                return ""
    return sentence


def few(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """The moments for a report: of very many, those that are no everyday traffic, and the first and the last."""
    if len(moments) <= MOMENTS:
        return tuple(moments)
    half = MOMENTS // 2
    middle = [one for one in moments[half:-half] if one.what not in _TRAFFIC]
    left_out = len(moments) - 2 * half - len(middle)
    note = Moment(moments[-half].at, Source.DRILL, "note", detail=f"{left_out} moments of ordinary traffic left out")
    return (*moments[:half], *middle, note, *moments[-half:])


def _attempt(target: Target, scenario: Scenario, scale: float) -> tuple[Verdict, str, Harness]:
    with tempfile.TemporaryDirectory(prefix="drill-") as directory:
        with Harness(target, Path(directory), scale=scale, deadline=scenario.deadline) as harness:
            try:
                verdict, sentence = Verdict.PASS, scenario.steps(harness)
            except Failed as failed:
                verdict, sentence = Verdict.FAIL, str(failed)
                if scenario.signals and not harness.timeline.signalled:
                    verdict, sentence = Verdict.ERROR, f"before the signal: {sentence}"
            except NotOffered as found:
                verdict, sentence = Verdict.UNSUPPORTED, str(found)
            except HaltedError:
                raise
            except DrillError as error:
                verdict, sentence = Verdict.ERROR, str(error)
            except OSError as error:
                verdict, sentence = Verdict.ERROR, f"a client had no connection: {error}"
            except Exception as error:  # one broken scenario must not hide the others' verdicts
                verdict, sentence = Verdict.ERROR, f"the drill itself failed: {type(error).__name__}: {error}"
        return verdict, sentence, harness


def drill(
    targets: Sequence[Target],
    scenarios: Sequence[Scenario],
    *,
    scale: float = 1.0,
    jobs: int = 4,
    watcher: Watcher | None = None,
) -> Run:
    """Judge each server by each scenario, ``jobs`` at a time. Most of the time is spent waiting.

    A server that answers not even one request is asked nothing more: that is one error, and the rest is not reached.
    When it is interrupted (KeyboardInterrupt, SystemExit) every process that it has started is killed first.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="drill-job")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        # The long ones first, so that the last job is a short one; and servers in turn.
        order = sorted(scenarios, key=lambda one: -one.deadline)
        # A single question is asked at once: its own error says the same.
        asked = targets if len(scenarios) > 1 else ()
        starts = [pool.submit(cannot_start, target, scale) for target in asked]
        broken = {one.label: why for one, why in zip(asked, _gather(starts), strict=True) if why}
        futures: list[Future[Result]] = [
            pool.submit(judge, target, scenario, scale=scale, watcher=watcher)
            for scenario in order
            for target in targets
            if target.label not in broken
        ]
        results = _gather(futures)
        for label, why in broken.items():
            results += _unreached(label, why, scenarios, watcher)
    except BaseException:
        halt()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    columns = [target.label for target in targets]
    rows = [scenario.id for scenario in scenarios]
    results.sort(key=lambda one: (columns.index(one.server), rows.index(one.scenario)))
    infos = tuple(scenario.info for scenario in scenarios)
    return Run(date, machine(), scale, tuple(target.info for target in targets), infos, tuple(results))


def _unreached(label: str, why: str, scenarios: Sequence[Scenario], watcher: Watcher | None) -> list[Result]:
    """The results of a server that does not start: one error, and what it keeps from being asked."""
    first, *others = scenarios
    found = [Result(first.id, label, Verdict.ERROR, why)]
    found += [Result(one.id, label, Verdict.UNREACHED, f"not asked: see {first.id}") for one in others]
    for one in found:
        if watcher is not None:
            watcher.done(one)
    return found


def _gather(futures: Sequence[Future[T]]) -> list[T]:
    left = set(futures)
    while left:
        # With a timeout: a wait without one is not interrupted by a signal everywhere.
        done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
    return [one.result() for one in futures]


def prepare_all(asked: Sequence[Asked], prepare: Callable[[Asked], Target], jobs: int) -> list[Target]:
    """Prepare several servers at a time, in their order. Raises the first error.

    When it is interrupted, what is being installed is ended first.
    """
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="drill-environment")
    futures = [pool.submit(prepare, one) for one in asked]
    try:
        return _gather(futures)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_children()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def machine() -> str:
    """The machine in a few words, without its name."""
    system = f"{platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{system}, {platform.machine()}, {os.cpu_count()} CPUs, drill on {python}"
