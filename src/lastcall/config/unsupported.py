"""The options of what a later release brings, and those of uvicorn that mean nothing here.

With ``only``, an option is accepted as long as its value does not ask for what is missing, so that programs and
scripts written for uvicorn start unchanged.
"""

from __future__ import annotations

from typing import Final

from lastcall.config.kinds import Anything, Count, FilePath, Seconds, Switch, Text
from lastcall.config.lists import Strings
from lastcall.config.option import Only, Option

# ssl.PROTOCOL_TLS_SERVER and ssl.CERT_NONE, without the cost of importing ssl for two numbers (a test compares them).
_PROTOCOL_TLS_SERVER = 17
_CERT_NONE = 0


def _later(feature: str, accepted: str, *values: object) -> Only:
    return Only(values, accepted, f"{feature} comes with a later release")


_TLS = "TLS"

UNSUPPORTED: Final = (
    Option(
        name="http",
        kind=Anything(placeholder="auto|h11|httptools", python_type="str | type[object]"),
        default="auto",
        group="Later",
        help="HTTP implementation: lastcall has one of its own, whichever of these names is given.",
        only=Only(("auto", "h11", "httptools"), "auto, h11 or httptools", "lastcall has its own HTTP implementation"),
    ),
    Option(
        name="http2",
        kind=Switch(form="single"),
        default=False,
        group="Later",
        help="HTTP/2.",
        only=_later("HTTP/2", "HTTP/1.1 only", False),
    ),
    Option(
        name="proxy_headers",
        kind=Switch(),
        default=False,
        group="Later",
        help="Trust `X-Forwarded-*`. In Python, True gives a warning and no more.",
        only=_later("reading X-Forwarded-For and X-Forwarded-Proto", "no proxy headers", False),
    ),
    Option(
        name="forwarded_allow_ips",
        kind=Strings(optional=True, repeatable=False),
        default=None,
        group="Later",
        help="Who may send proxy headers. Any value, with a warning, since nobody is listened to yet.",
    ),
    Option(
        name="ssl_keyfile",
        kind=FilePath(optional=True),
        default=None,
        group="Later",
        help="Private key.",
        only=_later(_TLS, "no key file", None),
    ),
    Option(
        name="ssl_certfile",
        kind=FilePath(optional=True),
        default=None,
        group="Later",
        help="Certificate.",
        only=_later(_TLS, "no certificate", None),
    ),
    Option(
        name="ssl_keyfile_password",
        kind=Text(optional=True),
        default=None,
        group="Later",
        help="Password of the private key.",
        only=_later(_TLS, "no password", None),
        secret=True,
    ),
    Option(
        name="ssl_version",
        kind=Count(),
        default=_PROTOCOL_TLS_SERVER,
        group="Later",
        help="TLS version, a number of the `ssl` module.",
        only=_later(_TLS, "17 (ssl.PROTOCOL_TLS_SERVER)", _PROTOCOL_TLS_SERVER),
    ),
    Option(
        name="ssl_cert_reqs",
        kind=Count(),
        default=_CERT_NONE,
        group="Later",
        help="Whether clients need a certificate, a number of the `ssl` module.",
        only=_later(_TLS, "0 (ssl.CERT_NONE)", _CERT_NONE),
    ),
    Option(
        name="ssl_ca_certs",
        kind=FilePath(optional=True),
        default=None,
        group="Later",
        help="Certificates that clients are checked against.",
        only=_later(_TLS, "no CA certificates", None),
    ),
    Option(
        name="ssl_ciphers",
        kind=Text(optional=True),
        default=None,
        group="Later",
        help="OpenSSL cipher list. `TLSv1` was uvicorn's default once.",
        only=_later(_TLS, "no cipher list", None, "TLSv1"),
    ),
    Option(
        name="ssl_context_factory",
        flag=None,
        kind=Anything(optional=True, python_type="Callable[..., Any]"),
        default=None,
        group="Later",
        help="Callable that makes the SSL context.",
        only=_later(_TLS, "None", None),
    ),
    Option(
        name="h11_max_incomplete_event_size",
        kind=Count(optional=True),
        default=None,
        group="Later",
        help="Bound on a request head in h11.",
        only=Only((None,), "none", "limit_request_line, limit_headers and limit_header_bytes bound the head"),
    ),
    Option(
        name="reset_contextvars",
        kind=Switch(form="single"),
        default=False,
        group="Later",
        help="A fresh context for each request. Any value: every request has a context of its own in lastcall.",
    ),
    Option(
        name="daemon",
        short="-D",
        kind=Switch(form="single"),
        default=False,
        group="Later",
        help="Going into the background, which gunicorn and hypercorn do. Refused: systemd does it better.",
        only=Only(
            (False,),
            "a server in the foreground",
            "a service manager keeps it in the background, starts it again and has its log "
            "(docs/how-to/stop-under-systemd.md)",
        ),
    ),
    Option(
        name="timeout_notify",
        flag=None,
        kind=Seconds(),
        default=30.0,
        group="Later",
        help="Time between two calls of `callback_notify`. Any value.",
    ),
    Option(
        name="callback_notify",
        flag=None,
        kind=Anything(optional=True, python_type="Callable[..., Any]"),
        default=None,
        group="Later",
        help="Coroutine function that uvicorn calls now and then.",
        only=Only((None,), "None", "start a task in the application's lifespan instead"),
    ),
)
