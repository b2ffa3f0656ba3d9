"""Who a server's own output blames. The samples are what the servers write, cut to the lines that matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from lastcall_drill.appmode.culprits import LONGEST, About, named

HERE = Path("/srv/app")

UVICORN = """\
INFO:     Shutting down
ERROR:    Cancel 1 running task(s), timeout graceful shutdown exceeded
ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "/srv/app/.venv/lib/python3.13/site-packages/uvicorn/protocols/http/h11_impl.py", line 411, in run_asgi
    result = await app(
  File "/srv/app/feeds.py", line 30, in ticks
    await asyncio.sleep(1)
asyncio.exceptions.CancelledError: Task cancelled, timeout graceful shutdown exceeded
ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "/srv/app/feeds.py", line 40, in answer
    raise KeyError("x")
  File "/srv/app/.venv/lib/python3.13/site-packages/starlette/routing.py", line 7, in inner
    raise
KeyError: 'x'
INFO:     Finished server process [1]
"""

DUMP = """\
Timeout (0:00:09.500000)!
Thread 0x00007fdc262ccb80 (most recent call first):
  File "/usr/lib/python3.13/threading.py", line 7 in wait
  File "/srv/app/feeds.py", line 23 in app
  File "/usr/lib/python3.13/asyncio/base_events.py", line 2027 in _run_once
"""


def test_a_cancel_that_the_server_ordered_blames_nobody_and_an_error_names_its_place() -> None:
    assert [(one.about, one.text) for one in named(UVICORN, HERE)] == [
        (About.PROCESS, "Cancel 1 running task(s), timeout graceful shutdown exceeded"),
        (About.REQUEST, "Exception in ASGI application: KeyError: 'x' (feeds.py:40, in answer)"),
    ]


def test_the_stacks_of_a_watchdog_name_the_applications_own_frame() -> None:
    (one,) = named(DUMP, HERE)
    assert one.about is About.PROCESS
    assert one.text.endswith("show feeds.py:23, in app")


@pytest.mark.parametrize(
    ("line", "about", "text"),
    [
        ("ERROR:    Abandoned, threads that do not end: mailer; exit code 5", About.PROCESS, "Abandoned, threads"),
        ("[2026-11-29 10:00:00 +0000] [7] [ERROR] Worker (pid:8) was sent SIGKILL!", About.PROCESS, "Worker (pid:8)"),
        ("2026-11-29 10:00:00,000 CRITICAL app: no lifespan for you", About.LIFESPAN, "app: no lifespan"),
        ("ERROR:    Application shutdown failed. Exiting.", About.LIFESPAN, "Application shutdown failed"),
    ],
)
def test_lines_with_a_level_in_the_forms_of_several_servers(line: str, about: About, text: str) -> None:
    (one,) = named(f"INFO: before\n{line}\nINFO: after", HERE)
    assert one.about is about
    assert one.text.startswith(text)


def test_a_summary_of_the_stop_names_nobody() -> None:
    """It counts what was cut, as a warning; who it was, other lines say."""
    summary = (
        "WARNING:  Stopped (SIGTERM) after 6.0 s: 0 of 1 finished; lifespan complete; exit code 5. Cut: 1 cancelled"
    )
    threads = "ERROR:    Abandoned, threads that do not end: mailer; exit code 5"
    assert named(summary, HERE) == []
    assert [one.text for one in named(f"{threads}\n{summary}", HERE)] == [threads.removeprefix("ERROR:    ")]
    (one,) = named("WARNING:  Stopped listening to the queue", HERE)
    assert one.about is About.PROCESS


def test_what_is_ordinary_names_nobody() -> None:
    said = 'INFO:     127.0.0.1:1 - "GET /ERROR HTTP/1.1" 200 OK\n  ERROR in a line of code\nno error at all\n'
    assert named(said, HERE) == []


def test_a_long_line_and_a_traceback_without_its_end_are_bounded() -> None:
    (one,) = named("ERROR: " + "x" * 10_000, HERE)
    assert len(one.text) == LONGEST
    (one,) = named("Traceback (most recent call last):\n  File", HERE)
    assert "cut off" in one.text
