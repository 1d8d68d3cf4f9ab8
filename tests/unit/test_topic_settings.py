"""What is made of a broker that can't tell a topic's settings; real topics are in the integration tests."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError, NodeNotReadyError

from sitelog.streams.errors import Halt
from sitelog.streams.settings import TopicSettings
from sitelog.streams.topics import require_topics

WANTED = {"events": TopicSettings(partitions=1)}


class Broker:
    """Answers as aiokafka's admin client does: topics, and an error code for the settings of each."""

    def __init__(self, code: int = 0, *, topics: bool = True, failing: bool = False) -> None:
        self.code, self.topics, self.failing = code, topics, failing
        self.asked_for_settings = asyncio.Event()

    async def describe_topics(self) -> list[dict[str, Any]]:
        if self.failing:
            raise NodeNotReadyError
        return [{"topic": "events", "partitions": [{}]}] if self.topics else []

    async def describe_configs(self, _: object) -> list[Any]:
        self.asked_for_settings.set()
        entries = [] if self.code else [("cleanup.policy", "delete")]
        return [SimpleNamespace(resources=[(self.code, None, 2, "events", entries)])]


async def values_of(broker: Any) -> Any:
    return await require_topics(broker, WANTED)


@pytest.mark.parametrize(("code", "seen"), [(0, {"events": {"cleanup.policy": "delete"}}), (29, {}), (31, {})])
async def test_settings_that_this_user_may_not_see_are_left_out(code: int, seen: object) -> None:
    assert await values_of(Broker(code)) == seen


@pytest.mark.parametrize("code", [7, 42, -1])  # timed out, invalid request, unknown server error
async def test_any_other_answer_is_no_leave_to_go_on_without_them(code: int) -> None:
    with pytest.raises(KafkaError, match="Error: the settings of topic events: "):
        await values_of(Broker(code))


async def test_a_topic_that_isnt_there_is_missing_whatever_is_said_of_its_settings() -> None:
    with pytest.raises(Halt, match="got none called events"):
        await values_of(Broker(3, topics=False))


async def test_nothing_is_left_waiting_on_a_client_whose_other_request_failed() -> None:
    broker = Broker(failing=True)

    with pytest.raises(NodeNotReadyError):
        await values_of(broker)

    await asyncio.sleep(0)
    assert not broker.asked_for_settings.is_set()
