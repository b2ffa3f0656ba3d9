"""Whose an ``Idempotency-Key`` is: one caller must never get the answer of another.

Theory of operation
-------------------
What a request says about its caller counts in two ways.

The *caller* is part of the record's key, so that each has keys of their own: ``Authorization``, and the headers that
carry an API key. A caller that changes between two tries would execute twice, so what changes with each request by
design must not count: of a scheme that signs requests, its key id or user name alone does.

The *context* is kept with the record and compared: the session cookie, and the host. Another one is neither answered
from the record nor executed. These may change for other reasons than another caller (a login, a failover to another
name), and what they say may be a part only of who it is (a gateway's ``Authorization`` for all its users), so that
neither a replay nor an execution would be safe.

All that is kept of either is a digest, and that of a context is another one in each record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from lastcall_once._types import Scope
from lastcall_once.fingerprint import hash_of_caller

ANONYMOUS = "-"

API_KEY_HEADERS = ("X-API-Key", "Api-Key")
SESSION_COOKIES = ("session", "sessionid", "sid", "connect.sid", "JSESSIONID", "PHPSESSID")
_PREFIXES = ("", "__Host-", "__Secure-")  # draft-ietf-httpbis-rfc6265bis 4.1.3

# By scheme, in lower case: the parameters of Authorization that say who signs; the others change with each request.
# A DPoP scheme (RFC 9449) is not here: it is the header ``DPoP`` that changes, and the access token that tells callers
# apart, while one key may be that of a service with many users.
_SIGNED: dict[bytes, tuple[bytes, ...]] = {
    b"aws4-hmac-sha256": (b"credential",),
    b"aws4-ecdsa-p256-sha256": (b"credential",),
    b"digest": (b"username", b"username*"),  # RFC 7616 3.4
    b"signature": (b"keyid",),  # draft-cavage-http-signatures 2.1
    b"oauth": (b"oauth_consumer_key", b"oauth_token"),  # RFC 5849 3.1: the application, and for whom it acts
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_PARAMETER = re.compile(
    rb"""[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))(?=[ \t,]|\Z)""", re.DOTALL
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class CallerRules:
    """What of a request says who sends it.

    ``api_key_headers`` are names of headers, ``session_cookies`` names of cookies; the latter also count with
    ``__Host-`` or ``__Secure-`` in front. Raises ValueError for a name that is none.
    """

    def __init__(
        self, api_key_headers: Iterable[str] = API_KEY_HEADERS, session_cookies: Iterable[str] = SESSION_COOKIES
    ) -> None:
        # In one order, whatever the option's: it must not matter to the records.
        self._headers = sorted(name.lower().encode() for name in _tokens("api_key_headers", api_key_headers))
        names = _tokens("session_cookies", session_cookies)
        self._cookies = frozenset(f"{prefix}{name}".encode() for name in names for prefix in _PREFIXES)

    def caller_of(self, scope: Scope) -> str | None:
        """The caller, in 32 hexadecimal digits; ``-`` for all who do not say who they are.

        None if that cannot be told: a cookie may say it, in a way that nobody here can read.
        """
        headers = scope["headers"]
        # An empty header names nobody.
        authorization = [bytes(value) for name, value in headers if name == b"authorization" and value.strip()]
        keys = [
            (wanted, bytes(value)) for wanted in self._headers for name, value in headers if name == wanted and value
        ]
        if not authorization and not keys:
            return None if any(name == b"cookie" for name, _ in headers) else ANONYMOUS
        signers = [_signer(value) for value in authorization]
        if not keys and not any(signers):
            return hash_of_caller(b"\0".join(authorization))  # as the releases before this module had it
        parts: list[bytes] = []
        for signer, value in zip(signers, authorization, strict=True):
            parts += [b"authorization", value] if signer is None else [b"signer", *signer]
        for name, value in keys:
            parts += [b"key", name, value]
        return _digest(b"lastcall once caller 2", parts)

    def context_of(self, scope: Scope, key: str) -> str:
        """What has to be the same in all requests with the record's ``key``, in 32 hexadecimal digits."""
        hosts: list[bytes] = []
        cookies: list[tuple[bytes, bytes]] = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(_without_port(bytes(value).strip().lower()))
            elif name == b"cookie" and self._cookies:
                for cookie in bytes(value).split(b";"):  # RFC 6265 5.4; several fields in HTTP/2
                    called, _, said = cookie.partition(b"=")
                    if called.strip() in self._cookies:
                        cookies.append((called.strip(), said.strip()))
        cookies.sort(key=lambda cookie: cookie[0])  # two of one name stay in their order: the first one counts for most
        parts = [key.encode("utf-8", "surrogatepass"), b"%d" % len(hosts), *hosts]
        for called, said in cookies:
            parts += [called, said]
        return _digest(b"lastcall once context", parts)


def _tokens(option: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"{option} is several names, not one: ({names!r},)")
    found = list(names)
    for name in found:
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            raise ValueError(f"{option} has names like {API_KEY_HEADERS[0]!r}, and {name!r} is none")
    return found


def _signer(authorization: bytes) -> list[bytes] | None:
    """Who signs, if the scheme is one that signs each request; None where that is not so, or cannot be read."""
    scheme, _, rest = authorization.strip().partition(b" ")
    scheme = scheme.lower()
    wanted = _SIGNED.get(scheme)
    if wanted is None:
        return None
    found: dict[bytes, bytes] = {}
    at, rest = 0, rest.rstrip(b" \t,")
    while at < len(rest):
        parameter = _PARAMETER.match(rest, at)
        if parameter is None:
            return None
        name, quoted, bare = parameter.groups()
        name = name.lower()
        if name in found:
            return None  # which one counts, readers differ in
        found[name] = bare if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        at = parameter.end()
    if scheme.startswith(b"aws4-"):  # key/date/region/service/aws4_request: the date is today's
        key, slash, _ = found.get(b"credential", b"").partition(b"/")
        found[b"credential"] = key if slash else b""
    named = [part for name in wanted if found.get(name) for part in (name, found[name])]
    return [scheme, *named] if named else None


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    if colon and (not port or port.isdigit()) and (b":" not in name or name.endswith(b"]")):
        return name
    return host


def _digest(label: bytes, parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256(label)
    for part in parts:
        digest.update(b"\0%d:" % len(part))  # so that no part can pass for the beginning of the next
        digest.update(part)
    return digest.hexdigest()[:32]
