"""SIGTERM under the MCP Python SDK as it comes from PyPI, over Streamable HTTP, in both of its protocols.

``legacy`` (2025-11-25 and before) has sessions: tool calls are POSTs, and a GET is the channel for notifications; both
are streams of sse-starlette. From 2026-07-28 on there are only POSTs: ``subscriptions/listen`` is the channel.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import mcp
import mcp_types
import pytest

from tests.frameworks.apps import mcp_app
from tests.frameworks.draining import Drained, draining, names

pytestmark = pytest.mark.slow

LEGACY, MODERN = "legacy", "2026-07-28"


async def wait_for(server: Drained, pattern: str) -> None:
    await anyio.to_thread.run_sync(server.process.wait_for, pattern, 10.0)


async def stop_in_a_tool_call(server: Drained, mode: str, go: Path | None, first: str = "") -> str:
    """Open a channel, call the tool, stop the server, let the tool finish, wait for the exit: what the call came to.

    :param go: the file that the tool waits for; with None it gets none.
    :param first: what must be on stderr before the tool finishes.
    """
    results: list[str] = []
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(mcp.Client(f"{server.url}/mcp", mode=mode))
        # The client wants to know a tool before it accepts what that returns.
        assert [tool.name for tool in (await client.list_tools()).tools] == ["wait_for"]
        if mode == MODERN:
            await stack.enter_async_context(client.listen(tools_list_changed=True))
        else:
            await wait_for(server, mcp_app.CHANNEL)

        async def call() -> None:
            try:
                [content] = (await client.call_tool("wait_for", {"path": str(go or "nowhere")})).content
                assert isinstance(content, mcp_types.TextContent)
                results.append(content.text)
            except mcp.MCPError:
                results.append("an error")

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await wait_for(server, mcp_app.BEGAN)
                await anyio.to_thread.run_sync(server.stop)
                if first:
                    await wait_for(server, first)
                if go is not None:
                    go.touch()
            await anyio.to_thread.run_sync(server.process.wait)
    [result] = results
    return result


def test_with_sessions_a_tool_call_completes_and_the_channel_ends_before_the_disconnect(tmp_path: Path) -> None:
    with draining("mcp_app:app", tmp_path / "report", "--timeout-graceful-shutdown", "2") as server:
        assert anyio.run(stop_in_a_tool_call, server, LEGACY, tmp_path / "go") == "the file is there"
        report = server.stopped()
    assert (report["in_flight"]["stream"], report["cut"]) == (2, [])
    assert report["finished"] == sum(report["in_flight"].values()) + report["arrived"]
    assert report["phases"]["DRAINING"] >= 1.2  # and not until the disconnect: nothing was cut
    assert report["seconds"] < 4


def test_without_sessions_a_tool_call_completes_and_the_channel_is_disconnected(tmp_path: Path) -> None:
    with draining("mcp_app:app", tmp_path / "report", "--timeout-graceful-shutdown", "1.5") as server:
        assert anyio.run(stop_in_a_tool_call, server, MODERN, tmp_path / "go") == "the file is there"
        report = server.stopped()
    assert names(report) == [("/mcp", "stream", "disconnected")]
    assert report["cut"][0]["method"] == "POST"
    assert report["seconds"] < 3.5


def test_channels_that_are_told_to_close_leave_at_once_and_the_tool_call_completes(tmp_path: Path) -> None:
    with draining("mcp_app:closing_channels", tmp_path / "report", "--drain-farewell", "0.2") as server:
        closed = r"draining: 1 left, [^\n]*: POST /mcp"
        assert anyio.run(stop_in_a_tool_call, server, LEGACY, tmp_path / "go", closed) == "the file is there"
        report = server.stopped()
    assert (report["closed_by_policy"], report["cut"]) == (1, [])
    assert report["seconds"] < 4


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_a_tool_call_that_does_not_end_is_cut_within_the_budget(mode: str, tmp_path: Path) -> None:
    """``legacy``: sse-starlette ends the response, the session manager the tool (and warns that nobody listens)."""
    with draining("mcp_app:app", tmp_path / "report", "--timeout-graceful-shutdown", "1") as server:
        assert anyio.run(stop_in_a_tool_call, server, mode, None) == "an error"
        report = server.stopped(alarms=("Traceback", "ERROR"))
    cut = {LEGACY: [("stream", "broken off")], MODERN: [("request", "cancelled"), ("stream", "disconnected")]}
    assert names(report) == [("/mcp", *end) for end in cut[mode]]
    assert report["seconds"] < 5
