"""How far an import has come, in a file beside what is imported: so it can be interrupted and continued, and is not
done twice by mistake.

The file is replaced after each batch. A kill in between leaves at most one batch that is put again.
"""

import json
import os
from collections.abc import Sequence
from typing import Final

from darner_core.ctl.errors import CtlError
from darner_core.showing import show

SUFFIX: Final = ".imported"


class Progress:
    def __init__(self, path: str) -> None:
        self.path = path
        self._of: list[list[int | str]] = []
        self.begun_at = 0

    def begin(self, paths: Sequence[str]) -> int:
        """How many items of these files have been put before. Raises CtlError if the files have changed since."""
        self._of = [[os.path.basename(path), (found := os.stat(path)).st_size, found.st_mtime_ns] for path in paths]
        try:
            with open(self.path) as file:
                noted = json.load(file)
            done, of = int(noted["items"]), noted["of"]
        except FileNotFoundError:
            self.note(0)
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CtlError(
                f"{show(self.path)} says how far an earlier import came, and cannot be read: {error}"
            ) from None
        if of != self._of:
            raise CtlError(
                f"{show(self.path)} says that {done:,} items were imported, of files that have changed since; remove it"
                " to import all of them"
            )
        self.begun_at = done
        return done

    def note(self, done: int) -> None:
        """Raises CtlError."""
        new = f"{self.path}.new"
        try:
            with open(new, "w") as file:
                json.dump({"items": done, "of": self._of}, file)
            os.replace(new, self.path)
        except OSError as error:
            raise CtlError(
                f"cannot write {show(self.path)}, which says how far the import has come: {error.strerror};"
                " --state FILE names another file"
            ) from error
