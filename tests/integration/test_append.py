"""Appending to a real Kafka: once, in order, within bounds, and with a clear word when it can't be."""

import asyncio
import os
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from sitelog.streams._event import Event
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.append import _YIELD_EVERY, Appended, Appender, EventTooLarge, NotAcknowledged
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, UnavailableError
from sitelog.streams.events import SiteDeleted, TerritoryDeleted
from sitelog.streams.examples import example
from sitelog.streams.settings import Settings
from sitelog.streams.topics import create_topics
from tests.frozen_broker import frozen_broker
from tests.reading import records_of

pytestmark = pytest.mark.services

SITES = "customer-sites-events"


@pytest.fixture
async def prefix() -> str:
    """What the keys of one test begin with: the topics are shared."""
    return f"{uuid.uuid4().hex}-"


@pytest.fixture
async def kafka_settings(services: Any, kafka: list[str]) -> Settings:
    settings: Settings = services.settings("unused")
    assert settings.kafka_config.bootstrap_servers == kafka
    await create_topics(settings)
    return settings


def limited(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"append": settings.append.model_copy(update=limits)})


def deleted(site_id: str, reason: str = "") -> SiteDeleted:
    return SiteDeleted(site_id=site_id, reason=reason)


def ended(territory_id: str, reason: str) -> TerritoryDeleted:
    return TerritoryDeleted(territory_id=territory_id, reason=reason)


def too_large(territory_id: str) -> TerritoryDeleted:
    """For a broker; of the topic that no test lets take more."""
    return ended(territory_id, os.urandom(1_500_000).hex())


def changes(prefix: str, sites: int, each: int) -> Iterator[SiteDeleted]:
    for number in range(each):
        for site in range(sites):
            yield deleted(f"{prefix}{site}", str(number))


async def reasons_by_site(settings: Settings, prefix: str) -> dict[str, list[str]]:
    """What was appended, by site and in the topic's order."""
    codec = Codec()
    reasons: dict[str, list[str]] = defaultdict(list)
    for record in await records_of(settings, SITES, prefix):
        event = codec.decode(record.value).event
        assert isinstance(event, SiteDeleted)
        assert record.key.decode() == event.site_id
        reasons[event.site_id].append(event.reason or "")
    return reasons


async def reasons_of_territory(settings: Settings, territory_id: str) -> list[str | None]:
    events: list[Any] = [
        Codec().decode(record.value).event for record in await records_of(settings, "territory-events", territory_id)
    ]
    return [event.reason for event in events]


async def test_an_appended_event_is_where_appended_says(kafka_settings: Settings, prefix: str) -> None:
    event = example("site_created", site_id=f"{prefix}a")
    async with Appender(kafka_settings) as appender:
        appended = await appender.append(event)
    [record] = await records_of(kafka_settings, SITES, prefix)
    assert appended == Appended(SITES, record.partition, record.offset)
    assert Codec().decode(record.value).event == event
    assert record.key == event.site_id.encode()


async def test_events_of_both_topics_go_to_their_own(kafka_settings: Settings, prefix: str) -> None:
    events = [example("site_deleted", site_id=prefix), example("territory_deleted", territory_id=prefix)]
    async with Appender(kafka_settings) as appender:
        assert await appender.append_many(events) == 2
    for topic in (SITES, "territory-events"):
        assert len(await records_of(kafka_settings, topic, prefix)) == 1


async def test_many_events_keep_the_order_of_each_site(kafka_settings: Settings, prefix: str) -> None:
    told: list[int] = []
    async with Appender(kafka_settings) as appender:
        count = await appender.append_many(changes(prefix, sites=20, each=50), told.append)
    assert count == 1_000
    assert told == sorted(told)
    assert told[-1] == 1_000
    found = await reasons_by_site(kafka_settings, prefix)
    assert found == {f"{prefix}{site}": [str(n) for n in range(50)] for site in range(20)}


async def test_an_asynchronous_source_may_take_its_time(kafka_settings: Settings, prefix: str) -> None:
    async def source() -> AsyncIterator[Event]:
        for number in range(3):
            await asyncio.sleep(0)
            yield deleted(f"{prefix}a", str(number))

    async with Appender(kafka_settings) as appender:
        assert await appender.append_many(source()) == 3
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["0", "1", "2"]}


async def test_any_number_of_tasks_may_share_an_appender(kafka_settings: Settings, prefix: str) -> None:
    async with Appender(limited(kafka_settings, in_flight_max=7)) as appender:
        await asyncio.gather(*(appender.append(deleted(f"{prefix}{n}", "x")) for n in range(100)))
    assert len(await reasons_by_site(kafka_settings, prefix)) == 100


async def test_tasks_that_append_first_of_all_keep_their_order(kafka_settings: Settings, prefix: str) -> None:
    async with Appender(kafka_settings) as appender:
        [producer] = appender._producers.values()
        client = producer._producer.client
        fetch = client.fetch_all_metadata

        async def fetch_slowly() -> Any:
            client.fetch_all_metadata = fetch
            await asyncio.sleep(0.5)
            return await fetch()

        client.fetch_all_metadata = fetch_slowly
        await asyncio.gather(*(appender.append(deleted(f"{prefix}a", str(number))) for number in range(3)))
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["0", "1", "2"]}


async def test_an_event_that_is_too_large_is_refused_with_both_sizes(kafka_settings: Settings, prefix: str) -> None:
    event = deleted(f"{prefix}a", "x" * 5_000_000)
    async with Appender(kafka_settings) as appender:
        with pytest.raises(
            EventTooLarge, match=rf"{event.event_id} of .* at most 1048576 bytes \(append.*\), got 50001\d\d"
        ):
            await appender.append(event)
        await appender.append(deleted(f"{prefix}a", "small"))
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["small"]}


async def test_the_largest_event_that_is_taken_arrives(kafka_settings: Settings, prefix: str) -> None:
    most = kafka_settings.append.event_bytes_max
    around = len(Codec().encode(deleted(f"{prefix}a", "x" * 100_000))) - 100_000 + len(f"{prefix}a")
    async with Appender(kafka_settings) as appender:
        with pytest.raises(EventTooLarge, match=f"got {most + 1}$"):
            await appender.append(deleted(f"{prefix}a", os.urandom(most).hex()[: most - around + 1]))
        await appender.append(deleted(f"{prefix}a", os.urandom(most).hex()[: most - around]))
    [[reason]] = (await reasons_by_site(kafka_settings, prefix)).values()
    assert len(reason) == most - around


async def test_where_the_broker_takes_smaller_ones_than_configured_the_event_and_its_place_are_named(
    kafka_settings: Settings, prefix: str
) -> None:
    large = too_large(prefix)
    events = [deleted(f"{prefix}a", "first"), large, deleted(f"{prefix}a", "third")]
    async with Appender(limited(kafka_settings, event_bytes_max=4 * 1_048_576)) as appender:
        with pytest.raises(EventTooLarge, match=f"{large.event_id} of .* Raise its max.message.bytes") as refused:
            await appender.append_many(events)
    assert refused.value.position == 1
    assert "first" in (await reasons_by_site(kafka_settings, prefix))[f"{prefix}a"]


async def test_what_comes_after_an_event_that_the_broker_refused_is_taken_again(
    kafka_settings: Settings, prefix: str
) -> None:
    async with Appender(limited(kafka_settings, event_bytes_max=4 * 1_048_576)) as appender:
        await appender.append(ended(prefix, "before"))
        with pytest.raises(EventTooLarge):
            await appender.append(too_large(prefix))
        await appender.append(ended(prefix, "after"))
        await appender.append_many([ended(prefix, "many")])
    assert await reasons_of_territory(kafka_settings, prefix) == ["before", "after", "many"]


async def test_what_waits_behind_an_event_that_the_broker_refused_is_not_sent(
    kafka_settings: Settings, prefix: str
) -> None:
    async with Appender(limited(kafka_settings, event_bytes_max=4 * 1_048_576, batch_bytes=2_048)) as appender:
        with pytest.raises(EventTooLarge) as refused:
            await appender.append_many([too_large(prefix), *(ended(prefix, "behind") for _ in range(_YIELD_EVERY))])
        assert refused.value.position == 0
        await appender.append(ended(prefix, "after"))
    assert await reasons_of_territory(kafka_settings, prefix) == ["after"]


async def test_a_refused_event_fails_none_of_another_partition(kafka_settings: Settings, prefix: str) -> None:
    others = list(changes(prefix, sites=20, each=20))
    async with Appender(limited(kafka_settings, event_bytes_max=4 * 1_048_576, batch_bytes=2_048)) as appender:
        answers = await asyncio.gather(*map(appender.append, [too_large(prefix), *others]), return_exceptions=True)
    assert isinstance(answers[0], EventTooLarge)
    assert {type(answer) for answer in answers[1:]} == {Appended}
    assert len(await records_of(kafka_settings, SITES, prefix)) == len(others)


async def test_so_is_the_place_of_one_that_is_larger_than_configured(kafka_settings: Settings, prefix: str) -> None:
    events = [deleted(f"{prefix}a", "first"), deleted(f"{prefix}a", "x" * 2_000_000)]
    async with Appender(kafka_settings) as appender:
        with pytest.raises(EventTooLarge) as refused:
            await appender.append_many(events)
    assert refused.value.position == 1


async def test_what_is_no_event_is_refused_and_what_came_before_is_in(kafka_settings: Settings, prefix: str) -> None:
    told: list[int] = []
    events: list[Any] = [deleted(f"{prefix}a", "first"), {"site_id": "a"}, deleted(f"{prefix}a", "third")]
    async with Appender(kafka_settings) as appender:
        with pytest.raises(TypeError, match="expected an event, got dict"):
            await appender.append_many(events, told.append)
    assert told == [1]
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["first"]}


async def test_a_source_that_fails_leaves_what_came_before_acknowledged(kafka_settings: Settings, prefix: str) -> None:
    def source() -> Iterator[Event]:
        yield deleted(f"{prefix}a", "first")
        raise LookupError

    told: list[int] = []
    async with Appender(kafka_settings) as appender:
        with pytest.raises(LookupError):
            await appender.append_many(source(), told.append)
    assert told == [1]


async def test_a_broker_that_hangs_loses_nothing_and_doubles_nothing(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    async with Appender(limited(kafka_settings, batch_bytes=2_048)) as appender:
        await appender.append(deleted(f"{prefix}0", "before"))
        async with frozen_broker(services):
            task = asyncio.create_task(appender.append_many(changes(prefix, sites=5, each=200)))
            done, _ = await asyncio.wait([task], timeout=1)
            assert not done
        assert await task == 1_000
    found = await reasons_by_site(kafka_settings, prefix)
    assert found.pop(f"{prefix}0") == ["before", *map(str, range(200))]
    assert list(found.values()) == [[str(n) for n in range(200)]] * 4


async def test_at_most_so_many_events_are_read_ahead(services: Any, kafka_settings: Settings, prefix: str) -> None:
    drawn = 0

    def source() -> Iterator[Event]:
        nonlocal drawn
        for event in changes(prefix, sites=3, each=100):
            drawn += 1
            yield event

    async with Appender(limited(kafka_settings, in_flight_max=10)) as appender:
        await appender.append(deleted(f"{prefix}0", "before"))
        async with frozen_broker(services):
            task = asyncio.create_task(appender.append_many(source()))
            await asyncio.wait([task], timeout=0.5)
            # One more is drawn already, and waits.
            assert drawn == 11
        assert await task == 300


async def test_an_outage_ends_in_not_acknowledged_and_the_appender_lives_on(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    event = deleted(f"{prefix}a", "during")
    async with Appender(limited(kafka_settings, delivery_timeout_seconds=1)) as appender:
        await appender.append(deleted(f"{prefix}a", "before"))
        async with frozen_broker(services):
            started = time.monotonic()
            with pytest.raises(NotAcknowledged, match=rf"{event.event_id} .* got none within 1 s"):
                await appender.append(event)
            with pytest.raises(NotAcknowledged):
                await appender.append_many([event, event])
            assert time.monotonic() - started < 4
        async with asyncio.timeout(20):
            while True:
                try:
                    await appender.append(deleted(f"{prefix}a", "after"))
                except NotAcknowledged:
                    continue  # Kafka is still catching its breath
                break
    found = (await reasons_by_site(kafka_settings, prefix))[f"{prefix}a"]
    assert found[0] == "before"
    assert found[-1] == "after"


async def test_an_outage_names_the_first_event_that_may_be_missing_and_how_many_may_be_after_it(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    events = list(changes(prefix, sites=3, each=100))
    async with Appender(limited(kafka_settings, delivery_timeout_seconds=1, in_flight_max=10)) as appender:
        await appender.append_many(events[:100])
        async with frozen_broker(services):
            # Ten are in flight, and the eleventh waits until it may be.
            with pytest.raises(
                NotAcknowledged, match=rf"{events[100].event_id} .* 9 after it: .* from this one on"
            ) as outage:
                await appender.append_many(events[100:])
            assert outage.value.position == 0


async def test_an_appender_that_ends_in_an_outage_leaves_nothing_running(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    ours = asyncio.all_tasks()

    async def append_into_the_outage(frozen: AsyncExitStack) -> None:
        async with Appender(limited(kafka_settings, delivery_timeout_seconds=1)) as appender:
            await appender.append(deleted(f"{prefix}a", "before"))
            await frozen.enter_async_context(frozen_broker(services))
            await appender.append(deleted(f"{prefix}a", "during"))

    async with AsyncExitStack() as frozen:
        with pytest.raises(NotAcknowledged):
            await append_into_the_outage(frozen)
        assert [repr(task.get_coro()) for task in asyncio.all_tasks() - ours] == []


async def test_an_appender_takes_events_only_while_it_is_open(kafka_settings: Settings, prefix: str) -> None:
    ours = asyncio.all_tasks()
    appender = Appender(kafka_settings)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected an Appender that is open"):
            await appender.append(deleted(f"{prefix}a", "closed"))
        async with appender:
            await appender.append(deleted(f"{prefix}a", "open"))
    with pytest.raises(RuntimeError, match="expected an Appender that is open"):
        await appender.append_many([deleted(f"{prefix}a", "closed")])
    assert asyncio.all_tasks() == ours
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["open", "open"]}


async def test_who_is_still_waiting_when_an_appender_ends_brings_it_not_back(
    kafka_settings: Settings, prefix: str
) -> None:
    ours = asyncio.all_tasks()
    async with Appender(kafka_settings) as appender:
        [producer] = appender._producers.values()
        dead = producer._producer._sender.sender_task
        dead.cancel()
        await asyncio.wait([dead])
        waiting = asyncio.create_task(appender.append(deleted(f"{prefix}a", "late")))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="expected an Appender that is open"):
        await waiting
    assert asyncio.all_tasks() == ours
    assert await reasons_by_site(kafka_settings, prefix) == {}


async def test_a_source_that_makes_wait_delays_no_word_of_an_outage(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    event = deleted(f"{prefix}a", "during")

    async def source() -> AsyncIterator[Event]:
        yield event
        await asyncio.Event().wait()

    async with Appender(limited(kafka_settings, delivery_timeout_seconds=1)) as appender:
        await appender.append(deleted(f"{prefix}a", "before"))
        async with frozen_broker(services), asyncio.timeout(5):
            with pytest.raises(NotAcknowledged, match=rf"{event.event_id} .* got none within 1 s"):
                await appender.append_many(source())


async def test_leaving_during_an_outage_takes_no_longer_than_its_limits(
    services: Any, kafka_settings: Settings, prefix: str
) -> None:
    appender = Appender(limited(kafka_settings, delivery_timeout_seconds=1))
    await appender.__aenter__()
    await appender.append(deleted(f"{prefix}a", "before"))
    async with frozen_broker(services):
        started = time.monotonic()
        with pytest.raises(NotAcknowledged):
            await appender.append(deleted(f"{prefix}a", "during"))
        await appender.__aexit__(None, None, None)
        assert time.monotonic() - started < 5


async def test_a_producer_whose_sender_has_died_is_replaced(kafka_settings: Settings, prefix: str) -> None:
    async with Appender(kafka_settings) as appender:
        await appender.append(deleted(f"{prefix}a", "before"))
        [producer] = appender._producers.values()
        dead = producer._producer._sender.sender_task
        dead.cancel()
        await asyncio.wait([dead])
        await asyncio.gather(*(appender.append(deleted(f"{prefix}a", "after")) for _ in range(3)))
        assert producer._producer._sender.sender_task is not dead
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["before", *["after"] * 3]}


async def test_what_comes_after_an_event_that_failed_with_its_producer_isnt_sent(
    kafka_settings: Settings, prefix: str
) -> None:
    slow = kafka_settings.model_copy(update={"append": kafka_settings.append.model_copy(update={"linger_ms": 5_000})})
    async with Appender(slow) as appender:
        await appender.append(deleted(f"{prefix}a", "before"))

        def events() -> Iterator[Event]:
            yield deleted(f"{prefix}a", "first")
            [producer] = appender._producers.values()
            producer._producer._sender.sender_task.cancel()
            # It has ended at the next turn of the event loop.
            yield from (deleted(f"{prefix}a", "later") for _ in range(_YIELD_EVERY))

        with pytest.raises(NotAcknowledged) as caught:
            await appender.append_many(events())
        assert caught.value.position == 0
    assert await reasons_by_site(kafka_settings, prefix) == {f"{prefix}a": ["before"]}


async def test_who_comes_while_a_dead_producer_is_replaced_waits_for_the_new_one(
    kafka_settings: Settings, prefix: str
) -> None:
    async with Appender(kafka_settings) as appender:
        await appender.append(deleted(f"{prefix}a", "before"))
        [producer] = appender._producers.values()
        producer._producer._sender.sender_task.cancel()
        producer._topics.clear()
        tasks = []
        while not (tasks and tasks[0].done()):
            tasks.append(asyncio.create_task(appender.append(deleted(f"{prefix}{len(tasks)}"))))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    assert len(await reasons_by_site(kafka_settings, prefix)) == len(tasks) + 1


async def test_a_missing_topic_is_named_at_once(kafka_settings: Settings, prefix: str) -> None:
    admin = AIOKafkaAdminClient(**kafka_client_options(kafka_settings))
    await admin.start()
    try:
        await admin.delete_topics(["territory-events"])
        async with Appender(kafka_settings) as appender:
            with pytest.raises(Halt, match=r"expected the topic territory-events, .*`sitelog topics create`"):
                await appender.append(example("territory_deleted", territory_id=prefix))
            await appender.append(deleted(f"{prefix}a"))
    finally:
        await admin.close()
        await create_topics(kafka_settings)


async def test_a_kafka_that_is_not_there_is_said_at_once(services: Any) -> None:
    settings: Settings = services.settings("unused")
    kafka_config = settings.kafka_config.model_copy(update={"bootstrap_servers": ["127.0.0.1:1"]})
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: "):
        async with Appender(settings.model_copy(update={"kafka_config": kafka_config})):
            pass
