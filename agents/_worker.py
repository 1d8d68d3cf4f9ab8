"""Faust's worker, made to end in time and to leave the logs alone."""

import gc
import os
import threading
from typing import Any, Final, NoReturn

import faust
from aiokafka.errors import KafkaConnectionError
from mode import ServiceT

from sitelog.streams.app import BatchApp
from sitelog.streams.errors import SitelogError, UnavailableError

EXIT_HARD_STOP: Final = 71

COLLECT_AFTER_OBJECTS: Final = 200_000
"""Every batch makes tens of thousands of objects and no cycles: looking for some costs up to 40 % of the time."""


class SitelogWorker(faust.Worker):
    """Runs services, then the app. After SIGTERM the process ends within `shutdown_seconds`, come what may.

    A hung database can't hold a graceful stop up for longer: what was under way rolls back, and is read again.
    """

    def __init__(self, app: BatchApp, *services: ServiceT, shutdown_seconds: float) -> None:
        super().__init__(app, *services, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._shutdown_seconds = shutdown_seconds

    async def on_startup_finished(self) -> None:
        """Leave what was imported out of every later garbage collection, and make those rare."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)
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
        timer = threading.Timer(self._shutdown_seconds, os._exit, (EXIT_HARD_STOP,))
        timer.daemon = True
        timer.start()
        super()._schedule_shutdown(signal)

    def _setproctitle(self, info: str, *, ident: str = "sitelog") -> None:
        """Leave the process's title alone: it shows the command that was typed."""
