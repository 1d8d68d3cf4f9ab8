import os
import signal
import time

import pytest

from sitelog.deploy._daemon import Daemon, stop_together
from sitelog.deploy._ready import DISK_FULL, until_ready
from sitelog.streams.errors import UnavailableError


async def never():
    return False


@pytest.fixture
def start(tmp_path):
    daemon = Daemon(tmp_path, "service")

    def run(script):
        daemon.start(["sh", "-c", script], os.environ)
        return daemon

    yield run
    stop_together([daemon], [(signal.SIGKILL, 5)])


async def test_a_service_that_dies_is_reported_at_once_with_the_lines_that_tell_why(start):
    daemon = start("for i in $(seq 99); do echo fine; done; echo 'ERROR: No space left on device'; exit 1")
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        await until_ready(daemon, never, seconds_max=30, advice=[DISK_FULL])
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert message.startswith("service ended while starting. The disk is full: free some space")
    assert f"Its log is {daemon.log}" in message
    assert message.endswith("\n  | ERROR: No space left on device")
    assert "fine" not in message


async def test_a_service_that_never_answers_is_given_up_in_time_and_left_running(start):
    daemon = start("echo still busy; sleep 60")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"doesn't answer after 0.2 s"):
        await until_ready(daemon, never, seconds_max=0.2)
    assert time.monotonic() - began < 2
    assert daemon.running()


async def test_errors_of_an_earlier_start_are_not_held_against_this_one(start):
    daemon = start("echo 'ERROR: Address already in use'; exit 1")
    with pytest.raises(UnavailableError, match="Address already in use"):
        await until_ready(daemon, never, seconds_max=30)
    start("echo 'nothing to say'; exit 1")
    with pytest.raises(UnavailableError) as caught:
        await until_ready(daemon, never, seconds_max=30)
    assert "Address already in use" not in str(caught.value)
    assert "nothing to say" in str(caught.value)


async def test_an_answer_is_the_end_of_waiting(start):
    answers = iter([False, False, True])

    async def answer():
        return next(answers)

    await until_ready(start("sleep 60"), answer, seconds_max=30)
