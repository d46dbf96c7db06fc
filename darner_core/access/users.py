"""The users: names and password hashes, as they stand in `auth_file`.

    file = *( line LF )
    line = name ":" hash | name ":*" | "#" anything | nothing
    hash = "$scrypt$ln=17,r=8,p=1$" salt "$" key      both in base64 without "="

The hash is scrypt (RFC 7914) in the PHC string format. A user with `*` instead has no password, and comes in by
certificate only.

Checking a password takes 0.4 s and 128 MiB, so it is done in a thread. A name that does not exist takes as long, and
keys are compared in constant time. No sockets and no rights here.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass

from darner_core.errors import ConfigError

# What a new hash costs: 128 MiB, and 0.4 s of one processor. Source: OWASP's Password Storage Cheat Sheet, "scrypt".
LOG_N, R, P = 17, 8, 1
SALT_BYTES, KEY_BYTES = 16, 32

# Limits on what a hash in the file may cost.
MAX_HASH_BYTES = 256 << 20
MAX_P = 4

# Together they fit the 512 bytes that a login may have.
MAX_USER_BYTES = 250
MAX_PASSWORD_BYTES = 255

NO_PASSWORD = "*"

_HASH = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")


@dataclass(frozen=True, slots=True)
class PasswordHash:
    log_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @property
    def is_cheap(self) -> bool:
        """Whether it costs less than a new one."""
        return (self.r * self.p) << self.log_n < (R * P) << LOG_N

    def matches(self, password: bytes) -> bool:
        """Whether this is the password. Takes as long as the hash costs."""
        key = _scrypt(password, self.salt, self.log_n, self.r, self.p, len(self.key))
        return hmac.compare_digest(key, self.key)


def _scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int, key_bytes: int) -> bytes:
    # OpenSSL counts a little more than the 128 * N * r of the RFC.
    return hashlib.scrypt(
        password, salt=salt, n=1 << log_n, r=r, p=p, maxmem=MAX_HASH_BYTES + (1 << 20), dklen=key_bytes
    )


def hash_password(password: bytes) -> str:
    """A new hash of `password`, as it stands in the file. Raises ValueError saying what a password must be."""
    if not 1 <= len(password) <= MAX_PASSWORD_BYTES:
        raise ValueError(f"a password is 1 to {MAX_PASSWORD_BYTES} bytes")
    salt = os.urandom(SALT_BYTES)
    key = _scrypt(password, salt, LOG_N, R, P, KEY_BYTES)
    return f"$scrypt$ln={LOG_N},r={R},p={P}${_in_base64(salt)}${_in_base64(key)}"


def _in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def parse_hash(text: str) -> PasswordHash:
    """Raises ValueError saying what a hash must be."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("not a hash that --hash-password makes")
    log_n, r, p = (int(number) for number in match.groups()[:3])
    if not (1 <= log_n <= 24 and r and 1 <= p <= MAX_P and (128 * r) << log_n <= MAX_HASH_BYTES):
        raise ValueError(f"a hash may cost at most {MAX_HASH_BYTES >> 20} MiB and p={MAX_P}")
    try:
        salt, key = (base64.b64decode(part + "=" * (-len(part) % 4), validate=True) for part in match.groups()[3:])
    except binascii.Error:
        raise ValueError("not a hash that --hash-password makes") from None
    if not (8 <= len(salt) <= 64 and 16 <= len(key) <= 64):
        raise ValueError("its salt must be 8 to 64 bytes and its key 16 to 64")
    return PasswordHash(log_n, r, p, salt, key)


def check_name(name: str) -> str:
    """`name`, if a user can be called that. Raises ValueError saying what is allowed."""
    if (
        not 1 <= len(name.encode("utf-8", "surrogatepass")) <= MAX_USER_BYTES
        or not name.isprintable()
        or any(letter.isspace() or letter == ":" for letter in name)
        or name.startswith("#")
    ):
        raise ValueError(
            f"a user's name is 1 to {MAX_USER_BYTES} printable bytes without space and colon, not with # first"
        )
    return name


class Users:
    """The users in the file when it was read. Never changed: reading it again makes a new object."""

    def __init__(self, hashes: dict[str, PasswordHash | None]) -> None:
        """`hashes` by name; None: a user without a password."""
        self._hashes = hashes
        self.cheap = sum(known is not None and known.is_cheap for known in hashes.values())
        # Unknown names are checked against this hash, which costs as much as the others, so that time tells nothing.
        like = next((known for known in hashes.values() if known is not None), None)
        log_n, r, p = (like.log_n, like.r, like.p) if like is not None else (LOG_N, R, P)
        self._nobody = PasswordHash(log_n, r, p, os.urandom(SALT_BYTES), os.urandom(KEY_BYTES))

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def check(self, name: str, password: bytes) -> bool:
        """Whether this is that user's password. Slow on purpose; called in a thread."""
        known = self._hashes.get(name)
        matches = (known or self._nobody).matches(password)
        return matches and known is not None


def read_users(path: str) -> Users:
    """The users in a file. Raises ConfigError naming the file, the line and what is wrong, but never a hash."""
    hashes: dict[str, PasswordHash | None] = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise ConfigError(f"auth_file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"auth_file {path}: not UTF-8") from None
    for number, written in enumerate(lines, 1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        try:
            name, colon, text = line.partition(":")
            if not colon:
                raise ValueError("a line is name:hash")
            check_name(name)
            if name in hashes:
                raise ValueError(f"user {name} stands there twice")
            hashes[name] = None if text == NO_PASSWORD else parse_hash(text)
        except ValueError as error:
            raise ConfigError(f"auth_file {path} line {number}: {error}") from None
    return Users(hashes)
