"""How names and other texts that clients choose are shown to a person, in log lines and messages."""


def show(text: str | bytes) -> str:
    """`text` on one line, in printable letters, whatever is in it."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
