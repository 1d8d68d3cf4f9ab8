"""`sitelog demo`: real sites from a real topic into a real Postgres, every count checked."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.main import get_command

from sitelog.cli._run import EXIT_NO
from sitelog.cli._stack_options import DEFAULT_DIR, DirOption
from sitelog.cli._terminal import Terminal
from sitelog.deploy.stack import Stack, Wanted
from sitelog.streams.errors import UnavailableError
from sitelog.streams.settings import Settings, load_settings

app = typer.Typer()

STORY_SITE: Final = "KSEA"
APPLY_SECONDS_MAX: Final = 240.0
LOOK_SECONDS: Final = 0.1

ChangesOption = Annotated[int, typer.Option(min=1_000, max=1_000_000, help="Changes after the sites are created.")]


@app.command()
def demo(folder: DirOption = DEFAULT_DIR, changes: ChangesOption = 50_000) -> None:
    """Start everything, append the life of 12,579 real airports, and check every count.

    Everything is left running. Repeating it sends the same events again, and the log stays as it is.
    """
    console = Terminal(width_elsewhere=80)
    began = time.monotonic()
    console.rule("1. Kafka, Postgres and a worker")
    stack = Stack(folder, os.environ, typer.echo)
    config = asyncio.run(stack.up(Wanted(workers=1)))
    # Nothing of the demo may reach a log that the shell's variables point at.
    with _environment(stack.own_environ()):
        right = asyncio.run(_tell(console, load_settings(config, os.environ), changes))
        console.rule("4. How far behind is each consumer?")
        _show(console, "lag", config)
        console.rule(f"5. One site's story: {STORY_SITE}")
        _show(console, "site", config, STORY_SITE)
    _go_on(console, config, time.monotonic() - began)
    if not right:
        raise typer.Exit(EXIT_NO)


@contextmanager
def _environment(kept: Mapping[str, str]) -> Iterator[None]:
    """Leave this process no other variables than `kept`, as the commands that it runs read its own; then all again."""
    whole = dict(os.environ)
    for name in whole.keys() - kept.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(whole)


async def _tell(console: Terminal, settings: Settings, changes: int) -> bool:
    """Append the story, wait until it is applied, and check it; True if every count is right."""
    from sitelog.deploy._demo_airports import airports  # noqa: PLC0415 - `sitelog --help` shouldn't wait for it
    from sitelog.deploy._demo_check import check  # noqa: PLC0415
    from sitelog.deploy._demo_story import Story  # noqa: PLC0415
    from sitelog.projections._database import connect  # noqa: PLC0415

    console.rule("2. Sites into the topics, and through the worker into log and read models")
    story = Story(airports(), changes)
    connection = await connect(settings.database_config.primary, application="sitelog demo")
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        ) as progress:
            await _append_and_wait(settings, story, connection, progress)
        console.rule("3. Every count against what was appended")
        counts = await check(connection, story.expected)
    finally:
        await connection.close()
    table = Table("what", "appended", "in Postgres", "")
    for count in counts:
        table.add_row(count.what, f"{count.expected:,}", f"{count.found:,}", "ok" if count.right else "WRONG")
    console.print(table)
    return all(count.right for count in counts)


async def _append_and_wait(settings: Settings, story: Any, connection: Any, progress: Progress) -> None:
    from sitelog.deploy._demo_check import APPLIED  # noqa: PLC0415
    from sitelog.streams.append import Appender  # noqa: PLC0415

    before = await connection.fetchval(APPLIED)
    appending = progress.add_task("appended", total=len(story))
    applying = progress.add_task("applied ", total=len(story))

    async def watch() -> None:
        applied = 0
        while applied < len(story):
            await asyncio.sleep(LOOK_SECONDS)
            applied = await connection.fetchval(APPLIED) - before
            progress.update(applying, completed=applied)

    watching = asyncio.create_task(watch())
    try:
        async with Appender(settings) as appender:
            await appender.append_many(story.events(), progress=lambda done: progress.update(appending, completed=done))
        async with asyncio.timeout(APPLY_SECONDS_MAX):
            await watching
    except TimeoutError as error:
        raise UnavailableError(
            f"the worker has not applied everything after {APPLY_SECONDS_MAX:.0f} s: see `sitelog status`"
        ) from error
    finally:
        watching.cancel()


def _show(console: Terminal, command: str, config: Path, *arguments: str) -> None:
    """Run another command as a user would."""
    console.print(f"[dim]$ sitelog {' '.join((command, *arguments))}[/dim]")
    shown = get_command(import_module(f"sitelog.cli.{command}").app)
    shown.main([*arguments, "--config", str(config)], prog_name=f"sitelog {command}", standalone_mode=False)


def _go_on(console: Terminal, config: Path, seconds: float) -> None:
    folder = os.path.relpath(config.parent)
    console.rule(f"Done in {seconds:.0f} s. All of it is still running")
    console.print(
        f"""\
  . .venv/bin/activate                  to have `sitelog` at hand
  sitelog status                        what runs, and where
  sitelog log -n 5                      the newest events
  sitelog site KJFK                     another site's story
  sitelog parked                        the one update that waits for its site
  sitelog replay --verify               fold the whole log again and compare every row
  . {folder}/env && psql "$DATABASE_URL"   the tables themselves: customer_sites, contracts, territories …
  make down                             stop it; the data stays"""
    )
