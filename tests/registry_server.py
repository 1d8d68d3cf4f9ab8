"""A schema registry on a real socket: the part of Confluent's REST interface that serializers use."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class RegistryServer:
    """Keeps schemas by id; the same text under any subject has one id, as in the original."""

    url: str = ""
    texts: list[str] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)

    async def register(self, request: web.Request) -> web.Response:
        number = self.put(request.match_info["subject"], (await request.json())["schema"])
        return web.json_response({"id": number})

    def put(self, subject: str, text: str) -> int:
        plain = json.dumps(json.loads(text))
        if plain not in self.texts:
            self.texts.append(plain)
        number = self.texts.index(plain) + 1
        self.subjects.setdefault(subject, []).append(number)
        return number

    async def by_id(self, request: web.Request) -> web.Response:
        number = int(request.match_info["id"])
        if not 0 < number <= len(self.texts):
            return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)
        return web.json_response({"schema": self.texts[number - 1]})


async def no_such_path(_: web.Request) -> web.Response:
    return web.json_response({"error_code": 404, "message": "HTTP 404 Not Found"}, status=404)


@asynccontextmanager
async def running_registry() -> AsyncIterator[RegistryServer]:
    server = RegistryServer()
    app: Any = web.Application()
    app.router.add_post("/subjects/{subject}/versions", server.register)
    app.router.add_get("/schemas/ids/{id}", server.by_id)
    app.router.add_route("*", "/{path:.*}", no_such_path)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
