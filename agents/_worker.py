"""Faust's worker, made to end in time and to leave the logs alone."""

import gc
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

import faust
from aiokafka.errors import KafkaConnectionError
from mode import ServiceT

from sitelog.streams._compiled import is_compiled
from sitelog.streams.app import BatchApp
from sitelog.streams.errors import SitelogError, UnavailableError

log = logging.getLogger("sitelog.worker")

EXIT_HARD_STOP: Final = 71

COLLECT_AFTER_OBJECTS: Final = 2_000_000
"""Every batch makes tens of thousands of objects and no cycles: looking for some costs up to 40 % of the time."""

LOG_SECONDS_MAX: Final = 1.0
"""For the last line of the log."""


def in_background(seconds: float, do: Callable[..., object], *args: object) -> None:
    """Do something later, unless the process has ended by then."""
    timer = threading.Timer(seconds, do, args)
    timer.daemon = True
    timer.start()


class SitelogWorker(faust.Worker):
    """Runs services, then the app. After SIGTERM the process ends within `shutdown_seconds`, come what may.

    A hung database can't hold a graceful stop up for longer: what was under way rolls back, and is read again.
    """

    def __init__(self, app: BatchApp, *services: ServiceT, shutdown_seconds: float) -> None:
        super().__init__(app, *services, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._shutdown_seconds = shutdown_seconds

    async def on_startup_finished(self) -> None:
        """Leave what was imported out of every garbage collection, and make those rare."""
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)
        gc.enable()
        if not is_compiled():
            log.warning("running uncompiled, at about half the speed: install Sitelog where a C compiler is")
        await super().on_startup_finished()

    async def start(self) -> None:
        """Start everything, and return when it is stopped. Raises UnavailableError where no broker answers."""
        try:
            await super().start()
        except KafkaConnectionError as error:
            raise UnavailableError(f"Kafka can't be reached: {error}. `sitelog status` shows what runs") from error

    def execute_from_commandline(self) -> NoReturn:
        """Run until told to stop. Raises the SitelogError that something couldn't start for, else SystemExit."""
        try:
            super().execute_from_commandline()
        except SystemExit as ended:
            if isinstance(ended.__context__, SitelogError):
                raise ended.__context__ from None
            raise

    def _schedule_shutdown(self, signal: Any) -> None:
        in_background(self._shutdown_seconds, self._stop_hard)
        super()._schedule_shutdown(signal)

    def _stop_hard(self) -> None:
        in_background(LOG_SECONDS_MAX, os._exit, EXIT_HARD_STOP)  # whoever hangs may hold the log's lock
        log.critical(
            "still busy %g s after the signal to stop: what is under way rolls back, and is read again (exit %d)",
            self._shutdown_seconds,
            EXIT_HARD_STOP,
        )
        os._exit(EXIT_HARD_STOP)

    def _setproctitle(self, info: str, *, ident: str = "sitelog") -> None:
        """Leave the process's title alone: it shows the command that was typed."""
