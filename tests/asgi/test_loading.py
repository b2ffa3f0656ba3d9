"""Loading: what works, and one clear sentence for everything that does not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lastcall
from lastcall.asgi.interfaces import ASGI2Adapter, Shape, is_double_callable, shape_of
from lastcall.asgi.loading import LoadedApp, load_app
from lastcall.asgi.wsgi import WSGIAdapter
from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import AppOptions

Write = Callable[..., Path]

GOOD = """
    async def app(scope, receive, send):
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of the test's own; the path and the modules that it leaves behind are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Write:
    def write_file(name: str, text: str = GOOD) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


def load(app: object, **options: Any) -> LoadedApp:
    return load_app(AppOptions(app=app, **options))


def refuse(app: object, **options: Any) -> str:
    with pytest.raises(StartupError) as caught:
        load(app, **options)
    return str(caught.value)


def call(app: Any, scope: dict[str, Any]) -> list[Any]:
    """Call an ASGI application once and return what it sent."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


# What works.


def test_a_module_and_an_attribute(write: Write, folder: Path) -> None:
    write("site_main.py")
    loaded = load("site_main:app")
    assert loaded.app is sys.modules["site_main"].app
    assert (loaded.interface, loaded.name) == ("asgi3", "site_main:app")
    assert sys.path[0] == str(folder), "the working directory comes first"
    loaded.close()


def test_dotted_modules_and_attributes(write: Write) -> None:
    write("pack/__init__.py", "")
    write(
        "pack/web.py",
        "class Site:\n    class inner:\n        async def app(scope, receive, send): pass\nsite = Site()\n",
    )
    assert load("pack.web:site.inner.app").app is sys.modules["pack.web"].Site.inner.app


def test_app_dir_comes_first_on_the_path(write: Write, folder: Path) -> None:
    write("site_main.py", "app = None")
    write("elsewhere/site_main.py")
    assert load("site_main:app", app_dir="elsewhere").interface == "asgi3"
    assert sys.path[0] == str(folder / "elsewhere")


def test_app_dir_comes_first_even_if_it_is_on_the_path_already(write: Write, folder: Path) -> None:
    write("site_main.py", "app = None")
    write("elsewhere/site_main.py")
    sys.path[:0] = [str(folder), str(folder / "elsewhere")]
    length = len(sys.path)
    assert load("site_main:app", app_dir="elsewhere").interface == "asgi3"
    load("site_main:app", app_dir="elsewhere")
    assert len(sys.path) == length + 1, "it is not added again"


def test_no_app_dir_leaves_the_path_alone(write: Write) -> None:
    write("site_main.py")
    before = list(sys.path)
    assert "no module 'site_main'" in refuse("site_main:app", app_dir=None)
    assert sys.path == before


def test_an_object_is_taken_as_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    before = list(sys.path)
    loaded = load(app)
    assert loaded.app is app
    assert loaded.name.endswith("test_an_object_is_taken_as_it_is.<locals>.app")
    assert sys.path == before


@pytest.mark.parametrize("as_object", [False, True])
def test_a_factory(write: Write, as_object: bool) -> None:
    write(
        "site_main.py",
        "class App:\n    async def __call__(self, scope, receive, send): pass\ndef make(port=1): return App()\n",
    )
    loaded = load("site_main:make", factory=True)
    if as_object:
        loaded = load(sys.modules["site_main"].make, factory=True)
    assert type(loaded.app).__name__ == "App"
    assert loaded.name.endswith("make()")


def test_a_class_is_a_factory_of_its_instances(write: Write) -> None:
    write("site_main.py", "class App:\n    async def __call__(self, scope, receive, send): pass\n")
    assert load("site_main:App", factory=True).interface == "asgi3"


def test_a_factory_of_another_interface() -> None:
    def make() -> Any:
        return lambda scope: None

    assert load(make, factory=True).interface == "asgi2"


def test_env_file_is_read_before_the_import(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_SET", "already")
    monkeypatch.setenv("SITE_COLOUR", "")
    monkeypatch.delenv("SITE_COLOUR")
    write(".env", "SITE_COLOUR=caf\u00e9\nSITE_SET=again\n")
    write(
        "site_main.py", "import os\nSEEN = os.environ['SITE_COLOUR'], os.environ['SITE_SET']\n" + textwrap.dedent(GOOD)
    )
    load("site_main:app", env_file=".env")
    assert sys.modules["site_main"].SEEN == ("caf\u00e9", "already")


@pytest.mark.parametrize("interface", ["asgi3", "asgi2", "wsgi"])
def test_a_named_interface_is_believed(interface: str) -> None:
    def app(*args: Any) -> Any: ...

    loaded = load(app, interface=interface)
    assert loaded.interface == interface
    assert isinstance(loaded.app, {"asgi2": ASGI2Adapter, "wsgi": WSGIAdapter}.get(interface, type(app)))


def test_closing_ends_the_threads_of_a_wsgi_application() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x"]

    loaded = load(app, interface="wsgi")
    scope = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1", "headers": []}
    assert call(loaded.app, scope)[0]["status"] == 200
    pool = loaded.app._pool  # type: ignore[attr-defined]
    loaded.close()
    for thread in pool._threads:
        thread.join(5)
        assert not thread.is_alive()


# Modules that cannot be imported.


def test_a_missing_module(folder: Path) -> None:
    message = refuse("site_main:app")
    assert message.startswith(f"there is no module 'site_main' in {folder}")
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("site_mian:app", "did you mean site_main:app?"),
        ("pakc.web:app", "did you mean pack.web:app?"),
        ("pack.wbe:app", "in the package 'pack'; did you mean pack.web:app?"),
        ("pack.nothing:app", "no module 'pack.nothing' in the package 'pack'"),
        ("site_main.app:app", "'site_main' is a module and not a package; did you mean site_main:app?"),
    ],
)
def test_a_missing_module_near_another(name: str, expected: str, write: Write) -> None:
    write("site_main.py")
    write("pack/__init__.py", "")
    write("pack/web.py")
    assert expected in refuse(name)


@pytest.mark.parametrize(
    "text",
    ["import no_such_dependency", "from os import no_such_name", "import site_main.part", "raise KeyError('colour')"],
)
def test_a_failing_import_inside_shows_its_own_traceback(write: Write, text: str) -> None:
    path = write("site_main.py", f"import os\n{text}\n")
    message = refuse("site_main:app")
    assert message.startswith("importing 'site_main' failed: ")
    assert f'File "{path}", line 2' in message
    assert text in message
    assert "importlib" not in message
    assert "loading.py" not in message


def test_a_module_that_raises_for_its_own_name(write: Write) -> None:
    write("site_main.py", "raise ModuleNotFoundError('gone', name='site_main')\n")
    assert "Traceback" in refuse("site_main:app")


def test_a_syntax_error_shows_its_place(write: Write) -> None:
    path = write("site_main.py", "def app(:\n    pass\n")
    message = refuse("site_main:app")
    assert message.startswith("importing 'site_main' failed: SyntaxError")
    assert f'File "{path}", line 1' in message
    assert "^" in message
    assert "importlib" not in message


@pytest.mark.parametrize(
    ("code", "said"), [("2", "sys.exit(2)"), ("", "sys.exit()"), ("'bad key'", "sys.exit('bad key')")]
)
def test_sys_exit_in_the_import(write: Write, code: str, said: str) -> None:
    path = write("site_main.py", f"import sys\nsys.exit({code})\n")
    assert refuse("site_main:app") == f"the application called {said} while 'site_main' was imported ({path}, line 2)"


def test_keyboard_interrupt_passes_through(write: Write) -> None:
    write("site_main.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("site_main:app")


def misconfigured(**options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load("site_main:app", **options)
    return caught.value


def test_a_missing_app_dir() -> None:
    assert misconfigured(app_dir="nowhere").option == "--app-dir"


@pytest.mark.parametrize("content", [None, b"\xff\xfe=1\n"])
def test_an_env_file_that_cannot_be_read(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / ".env").write_bytes(content)
    error = misconfigured(env_file=".env")
    assert (error.option, error.value) == ("--env-file", ".env")
    assert "\n" not in str(error)


def test_an_env_file_without_the_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(".env", "A=1\n")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert "pip install 'lastcall[dotenv]'" in misconfigured(env_file=".env").expected
    assert "A" not in os.environ


# Attributes that are wrong.

SITE = """
    import json
    from site_helpers import helper, make_app_config
    from typing import Any

    class Site:
        async def __call__(self, scope, receive, send): pass
        async def handle(self, scope, receive, send): pass

    website = Site()
    settings = {"a": 1}
    nothing = None

    def create_app(): return Site()

    async def _private(scope, receive, send): pass
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("site_main:websiet", "has no attribute 'websiet'; did you mean site_main:website?"),
        ("site_main:app", "looks like an application there: site_main:website, site_main:create_app --factory"),
        (
            "site_main:website.hanlde",
            "'site_main:website' has no attribute 'hanlde'; did you mean site_main:website.handle?",
        ),
        ("site_main:website.zzz", "'site_main:website' has no attribute 'zzz'"),
        ("site_main:nothing", "site_main:nothing is None"),
        ("site_main:settings", "site_main:settings is an object of type dict, which cannot be called"),
        ("site_main:json", "site_main:json is a module: name the application in it"),
        ("site_main:create_app", "looks like a factory (it can be called without arguments): use --factory"),
        ("site_main:Site", "is a class: name an instance of it, or use --factory"),
    ],
)
def test_an_attribute_that_is_wrong(name: str, expected: str, write: Write) -> None:
    write("site_helpers.py", "def helper(a, b, c): pass\ndef make_app_config(): pass\n")
    write("site_main.py", SITE)
    message = refuse(name)
    assert expected in message
    assert "\n" not in message


HIDDEN = """
    class Settings:
        @property
        def app(self):
            return self.databse
        @property
        def broken(self):
            raise RuntimeError("no key")
        @property
        def done(self):
            raise SystemExit("no licence")

    settings = Settings()

    def __getattr__(name):
        if name == "app":
            return settings.app
        if name == "late":
            from no_such_package import app
        if name == "asked":
            raise AttributeError("call setup() first")
        if name == "caused":
            try:
                {}["key"]
            except KeyError as error:
                raise AttributeError(name) from error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
"""


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("app", "no attribute 'databse'"),
        ("settings.app", "no attribute 'databse'"),
        ("settings.broken", "RuntimeError: no key"),
        ("late", "No module named 'no_such_package'"),
        ("asked", "call setup() first"),
        ("caused", "KeyError: 'key'"),
    ],
)
def test_what_fails_in_code_behind_an_attribute_is_shown(name: str, cause: str, write: Write) -> None:
    write("site_main.py", HIDDEN)
    message = refuse(f"site_main:{name}")
    assert cause in message
    assert "site_main.py" in message, "where it happened"
    assert "loading.py" not in message, "only the frames of the application"


def test_sys_exit_behind_an_attribute_is_an_exit(write: Write) -> None:
    write("site_main.py", HIDDEN)
    assert "called sys.exit('no licence')" in refuse("site_main:settings.done")


def test_a_module_that_has_no_such_attribute_may_say_so_itself(write: Write) -> None:
    write("site_main.py", HIDDEN)
    message = refuse("site_main:setings")
    assert "has no attribute 'setings'; did you mean site_main:settings?" in message
    assert "\n" not in message


def test_looking_for_suggestions_never_fails(write: Write) -> None:
    write(
        "site_main.py",
        """
        class Lazy:
            @property
            def __class__(self): raise RuntimeError("not set up")
            def __dir__(self): raise RuntimeError("not set up")
            def __call__(self, scope, receive, send): pass

        lazy = Lazy()
        async def website(scope, receive, send): pass
        """,
    )
    assert refuse("site_main:websiet").endswith("did you mean site_main:website?")
    assert "has no attribute 'nothing'" in refuse("site_main:lazy.nothing")


RUNS_ITSELF = """
    import lastcall

    async def app(scope, receive, send): pass

    {}
"""


@pytest.mark.parametrize(
    "call", ["lastcall.run('site_main:app')", "lastcall.run(app)", "lastcall.Server(lastcall.Config(app)).run()"]
)
def test_a_module_that_runs_the_server_when_it_is_imported_is_told_of_the_guard(call: str, write: Write) -> None:
    write("site_main.py", RUNS_ITSELF.format(call))

    async def main() -> str:
        return refuse("site_main:app")

    message = asyncio.run(main())
    assert 'if __name__ == "__main__":' in message
    assert "site_main.py, line 6" in message
    assert "await" not in message
    assert "\n" not in message


def test_a_factory_that_runs_the_server_is_told_to_return_the_application() -> None:
    def factory() -> None:
        lastcall.run(three)

    async def main() -> str:
        return refuse(factory, factory=True)

    assert "it has to return the application" in asyncio.run(main())


def test_a_module_without_any_application(write: Write) -> None:
    write("site_main.py", "x = 1\n")
    assert "nothing else in it looks like an ASGI application" in refuse("site_main:app")


@pytest.mark.parametrize("package", ["", "x = 1\n"])
def test_a_package_with_the_application_in_a_module(package: str, write: Write) -> None:
    if package:
        write("pack/__init__.py", package)
    write("pack/main.py")
    assert "pack.main:app" in refuse("pack:app")
    assert "pack.main:app" in refuse("pack:main")


def test_a_submodule_that_is_loaded(write: Write) -> None:
    write("pack/__init__.py", "from pack import main\n")
    write("pack/main.py", "async def site(scope, receive, send): pass\n")
    assert refuse("pack:main").endswith("pack:main is a module: name the application in it, for example pack.main:site")


# Factories that fail.


async def three(scope: Any, receive: Any, send: Any) -> None: ...


async def async_factory() -> None: ...


def hidden_async_factory() -> Awaitable[None]:
    return async_factory()


def needs_config(config: Any) -> None: ...


def needs_keyword(*, config: Any) -> None: ...


def returns_none() -> None: ...


def returns_dict() -> dict[str, int]:
    return {}


def raises() -> None:
    raise LookupError("no colour")


def exits() -> None:
    sys.exit("bad key")


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (three, "leave --factory out"),
        (async_factory, "has to be a plain function"),
        (hidden_async_factory, "has to be a plain function"),
        (needs_config, "needs arguments (config: 'Any')"),
        (needs_keyword, "needs arguments (*, config: 'Any')"),
        (returns_none, "returned None"),
        (returns_dict, "returned an object of type dict"),
        (raises, "failed: LookupError\nTraceback"),
        (exits, "called sys.exit('bad key') in the factory"),
        ({}, "cannot be called"),
        (None, "cannot be called"),
    ],
)
def test_a_factory_that_fails(factory: Any, expected: str) -> None:
    assert expected in refuse(factory, factory=True)


def test_keyboard_interrupt_in_a_factory_passes_through() -> None:
    def factory() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(factory, factory=True)


@contextlib.contextmanager
def manager() -> Iterator[Any]:
    yield three


@contextlib.asynccontextmanager
async def async_manager() -> AsyncIterator[Any]:
    yield three


async def async_generator() -> AsyncIterator[Any]:
    yield three


@pytest.mark.parametrize("interface", ["auto", "asgi2", "asgi3", "wsgi"])
@pytest.mark.parametrize("factory", [manager, async_manager, async_generator])
def test_a_factory_that_makes_a_context_manager_is_told_of_the_lifespan(factory: Any, interface: str) -> None:
    message = refuse(factory, factory=True, interface=interface)
    assert "the lifespan" in message
    assert "\n" not in message


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    yield


async def yields(scope: Any, receive: Any, send: Any) -> AsyncIterator[None]:
    yield


@contextlib.contextmanager
def plain_lifespan(app: Any) -> Iterator[None]:
    yield


def streaming(function: Any) -> Any:
    """A decorator that makes an application of what yields."""

    @functools.wraps(function)
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async for message in function(scope, receive, send):
            await send(message)

    return app


@pytest.mark.parametrize(
    "app", [async_manager(), manager(), lifespan, plain_lifespan, yields, functools.partial(yields)]
)
def test_what_can_be_called_but_serves_nobody_is_refused(app: Any) -> None:
    refuse(app)


def test_an_application_that_is_a_context_manager_too_is_one() -> None:
    class App(contextlib.AsyncExitStack):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    assert load(App()).interface == "asgi3"
    assert load(streaming(yields)).interface == "asgi3"
    assert load(App, factory=True).interface == "asgi3"


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (None, "no application given"),
        (async_factory, "takes no arguments and is async"),
        (returns_none, "use --factory"),
        (object, "is no ASGI application: it takes"),
        (7, "cannot be called"),
    ],
)
def test_an_object_that_is_no_application(app: Any, expected: str) -> None:
    assert expected in refuse(app)


def test_wsgi_is_recognised_and_gets_its_threads() -> None:
    class Flask:
        def __call__(self, environ: Any, start_response: Any) -> Any: ...

    loaded = load_app(AppOptions(app=Flask(), wsgi_threads=3))
    assert loaded.interface == "wsgi"
    assert loaded.adapter is not None
    assert loaded.adapter.threads == 3
    loaded.close()


def test_an_async_application_is_no_wsgi() -> None:
    assert "--interface wsgi" in refuse(three, interface="wsgi")


# Which interface: asgiref's rules.


class Single:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    def double(self, scope: Any) -> Any: ...


class DoubleClass:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await send((await receive(), self.scope))


class ConfiguredDoubleClass(DoubleClass):
    def __init__(self, config: Any, scope: Any) -> None:
        super().__init__(scope)


class DoubleInstance:
    def __call__(self, scope: Any) -> Any:
        return self.run

    async def run(self, receive: Any, send: Any) -> None: ...


class Endpoint:
    """As Starlette's HTTPEndpoint: a class that is an ASGI 3 application, since its instances can be awaited."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Middleware:
    def __init__(self, app: Any) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Optional:
    async def __call__(self, scope: Any = None, receive: Any = None, send: Any = None) -> None: ...


def returns_awaitable(scope: Any, receive: Any, send: Any) -> Any: ...


def double(scope: Any) -> Any: ...


def double_with_default(scope: Any, extra: Any = None) -> Any: ...


def configured(config: Any, scope: Any) -> Any: ...


async def configured_single(config: Any, scope: Any, receive: Any, send: Any) -> None: ...


def logged(app: Any) -> Any:
    @functools.wraps(app)
    def wrapper(*args: Any) -> Any:
        return app(*args)

    return wrapper


async def two(receive: Any, send: Any) -> None: ...


async def one(scope: Any) -> None: ...


def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "shape"),
    [
        (three, Shape.ASGI3),
        (returns_awaitable, Shape.ASGI3),
        (Single(), Shape.ASGI3),
        (Single().method, Shape.ASGI3),
        (Optional(), Shape.ASGI3),
        (Endpoint, Shape.ASGI3),
        (lambda *args: None, Shape.ASGI3),
        (functools.partial(configured_single, {}), Shape.ASGI3),
        (functools.partial(Single()), Shape.ASGI3),
        (logged(three), Shape.ASGI3),
        (double, Shape.ASGI2),
        (double_with_default, Shape.ASGI2),
        (DoubleClass, Shape.ASGI2),
        (DoubleInstance(), Shape.ASGI2),
        (Single().double, Shape.ASGI2),
        (functools.partial(configured, {}), Shape.ASGI2),
        (functools.partial(ConfiguredDoubleClass, {}), Shape.ASGI2),
        (logged(double), Shape.ASGI2),
        (logged(logged(DoubleInstance().__call__)), Shape.ASGI2),
        (lambda environ, start_response: [], Shape.WSGI),
        (functools.partial(lambda config, environ, start_response: [], {}), Shape.WSGI),
        (lambda: None, Shape.FACTORY),
        (lambda config=None: None, Shape.FACTORY),
        (lambda a=1, b=2, c=3: None, Shape.FACTORY),
        (Single, Shape.CLASS),
        (Middleware, Shape.CLASS),
        (Optional, Shape.CLASS),
        (two, Shape.MISFIT),
        (one, Shape.MISFIT),
        (four, Shape.MISFIT),
        (object, Shape.MISFIT),
    ],
)
def test_shapes(app: Any, shape: Shape) -> None:
    assert shape_of(app) is shape
    assert is_double_callable(app) is (shape is Shape.ASGI2)


def test_a_callable_without_a_signature_counts_as_asgi3() -> None:
    class Opaque:
        __signature__ = "unreadable"

        def __call__(self) -> None: ...

    assert shape_of(Opaque()) is Shape.ASGI3


@pytest.mark.parametrize("app", [DoubleClass, functools.partial(ConfiguredDoubleClass, {})])
def test_an_asgi2_application_is_called_twice(app: Any) -> None:
    state: dict[str, Any] = {}
    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "state": state}
    loaded = load(app)
    assert loaded.interface == "asgi2"
    [(message, seen)] = call(loaded.app, scope)
    assert message["type"] == "http.request"
    assert seen["asgi"] == {"version": "2.0", "spec_version": "2.5"}
    assert seen["state"] is state
    assert scope["asgi"]["version"] == "3.0", "the server's own scope is left alone"
