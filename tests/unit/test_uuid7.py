"""Event ids are version 7 UUIDs."""

import pytest

from sitelog.streams._uuid7 import uuid7


def test_uuid7_has_the_version_and_variant_of_rfc_9562() -> None:
    made = uuid7(0x017F22E279B0)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    # The RFC's own example, section A.6, begins with this time.
    assert str(made).startswith("017f22e2-79b0-7")


def test_later_uuids_sort_behind_earlier_ones() -> None:
    made = [str(uuid7(milliseconds)) for milliseconds in (0, 1, 10**12, 2**48 - 1)]
    assert made == sorted(made)


def test_uuids_of_one_millisecond_differ() -> None:
    assert len({uuid7(1_700_000_000_000) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("milliseconds", [-1, 2**48])
def test_a_time_that_does_not_fit_is_refused(milliseconds: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 281474976710655 milliseconds"):
        uuid7(milliseconds)
