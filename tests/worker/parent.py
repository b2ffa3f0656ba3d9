"""A parent in a process of its own, to be killed: starts one worker, says where it is, and waits."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from lastcall.channel.messages import Hello
from testing.worker import WorkerProcess

APPS = Path(__file__).parent / "apps"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", default="app:app")
    parser.add_argument("--user")
    parser.add_argument("--brief", action="store_true")
    arguments = parser.parse_args()
    options: dict[str, Any] = {}
    if arguments.brief:
        options |= {"timeout_graceful_shutdown": 1, "timeout_cancel": 0.5, "timeout_lifespan_shutdown": 0.5}
    if arguments.user:
        options["user"] = arguments.user
    worker = WorkerProcess(arguments.app, path=APPS, **options)
    worker.start()
    worker.boot()
    if arguments.app == "app:app":
        worker.serving()
    else:
        worker.expect(Hello)
        while "importing" not in worker.output:
            signal.sigtimedwait([], 0.02)
    print("worker", worker.pid, worker.port, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
