"""How a client of RESP says who it is: AUTH, or HELLO with AUTH. Until then every other command is refused, and the
connection goes on.

Pure: bytes in, a login out. The limits are narrow, because all of it is kept of a client that may be anybody.
"""

from darner_core.errors import RequestError
from darner_core.protocols.contract import BadLogin, Login, NoLogin, NotYet
from darner_core.protocols.resp.reader import first_words
from darner_core.protocols.resp.replies import OK, RespError, error_reply
from darner_core.protocols.resp.versions import hello_reply, read_hello
from darner_core.showing import show

MAX_LOGIN_BYTES = 2048

# Who a client is that says a password alone, as clients of Disque do: Redis's word.
DEFAULT_USER = b"default"

NO_AUTH = b"-NOAUTH Authentication required.\r\n"


def read_login(data: bytes) -> Login | None:
    """See `contract.Traits`."""
    try:
        found = first_words(data[:MAX_LOGIN_BYTES])
    except RequestError as error:
        raise NoLogin(show(str(error))) from None
    if found is None:
        if len(data) >= MAX_LOGIN_BYTES:
            raise NoLogin("a long request")
        return None
    words, rest = found[0], data[min(len(data), MAX_LOGIN_BYTES) - len(found[1]) :]
    verb = words[0].lower()
    if verb == b"auth" and len(words) == 3:
        return Login(words[1], words[2], OK, rest)
    if verb == b"auth" and len(words) == 2:
        return Login(DEFAULT_USER, words[1], OK, rest)
    if verb == b"auth":
        raise BadLogin("AUTH with more words than a name and a password")
    if verb == b"hello" and len(words) > 1:
        try:
            asked = read_hello(words[1:])
        except RespError as error:
            raise NotYet(error_reply(error), rest) from None
        if asked.user is not None:
            return Login(asked.user, asked.password, lambda session: hello_reply(asked, session), rest)
    raise NotYet(NO_AUTH, rest)
