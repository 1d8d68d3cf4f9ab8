"""What is in flight to Kafka: who resumes at the event that is named misses none."""

import asyncio

import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from sitelog.streams._event import Event
from sitelog.streams._flight import Flight, Missing, MissingError
from sitelog.streams.events import SiteDeleted

Answer = asyncio.Future[RecordMetadata]
ACKNOWLEDGED = RecordMetadata("t", 0, None, 0, 0, 0, 0)


def event(number: int) -> SiteDeleted:
    return SiteDeleted(site_id=f"site-{number}")


def flying(flight: Flight, count: int) -> tuple[list[Event], list[Answer]]:
    events: list[Event] = [event(number) for number in range(count)]
    answers: list[Answer] = [asyncio.get_running_loop().create_future() for _ in events]
    for one, answer in zip(events, answers, strict=True):
        flight.add(one, answer)
    return events, answers


@pytest.fixture
def told() -> list[int]:
    return []


@pytest.fixture
async def flight(told: list[int]) -> Flight:
    return Flight(0.01, 5, told.append)


async def test_an_event_that_found_no_room_names_the_oldest_that_is_unacknowledged(flight: Flight) -> None:
    events, answers = flying(flight, 5)
    for answered in (0, 1, 3):
        answers[answered].set_result(ACKNOWLEDGED)
    late = TimeoutError()
    assert flight.not_sent(event(5), late).missing == Missing(events[2], 2, 2, late)


async def test_an_event_that_found_no_room_names_itself_where_all_before_are_acknowledged(flight: Flight) -> None:
    _, [answer] = flying(flight, 1)
    answer.set_result(ACKNOWLEDGED)
    refused, why = event(1), KafkaError()
    assert flight.not_sent(refused, why).missing == Missing(refused, 1, 0, why)


async def test_what_kafka_said_of_the_oldest_goes_before_what_happened_to_the_newest(flight: Flight) -> None:
    [oldest], [answer] = flying(flight, 1)
    said = KafkaError("no leader")
    answer.set_exception(said)
    assert flight.not_sent(event(1), TimeoutError()).missing == Missing(oldest, 0, 1, said)


async def test_what_is_refused_is_the_oldest(flight: Flight, told: list[int]) -> None:
    events, answers = flying(flight, 3)
    answers[0].set_result(ACKNOWLEDGED)
    said = KafkaError()
    answers[1].set_exception(said)
    with pytest.raises(MissingError) as refused:
        await flight.settle()
    assert refused.value.missing == Missing(events[1], 1, 1, said)
    flight.end()
    assert told == [1]
    assert answers[2].cancelled()


async def test_the_oldest_is_waited_for_only_so_long(flight: Flight) -> None:
    events, answers = flying(flight, 3)
    answers[1].set_result(ACKNOWLEDGED)
    with pytest.raises(MissingError) as late:
        await flight.settle()
    assert late.value.missing[:3] == (events[0], 0, 1)
    assert isinstance(late.value.missing.reason, TimeoutError)


async def test_all_that_is_acknowledged_is_told(flight: Flight, told: list[int]) -> None:
    _, answers = flying(flight, 3)
    for answer in answers:
        asyncio.get_running_loop().call_soon(answer.set_result, ACKNOWLEDGED)
    await flight.settle()
    flight.end()
    assert told[-1] == 3


async def test_what_is_told_at_the_end_has_no_gap(flight: Flight, told: list[int]) -> None:
    _, answers = flying(flight, 5)
    for answered in (0, 1, 3, 4):
        answers[answered].set_result(ACKNOWLEDGED)
    flight.end()
    assert told == [2]


async def test_what_is_not_acknowledged_ends_a_block_that_waits_for_something_else(flight: Flight) -> None:
    [event], _ = flying(flight, 1)

    async def block() -> None:
        async with flight.settling(), asyncio.timeout(5):
            await asyncio.Event().wait()

    with pytest.raises(MissingError) as late:
        await block()
    assert late.value.missing[:3] == (event, 0, 0)


async def test_what_is_acknowledged_is_told_while_a_block_waits() -> None:
    told: asyncio.Queue[int] = asyncio.Queue()
    flight = Flight(5, 1_000, told.put_nowait)
    async with flight.settling():
        for count in (2, 5):
            _, answers = flying(flight, count)
            for answer in answers:
                answer.set_result(ACKNOWLEDGED)
            assert await told.get() == flight.sent


@pytest.mark.parametrize("error", [TimeoutError, LookupError])
async def test_a_block_ends_as_it_would_without(flight: Flight, error: type[Exception]) -> None:
    async def block() -> None:
        async with flight.settling():
            flying(flight, 1)
            raise error

    with pytest.raises(error):
        await block()


async def test_a_cancelled_block_stays_cancelled(flight: Flight) -> None:
    async def block() -> None:
        async with flight.settling():
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_acknowledged_behind_one_that_is_not_takes_room_until_that_one_is(flight: Flight) -> None:
    _, answers = flying(flight, 5)
    for answer in answers[1:]:
        answer.set_result(ACKNOWLEDGED)
    waiting = asyncio.create_task(flight.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    answers[0].set_result(ACKNOWLEDGED)
    await waiting


async def test_who_finds_no_room_in_time_is_told_of_the_oldest(flight: Flight) -> None:
    events, _ = flying(flight, 5)
    with pytest.raises(MissingError) as late:
        await flight.room()
    assert late.value.missing[:3] == (events[0], 0, 4)
