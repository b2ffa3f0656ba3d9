"""The clock of these tests: what the machine gives to others does not count against an upper bound."""

from __future__ import annotations

import os
import sys
import time

from testing.clock import Moment, Seconds, Stopwatch
from testing.process import ServerProcess


def test_a_lower_bound_is_of_the_wall_and_an_upper_one_of_the_clock() -> None:
    seconds = Seconds(3.0, 0.5)
    assert 2.9 < seconds < 0.6
    assert 3.0 <= seconds <= 0.5
    assert not seconds < 0.5
    assert not seconds > 3.0


def test_the_time_that_a_process_waits_for_a_processor_is_taken_off() -> None:
    one = str(min(os.sched_getaffinity(0)))
    work = f"import os, time; os.sched_setaffinity(0, {{{one}}})\nwhile time.process_time() < 0.4: pass"
    command = [sys.executable, "-c", work]
    watch = Stopwatch()
    with ServerProcess(command=command) as first, ServerProcess(command=command) as second:
        for process in (first, second):
            assert process.wait(30) == 0
        seconds = watch.seconds
    assert seconds > 0.75, "they share one processor"
    assert seconds < float(seconds) - 0.2


def test_what_a_process_said_before_its_end_is_measured_from_a_moment() -> None:
    one = str(min(os.sched_getaffinity(0)))
    work = f"import os, time; os.sched_setaffinity(0, {{{one}}})\nwhile time.process_time() < 0.3: pass"
    command = [sys.executable, "-c", work]
    with ServerProcess(command=command) as first, ServerProcess(command=command) as second:
        begun = Moment.now()
        for process in (first, second):
            assert process.wait(30) == 0
        ended = time.monotonic()
    seconds = ended - begun
    assert seconds < float(seconds) - 0.1
    assert not seconds > float(ended) - float(begun)


def test_time_in_which_nobody_wants_to_run_counts() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    begun = time.monotonic()
    with ServerProcess(command=command) as process:
        assert process.wait(30) == 0
        seconds = time.monotonic() - begun
        assert seconds - process.waited > 0.45, "a sleep is no wait"
