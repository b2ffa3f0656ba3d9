"""Rolling reload: new code without a refused connection, and code that cannot start, which changes nothing."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive

TWO = ("--workers", "2")


def generations(service: Service) -> set[str]:
    return {service.ask("/generation") for _ in range(20)}


def test_a_reload_brings_the_new_code_to_clients_that_stay_connected(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, ExitStack() as stack:
        old = service.wait_workers(2)
        peers = [stack.enter_context(service.connect()) for _ in range(20)]
        assert {peer.get("/generation").body for peer in peers} == {b"1"}
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        service.wait_for("(?i)reloaded")

        def all_have_moved() -> bool:
            # Nobody is told to close, and nobody is closed; the last ones may still be on their way.
            answers = [peer.get("/generation") for peer in peers]
            assert all("connection" not in answer.headers for answer in answers)
            return {answer.body for answer in answers} == {b"2"}

        eventually(all_have_moved)
        assert generations(service) == {"2"}
        eventually(lambda: not any(map(alive, old)))
        assert service.process.stop() == 0


def test_a_reload_reads_the_files_of_variables_and_of_the_log_again(tmp_path: Path) -> None:
    variables, log = tmp_path / "variables", tmp_path / "log.json"
    config = {
        "version": 1,
        "formatters": {"one": {"format": "first %(message)s"}},
        "handlers": {"one": {"class": "logging.StreamHandler", "formatter": "one"}},
        "loggers": {"lastcall": {"handlers": ["one"], "level": "INFO"}},
    }
    log.write_text(json.dumps(config))
    variables.write_text("COLOUR=red")
    with Service(tmp_path, *TWO, "--env-file", str(variables), "--log-config", str(log)) as service:
        service.wait_workers(2)
        assert service.ask("/variable/COLOUR") == "red"
        variables.write_text("COLOUR=blue")
        log.write_text("{")
        service.signal(signal.SIGHUP)
        service.wait_for("first Not reloaded: --log-config")
        assert service.ask("/variable/COLOUR") == "red"
        log.write_text(json.dumps(config).replace("first", "second"))
        service.signal(signal.SIGHUP)
        service.wait_for("second Reloaded")
        assert {service.ask("/variable/COLOUR") for _ in range(10)} == {"blue"}
        variables.unlink()
        with Peer(str(service.control)) as control:
            control.request("/reload", "Content-Length: 0", method="POST")
            assert b"Not reloaded" in control.answer().body
        assert service.ask("/variable/COLOUR") == "blue"
        assert service.process.stop() == 0


def test_an_application_is_asked_once_for_pages_that_it_may_have(tmp_path: Path) -> None:
    pages = """
async def answer_docs(query, send):
    print("asked for the docs", os.environ["LASTCALL_WORKER_ID"], flush=True)
    raise RuntimeError("no docs here")
"""
    with Service(tmp_path, *TWO, extra=pages) as service:
        service.wait_workers(2)
        for _ in range(3):
            service.deploy(extra=pages + "sys.exit(3)")
            seen = service.process.stderr.count("Reload failed")
            service.signal(signal.SIGHUP)
            service.process.wait_for("(?s)" + "Reload failed.*" * (seen + 1))
        service.deploy(extra=pages, generation="2")
        service.signal(signal.SIGHUP)
        service.wait_for("(?i)reloaded")
        assert service.process.stdout.count("asked for the docs") == 1
        assert service.process.stop() == 0


def test_no_request_fails_while_it_rolls(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        done = threading.Event()
        failed: list[BaseException] = []
        answered = [0, 0]

        def ask(fresh: bool) -> None:
            peer = None
            try:
                while not done.is_set():
                    if peer is None:
                        peer = Peer(service.address)
                    peer.get("/slow/0.01")
                    answered[fresh] += 1
                    if fresh:
                        peer.close()
                        peer = None
            except Exception as exc:
                failed.append(exc)
            finally:
                if peer is not None:
                    peer.close()

        threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for generation in ("2", "3"):
            service.deploy(generation=generation)
            service.signal(signal.SIGHUP)
            service.wait_for(f"generation {generation}[^\\n]*\\n(.*\\n)*.*(?i:reloaded).*generation {generation}")
        done.set()
        for thread in threads:
            thread.join(10)
        assert failed == []
        assert min(answered) > 0
        assert service.process.stop() == 0


@pytest.mark.parametrize(
    "broken",
    ["import no_such_module", "def syntax(:\n", "import os\nos._exit(9)", "raise SystemExit(0)"],
    ids=["import", "syntax", "exit", "SystemExit"],
)
def test_a_deploy_that_cannot_boot_changes_nothing(tmp_path: Path, broken: str) -> None:
    with Service(tmp_path, *TWO) as service, service.connect() as peer:
        old = service.wait_workers(2)
        service.deploy(text=broken)
        service.signal(signal.SIGHUP)
        service.wait_for("(?i)not reloaded|reload failed|stopped|stays")
        assert service.pids() == old
        assert peer.get("/generation").body == b"1"
        service.deploy(generation="3")
        service.signal(signal.SIGHUP)
        eventually(lambda: generations(service) == {"3"})
        assert service.process.stop() == 0


def test_new_workers_read_the_environment_file_again(tmp_path: Path) -> None:
    file = tmp_path / "app.env"
    file.write_text("COLOUR=red\n")
    with Service(tmp_path, *TWO, "--env-file", str(file)) as service:
        assert service.ask("/variable/COLOUR") == "red"
        file.write_text("COLOUR=blue\n")
        service.signal(signal.SIGHUP)
        eventually(lambda: {service.ask("/variable/COLOUR") for _ in range(20)} == {"blue"})
        assert service.process.stop() == 0


def test_one_worker_reloads_too(tmp_path: Path) -> None:
    with Service(tmp_path, "--supervise") as service, service.connect() as peer:
        assert peer.get("/generation").body == b"1"
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        eventually(lambda: peer.get("/generation").body == b"2")
        assert service.process.stop() == 0


def test_a_stop_in_the_middle_of_a_roll(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        old = service.wait_workers(2)
        service.deploy(extra="print('boots', flush=True)\ntime.sleep(60)")
        service.signal(signal.SIGHUP)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        workers = service.workers
        assert service.process.stop() == 0
        assert not any(map(alive, [*old, *workers]))


def test_without_a_parent_a_reload_is_refused_in_a_line(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        pid = service.ask("/pid")
        service.signal(signal.SIGHUP)
        service.wait_for("--supervise")
        service.signal(signal.SIGUSR2)
        service.wait_for("SIGUSR2")
        assert service.ask("/pid") == pid == str(service.process.pid)
        assert service.process.stop() == 0


def test_a_process_that_ignores_hang_ups_goes_on_to(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        service = Service(tmp_path)
        service.__enter__()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        service.signal(signal.SIGHUP)
        assert service.ask("/pid") == str(service.process.pid)
        assert service.process.stop() == 0
        assert "--supervise" not in service.process.stderr
    finally:
        service.__exit__()


def test_a_new_worker_is_asked_whether_it_is_ready_and_not_the_application(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--health-path", "/-") as service:  # the application knows no /-
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        service.wait_for("Reloaded: generation 2 serves")
        assert service.get("/-/ready").status == 200
        assert service.process.stop() == 0
