"""How the report's file is written: whole, in place of an earlier one, never in place of what is no file of ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lastcall.drain.report import StopReport
from lastcall.server.report_file import ReportFile

REPORT = StopReport("SIGTERM", 0, 1.0, "complete")
LINE = REPORT.as_json() + "\n"


def test_an_earlier_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("earlier" * 1000)
    path.chmod(0o640)
    with path.open() as earlier:
        ReportFile(str(path)).write(REPORT)
        assert earlier.read(7) == "earlier", "who has it open reads on"
    assert path.read_text() == LINE
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    earlier = os.umask(0o027)
    try:
        ReportFile(str(tmp_path / "report")).write(REPORT)
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o640


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_what_has_another_name_is_written_in_place(tmp_path: Path, link: object) -> None:
    """A link may be ``/dev/stdout``, and what it points to the log."""
    assert callable(link)
    path, other = tmp_path / "report", tmp_path / "other"
    other.write_text("earlier" * 1000)
    link(other, path)
    ReportFile(str(path)).write(REPORT)
    assert other.read_text() == path.read_text() == LINE
    assert other.samefile(path)


def test_a_pipe_that_nobody_reads_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device or address"):
        ReportFile(str(path)).write(REPORT)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_the_file_is_where_the_working_directory_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ReportFile("report")
    monkeypatch.chdir("/")
    file.write(REPORT)
    assert (tmp_path / "report").read_text() == LINE


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "report"):
        with pytest.raises(OSError):  # noqa: PT011 - a directory, and one that is not there
            ReportFile(str(path)).write(REPORT)
    assert list(tmp_path.iterdir()) == []
