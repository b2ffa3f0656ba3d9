"""A parent with workers, each of them the tiny server, that replaces them well, but for one fault.

    python tiny_fleet.py MODULE:APP --port N --grace SECONDS --workers N [--max-requests N] [--fault NAME]

SIGHUP replaces the workers, SIGTTIN and SIGTTOU start one and stop one, SIGUSR2 starts another parent on the same
listener, and then stops this one; SIGTERM stops all. The faults are in ``FAULTS``, with what they do.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FAULTS = {
    "": "none",
    "deaf-restart": "SIGHUP changes nothing",
    "restart-gap": "SIGHUP closes the port for a second",
    "restart-cuts": "SIGHUP kills the old workers",
    "restart-resets": "SIGHUP lets the old workers close connections without a word",
    "restart-dies": "a worker that does not start ends the service",
    "recycle-cuts": "a worker ends at its last request",
    "own-queues": "a worker's queue is its own, and is lost with it",
    "no-successor": "a worker that dies is not replaced",
    "deaf-upgrade": "SIGUSR2 changes nothing",
    "upgrade-gap": "SIGUSR2 closes the port for a second",
    "upgrade-cuts": "SIGUSR2 kills the old workers",
    "deaf-scale": "SIGTTIN changes nothing",
}
TINY = Path(__file__).with_name("tiny.py")


class Worker:
    def __init__(self, parent: Parent) -> None:
        options = parent.options
        ready, ours = os.pipe()
        command = [sys.executable, str(TINY), options.app, "--grace", str(options.grace), "--ready-fd", str(ours)]
        if options.fault == "own-queues":
            command += ["--port", str(options.port), "--reuse-port"]
        else:
            command += ["--fd", str(parent.listener.fileno())]
        if options.max_requests:
            command += ["--max-requests", str(options.max_requests)]
        fault = {"restart-resets": "abrupt", "recycle-cuts": "recycle-cuts"}.get(options.fault, "")
        command += ["--fault", fault] if fault else []
        passed = (ours,) if options.fault == "own-queues" else (ours, parent.listener.fileno())
        self.process = subprocess.Popen(command, pass_fds=passed)
        os.close(ours)
        self._ready = ready

    def wait_ready(self) -> bool:
        """Wait until it serves, or has ended."""
        good = os.read(self._ready, 1) == b"r"
        os.close(self._ready)
        return good

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


class Parent:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.fault: str = options.fault
        self.listener = socket.socket(fileno=options.fd) if options.fd is not None else self.listen()
        self.workers: list[Worker] = []
        self.leaving: list[Worker] = []
        self.orders: list[int] = []

    def listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.fault == "own-queues":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", self.options.port))
        if self.fault != "own-queues":
            listener.listen(200)
        return listener

    def start(self) -> Worker | None:
        worker = Worker(self)
        return worker if worker.wait_ready() else None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, lambda number, _: self.orders.append(number))
        started = [self.start() for _ in range(self.options.workers)]
        self.workers = [one for one in started if one is not None]
        if len(self.workers) < len(started):
            return 3
        if self.options.predecessor:
            os.kill(self.options.predecessor, signal.SIGTERM)
        while True:
            while self.orders:
                if (code := self.obey(self.orders.pop(0))) is not None:
                    return code
            if not self.replace_dead():
                return 3
            time.sleep(0.02)

    def obey(self, number: int) -> int | None:
        if number in (signal.SIGTERM, signal.SIGINT):
            return self.stop()
        if number == signal.SIGHUP and self.fault != "deaf-restart":
            return self.restart()
        if number == signal.SIGUSR2 and self.fault != "deaf-upgrade":
            self.upgrade()
        if number == signal.SIGTTIN and self.fault != "deaf-scale":
            self.workers.append(Worker(self))
            self.workers[-1].wait_ready()
        if number == signal.SIGTTOU:
            self.retire(self.workers.pop(0))
        return None

    def stop(self) -> int:
        self.listener.close()
        for worker in [*self.workers, *self.leaving]:
            worker.end()
        for worker in [*self.workers, *self.leaving]:
            worker.process.wait()
        return 0

    def retire(self, worker: Worker, number: int = signal.SIGTERM) -> None:
        worker.end(number)
        self.leaving.append(worker)

    def restart(self) -> int | None:
        if self.fault == "restart-gap":
            self.gap()
        cut = signal.SIGKILL if self.fault == "restart-cuts" else signal.SIGTERM
        for index, old in enumerate(self.workers):
            new = self.start()
            if new is None:
                return self.stop() or 3 if self.fault == "restart-dies" else None
            self.retire(old, cut)
            self.workers[index] = new
        return None

    def gap(self) -> None:
        """The port is closed, and opened again."""
        self.listener.close()
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            worker.process.wait()
        time.sleep(1.0)
        self.listener = self.listen()

    def upgrade(self) -> None:
        if self.fault == "upgrade-gap":
            self.gap()
        if self.fault == "upgrade-cuts":
            for worker in self.workers:
                self.retire(worker, signal.SIGKILL)
            self.workers.clear()
        arguments = [*sys.argv, "--fd", str(self.listener.fileno()), "--predecessor", str(os.getpid())]
        subprocess.Popen([sys.executable, *arguments], pass_fds=(self.listener.fileno(),))

    def replace_dead(self) -> bool:
        """Whether all whose end was no order have a successor."""
        for index, worker in enumerate(self.workers):
            if worker.process.poll() is not None and self.fault not in ("no-successor", "upgrade-gap"):
                new = self.start()
                if new is None:
                    return False
                self.workers[index] = new
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("--port", type=int)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--predecessor", type=int)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-requests", type=int)
    parser.add_argument("--fault", choices=FAULTS, default="")
    sys.exit(Parent(parser.parse_args()).run())


if __name__ == "__main__":
    main()
