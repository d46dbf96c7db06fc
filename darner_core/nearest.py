"""Suggestions for messages about a word that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches

# Longer words are not compared: no known word is as long, and comparing takes time that grows with the length.
MAX_BYTES = 40


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """'did you mean "set"?', with the known word that is nearest; `otherwise` if none is near."""
    by_lowered = {one.lower(): one for one in known}
    lowered = word.lower()
    found = get_close_matches(lowered, by_lowered, 1) if len(lowered) <= MAX_BYTES else []
    return f'did you mean "{by_lowered[found[0]]}"?' if found else otherwise
