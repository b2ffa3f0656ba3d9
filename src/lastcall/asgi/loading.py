"""Finding the application and turning it into an ASGI 3 callable.

Whatever is wrong with it ends as one :class:`StartupError` that says what to change; the traceback is part of its text
where the application's own code failed (and only the frames of that code). KeyboardInterrupt passes through: a stop
signal during a slow import is no failure.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from lastcall.asgi.interfaces import (
    ASGI2Adapter,
    Shape,
    arity_of,
    is_context_manager,
    is_coroutine_callable,
    shape_of,
    yields,
)
from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import AppOptions
from lastcall.base.record import Record, replace
from lastcall.base.types import ASGIApp
from lastcall.config.import_string import split_import_string
from lastcall.config.kinds import UnusableValueError

if TYPE_CHECKING:
    from lastcall.asgi.wsgi import WSGIAdapter

Interface = Literal["asgi3", "asgi2", "wsgi"]

_USUAL_MODULES = ("main", "app", "asgi", "server", "api", "application")
"""Where people keep their application, for suggestions."""
_SUGGESTIONS = 3
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class LoadedApp(Record):
    """An application that is ready to be called.

    ``app`` is an ASGI 3 single callable, ``interface`` what it was before, ``name`` what messages call it: the import
    string, or a description of the object.
    """

    app: ASGIApp
    interface: Interface
    name: str
    adapter: WSGIAdapter | None = None

    def close(self) -> None:
        """Give back what the adapter holds (a WSGI application's threads). Call it when the server has stopped."""
        if self.adapter is not None:
            self.adapter.close()


def load_app(options: AppOptions) -> LoadedApp:
    """Import, build and adapt the application that ``options`` name.

    ``options.app`` is ``"module:attribute"`` (the attribute may be dotted) or the object itself. With ``factory`` the
    object is called without arguments. Runs the application's code and blocks as long as that takes.

    Raises :class:`StartupError`, and what :func:`prepare` does; KeyboardInterrupt passes through.
    """
    prepare(options)
    with _in_this_thread():
        if isinstance(options.app, str):
            name = options.app.strip()
            obj = _import_object(name)
        else:
            obj = options.app
            name = _describe(obj)
        if options.factory:
            obj = _call_factory(obj, name)
            name = f"{name}()"
        _check_callable(obj, name)
        loaded = _adapt(obj, name, options)
    if options.compress or options.static:
        from lastcall.asgi.wrapping import wrap  # noqa: PLC0415 - most servers need none of it

        return replace(loaded, app=wrap(loaded.app, options))
    return loaded


def prepare(options: AppOptions) -> None:
    """What comes before the first import of anything that is the application's (a loop factory, a log formatter).

    The ``env_file`` is read into the environment (variables that are set already win). If the application has to be
    imported, ``app_dir`` becomes the first entry of ``sys.path`` ("" is the working directory, None leaves the path
    alone). Twice is as good as once.

    Raises :class:`ConfigError`.
    """
    if options.env_file is not None:
        _load_env_file(options.env_file)
    if options.app_dir is not None and isinstance(options.app, str):
        _put_first(options.app_dir)


class LoadedInsideError(RuntimeError):
    """A server was to be run by code that a server is loading, so inside its event loop."""


def refuse_while_loading() -> None:
    """Raise LoadedInsideError if this thread is in :func:`load_app`."""
    if threading.get_ident() in _loading:
        raise LoadedInsideError("a server is run while another one is loading its application")


_loading: set[int] = set()
"""The threads that are in load_app()."""


@contextlib.contextmanager
def _in_this_thread() -> Iterator[None]:
    thread = threading.get_ident()
    outermost = thread not in _loading
    _loading.add(thread)
    try:
        yield
    finally:
        if outermost:
            _loading.discard(thread)


# From an import string to an object.


def _load_env_file(path: str) -> None:
    try:
        from dotenv import load_dotenv  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("--env-file", path, "python-dotenv to be installed: pip install 'lastcall[dotenv]'") from None
    try:
        with open(path, encoding="utf-8") as stream:
            load_dotenv(stream=stream)
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise ConfigError("--env-file", path, f"a file that can be read ({reason})") from exc


def _import_object(name: str) -> object:
    try:
        module_name, attribute = split_import_string(name)
    except UnusableValueError as error:  # a Config has refused it before
        raise StartupError(f"{name!r} is no application: expected {error.expected}") from None
    obj: object = _import_module(module_name, attribute)
    path = module_name
    for part in attribute.split("."):
        longer = f"{path}{'.' if ':' in path else ':'}{part}"
        try:
            obj = getattr(obj, part)
        except SystemExit as exc:
            raise StartupError(_exit_message(f"where {longer} was asked for", exc)) from exc
        except Exception as exc:
            if isinstance(exc, AttributeError) and _is_absence(exc, part):
                raise StartupError(_no_such_attribute(obj, path, part)) from exc
            # A property, or a module's __getattr__ (PEP 562): the reason is somewhere in the code behind it.
            raise StartupError(_with_traceback(f"{longer} cannot be had", exc)) from exc
        path = longer
    return obj


def _is_absence(exc: AttributeError, name: str) -> bool:
    """Whether it says no more than that there is no attribute ``name``: Python does, and a ``__getattr__`` may."""
    frames = _own_frames(exc.__traceback__)
    if frames is None:
        return True
    said_itself = frames.tb_next is None and frames.tb_frame.f_code.co_name == "__getattr__"
    return said_itself and exc.__cause__ is None and exc.__context__ is None and name in str(exc)


def _put_first(app_dir: str) -> None:
    folder = os.path.abspath(app_dir)
    if not os.path.isdir(folder):
        raise ConfigError("--app-dir", app_dir, "a directory that exists")
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def _import_module(name: str, attribute: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if (name == missing or name.startswith(f"{missing}.")) and _own_frames(exc.__traceback__) is None:
            raise StartupError(_no_such_module(name, missing, attribute)) from None
        raise StartupError(_with_traceback(f"importing {name!r} failed", exc)) from exc
    except SystemExit as exc:
        raise StartupError(_exit_message(f"while {name!r} was imported", exc)) from exc
    except LoadedInsideError as exc:
        guard = 'put that under `if __name__ == "__main__":`, since the import of the module runs it too'
        raise StartupError(f"{name!r} runs a server itself{place_of(exc)}: {guard}") from exc
    except Exception as exc:
        raise StartupError(_with_traceback(f"importing {name!r} failed", exc)) from exc


def _no_such_module(name: str, missing: str, attribute: str) -> str:
    parent, _, child = missing.rpartition(".")
    container = sys.modules.get(parent)
    if container is not None and "__path__" not in vars(container):
        likely = f"; did you mean {parent}:{child}?" if child in vars(container) else ""
        return f"there is no module {missing!r}: {parent!r} is a module and not a package{likely}"
    near = _close_matches(child, _modules_in(getattr(container, "__path__", sys.path[:1])), 1)
    likely = ""
    if near:
        likely = f"; did you mean {f'{parent}.' if parent else ''}{near[0]}{name[len(missing) :]}:{attribute}?"
    where = f"in the package {parent!r}" if parent else f"in {sys.path[0] or os.getcwd()} or on the rest of sys.path"
    return f"there is no module {missing!r} {where}{likely or ('' if parent else ' (--app-dir names another place)')}"


def _close_matches(word: str, among: list[str], most: int, *, cutoff: float = 0.6) -> list[str]:
    import difflib  # noqa: PLC0415 - a start without mistakes need not wait for it

    return difflib.get_close_matches(word, among, most, cutoff=cutoff)


def _modules_in(path: Iterable[str]) -> list[str]:
    import pkgutil  # noqa: PLC0415

    return [info.name for info in pkgutil.iter_modules(list(path))]


def _no_such_attribute(obj: object, path: str, missing: str) -> str:
    """Say what ``path`` has instead of the missing attribute: a similar name, an application, or a module with one."""
    message = f"{path!r} has no attribute {missing!r}"
    try:
        if isinstance(obj, ModuleType):
            return f"{message}{_instead(obj, path, missing)}"
        names = [name for name in dir(obj) if not name.startswith("_")]
    except Exception:  # a __dir__ or a __class__ of the application's
        return message
    near = _close_matches(missing, names, 1)
    return f"{message}; did you mean {path}.{near[0]}?" if near else message


def _instead(obj: ModuleType, path: str, missing: str) -> str:
    """What the module has instead, as the end of a sentence."""
    modules = _modules_in(vars(obj).get("__path__", ()))
    if missing in modules:
        return f", but a module of that name: did you mean {path}.{missing}:app?"
    apps, factories = _candidates(obj)
    names = [n for n in vars(obj) if not n.startswith("_")]
    near = _close_matches(missing, apps, 1) or _close_matches(missing, names, 1, cutoff=0.75)
    if near:
        return f"; did you mean {path}:{near[0]}{' --factory' if near[0] in factories else ''}?"
    found = [f"{path}:{n}" for n in apps] + [f"{path}:{n} --factory" for n in factories]
    if found:
        return f"; what looks like an application there: {', '.join(found[:_SUGGESTIONS])}"
    usual = [n for n in _USUAL_MODULES if n in modules]
    if usual:
        return f"; it is a package, did you mean {path}.{usual[0]}:{missing}?"
    return ", and nothing else in it looks like an ASGI application"


def _candidates(module: ModuleType) -> tuple[list[str], list[str]]:
    """The names in ``module`` that look like applications, and like factories of them.

    Functions count where they are defined; an instance counts wherever it is.
    """
    apps: list[str] = []
    factories: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        try:
            looks_like = _looks_like(name, value, module)
        except Exception:  # a lazy object's own code, which asking for its class runs
            continue
        if looks_like is Shape.ASGI3:
            apps.append(name)
        elif looks_like is Shape.FACTORY:
            factories.append(name)
    return apps, factories


def _looks_like(name: str, value: Any, module: ModuleType) -> Shape | None:
    if inspect.isclass(value) or not callable(value):
        return None
    is_function = inspect.isroutine(value)
    if is_function and getattr(value, "__module__", None) != module.__name__:
        return None
    arity, shape = arity_of(value), shape_of(value)
    if shape is Shape.ASGI3 and arity is not None and arity.required == 3:
        return shape
    is_factory = shape is Shape.FACTORY and is_function and "app" in name and not is_coroutine_callable(value)
    return shape if is_factory else None


# From the object to an application.


def _call_factory(factory: object, name: str) -> object:
    if not callable(factory):
        raise StartupError(f"--factory: {name} is {_kind(factory)}, which cannot be called")
    if is_coroutine_callable(factory):
        raise StartupError(_async_factory(name) if _needs(factory) == 0 else _not_a_factory(name, factory))
    if _needs(factory) > 0:
        raise StartupError(_not_a_factory(name, factory))
    try:
        made = factory()
    except SystemExit as exc:
        raise StartupError(_exit_message(f"in the factory {name}", exc)) from exc
    except LoadedInsideError as exc:
        raise StartupError(
            f"the factory {name} runs a server itself{place_of(exc)}: it has to return the application"
        ) from exc
    except Exception as exc:
        raise StartupError(_with_traceback(f"the factory {name} failed", exc)) from exc
    if inspect.iscoroutine(made):
        made.close()  # or Python warns that it was never awaited
        raise StartupError(_async_factory(name))
    if is_context_manager(made) or inspect.isasyncgen(made):
        raise StartupError(
            f"the factory {name} makes {_kind(made)}, and not an application: return that, and move what comes before "
            "and after the yield into the lifespan"
        )
    if made is None:
        raise StartupError(f"the factory {name} returned None: does it lack a return statement?")
    if not callable(made):
        raise StartupError(f"the factory {name} returned {_kind(made)}, which is no application")
    return made


def _needs(factory: object) -> int:
    """How many arguments the call cannot do without, keyword-only ones included; 0 where nobody can tell."""
    try:
        parameters = inspect.signature(cast(Any, factory)).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _async_factory(name: str) -> str:
    return f"the factory {name} is async; it has to be a plain function (what it awaits belongs into the lifespan)"


def _not_a_factory(name: str, factory: Any) -> str:
    signature = inspect.signature(factory)
    if shape_of(factory) in (Shape.ASGI3, Shape.WSGI) and not inspect.isclass(factory):
        return f"{name} looks like an application and not like a factory (it takes {signature}): leave --factory out"
    return f"the factory {name} needs arguments {signature}, but a factory is called without any"


def _check_callable(obj: object, name: str) -> None:
    if obj is None:
        raise StartupError("no application given" if name == "None" else f"{name} is None and not an application")
    if is_context_manager(obj):
        raise StartupError(f"{name} is {_kind(obj)}: a context manager is no application")
    if isinstance(obj, ModuleType):
        apps = _candidates(obj)[0]
        likely = f"{obj.__name__}:{apps[0] if apps else 'app'}"
        raise StartupError(f"{name} is a module: name the application in it, for example {likely}")
    if not callable(obj):
        raise StartupError(f"{name} is {_kind(obj)}, which cannot be called, so it is no application")


def _adapt(obj: Any, name: str, options: AppOptions) -> LoadedApp:
    interface = options.interface
    if interface == "asgi3":
        return LoadedApp(obj, "asgi3", name)
    if interface == "asgi2":
        return LoadedApp(ASGI2Adapter(obj), "asgi2", name)
    if interface == "wsgi":
        if is_coroutine_callable(obj):
            raise StartupError(f"{name} is async, so it is no WSGI application: leave --interface wsgi out")
        return _adapt_wsgi(obj, name, options)
    shape = shape_of(obj)
    if shape is Shape.ASGI3:
        return LoadedApp(obj, "asgi3", name)
    if shape is Shape.ASGI2:
        return LoadedApp(ASGI2Adapter(obj), "asgi2", name)
    if shape is Shape.WSGI:
        return _adapt_wsgi(obj, name, options)
    raise StartupError(_misfit(obj, name, shape))


def _adapt_wsgi(obj: Any, name: str, options: AppOptions) -> LoadedApp:
    from lastcall.asgi.wsgi import WSGIAdapter  # noqa: PLC0415 - ASGI applications need no thread pool

    adapter = WSGIAdapter(obj, threads=options.wsgi_threads)
    return LoadedApp(adapter, "wsgi", name, adapter)


def _misfit(obj: Any, name: str, shape: Shape) -> str:
    if shape is Shape.CLASS:
        return f"{name} is a class: name an instance of it, or use --factory if {obj.__name__}() makes the application"
    if shape is Shape.FACTORY:
        if is_coroutine_callable(obj):
            return f"{name} takes no arguments and is async: an application takes (scope, receive, send)"
        return f"{name} looks like a factory (it can be called without arguments): use --factory"
    if yields(obj):
        return f"{name} yields, so nobody can await it: it is a lifespan or the like, and no application"
    try:
        takes = f"takes {inspect.signature(obj)}"
    except (TypeError, ValueError):
        takes = "takes something else"
    return f"{name} is no ASGI application: it {takes}, and one is called with (scope, receive, send)"


# Words.


def _describe(obj: object) -> str:
    """What messages call an application that was given as an object."""
    if obj is None:
        return "None"
    named = obj if inspect.isroutine(obj) or inspect.isclass(obj) else type(obj)
    text = f"{named.__module__}.{named.__qualname__}"
    return text if named is obj else f"<{text} object>"


def _kind(obj: object) -> str:
    return f"an object of type {type(obj).__name__}"


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the frames of this file and of the import system; None if nothing else is left."""
    while frames is not None:
        filename = frames.tb_frame.f_code.co_filename
        if not (filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)):
            break
        frames = frames.tb_next
    return frames


def _with_traceback(what: str, exc: BaseException) -> str:
    text = "".join(traceback.format_exception(type(exc), exc, _own_frames(exc.__traceback__)))
    return f"{what}: {type(exc).__name__}\n{text.rstrip()}"


def _exit_message(when: str, exc: SystemExit) -> str:
    return f"the application called sys.exit({'' if exc.code is None else repr(exc.code)}) {when}{place_of(exc)}"


def place_of(exc: BaseException) -> str:
    """Where the application's code was when ``exc`` was raised: the last line that is not of this package."""
    where = ""
    for frame, line in traceback.walk_tb(_own_frames(exc.__traceback__)):
        if not frame.f_code.co_filename.startswith((_PACKAGE, "<frozen importlib")):
            where = f" ({frame.f_code.co_filename}, line {line})"
    return where
