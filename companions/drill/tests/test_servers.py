"""What the user may name, how servers are started, and what is recorded of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import lastcall
from lastcall_drill.errors import DrillError
from lastcall_drill.harness import APP
from lastcall_drill.scenario import GROUPS, scenarios
from lastcall_drill.servers import Asked, Target, expectations, expected, parse_server, prepare, prepare_here, programs
from lastcall_drill.verdicts import Verdict


def of(name: str, version: str, extras: str = "", python: str = "") -> Target:
    program = programs()[name].with_extras(extras).of_release(version)
    return Target(Asked(name, name, version, extras=extras), program, version, Path("python"), python)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("lastcall", Asked("lastcall", "lastcall")),
        ("uvicorn==0.21.1", Asked("uvicorn==0.21.1", "uvicorn", "0.21.1")),
        (" granian ", Asked("granian", "granian")),
        ("uvicorn[standard]", Asked("uvicorn[standard]", "uvicorn", extras="standard")),
        ("granian[x, a]==2.8.7", Asked("granian[x, a]==2.8.7", "granian", "2.8.7", extras="a,x")),
        ("/opt/x {app} -p {port}", Asked("/opt/x {app} -p {port}", "x", "", "/opt/x {app} -p {port}")),
    ],
)
def test_what_is_asked_for(text: str, asked: Asked) -> None:
    assert parse_server(text) == asked


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("unheard-of", "--server unheard-of: the drill knows how to start daphne, granian, gunicorn,"),
        ("uvicorn[standard", "--server uvicorn[standard: the drill knows how to start"),
        ("x {app}", "the command needs {port}"),
        ("x --workers 2", "the command needs {app} and {port}"),
        ("x '{app} {port}", "cannot be split into words: No closing quotation"),
    ],
)
def test_what_cannot_be_asked_for(text: str, sentence: str) -> None:
    with pytest.raises(DrillError) as error:
        parse_server(text)
    assert sentence in str(error.value)


def test_plain_lastcall_is_this_installation() -> None:
    target = prepare(parse_server("lastcall"))
    assert (target.version, target.python) == (lastcall.__version__, Path(sys.executable))
    assert target.command(app="a:b", port=1, given={"grace": 2})[1:] == [
        *("-m", "lastcall", "a:b", "--host", "127.0.0.1", "--port", "1", "--timeout-graceful-shutdown", "2")
    ]
    assert {"lifespan", "websocket", "notice", "unix", "grace"} <= target.features
    assert {"workers", "reload", "max_requests", "restart", "scale", "upgrade"} <= target.features


def test_a_release_that_had_no_option_for_the_grace_is_not_given_one() -> None:
    old, new = of("uvicorn", "0.21.1"), of("uvicorn", "0.22.0")
    assert "grace" not in old.features
    assert "--timeout-graceful-shutdown" not in old.command(app="a:b", port=1, given={"grace": 2})
    assert new.command(app="a:b", port=1, given={"grace": 2})[-2:] == ["--timeout-graceful-shutdown", "2"]
    assert old.program.requires == ["websockets<14"]
    assert of("uvicorn", "0.54.0").program.requires == ()


def test_bare_uvicorn_has_no_websocket_and_that_with_its_extra_has() -> None:
    assert "websocket" not in of("uvicorn", "0.54.0").features
    assert "websocket" in of("uvicorn", "0.54.0", "standard").features
    assert "websocket" in of("uvicorn", "0.22.0", "standard").features
    assert of("uvicorn", "0.54.0", "standard").info.name == "uvicorn[standard]"


def test_signals_for_workers_are_of_a_release() -> None:
    assert not of("uvicorn", "0.29.0").features & {"restart", "scale"}
    assert {"workers", "restart", "scale"} <= of("uvicorn", "0.30.0").features


def test_a_command_of_the_environment_is_found_beside_its_interpreter() -> None:
    program = programs()["gunicorn"]
    target = Target(Asked("gunicorn", "gunicorn", "27.0.1"), program, "27.0.1", Path("/env/bin/python"))
    assert target.command(app="a:b", port=1)[0] == "/env/bin/gunicorn"
    assert target.info.command.startswith("gunicorn --worker-class asgi {app} --bind 127.0.0.1:{port}")


def test_a_unix_socket_is_bound_instead_of_a_port() -> None:
    words = of("hypercorn", "0.18.0").command(app="a:b", port=1, path=Path("/x/s"))
    assert words[-2:] == ["--bind", "unix:/x/s"]


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of these names can be found, and no others."""
    for name in ("uvicorn", "granian", "stranger", "python3"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python -m uvicorn {app} {port}", "uvicorn"),
        ("/opt/venv/bin/python3.13 -X dev -m hypercorn {app} {port}", "hypercorn"),
        ("stranger -m uvicorn {app} {port}", "stranger"),
        ("python serve.py {app} {port} -m", "python"),
    ],
)
def test_the_server_of_an_interpreter_is_its_module(command: str, name: str) -> None:
    assert parse_server(command).name == name


@pytest.mark.usefixtures("on_path")
def test_a_module_of_a_known_name_has_the_features_of_that() -> None:
    target = prepare(parse_server("python3 -m uvicorn {app} --port {port}"))
    assert {"workers", "keep_alive"} <= target.features


@pytest.mark.usefixtures("on_path")
def test_only_a_whole_word_of_the_command_is_an_option_that_it_has_already() -> None:
    target = prepare(parse_server("granian --interface asgi {app} --port {port} --workers-kill-timeout {grace}"))
    assert "workers" in target.features
    target = prepare(parse_server("granian --interface asgi {app} --port {port} --workers=2"))
    assert "workers" not in target.features


@pytest.mark.usefixtures("on_path")
def test_a_command_that_is_not_there_is_said_at_once_with_what_helps() -> None:
    asked = parse_server("hypercorn {app} {port}")
    with pytest.raises(DrillError, match="--server hypercorn"):
        prepare(asked)
    with pytest.raises(DrillError, match="pip install hypercorn"):
        prepare_here(asked)
    with pytest.raises(DrillError, match="other"):
        prepare(parse_server("other {app} {port}"))
    with pytest.raises(DrillError):
        prepare(parse_server("/no/such/server {app} {port}"))
    assert prepare(parse_server("./here {app} {port}")).version == ""


def test_beside_an_application_another_release_of_ours_is_refused_like_any_other() -> None:
    assert prepare_here(parse_server("lastcall")).version == lastcall.__version__
    with pytest.raises(DrillError):
        prepare_here(parse_server("lastcall==0.0.1"))


@pytest.mark.usefixtures("on_path")
def test_who_cannot_be_told_a_grace_and_why() -> None:
    assert of("uvicorn", "0.22.0").no_grace == ""
    assert of("uvicorn", "0.21.1").no_grace == " (it could not be told a grace: it has no option for one)"
    command = prepare(parse_server("uvicorn {app} --port {port}"))
    assert command.no_grace == " (it could not be told a grace: the command has no {grace})"


@pytest.mark.usefixtures("on_path")
def test_a_command_of_ones_own_is_filled_and_gets_what_its_program_is_known_to_take() -> None:
    target = prepare(parse_server("uvicorn {app} --port {port} --timeout-graceful-shutdown {grace}"))
    given: dict[str, object] = {"grace": 2, "workers": 3}
    words = "uvicorn a:b --port 8 --timeout-graceful-shutdown 2 --workers 3"
    assert target.command(app="a:b", port=8, given=given) == words.split()
    assert "grace" in target.features
    stranger = prepare(parse_server("stranger '{app}' {port} {'a': 1}"))
    assert stranger.command(app="a:b", port=8, given=given)[:3] == ["stranger", "a:b", "8"]
    assert not stranger.features & {"grace", "workers"}


def test_what_the_report_says_of_a_server_has_its_placeholders() -> None:
    info = of("granian", "2.8.7").info
    assert info.command == (
        "python -m granian --interface asgi {app} --host 127.0.0.1 --port {port} --workers-kill-timeout {grace}"
    )
    assert prepare(parse_server("lastcall")).info.command.startswith("python -m lastcall {app}")
    assert (info.label, info.version) == ("granian", "2.8.7")


def test_every_recorded_verdict_is_of_a_server_and_a_scenario_that_there_are() -> None:
    ids = {one.id for one in scenarios()}
    for (release, python), verdicts in expectations().items():
        asked = parse_server(release)
        assert asked.version, release
        assert re.fullmatch(r"3\.\d+", python), release
        assert set(verdicts) == ids, release
        # A server that lacks what a scenario needs cannot have any other verdict.
        target = of(asked.name, asked.version, asked.extras)
        for one in scenarios():
            if one.needs - target.features:
                assert verdicts[one.id] is Verdict.UNSUPPORTED, (release, one.id)


def test_a_verdict_is_recorded_of_a_release_on_a_python() -> None:
    """CPython 3.12.1 has changed what several of these releases wait for."""
    assert expected(of("uvicorn", "0.21.1", python="3.11.7"), "stream-endless") is Verdict.FAIL
    assert expected(of("uvicorn", "0.22.0", python="3.11.9"), "stream-endless") is Verdict.PASS
    assert expected(of("uvicorn", "0.22.0", python="3.13.0"), "stream-endless") is None
    assert expected(of("uvicorn", "99", python="3.13.0"), "stream-endless") is None


def test_scenarios_say_what_they_are() -> None:
    found = scenarios()
    assert len(found) >= 30
    assert len({one.id for one in found}) == len(found)
    assert [one.info.group for one in found] == sorted((one.info.group for one in found), key=GROUPS.index)
    for one in found:
        info = one.info
        assert all((info.title, info.clause, info.reason, info.rule, info.tolerance)), one.id
        assert not [source for source in info.sources if source.startswith("research")], one.id
        assert info.reason.endswith((".", "?")), one.id
        assert not info.title.endswith("."), one.id
    modules = {one.steps.__module__ for one in found}
    assert len(modules) == len(found), "one file each"
    assert APP == "drill_subject:app"
