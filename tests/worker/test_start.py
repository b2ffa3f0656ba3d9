"""A worker's start: what it says, and how it fails."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lastcall.channel.messages import Drain, Emptied, Failed, Force, Goodbye, Hello, Ready, Retire
from testing.worker import WorkerProcess

pytestmark = pytest.mark.slow

Make = Callable[..., WorkerProcess]


def test_it_is_ready_and_lets_nobody_in_but_its_parent(make: Make) -> None:
    worker = make()
    assert worker.expect(Hello).pid == worker.pid
    worker.expect(Ready)
    with worker.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert worker.get("/", private=True).startswith(b"HTTP/1.1 200")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert worker.accept(0) == (0,)
        client.settimeout(20)
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_the_application_knows_which_worker_it_is_in(make: Make) -> None:
    worker = make(number=7).serving()
    assert worker.get("/").endswith(b"%d 7" % worker.pid)


@pytest.mark.parametrize(
    ("app", "start", "said"),
    [
        ("raises:app", "", "the setting X is missing"),
        ("missing:app", "", "missing"),
        ("app:nothing", "", "nothing"),
        ("exits:app", "", "exits"),
        ("app:app", "fail", "no database"),
    ],
)
def test_a_start_that_fails_is_told_in_a_line(make: Make, app: str, start: str, said: str) -> None:
    worker = make(app, env={"START": start})
    failed = worker.expect(Failed)
    assert worker.wait() == failed.code == 3
    assert said in failed.reason
    assert "\n" not in failed.reason
    assert said in failed.text
    assert "Error: " not in worker.output, "all workers fail alike, and the parent says it once"


def test_a_configuration_that_is_no_longer_usable_is_told(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.touch()
    worker = WorkerProcess(path=tmp_path, env_file=str(env_file))
    env_file.unlink()
    with worker:
        failed = worker.expect(Failed)
        assert worker.wait() == failed.code == 2
        assert str(env_file) in failed.reason
        assert failed.reason in failed.text


def test_what_the_parent_cannot_be_told_is_written() -> None:
    worker = WorkerProcess("missing:app", path=Path(__file__).parent / "apps")
    try:
        worker.start()
        worker.boot()
        worker.channel.shutdown(socket.SHUT_RD)  # it still gives orders, but hears nothing
        assert worker.wait() == 3
        assert "Error: " in worker.output
        assert "missing" in worker.output
    finally:
        worker.close()


def test_loss_of_the_channel_in_a_startup_that_hangs(make: Make) -> None:
    worker = make(env={"START": "hang"})
    worker.expect(Hello)
    worker.channel.close()
    assert worker.wait() == 0


def test_loss_of_the_channel_before_anything_was_said(make: Make) -> None:
    worker = WorkerProcess(path=make().path)
    worker.start()
    worker.channel.close()
    try:
        assert worker.wait() == 0
        assert worker.output == ""
    finally:
        worker.close()


@pytest.mark.parametrize("order", [Drain("SIGTERM"), Force("SIGQUIT"), Retire("reload", False)])
def test_an_order_interrupts_the_startup(make: Make, order: Drain | Force | Retire) -> None:
    worker = make(env={"START": "hang"})
    worker.expect(Hello)
    worker.send(order)
    report = worker.expect(Goodbye).report
    assert worker.wait() == 0
    assert report["lifespan"] == "not started"
    if isinstance(order, Drain):
        assert worker.heard(Emptied), "nobody was ever let in"


def test_sigterm_interrupts_an_import(make: Make) -> None:
    worker = make("slow_import:app")
    worker.expect(Hello)
    while "importing" not in worker.output:
        time.sleep(0.02)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.output


def test_ctrl_c_in_an_import_is_the_parents(make: Make) -> None:
    worker = make("slow_import:app", env={"IMPORT_SECONDS": "1.5"})
    worker.expect(Hello)
    while "importing" not in worker.output:
        time.sleep(0.02)
    for _ in range(3):
        worker.signal(signal.SIGINT)
        time.sleep(0.1)
    worker.expect(Ready)
    worker.accept(0)
    assert worker.get("/").startswith(b"HTTP/1.1 200")


def test_what_speaks_another_language_is_no_parent(make: Make) -> None:
    worker = WorkerProcess(path=make().path)
    worker.start()
    try:
        worker.channel.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert worker.wait() == 1
        assert worker.output.startswith("Error: ")
        assert worker.output.count("\n") == 1
    finally:
        worker.close()
