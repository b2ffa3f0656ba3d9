"""Tasks of the server's own that no application can cancel."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


class OwnTask(asyncio.Task[T]):
    """A task that ignores ``cancel()``, for work that bounds itself.

    ``for task in asyncio.all_tasks(): task.cancel()`` is found in applications, as the last step of their clean-up, and
    ``asyncio.run()`` does the same; it must not cut what shuts the application down. Made without the loop's task
    factory, which may be the application's.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        """Nothing; False, as for a task that is done."""
        return False
