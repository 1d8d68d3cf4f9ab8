"""docs/settings.md says of every setting what the models and the comments above their fields say today."""

import re

from sitelog.streams._overrides import override
from tests import settings_page

PAGE = settings_page.PAGE.read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| .* \| (?:none|`(SITELOG__\w+)`) \|$", re.MULTILINE)


def test_the_page_is_up_to_date() -> None:
    assert settings_page.page() == PAGE, "run `python -m tests.settings_page`"


def test_each_variable_replaces_the_setting_beside_which_it_stands() -> None:
    rows = [(section, *row) for section, body in sections() for row in ROW.findall(body)]
    assert len(rows) > 70
    for section, setting, variable in rows:
        if variable:
            data: dict[str, object] = {}
            [path] = override(data, {variable: "x"}).variables
            assert ".".join(path) == f"{section}.{setting}".replace("NAME", "name")


def sections() -> list[tuple[str, str]]:
    _, *parts = re.split(r"^#{2,} (\S+)$", PAGE, flags=re.MULTILINE)
    return list(zip(parts[::2], parts[1::2], strict=True))
