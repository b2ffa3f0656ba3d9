"""The line that says how a server stopped."""

from __future__ import annotations

from lastcall.drain.report import StopReport


def report(**fields: object) -> StopReport:
    usual = {
        "cause": "SIGTERM", "exit_code": 0, "seconds": 1.25, "in_flight": 3, "finished": 3, "cancelled": 0,
        "abandoned": (), "lifespan": "complete",
    }  # fmt: skip
    return StopReport(**{**usual, **fields})  # type: ignore[arg-type]


def test_a_clean_stop_is_one_line() -> None:
    assert str(report()) == (
        "Stopped (SIGTERM) after 1.2 s: 3 of 3 requests finished, 0 cancelled, 0 abandoned; "
        "lifespan complete; exit code 0"
    )


def test_what_was_abandoned_is_named_up_to_five() -> None:
    names = tuple(f"GET /{number}" for number in range(7))
    text = str(report(abandoned=names, finished=1, cancelled=1, exit_code=5))
    assert text.endswith(
        "1 cancelled, 7 abandoned; lifespan complete; exit code 5: GET /0, GET /1, GET /2, GET /3, GET /4"
    )
    assert "\n" not in text
