"""Lets the faults of a schedule strike when they are due."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic

from tests.chaos.inflict import INFLICT, World
from tests.chaos.kinds import KINDS
from tests.chaos.met import effects
from tests.chaos.progress import Strike
from tests.chaos.schedule import Fault, Schedule

BACK_WHEN_IT_ANSWERS = {"broker_killed", "postgres_killed", "disk_full"}
"""What has to be started again isn't back before."""


@dataclass
class Striker:
    """Does a schedule to a world, and tells `say` what it does; `without_effect` are faults that have met nothing."""

    world: World
    schedule: Schedule
    say: Callable[[str], None]
    without_effect: list[Fault] = field(default_factory=list)

    async def strike(self) -> list[Strike]:
        """Return when every fault is healed and the time is over."""
        self._begin = monotonic()
        self._broken = {one: asyncio.Lock() for fault in self.schedule.faults for one in fault.resources}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._inflict(fault)) for fault in self.schedule.faults]
            group.create_task(asyncio.sleep(self.schedule.seconds))
        return [task.result() for task in tasks]

    async def _inflict(self, fault: Fault) -> Strike:
        """Do one fault, later than planned if what it breaks has taken longer to come back than it should."""
        await asyncio.sleep(self._begin + fault.at - monotonic())
        async with AsyncExitStack() as stack:
            for resource in fault.resources:
                await stack.enter_async_context(self._broken[resource])
            struck = monotonic()
            self.say(f"{struck - self._begin:6.1f} s  {fault.kind} {fault.target} for {fault.seconds:.1f} s")
            before = effects(self.world, fault)
            async with INFLICT[fault.kind](self.world, fault):
                await asyncio.sleep(fault.seconds)
                healing = monotonic()
            healed = monotonic()
            if before is not None and effects(self.world, fault) == before:
                self.without_effect.append(fault)
        end = healed if fault.kind in BACK_WHEN_IT_ANSWERS else healing
        return Strike(fault.kind, self._name(fault), struck, end, fault.alone)

    def _name(self, fault: Fault) -> str:
        is_static = KINDS[fault.kind].targets in {"member", "spare"} and self.schedule.crew.static[fault.target]
        return f"{fault.kind} (static)" if is_static else fault.kind
