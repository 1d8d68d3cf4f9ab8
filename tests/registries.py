"""A registry in memory: the second implementation of what `Codec` asks of one."""

from collections.abc import Iterable

from sitelog.schemas import EventSchema


class FilledRegistry:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, schemas: dict[int, str] | None = None) -> None:
        self.schemas = dict(schemas or {})
        self.asked: set[int] = set()
        self.asks = 0
        self.lookups = 0

    def knows(self, schema_id: int) -> bool:
        return schema_id in self.asked

    def was_asked(self, schema_id: int) -> bool:
        return schema_id in self.asked

    def found(self, schema_id: int) -> str | None:
        self.lookups += 1
        return self.schemas.get(schema_id)

    async def prepare(self, schema_ids: Iterable[int]) -> None:
        self.asks += 1
        self.asked.update(schema_ids)

    async def register(self, schema: EventSchema) -> int:
        for number, text in self.schemas.items():
            if text == schema.text:
                return number
        number = max(self.schemas, default=0) + 1
        self.schemas[number] = schema.text
        return number
