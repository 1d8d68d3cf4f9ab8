"""The page on reliability names every fault, and takes the tables that `make chaos` writes."""

import re

import pytest

from tests.chaos.checker import KINDS as VIOLATIONS
from tests.chaos.kinds import KINDS
from tests.chaos.page import PAGE, replaced

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_fault_and_every_violation_is_explained() -> None:
    assert set(re.findall(r"`(\w+)`", TEXT)) >= KINDS.keys() | set(VIOLATIONS)


@pytest.mark.parametrize("place", ["runs", "recovery"])
def test_tables_have_a_place_and_can_be_replaced_again(place: str) -> None:
    once = replaced(TEXT, place, ["| one |"])
    assert "| one |" in once
    assert replaced(once, place, ["| two |"]) == replaced(TEXT, place, ["| two |"])


def test_a_page_without_the_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected <!-- elsewhere"):
        replaced(TEXT, "elsewhere", [])
