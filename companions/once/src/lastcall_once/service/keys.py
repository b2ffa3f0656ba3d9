"""API keys: what one looks like, how it is stored, and who its bearer is.

A key is ``once_ID_SECRET``. The id is public, and finds the document; the secret, 32 random bytes, is known to its
bearer only. Of it a salted SHA-256 (HMAC) is stored: a slow hash protects what people think up, and there is nothing to
try out in 256 random bits. Every key belongs to an account, and all that is stored belongs to the account: a
successor made for the same account before its predecessor is revoked sees the same things.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Sequence

from lastcall_once._record import Record, replace
from lastcall_once.documents import Document, DocumentStore
from lastcall_once.service.faults import Fault
from lastcall_once.service.timestamps import iso

COLLECTION = "once/keys"
REMEMBERED_SECONDS = 3.0
"""How long a key that was found good is not looked up again: a revocation acts within this time, everywhere."""

ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(r"once_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_MOST_REMEMBERED = 10_000


class Key(Record):
    """What is stored of a key. ``revoked_at`` is empty while it is good; timestamps are ISO 8601, in UTC."""

    id: str
    account: str
    name: str
    salt: str
    digest: str
    created_at: str
    revoked_at: str = ""

    @property
    def data(self) -> str:
        """Its document."""
        return json.dumps(self.__dict__)


async def create(documents: DocumentStore, *, now: float, name: str = "", account: str = "") -> tuple[str, Key]:
    """Make a key, of a new account unless one is named; return it, and what was stored of it.

    Raises ValueError for an account's name that cannot be, StoreError.
    """
    if account and ACCOUNT.fullmatch(account) is None:
        raise ValueError(f"an account is named by 1 to 64 letters, digits, - and _, not {account!r}")
    while True:
        identity, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
        key = Key(
            id=identity,
            account=account or f"a{identity}",
            name=name,
            salt=salt,
            digest=_digest(salt, secret),
            created_at=iso(now),
        )
        if await documents.write(COLLECTION, identity, key.data, version=0) is not None:
            return f"once_{identity}_{secret}", key


async def known(documents: DocumentStore) -> Sequence[Key]:
    """All keys, by id. Raises StoreError."""
    found: list[Key] = []
    while page := await documents.list_documents(COLLECTION, after=found[-1].id if found else ""):
        found += map(_read, page)
    return found


async def revoke(documents: DocumentStore, identity: str, *, now: float) -> Key | None:
    """Revoke the key of that id; return it, or None if there is none. Once revoked, it stays so. Raises StoreError."""
    while True:
        document = await documents.read(COLLECTION, identity)
        if document is None:
            return None
        key = _read(document)
        if key.revoked_at:
            return key
        key = replace(key, revoked_at=iso(now))
        if await documents.write(COLLECTION, identity, key.data, version=document.version) is not None:
            return key


class KeyRing:
    """Tells the bearer of a key. ``clock`` is monotonic, in seconds.

    What was found good is remembered for ``REMEMBERED_SECONDS``, by its hash; the key itself is kept nowhere.
    """

    def __init__(self, documents: DocumentStore, *, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._clock = clock
        self._good: dict[bytes, tuple[Key, float]] = {}

    async def bearer(self, authorization: Sequence[bytes]) -> Key:
        """The key that the ``Authorization`` headers bring. Raises Fault (401, 403), and StoreError."""
        if not authorization:
            raise _unauthorized("api_key_required")
        scheme, _, token = authorization[0].strip().partition(b" ")
        token = token.strip()
        match = _KEY.fullmatch(token.decode("ascii", "replace"))
        if len(authorization) > 1 or scheme.lower() != b"bearer" or match is None:
            raise _unauthorized("api_key_invalid")
        now, name = self._clock(), hashlib.sha256(token).digest()
        remembered = self._good.get(name)
        if remembered is not None and now < remembered[1]:
            return remembered[0]
        document = await self._documents.read(COLLECTION, match[1])
        key = None if document is None else _read(document)
        if key is None or not hmac.compare_digest(key.digest, _digest(key.salt, match[2])):
            raise _unauthorized("api_key_invalid")
        if key.revoked_at:
            self._good.pop(name, None)
            raise Fault("api_key_revoked")
        if len(self._good) >= _MOST_REMEMBERED:
            self._good.clear()
        self._good[name] = (key, now + REMEMBERED_SECONDS)
        return key


def _unauthorized(code: str) -> Fault:
    return Fault(code, headers=((b"www-authenticate", b"Bearer"),))


def _digest(salt: str, secret: str) -> str:
    return hmac.new(bytes.fromhex(salt), secret.encode(), "sha256").hexdigest()


def _read(document: Document) -> Key:
    return Key(**json.loads(document.data))
