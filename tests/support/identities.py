"""Users, certificates, and clients that show them."""

import base64
import hashlib
import socket
import ssl
from pathlib import Path

import trustme

from tests.support.harness import REPLY_S, Client

UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated\r\n"
FAILURE = b"CLIENT_ERROR authentication failure\r\n"


def cheap_hash(password: bytes) -> str:
    """A hash like --hash-password's that takes a thousandth of its time."""
    salt = b"a salt of a test"
    key = hashlib.scrypt(password, salt=salt, n=16, r=8, p=1, dklen=32)
    texts = [base64.b64encode(part).decode().rstrip("=") for part in (salt, key)]
    return f"$scrypt$ln=4,r=8,p=1${texts[0]}${texts[1]}"


def write_users(path: Path, **passwords: str) -> Path:
    """An auth_file. The password "*" is none."""
    lines = [f"{name}:{'*' if word == '*' else cheap_hash(word.encode())}" for name, word in passwords.items()]
    path.write_text("\n".join(["# made by a test", "", *lines, ""]))
    return path


def login(name: str, password: str) -> bytes:
    body = f"{name} {password}".encode()
    return b"set auth 0 0 %d\r\n%b\r\n" % (len(body), body)


class UnixClient(Client):
    """Over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(REPLY_S)
        self.socket.connect(str(path))
        self._received = bytearray()


class TlsClient(Client):
    """Over TLS, showing a certificate if it has one."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", port), REPLY_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._received = bytearray()


class Authority:
    """Signs certificates and writes them to files."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))
        self._name = name

    def server(self) -> tuple[Path, Path]:
        """A server's certificate and its key."""
        made = self._ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
        cert, key = self._directory / f"{self._name}-server.pem", self._directory / f"{self._name}-server.key"
        made.cert_chain_pems[0].write_to_path(str(cert))
        made.private_key_pem.write_to_path(str(key))
        return cert, key

    def client(self, name: str) -> Path:
        """A file with a client's certificate, which has this name, and its key."""
        made = self._ca.issue_cert("client@example.org", common_name=name, key_type=trustme.KeyType.ECDSA)
        file = self._directory / f"{self._name}-{name}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(file))
        return file

    def context(self, name: str | None = None, shown_by: "Authority | None" = None) -> ssl.SSLContext:
        """The TLS settings of a client that trusts this authority, and shows a certificate with this name; "": none."""
        context = ssl.create_default_context(cafile=str(self.file))
        if name is not None:
            made = (shown_by or self)._ca.issue_cert(
                "client@example.org", common_name=name or None, key_type=trustme.KeyType.ECDSA
            )
            made.configure_cert(context)
        return context

    def options(self) -> list[str]:
        """What the server needs to speak TLS."""
        cert, key = self.server()
        return ["--tls-cert", str(cert), "--tls-key", str(key)]
