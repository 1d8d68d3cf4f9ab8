"""The generated files are what the schema files say today."""

from pathlib import Path

import pytest

from sitelog.streams import _generate, events

REMEDY = "run `python -m sitelog.streams._generate`"


@pytest.mark.parametrize("name", ["events.py", "_decode.py"])
def test_generated_files_are_up_to_date(name: str) -> None:
    written = Path(events.__file__).with_name(name).read_text(encoding="utf-8")
    assert written == _generate.generate()[name], REMEDY


def test_generating_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_generate, "__file__", str(tmp_path / "_generate.py"))
    _generate.main()
    assert {path.name for path in tmp_path.iterdir()} == {"events.py", "_decode.py"}
