"""`sitelog append` reads lines as they come, and names each bad one; nothing here needs Kafka."""

import asyncio
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sitelog.cli import _lines
from sitelog.cli._lines import BadLineError, EventLines
from sitelog.cli.append import append
from sitelog.cli.events import app, show
from sitelog.streams._event import Event
from sitelog.streams.errors import ConfigError
from sitelog.streams.events import EVENT_TYPES
from sitelog.streams.examples import example
from sitelog.streams.json_lines import event_of, line_of

Capture = pytest.CaptureFixture[str]
GOOD = line_of(example("site_deleted"))
SMALL = """\
kafka_config:
  bootstrap_servers: [localhost:9092]
  topics: {customer-sites-events: {partitions: 6}, territory-events: {partitions: 3}}
append: {event_bytes_max: 4096}
"""
BAD = '{"type":"site_deleted"}'


def lines_of(descriptor: int, *, go_on: bool = False, **changes: Any) -> tuple[EventLines, list[str]]:
    reported: list[str] = []
    check: Callable[[Event], object] = changes.pop("check_size", lambda _: None)
    lines = EventLines(descriptor, "f", go_on, reported.append, check, changes.pop("event_bytes_max", 1_048_576))
    return lines, reported


async def drained(lines: EventLines) -> list[Event]:
    return [event async for event in lines.events()]


def opened(folder: Path, content: bytes) -> int:
    path = folder / "lines"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


CONTENTS = [
    (f"{GOOD}\n{GOOD}\n", 2),
    (f"{GOOD}\n\n  \n{GOOD}", 2),
    (f"{GOOD}\r\n{GOOD}\r\n", 2),
    (f"\ufeff{GOOD}\r\n{GOOD}\r\n", 2),
    ("\ufeff", 0),
    ("", 0),
    ("\n", 0),
    (f"{GOOD}\n" * 2_000, 2_000),
]


@pytest.mark.parametrize(("content", "count"), CONTENTS)
async def test_every_line_is_an_event_and_empty_ones_are_none(tmp_path: Path, content: str, count: int) -> None:
    lines, reported = lines_of(opened(tmp_path, content.encode()))
    assert await drained(lines) == [example("site_deleted")] * count
    assert not reported
    assert lines.bytes_read == len(content.encode())


async def test_a_line_is_an_event_before_the_next_one_is_written() -> None:
    reader, writer = os.pipe()
    lines, _ = lines_of(reader)
    events = lines.events()
    for _ in range(3):
        os.write(writer, GOOD.encode() + b"\n" + GOOD[:10].encode())
        assert await asyncio.wait_for(anext(events), 5) == example("site_deleted")
        os.write(writer, GOOD[10:].encode() + b"\n")
        assert await asyncio.wait_for(anext(events), 5) == example("site_deleted")
    os.close(writer)
    assert [event async for event in events] == []


async def test_waiting_for_a_line_stops_nobody_else() -> None:
    reader, writer = os.pipe()
    lines, _ = lines_of(reader)
    waiting = asyncio.create_task(drained(lines))
    await asyncio.sleep(0)
    os.close(writer)
    assert await asyncio.wait_for(waiting, 5) == []


async def test_reading_a_long_file_stops_nobody_else(tmp_path: Path) -> None:
    lines, _ = lines_of(opened(tmp_path, f"{GOOD}\n".encode() * 5_000))
    reading = asyncio.create_task(drained(lines))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert lines.bytes_read < 5_000 * len(GOOD)


async def test_bad_lines_are_counted_and_named_with_their_numbers(tmp_path: Path) -> None:
    lines, reported = lines_of(opened(tmp_path, f"{GOOD}\n\n{BAD}\n{GOOD}\nx\n".encode()), go_on=True)
    assert len(await drained(lines)) == 2
    assert lines.bad == 2
    assert reported[0] == "f:3: site_id: expected a value, got none"
    assert reported[1].startswith("f:5: expected JSON, got ")


async def test_reading_stops_at_the_first_bad_line_unless_told_otherwise(tmp_path: Path) -> None:
    lines, reported = lines_of(opened(tmp_path, f"{GOOD}\n{BAD}\n{GOOD}\n{BAD}\n".encode()))
    events = lines.events()
    assert await anext(events) == example("site_deleted")
    with pytest.raises(BadLineError):
        await anext(events)
    assert (lines.bad, len(reported)) == (1, 1)


async def test_an_event_s_line_is_known_until_it_has_arrived(tmp_path: Path) -> None:
    lines, _ = lines_of(opened(tmp_path, f"{GOOD}\n\n{BAD}\n{GOOD}\n{GOOD}\n\n{GOOD}\n".encode()), go_on=True)
    events = lines.events()
    await anext(events)
    await anext(events)
    assert [lines.number_of(position) for position in range(2)] == [1, 4]
    lines.settled = 1
    assert lines.first_missing() == 4
    async for _ in events:
        lines.settled += 1
    assert lines.number_of(3) == 7
    assert lines.first_missing() == 7
    lines.settled += 1
    assert lines.first_missing() is None


async def test_line_numbers_fill_no_memory(tmp_path: Path) -> None:
    lines, _ = lines_of(opened(tmp_path, f"{GOOD}\n".encode() * 1_000))
    async for _ in lines.events():
        lines.settled += 1
        assert len(lines._numbers) <= 2


async def test_only_a_long_line_is_encoded_to_know_its_size(tmp_path: Path) -> None:
    asked: list[Event] = []
    long = line_of(example("site_deleted", reason="x" * 1_000))
    content = f"{GOOD}\n{long}\n".encode()
    lines, _ = lines_of(opened(tmp_path, content), check_size=asked.append, event_bytes_max=4_000)
    await drained(lines)
    assert asked == [event_of(long.encode())]


async def test_a_line_without_end_is_a_bad_line_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1_048_576
    monkeypatch.setattr(_lines, "LINE_BYTES_MAX", most)
    reader, writer = os.pipe()
    lines, reported = lines_of(reader, go_on=True)

    def write() -> None:
        for _ in range(20):
            os.write(writer, bytes(most))
        os.write(writer, b"\n" + GOOD.encode() + b"\n")
        os.close(writer)

    tracemalloc.start()
    try:
        _, events = await asyncio.gather(asyncio.to_thread(write), drained(lines))
        assert tracemalloc.get_traced_memory()[1] < 5 * most
    finally:
        tracemalloc.stop()
    assert events == [example("site_deleted")]
    assert reported == [f"f:1: expected at most {most} bytes in a line, got more"]


def test_a_dry_run_needs_neither_kafka_nor_a_configuration(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{GOOD}\n{GOOD}\n")
    assert append(str(file), dry_run=True) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 events would be appended in ")
    assert printed.err == ""


def test_bad_lines_go_to_stderr_and_make_the_exit_code_1(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{GOOD}\n{BAD}\n{GOOD}\n{BAD}\n")
    assert append(str(file), dry_run=True, as_json=True) == 1
    stopped = capsys.readouterr()
    assert stopped.err == f"{file}:2: site_id: expected a value, got none\n"
    assert {**json.loads(stopped.out), "seconds": 0} == {
        "appended": 1,
        "bad_lines": 1,
        "seconds": 0,
        "dry_run": True,
    }
    assert append(str(file), dry_run=True, on_error="continue") == 1
    went_on = capsys.readouterr()
    assert went_on.err.splitlines() == [f"{file}:{n}: site_id: expected a value, got none" for n in (2, 4)]
    assert "2 events would be appended" in went_on.out
    assert went_on.out.endswith("2 bad lines\n")


def test_an_event_that_is_too_large_is_a_bad_line(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(line_of(example("site_deleted", reason="x" * 5_000_000)))
    assert append(str(file), dry_run=True) == 1
    event_id = example("site_deleted").event_id
    assert f"{file}:1: site_deleted {event_id} of site-1: expected at most 1048576" in capsys.readouterr().err


def test_a_dry_run_keeps_to_the_limit_of_the_configuration_that_is_named_or_found(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = tmp_path / "events.jsonl", tmp_path / "sitelog.yaml"
    file.write_text(line_of(example("site_deleted", reason="x" * 5_000)))
    config.write_text(SMALL)
    monkeypatch.chdir(Path("/"))
    assert append(str(file), dry_run=True) == 0
    assert append(str(file), dry_run=True, config=config) == 1
    assert "expected at most 4096 bytes" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert append(str(file), dry_run=True) == 1
    with pytest.raises(ConfigError, match=r"^nothing\.yaml: "):
        append(str(file), dry_run=True, config=Path("nothing.yaml"))


@pytest.mark.parametrize("unusable", ["missing", "variable"])
def test_a_dry_run_goes_on_by_the_default_limit_where_a_configuration_that_nobody_named_cant_be_used(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    file, config = tmp_path / "events.jsonl", tmp_path / "sitelog.yaml"
    file.write_text(line_of(example("site_deleted", reason="x" * 5_000)))
    config.write_text(SMALL.replace("localhost:9092", "'${NOT_SET_ANYWHERE}'"))
    monkeypatch.chdir(tmp_path)
    found = None
    if unusable == "missing":  # as in an image whose configuration isn't mounted
        found = tmp_path / "nothing.yaml"
        monkeypatch.setenv("SITELOG_CONFIG", str(found))

    assert append(str(file), dry_run=True, config=found) == 0

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(str(found or "sitelog.yaml:2: "))
    assert line.endswith(". Lines are checked by the default append.event_bytes_max, 1048576")
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE"):
        append(str(file), dry_run=True, config=config)


@pytest.mark.parametrize(("file", "message"), [("nothing", "No such file"), (".", "expected a file, got a directory")])
def test_a_file_that_can_not_be_read_is_wrong_usage(file: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{file}: {message}"):
        append(file, dry_run=True)


def test_memory_stays_flat_however_long_the_file_is(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from sitelog.cli.append import append; append(sys.argv[1], dry_run=True);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def kilobytes_for(lines: int) -> int:
        file = tmp_path / f"{lines}.jsonl"
        file.write_text(f"{GOOD}\n" * lines)
        done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    # 40,000 lines are 7 MB, and several times that as events.
    assert kilobytes_for(40_000) - kilobytes_for(1) < 3_500


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_is_shown_with_a_line_that_append_takes(event_type: str, capsys: Capture) -> None:
    show(event_type, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["header"].startswith("c3 01 ")
    show(event_type)
    lines = [json.dumps(shown["example"]), capsys.readouterr().out.splitlines()[-1]]
    first, second = (event_of(line.encode()) for line in lines)
    # Nobody loses one of two for an id that both have from here.
    assert first.event_id != second.event_id
    same = {"event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "event_timestamp": example(event_type).event_timestamp}
    assert [one.model_copy(update=same) for one in (first, second)] == [example(event_type, **same)] * 2


def test_events_are_listed() -> None:
    listed = CliRunner().invoke(app, []).output
    assert all(f" {event_type} " in listed for event_type in EVENT_TYPES)
    as_json = json.loads(CliRunner().invoke(app, ["--json"]).output)
    assert {one["event"] for one in as_json} == set(EVENT_TYPES)


def test_a_name_that_no_event_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"got site_creatd: did you mean site_created\?"):
        show("site_creatd")
