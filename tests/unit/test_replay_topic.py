"""A replay of the topics takes what the worker took."""

from sitelog.agents._replay_topic import _events
from sitelog.streams.events import SiteUpdated, SiteValues
from tests.memory import item_of, unreadable


def updated(site_id: str) -> SiteUpdated:
    return SiteUpdated(site_id=site_id, changed_fields=("name",), new_values=SiteValues(name="Harbour"))


def test_what_waits_for_an_entity_counts_once_however_many_records_the_entity_has() -> None:
    records = [item_of(updated(site_id), offset) for offset, site_id in enumerate(["port", "port", "port", "dock"])]
    waiting = [item_of(updated("port"), 10), unreadable("port", 11), item_of(updated("port"), 12)]
    others = [item_of(updated("pier"), 13)]
    events = _events(records, {"port": waiting, "pier": others})
    assert events == [item.event for item in (*records, waiting[0], waiting[2])]
