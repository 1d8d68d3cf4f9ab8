"""How every command ends: an error becomes one line on stderr, and an exit code that means something."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Final, TextIO

from typer import Abort, TyperException

from sitelog.cli._printable import printable
from sitelog.streams.errors import ConfigError, Halt, Retry, SitelogError, UnavailableError

EXIT_NO: Final = 1
"""The answer is no: behind by more than asked, nothing found."""
EXIT_USAGE: Final = 2
"""Wrong usage, or a configuration that can't be used."""
EXIT_UNAVAILABLE: Final = 69
"""Kafka or Postgres can't be reached, or a disk is full (sysexits' EX_UNAVAILABLE)."""
EXIT_FAILED: Final = 70
"""Anything else, and a bug of ours (sysexits' EX_SOFTWARE)."""
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C, as a shell counts it."""
EXIT_READER_GONE: Final = 141
"""Who reads our output has gone, as in `sitelog log | head`; as a shell counts SIGPIPE."""

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_TRACEBACK_VARIABLE: Final = "SITELOG_TRACEBACK"


def exit_code_of(command: Callable[[], object]) -> int:
    """Run `command`, write what went wrong as `error: …` lines on stderr, and return the exit code.

    An int that `command` returns is its exit code. No traceback is ever written, except of a bug when
    SITELOG_TRACEBACK is set.
    """
    try:
        result = command()
        _flush()
    except SitelogError as error:
        _write(str(error))
        return _code(error)
    except TyperException as wrong_usage:
        _write(wrong_usage.format_message())
        return EXIT_USAGE
    except (KeyboardInterrupt, Abort):
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit) as gone:
        # Of the one rich makes the other where the console isn't our Terminal, as that of typer's help.
        if BrokenPipeError not in {type(gone), type(gone.__context__)}:
            raise
        _drop(sys.stdout)
        return EXIT_READER_GONE
    except Exception as error:  # noqa: BLE001 - the outermost line: a person gets a sentence, whatever happens
        return _full(error) if isinstance(error, OSError) and error.errno in _FULL else _unexpected(error)
    return result if isinstance(result, int) else 0


def _full(error: OSError) -> int:
    where = "" if error.filename is None else f"{error.filename}: "
    _write(f"{where}{error.strerror}. Free some space, then run this again")
    try:
        _flush()
    except OSError:
        _drop(sys.stdout)
    return EXIT_UNAVAILABLE


def _unexpected(bug: Exception) -> int:
    where = traceback.format_exception(bug) if os.environ.get(_TRACEBACK_VARIABLE) else ()
    _write(f"unexpected {type(bug).__name__}: {bug} ({_TRACEBACK_VARIABLE}=1 shows where)", "".join(where))
    return EXIT_FAILED


def _flush() -> None:
    if sys.stdout is not None:  # closed before we began, as by `>&-`
        sys.stdout.flush()


def _drop(stream: TextIO) -> None:
    """Send what `stream` still holds nowhere: Python would complain again when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(message: str, where: str = "") -> None:
    """Write `message` as error lines, then `where` as it is; the exit code stands where stderr takes nothing."""
    if sys.stderr is None:  # closed before we began, as by `2>&-`
        return
    try:
        sys.stderr.writelines(f"error: {printable(line.expandtabs())}\n" for line in message.splitlines())
        sys.stderr.write(where)
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def _code(error: SitelogError) -> int:
    if isinstance(error, ConfigError):
        return EXIT_USAGE
    if isinstance(error, UnavailableError | Retry):
        return EXIT_UNAVAILABLE
    return error.exit_code if isinstance(error, Halt) else EXIT_FAILED
