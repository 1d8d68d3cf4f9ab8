"""What the looking commands make of what they find: pure, without any service."""

import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
import typer
from rich.table import Table

from sitelog.cli import _story
from sitelog.cli import lag as lag_command
from sitelog.cli import parked as parked_command
from sitelog.cli import position as position_command
from sitelog.cli import status as status_command
from sitelog.cli._figures import age, counted, moment, number, parse_moment
from sitelog.cli._hexdump import hexdump
from sitelog.cli._moving import consequences, offset_of
from sitelog.cli._printable import printable
from sitelog.cli._run import exit_code_of
from sitelog.cli._terminal import Terminal, text
from sitelog.cli._words import VALUE_CHARACTERS_MAX, words
from sitelog.deploy.status import ServiceStatus
from sitelog.projections._lag import Lag, lag, totals, unapplied
from sitelog.projections._look_parked import ParkedEvent, ParkedRecord
from sitelog.projections._look_positions import Standing
from sitelog.streams._offsets import Bounds, Place, Spot
from sitelog.streams.errors import ConfigError, Retry
from sitelog.streams.events import EVENT_TYPES
from sitelog.streams.examples import example

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PLACE = Place("topic", 3)


def standing(next_offset: int, **changed: object) -> Standing:
    values = {
        "consumer": "projector",
        "topic": "topic",
        "partition": 3,
        "next_offset": next_offset,
        "log_seq": next_offset,
        "epoch": 1,
        "generation": 1,
        "owner": "a worker",
        "anchored": True,
        "parked_entities": 0,
        "last_event_time": NOW - timedelta(seconds=50),
        "updated_at": NOW - timedelta(seconds=40),
    }
    return Standing(**(values | changed))  # type: ignore[arg-type]


def behind(
    position: Standing | None,
    bounds: Bounds | None,
    times: dict[Spot, datetime] | None = None,
    *,
    exists: bool = False,
) -> Lag:
    exists = exists or bounds is not None
    return lag("projector", PLACE, standing=position, bounds=bounds, exists=exists, times=times or {}, now=NOW)


# Lag.


def test_nothing_is_behind_at_the_end() -> None:
    one = behind(standing(10), Bounds(0, 10))
    assert (one.events, one.seconds, one.problem) == (0, 0.0, None)


def test_the_seconds_behind_are_the_age_of_the_oldest_event_that_isnt_applied() -> None:
    one = behind(standing(7), Bounds(0, 10), {Spot(*PLACE, 7): NOW - timedelta(seconds=9)})
    assert (one.events, one.seconds) == (3, 9.0)


def test_without_that_event_the_time_since_the_last_one_stands_in() -> None:
    assert behind(standing(7), Bounds(0, 10)).seconds == 50.0
    assert behind(standing(7, last_event_time=None), Bounds(0, 10)).seconds == 40.0


def test_an_event_from_a_clock_ahead_of_ours_isnt_behind_by_less_than_nothing() -> None:
    assert behind(standing(7), Bounds(0, 10), {Spot(*PLACE, 7): NOW + timedelta(hours=1)}).seconds == 0.0


def test_a_partition_that_nobody_has_claimed_is_behind_by_all_that_it_has() -> None:
    one = behind(None, Bounds(0, 10), {Spot(*PLACE, 0): NOW - timedelta(seconds=5)})
    assert (one.position, one.events, one.seconds, one.owner, one.problem) == (None, 10, 5.0, None, None)


@pytest.mark.parametrize(
    ("position", "bounds", "problem"),
    [
        (standing(3), Bounds(5, 10), "2 events were deleted before they were applied"),
        (standing(12), Bounds(5, 10), "the position is 2 beyond the end"),
        (None, Bounds(5, 10), "never claimed, and the topic begins at 5"),
        (standing(3), None, "Kafka has no such partition"),
    ],
)
def test_what_keeps_a_worker_from_going_on_is_a_problem(
    position: Standing | None, bounds: Bounds | None, problem: str
) -> None:
    assert behind(position, bounds).problem == problem


def test_a_partition_without_a_leader_is_a_problem_though_nothing_is_known_of_what_it_has() -> None:
    one = behind(standing(3), None, exists=True)
    assert (one.end, one.events, one.seconds) == (None, None, None)
    assert one.problem == "no leader: are its brokers running?"
    assert totals([one])[0].exceeds(None, None)


@pytest.mark.parametrize(
    ("position", "bounds", "offset"),
    [
        (standing(7), Bounds(0, 10), 7),
        (standing(10), Bounds(0, 10), None),
        (standing(3), Bounds(5, 10), 5),
        (None, Bounds(5, 10), 5),
        (None, Bounds(0, 0), None),
        (standing(7), None, None),
    ],
)
def test_the_oldest_event_to_be_applied_is_one_that_the_topic_has(
    position: Standing | None, bounds: Bounds | None, offset: int | None
) -> None:
    assert unapplied(position, bounds) == offset


def test_a_total_adds_events_and_takes_the_greatest_age() -> None:
    one = behind(standing(7, parked_entities=1), Bounds(0, 10), {Spot(*PLACE, 7): NOW - timedelta(seconds=9)})
    other = behind(standing(8, parked_entities=2), Bounds(0, 10), {Spot(*PLACE, 8): NOW - timedelta(seconds=4)})
    (total,) = totals([one, other])
    assert (total.events, total.seconds, total.parked_entities, total.problems) == (5, 9.0, 3, 0)


@pytest.mark.parametrize(
    ("events_max", "seconds_max", "exceeded"),
    [(None, None, False), (3, None, False), (2, None, True), (None, 9, False), (None, 8.9, True), (3, 8, True)],
)
def test_a_limit_is_exceeded_by_more_and_not_by_as_much(
    events_max: int | None, seconds_max: float | None, *, exceeded: bool
) -> None:
    (total,) = totals([behind(standing(7), Bounds(0, 10), {Spot(*PLACE, 7): NOW - timedelta(seconds=9)})])
    assert total.exceeds(events_max, seconds_max) is exceeded


@pytest.mark.parametrize("bounds", [None, Bounds(8, 10), Bounds(0, 5)])
def test_what_isnt_known_exceeds_every_limit_and_having_none(bounds: Bounds | None) -> None:
    (total,) = totals([behind(standing(7), bounds)])
    assert total.exceeds(1_000_000, None)
    assert total.exceeds(None, None)


async def watched(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> str:
    """Watch partitions of which the last has a problem, and return what is shown before the third look."""
    lags = [*(behind(standing(7), Bounds(0, 10)) for _ in range(30)), behind(standing(3), Bounds(5, 10))]
    screen = StringIO()
    shown: list[str] = []

    async def look() -> list[Lag]:
        shown.append(screen.getvalue())
        if len(shown) == 3:
            raise EOFError
        return lags

    monkeypatch.setattr(
        lag_command, "Terminal", lambda: Terminal(file=screen, force_terminal=is_terminal, width=120, height=10)
    )
    with pytest.raises(EOFError):
        await lag_command._watch(look, lag_command.Limits(None, None), 0, as_json=False)
    return shown[-1]


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_a_watch_shows_totals_and_problems_each_time_however_low_the_screen(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    shown = await watched(monkeypatch, is_terminal=is_terminal)
    assert shown.count("all ") == 2
    assert shown.count("topic[3]: 2 events were deleted before they were applied") == 2
    assert ("\x1b" in shown) is is_terminal


NAME = "sitelog-projector-0.sitelog-projector.sitelog.svc:12345"
WIDE = Lag("projector", "customer-sites-events", 12, 12_345_678, 98_765_432, 86_419_754, 90.0, NAME, 12_345, None)
WIDE_CELLS = ("customer-sites-events[12]", "12,345,678", "98,765,432", "86,419,754", "90", "s", "12,345", NAME)


def lag_on(**screen: object) -> str:
    """Show a lag with large numbers and long names, and return what is on that screen."""
    terminal = Terminal(file=StringIO(), **screen)
    terminal.print(lag_command.tables([WIDE]))
    return terminal.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_where_there_is_no_terminal_a_lag_is_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert list(WIDE_CELLS) in [row.split() for row in lag_on().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_that_is_too_narrow_for_a_lag_folds_it_and_cuts_nothing(width: int) -> None:
    shown = lag_on(force_terminal=True, color_system=None, width=width)
    assert all(len(row) <= width for row in shown.splitlines())
    cells = shown.partition("─\x20\n")[2].partition("all")[0]
    assert sorted("".join(cells.split())) == sorted("".join(WIDE_CELLS))
    assert width < 80 or all(number in cells for number in WIDE_CELLS[1:4])


def test_a_header_that_is_longer_than_a_terminal_s_line_is_folded_and_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = StringIO()
    monkeypatch.setattr(parked_command, "Terminal", lambda: Terminal(file=screen, force_terminal=True, width=80))
    event = ParkedEvent(
        7, "projector", "topic", 3, 9, "site-1", "parked", "wrong_bytes", "no", NOW, NOW, None, None, None
    )
    name, value = "n" * 70, b"~" * 200
    parked_command._write(ParkedRecord(event, None, None, None), [[name, b64encode(value).decode()]])
    shown = screen.getvalue()
    assert "…" not in shown
    assert shown.count("~") == len(value)
    assert shown.count("n" * 30) >= 2


LONG_NAME = "territory-of-the-north-east-and-all-of-its-neighbours"
MOVED = {"site_id": "s", "territory_id": LONG_NAME, "from_territory_id": LONG_NAME, "valid_from": NOW}


@pytest.mark.parametrize(
    ("table", "times"),
    [
        (_story._fields(MOVED), 2),
        (_story._table([MOVED], "s"), 2),
        (position_command._table([standing(1_234_567_890, consumer=LONG_NAME, topic=LONG_NAME, owner=LONG_NAME)]), 3),
        (status_command._table([ServiceStatus(LONG_NAME, "worker", "up", 1, 2, 3.0, "")]), 1),
    ],
    ids=["fields", "rows", "positions", "services"],
)
def test_a_narrow_terminal_folds_names_in_every_table(table: Table, times: int) -> None:
    shown = StringIO()
    Terminal(file=shown, force_terminal=True, color_system=None, width=50).print(table)
    assert "…" not in shown.getvalue()
    assert shown.getvalue().count("b") >= times  # it is near the name's end


# Words.


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_says_something_in_one_line_without_its_envelope(event_type: str) -> None:
    said = words(example(event_type))
    assert said
    assert "\n" not in said
    assert "2025-07-24" not in said


@pytest.mark.parametrize(
    ("event_type", "said"),
    [
        ("site_updated", "name: Harbour View Garage → Harbour View, parking capacity: 420 → 400"),
        ("contract_updated", "contract contract-1, billing cycle: monthly → quarterly"),
        ("site_deleted", "reason demolished"),
        ("contact_changed", "contact contact-1, phone: +1 202 555 0147 → +1 202 555 0148"),
        (
            "site_assigned_to_territory",
            (
                "territory north-east, previous territory mid-atlantic, effective at 2025-08-01 00:00:00Z, "
                "reason strategic_account, approved by regional director"
            ),
        ),
    ],
)
def test_a_change_is_told_with_what_was_and_what_is(event_type: str, said: str) -> None:
    assert words(example(event_type)) == said


def test_a_value_that_goes_is_nothing_then_and_without_old_values_only_the_new_one_is_told() -> None:
    gone = example("site_updated", changed_fields=["name"], old_values={"name": "A"}, new_values=None)
    assert words(gone) == "name: A → nothing"
    blind = example("site_updated", changed_fields=["name"], old_values=None, new_values={"name": "B"})
    assert words(blind) == "name: B"


def test_a_long_value_is_cut() -> None:
    said = words(example("site_deleted", reason="x" * 500))
    assert said == "reason " + "x" * (VALUE_CHARACTERS_MAX - 1) + "…"


# Terminals.


def test_what_a_terminal_would_obey_is_escaped_and_all_else_stays() -> None:
    assert printable("Zürich → 東京 [x] \\") == "Zürich → 東京 [x] \\"
    assert printable("می\u200cشود 東京\u3000支店 a\u00a0b\n") == "می\u200cشود 東京\u3000支店 a\u00a0b\\n"
    assert printable("\u200b\u200e\u200f\u2028\u2066\ufeff") == r"\u200b\u200e\u200f\u2028\u2066\ufeff"
    assert printable("a\x1b[2Jb\nc\x9b\u202ed\ud800") == r"a\x1b[2Jb\nc\x9b\u202ed\ud800"
    shown = text("site ", ("\x1b]0;x\x07", "bold cyan"), style="dim")
    assert shown.plain == r"site \x1b]0;x\x07"
    assert (shown.style, [span.style for span in shown.spans]) == ("dim", ["bold cyan"])


def test_an_error_with_something_of_a_producer_s_does_nothing_to_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise ConfigError("site \x1b[2J\n\tat its end")

    assert exit_code_of(fail) == 2
    assert capsys.readouterr().err == "error: site \\x1b[2J\nerror:         at its end\n"


# Figures.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.04, "0.0 s"),
        (4.25, "4.2 s"),
        (59.6, "60 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_an_age_is_told_in_a_unit_that_fits(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_numbers_and_times_are_easy_to_read() -> None:
    assert (number(1234567), number(None)) == ("1,234,567", "-")
    assert (counted(1, "event"), counted(2, "entity", "entities")) == ("1 event", "2 entities")
    assert (moment(NOW), moment(None)) == ("2026-11-21 12:00:00Z", "-")


@pytest.mark.parametrize("text", ["2026-11-21T12:00:00Z", "2026-11-21T12:00:00", "2026-11-21 14:00:00+02:00"])
def test_a_time_without_an_offset_is_utc(text: str) -> None:
    assert parse_moment(text) == NOW


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="got 'soon'"):
        parse_moment("soon")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_has_no_year_for_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a time from year 1 to 9999 in UTC, got '"):
        parse_moment(text)


def test_bytes_are_dumped_sixteen_a_line() -> None:
    assert list(hexdump(b"\x00site-1, and more \xff")) == [
        "00000000  00 73 69 74 65 2d 31 2c  20 61 6e 64 20 6d 6f 72  |.site-1, and mor|",
        "00000010  65 20 ff                                          |e .|",
    ]
    assert list(hexdump(b"")) == []


# Positions.


@pytest.mark.parametrize(("text", "offset"), [("start", 5), ("end", 10), ("5", 5), ("10", 10), ("007", 7)])
def test_a_place_in_the_topic_is_meant_by_a_word_or_a_number(text: str, offset: int) -> None:
    assert offset_of(text, PLACE, Bounds(5, 10)) == offset


@pytest.mark.parametrize("text", ["4", "11", "-1", "", "begin", "\u0667"])
def test_a_place_that_the_topic_doesnt_have_is_refused_with_its_bounds(text: str) -> None:
    with pytest.raises(ConfigError, match=r"topic\[3\]: expected start, end or an offset from 5 to 10"):
        offset_of(text, PLACE, Bounds(5, 10))


@pytest.mark.parametrize(
    ("before", "after", "bounds", "said"),
    [
        (3, 5, Bounds(5, 10), ["2 events, offsets 3 to 4, no longer in the topic: skipped"]),
        (
            3,
            8,
            Bounds(5, 10),
            [
                "2 events, offsets 3 to 4, no longer in the topic: skipped",
                "3 events, offsets 5 to 7, in the topic: never applied",
            ],
        ),
        (6, 7, Bounds(5, 10), ["1 event, offset 6, in the topic: never applied"]),
        (None, 5, Bounds(5, 10), ["5 events, offsets 0 to 4, no longer in the topic: skipped"]),
        (8, 5, Bounds(5, 10), ["3 events, offsets 5 to 7, read again: those applied or put aside change nothing"]),
        (
            12,
            5,
            Bounds(5, 10),
            [
                "5 events, offsets 5 to 9, read again: those applied or put aside change nothing",
                "the position was 2 beyond the topic's end",
            ],
        ),
        (
            7,
            7,
            Bounds(5, 10),
            ["nothing is skipped or read again; the record before is not compared with the one applied last"],
        ),
    ],
)
def test_what_a_move_skips_or_reads_again_is_said(
    before: int | None, after: int, bounds: Bounds, said: list[str]
) -> None:
    assert list(consequences(before, after, bounds)) == said


# How a command ends.


def test_what_heals_by_itself_is_unavailable() -> None:
    def command() -> None:
        raise Retry("the registry doesn't answer")

    assert exit_code_of(command) == 69


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    code = (
        "import sys, typer; from sitelog.cli._run import exit_code_of; from sitelog.cli._terminal import Terminal\n"
        "write = typer.echo if sys.argv[1] == 'echo' else lambda text: Terminal().print(text)\n"
        "sys.exit(exit_code_of(lambda: [write('x' * 70) for _ in range(10_000)]))"
    )
    for way in ("echo", "terminal"):
        with subprocess.Popen(
            [sys.executable, "-c", code, way], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert (process.wait(30), process.stderr.read()) == (141, b"")
