"""`sitelog append`: appends events that are written as lines of JSON."""

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

import typer

from sitelog.cli._lines import BadLineError, EventLines
from sitelog.cli._options import (
    CONFIG_VARIABLE,
    ConfigOption,
    JsonOption,
    config_if_any,
    producer_settings_from,
    write_json,
)
from sitelog.cli._printable import printable
from sitelog.cli._reading_progress import ReadingProgress
from sitelog.cli._run import EXIT_NO
from sitelog.streams.append import Appender, EventTooLarge, NotAcknowledged, record_of
from sitelog.streams.codec import Codec
from sitelog.streams.errors import ConfigError, Halt, UnavailableError
from sitelog.streams.settings import AppendSettings, ProducerSettings

app = typer.Typer()

FileArgument = Annotated[str, typer.Argument(metavar="FILE|-", help="Lines of JSON; - is standard input.")]
OnErrorOption = Annotated[
    Literal["stop", "continue"], typer.Option("--on-error", help="At a bad line: stop there, or leave it out.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check every line, and send nothing; without a configuration that can be used, by the default limits.",
    ),
]


@dataclass(slots=True)
class Summary:
    """What came of it. `appended` counts what Kafka has acknowledged before the first event that it hasn't.

    In a dry run it is what Kafka would be given.
    """

    appended: int = 0
    bad_lines: int = 0
    seconds: float = 0.0
    dry_run: bool = False


@app.command()
def append(
    file: FileArgument = "-",
    on_error: OnErrorOption = "stop",
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Append the events of a file or of standard input, one JSON object a line, in their order.

    `sitelog events show site_created` prints an example. Each bad line is named on stderr with its number and
    what is wrong. An event_id that was appended before changes nothing, so that lines with ids may be appended
    again after a failure. Exits with 1 if there was a bad line, with 2 if Kafka takes no event of that size, with 69
    if it can't be reached.
    """
    settings = _settings_if_any(config) if dry_run else producer_settings_from(config)
    summary = Summary(dry_run=dry_run)
    started = monotonic()
    with _opened(file) as (descriptor, name), ReadingProgress(descriptor) as progress:
        lines = _lines(descriptor, name, settings, progress, go_on=on_error == "continue")

        def told(appended: int) -> None:
            summary.appended = lines.settled = appended
            progress.advance(appended, lines.bytes_read)

        try:
            asyncio.run(_count(lines, told) if dry_run or settings is None else _append(lines, told, settings))
        except BadLineError:
            pass  # reported already
        finally:
            summary.bad_lines, summary.seconds = lines.bad, round(monotonic() - started, 3)
            progress.stop()
            _show(summary, as_json=as_json)
    return EXIT_NO if summary.bad_lines else 0


def _settings_if_any(config: Path | None) -> ProducerSettings | None:
    """Return the settings to check lines by, None for the defaults; raises ConfigError if --config can't be used.

    A producer's own machine may have none, or one that can't be loaded there: SITELOG_CONFIG of an image whose file
    isn't mounted, a password that isn't set.
    """
    try:
        found = config_if_any(config)
        return None if found is None else producer_settings_from(found)
    except ConfigError as error:
        if config is not None and str(config) != os.environ.get(CONFIG_VARIABLE):
            raise
        why = printable(str(error).partition("\n")[0])
        most = AppendSettings().event_bytes_max
        typer.echo(f"{why}. Lines are checked by the default append.event_bytes_max, {most}", err=True)
        return None


def _lines(
    descriptor: int, name: str, settings: ProducerSettings | None, progress: ReadingProgress, *, go_on: bool
) -> EventLines:
    codec = Codec()
    most = (AppendSettings() if settings is None else settings.append).event_bytes_max
    return EventLines(
        descriptor,
        name,
        go_on=go_on,
        report=progress.write,
        check_size=lambda event: record_of(event, codec, most),
        event_bytes_max=most,
    )


async def _append(lines: EventLines, told: Callable[[int], None], settings: ProducerSettings) -> None:
    try:
        async with Appender(settings) as appender:
            await appender.append_many(lines.events(), told)
    except asyncio.CancelledError:
        if lines.first_missing() is not None:
            for line in _where_to_go_on(lines, "expected Kafka's acknowledgement, got interrupted").splitlines():
                lines.report(line)
        raise
    except (NotAcknowledged, UnavailableError) as error:
        raise UnavailableError(_where_to_go_on(lines, error)) from error
    except (EventTooLarge, ConfigError) as error:
        raise ConfigError(_where_to_go_on(lines, error)) from error
    except Halt as error:
        raise Halt(_where_to_go_on(lines, error), error.exit_code) from error


def _where_to_go_on(lines: EventLines, problem: object) -> str:
    line = lines.first_missing()
    if line is None:  # nothing was read yet
        return str(problem)
    return (
        f"{lines.name}:{line}: {problem}\nAppend again from line {line} on; a line without event_id gets another "
        "one each time, and may then be twice in the log"
    )


async def _count(lines: EventLines, told: Callable[[int], None]) -> None:
    count = 0
    async for _ in lines.events():
        count += 1
        told(count)


@contextmanager
def _opened(file: str) -> Iterator[tuple[int, str]]:
    """Open the file, or take standard input; raises ConfigError where that can't be read."""
    if file == "-":
        if sys.stdin is None:  # closed before we began, as by `<&-`
            raise ConfigError("stdin: expected a file, a pipe or a terminal, got none")
        yield sys.stdin.fileno(), "stdin"
        return
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{file}: expected a file, got a directory")
        yield descriptor, file
    finally:
        os.close(descriptor)


def _show(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(summary))
        return
    what = "would be appended" if summary.dry_run else "appended"
    events = f"{summary.appended:,} event{'' if summary.appended == 1 else 's'} {what} in {summary.seconds:.1f} s"
    bad = f", {summary.bad_lines:,} bad line{'' if summary.bad_lines == 1 else 's'}" if summary.bad_lines else ""
    typer.echo(events + bad)
