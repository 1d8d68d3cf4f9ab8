"""/livez, /readyz and /metrics of a worker, on a server of its own that is up before Kafka is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from mode import Service
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sitelog.agents._metrics import Metrics
from sitelog.streams.errors import UnavailableError, reason_of

log = logging.getLogger("sitelog.health")

PING_SECONDS_MAX: Final = 2.0

IDLE_SECONDS_MAX: Final = 30.0
"""For a connection on which nobody asks; aiohttp's hour lets silent ones take every file descriptor."""

LINGER_SECONDS_MAX: Final = 1.0
"""For the rest of a request that is answered, and for each part of closing: a stop must not wait for a client."""

Check = Callable[[], list[str]]
Ping = Callable[[], Awaitable[None]]


class HealthServer(Service):
    """Tells the truth: stuck is not live; rebalancing, unclaimed or without Postgres is not ready.

    `not_live` and `not_ready` return what is wrong, in words. `ping` raises where Postgres doesn't answer.
    """

    def __init__(
        self, host: str, port: int, *, metrics: Metrics, not_live: Check, not_ready: Check, ping: Ping
    ) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._metrics = metrics
        self._not_live = not_live
        self._not_ready = not_ready
        self._ping = ping
        self._runner: web.AppRunner | None = None
        self._asking: asyncio.Task[list[str]] | None = None

    async def on_start(self) -> None:
        """Listen. Raises UnavailableError where the port is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_page),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS_MAX,
            lingering_time=LINGER_SECONDS_MAX,
            shutdown_timeout=LINGER_SECONDS_MAX,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            raise UnavailableError(
                f"worker.web_port {self._port} on {self._host} can't be used: {error.strerror or error}. "
                "Set another one, or 0 for any"
            ) from error
        log.info("listening on http://%s:%d", *self.address)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        if self._runner is None or not self._runner.addresses:
            return self._host, self._port
        host, port, *_ = self._runner.addresses[0]
        return host, port

    async def on_stop(self) -> None:
        """Stop listening."""
        if self._asking is not None:
            self._asking.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return answer("not live", self._not_live())

    async def _readyz(self, _: web.Request) -> web.Response:
        return answer("not ready", await self._problems())

    async def _problems(self) -> list[str]:
        """Say what keeps the worker from being ready; the metric says the same, whoever asks."""
        problems = [*self._not_ready(), *await self._problems_of_postgres()]
        self._metrics.ready.set(not problems)
        return problems

    async def _problems_of_postgres(self) -> list[str]:
        """Ask Postgres, or wait with those who have asked already, and no longer than anybody's patience."""
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._ask(), name="ping")
        # asyncpg takes ten times as long to give a silent connection up: that is nobody's here to wait for.
        await asyncio.wait({asking}, timeout=PING_SECONDS_MAX)
        return asking.result() if asking.done() else ["Postgres does not answer: TimeoutError"]

    async def _ask(self) -> list[str]:
        try:
            async with asyncio.timeout(PING_SECONDS_MAX):
                await self._ping()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Postgres, the answer is no
            return [f"Postgres does not answer: {reason_of(error)}"]
        return []

    async def _metrics_page(self, _: web.Request) -> web.Response:
        await self._problems()
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def answer(title: str, problems: list[str]) -> web.Response:
    """Return 200, or 503 with a problem document (RFC 9457)."""
    if not problems:
        return web.json_response({"status": "ok"})
    return web.json_response(
        {"type": "about:blank", "title": title, "status": 503, "detail": "; ".join(problems)},
        status=503,
        content_type="application/problem+json",
    )
