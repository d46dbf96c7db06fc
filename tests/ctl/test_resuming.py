"""How far an import has come."""

from pathlib import Path

import pytest

from darner_core.ctl.errors import CtlError
from darner_core.ctl.resuming import Progress


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("x")
    files, state = [str(tmp_path / "items")], str(tmp_path / "state")
    progress = Progress(state)
    assert progress.begin(files) == 0
    progress.note(7)
    again = Progress(state)
    assert (again.begin(files), again.begun_at) == (7, 7)


def test_files_that_have_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("x")
    files, state = [str(tmp_path / "items")], str(tmp_path / "state")
    Progress(state).begin(files)
    (tmp_path / "items").write_text("xy")
    with pytest.raises(CtlError, match="have changed since; remove it"):
        Progress(state).begin(files)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"items": "x", "of": []}'])
def test_a_state_that_makes_no_sense_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(content)
    with pytest.raises(CtlError, match="cannot be read"):
        Progress(str(tmp_path / "state")).begin([])


def test_where_it_cannot_be_noted_another_place_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(CtlError, match="--state FILE"):
        Progress(str(tmp_path / "nowhere" / "state")).begin([])
