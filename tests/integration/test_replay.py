"""A replay ends in the rows that the live tables have, or leaves everything as it was."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any, NamedTuple

import asyncpg
import pytest

from sitelog.agents import _refold, _replay_run
from sitelog.agents._replay_run import ReplayRun
from sitelog.agents.replay import REPLAYING, replay
from sitelog.deploy.postgres import connect_as_superuser
from sitelog.projections import _install, _switch
from sitelog.projections._database import connect
from sitelog.projections._install import install, owner_of
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._projection import History, Projection
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._rebuild import FreshRows, LogPartition
from sitelog.projections._registry import Plan, plan
from sitelog.projections._table import Table
from sitelog.streams.errors import ConfigError, Halt
from sitelog.streams.events import ContactAdded, SiteUpdated, SiteValues
from sitelog.streams.settings import Settings
from tests.commands import config_file, sitelog
from tests.conftest import Services
from tests.lives import Lives
from tests.oracle import TABLES, compare
from tests.read_models import LOADED, OPEN_SITES
from tests.until import until
from tests.written import WrittenLog, open_log

pytestmark = pytest.mark.services

FRESH = "SELECT relname FROM pg_class WHERE relname LIKE '%\\_next%'"
TABLE_ID = "SELECT 'customer_sites_v1'::regclass::oid::bigint"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'sitelog replay' AND wait_event_type = 'Lock'
"""


class Written(NamedTuple):
    """A log with its live rows, and two connections of a superuser's: one to use, one to look at the others."""

    settings: Settings
    log: WrittenLog
    connection: asyncpg.Connection
    watching: asyncpg.Connection

    def limited(self, **limits: float) -> Settings:
        limited = self.settings.replay.model_copy(update=limits)
        return self.settings.model_copy(update={"replay": limited})

    async def table(self) -> int:
        table: int = await self.connection.fetchval(TABLE_ID)
        return table

    async def replay_waits(self) -> None:
        """Wait until a replay queues for a lock."""
        await until("the replay to wait", lambda: self.watching.fetchval(WAITING))


@pytest.fixture
async def written(services: Services, database: Settings) -> AsyncIterator[Written]:
    name = database.database_config.primary.database
    connection = await connect_as_superuser(services.state, name)
    watching = await connect_as_superuser(services.state, name)
    async with open_log(database, LOADED) as log:
        await log.write(islice(Lives(4, sites=30, territories=4), 800), sizes=[100, 100])
        yield Written(database, log, connection, watching)
    assert await watching.fetch(FRESH) == [], "a replay has left tables behind"
    await connection.close()
    await watching.close()


def die(_: object) -> None:
    """End a process as the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


async def ruin(connection: asyncpg.Connection) -> None:
    """Spoil every read model in one way or another."""
    await connection.execute("DELETE FROM customer_sites_v1 WHERE site_id < 'site-4-15'")
    await connection.execute("TRUNCATE contracts_v1, contacts_v1, territory_assignments_v1")
    await connection.execute("UPDATE performance_history_v1 SET monthly_revenue = 0, version = 1, log_seq = 1")
    await connection.execute(
        "INSERT INTO territories_v1 SELECT 'nowhere', name, code, region, manager, boundary, "
        "created_at, deleted_at, 1, NULL, now(), 1, 1 FROM territories_v1 LIMIT 1"
    )


async def test_a_replay_repairs_what_was_spoilt(written: Written) -> None:
    await ruin(written.connection)
    assert await compare(written.connection, written.log.oracle)
    report = await replay(written.settings, LOADED)
    assert report.switched
    assert report.events == len(written.log.oracle.applied)
    assert await compare(written.connection, written.log.oracle) == []


async def test_workers_load_again_what_they_have_loaded_from_tables_that_are_replaced(written: Written) -> None:
    touched = "SELECT max(updated_at) FROM sitelog.consumer_position"
    before = await written.connection.fetchval(touched)
    await replay(written.settings, LOADED, verify=True)
    assert await written.connection.fetchval(touched) == before, "nothing was replaced"
    await replay(written.settings, LOADED)
    untouched = "SELECT count(*) FROM sitelog.consumer_position WHERE updated_at <= $1"
    assert await written.connection.fetchval(untouched, before) == 0


async def test_rows_are_the_same_however_few_of_them_are_in_memory(written: Written) -> None:
    few = written.limited(rows_in_memory_max=3, batch_records_max=7)
    report = await replay(few, LOADED, verify=True)
    assert report.differences == ()


async def test_a_history_is_forgotten_by_its_rows_and_not_by_its_entities(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = FreshRows.spill
    held: list[int] = []

    async def looked(self: FreshRows) -> None:
        await spill(self)
        held.append(sum(len(one.rows) for entities in self.fold.ranges.values() for one in entities.values()))

    monkeypatch.setattr(FreshRows, "spill", looked)
    few = written.limited(rows_in_memory_max=10, batch_records_max=7)
    report = await replay(few, LOADED, ["territory_assignments"], verify=True)
    assert report.differences == ()
    assert 0 < max(held) <= 10


async def test_one_event_at_a_time_is_read_where_events_are_large(written: Written) -> None:
    small = written.settings.replay.model_copy(update={"batch_bytes_max": 1})
    told: list[int] = []
    report = await replay(
        written.settings.model_copy(update={"replay": small}),
        LOADED,
        ["territories"],
        verify=True,
        progress=lambda done, _: told.append(done),
    )
    assert report.differences == ()
    assert told == list(range(1, report.events + 1))


async def test_processes_fold_the_partitions_side_by_side(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refold, "PROCESSES_FROM_EVENTS", 1)
    told: list[tuple[int, int]] = []
    await ruin(written.connection)
    report = await replay(written.settings, LOADED, progress=lambda *progress: told.append(progress))
    assert await compare(written.connection, written.log.oracle) == []
    assert told[-1] == (report.events, report.events)


async def test_a_process_that_is_killed_as_for_its_memory_is_told_with_what_to_do(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refold, "PROCESSES_FROM_EVENTS", 1)
    monkeypatch.setattr(_refold, "_start", die)
    before = await written.table()
    with pytest.raises(Halt, match=r"was killed.*fewer replay.processes \(2\)"):
        await replay(written.settings, LOADED)
    assert await written.table() == before


async def test_an_event_that_can_not_be_folded_in_a_process_is_named_too(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refold, "PROCESSES_FROM_EVENTS", 1)
    await spoil_log(written, "payload = '\\x00'")
    with pytest.raises(Halt, match=r"customer-sites-events\[\d\] log seq 5 .*Nothing was switched"):
        await replay(written.settings, LOADED)


async def test_conflicts_are_decided_as_they_were_whatever_the_policy_is_by_now(written: Written) -> None:
    lives = Lives(5, sites=10)
    for policy in ("reject", "last_write_wins", "reject"):
        written.log.decide(policy)  # type: ignore[arg-type]
        await written.log.write(islice(lives, 200))
    resolutions = await written.connection.fetch("SELECT DISTINCT resolution FROM sitelog.conflict")
    assert len(resolutions) == 2
    await ruin(written.connection)
    await replay(written.settings, LOADED)
    assert await compare(written.connection, written.log.oracle) == []


async def test_what_one_read_model_refused_another_does_not_take_when_it_is_replayed_alone(written: Written) -> None:
    written.log.decide("reject")
    site = next(iter(await written.connection.fetch("SELECT site_id FROM customer_sites WHERE deleted_at IS NULL")))[0]
    wrong, right = SiteValues(territory_id="nobody knows"), SiteValues(territory_id="somewhere else")
    await written.log.write(
        [SiteUpdated(site_id=site, changed_fields=("territory_id",), old_values=wrong, new_values=right)]
    )
    for name in ("territory_assignments", "contracts"):
        report = await replay(written.settings, LOADED, [name], verify=True)
        assert report.differences == ()
        assert list(report.rows) == [name]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("site_name", "'another'"),
        ("version", "version + 1"),
        ("field_versions", """'{"name": 1000}'"""),
        ("updated_at", "updated_at + interval '1 microsecond'"),
        ("log_partition", "log_partition + 1"),
        ("log_seq", "log_seq + 1"),
    ],
)
async def test_a_difference_in_any_column_is_found_and_shown(written: Written, column: str, value: str) -> None:
    spoil = f"UPDATE customer_sites_v1 SET {column} = {value} WHERE site_id = 'site-4-3'"  # noqa: S608
    await written.connection.execute(spoil)
    before = await written.table()
    report = await replay(written.settings, LOADED, verify=True)
    assert not report.switched
    assert await written.table() == before
    assert report.differences is not None
    (difference,) = report.differences
    assert (difference.read_model, difference.rows) == ("customer_sites", 1)
    (example,) = difference.examples
    assert example.keys() == {"site_id", column}
    live, fresh = example[column]
    assert live != fresh


async def test_missing_rows_and_rows_too_many_are_found(written: Written) -> None:
    await ruin(written.connection)
    report = await replay(written.settings, LOADED, verify=True)
    assert report.differences is not None
    found = {difference.read_model: difference for difference in report.differences}
    assert found.keys() == TABLES.keys()
    assert found["territories"].examples[0]["territory_id"] == ("nowhere", None)
    assert found["contacts"].rows == len(written.log.oracle.rows["contacts"])
    assert len(found["contacts"].examples) == 5


async def test_the_order_of_field_versions_means_nothing(written: Written) -> None:
    await written.connection.execute(
        "UPDATE customer_sites_v1 SET field_versions = (SELECT json_object_agg(key, value::int ORDER BY key DESC) "
        "FROM json_each_text(field_versions)) WHERE field_versions IS NOT NULL"
    )
    report = await replay(written.settings, LOADED, verify=True)
    assert report.differences == ()


async def spoil_log(written: Written, change: str) -> None:
    """Change the fifth event of the log partition with the most events, as only a superuser can."""
    await written.connection.execute("ALTER TABLE sitelog.event_log DISABLE TRIGGER event_log_append_only")
    await written.connection.execute(
        f"UPDATE sitelog.event_log SET {change} WHERE log_seq = 5 AND log_partition = "  # noqa: S608
        "(SELECT log_partition FROM sitelog.event_log GROUP BY 1 ORDER BY count(*) DESC LIMIT 1)"
    )


@pytest.mark.parametrize("change", ["payload = '\\x00'", "schema_fingerprint = 12"])
async def test_an_event_that_can_not_be_read_again_is_named_and_nothing_is_switched(
    written: Written, change: str
) -> None:
    await spoil_log(written, change)
    before = await written.table()
    with pytest.raises(Halt, match=r"customer-sites-events\[\d\] log seq 5 \(offset \d+\).*Nothing was switched"):
        await replay(written.settings, LOADED)
    assert await written.table() == before


async def test_so_is_an_event_that_a_read_model_can_not_take(written: Written) -> None:
    broken: Projection[Any] = Projection(name="broken", version=1, key="site_id", row=OPEN_SITES.row)

    @broken.records(SiteUpdated)
    def fail(_row: Any, event: SiteUpdated) -> Any:
        raise RuntimeError(f"no place for {event.site_id}")

    planned = plan([*LOADED.projections, broken])
    await install(written.settings, planned.projections)
    with pytest.raises(Halt, match=r"site_updated of site-.*broken can't take the event: RuntimeError: no place for"):
        await replay(written.settings, planned)


async def test_a_hole_in_the_log_is_named(written: Written) -> None:
    await spoil_log(written, "log_seq = -5")
    with pytest.raises(Halt, match="has a hole: expected log seq 5, found 6"):
        await replay(written.settings, LOADED)


async def test_what_a_killed_replay_has_left_is_removed_by_the_next(written: Written) -> None:
    await written.connection.execute("CREATE TABLE contacts_v1_next (LIKE contacts_v1)")
    await written.connection.execute("CREATE TABLE customer_sites_v1_next (whatever int)")
    report = await replay(written.settings, LOADED, verify=True)
    assert report.differences == ()


async def test_so_is_that_of_read_models_which_the_next_does_not_build(written: Written) -> None:
    await written.connection.execute("CREATE TABLE contacts_v1_next (LIKE contacts_v1)")
    await replay(written.settings, LOADED, ["territories"])
    assert await written.connection.fetch(FRESH) == []


async def test_one_replay_at_a_time(written: Written) -> None:
    await written.connection.execute("SELECT pg_advisory_lock($1)", REPLAYING)
    with pytest.raises(Halt, match="another replay is at work"):
        await replay(written.settings, LOADED)


async def test_a_process_of_a_killed_replay_is_waited_for(written: Written) -> None:
    await written.connection.execute("SELECT pg_advisory_lock_shared($1)", _refold.AT_WORK)
    with pytest.raises(Halt, match="processes of a replay that was killed"):
        await replay(written.settings, LOADED)


class Stop:
    """Where something stops until it is let go on, the first time that it comes there."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def before(self, function: Any) -> Any:
        async def stopped(*args: Any) -> Any:
            first = not self.reached.is_set()
            self.reached.set()
            if first:
                await self.go_on.wait()
            return await function(*args)

        return stopped


async def test_a_replay_that_has_lost_its_lock_leaves_the_tables_of_another_alone(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = "SELECT count(*) FROM customer_sites"
    before = await written.connection.fetchval(count)
    switching, folding = Stop(), Stop()
    monkeypatch.setattr(ReplayRun, "_try_switch", switching.before(ReplayRun._try_switch))
    first = asyncio.create_task(replay(written.settings, LOADED))
    await switching.reached.wait()
    await written.watching.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'sitelog replay'"
    )
    monkeypatch.setattr(_replay_run, "refold", folding.before(_refold.refold))
    second = asyncio.create_task(replay(written.settings, LOADED))
    await folding.reached.wait()
    switching.go_on.set()
    with pytest.raises(Halt, match=r"another replay has taken over.* expected contacts_v1_next to be the table \d+"):
        await first
    assert await written.connection.fetchval(count) == before
    folding.go_on.set()
    assert (await second).switched
    assert await compare(written.connection, written.log.oracle) == []


async def test_so_does_a_process_of_it(written: Written) -> None:
    span = _refold.Span(LogPartition(1, "customer-sites-events", 0), 0, 1)
    with pytest.raises(Halt, match=r"another replay has taken over.* the table 5 that this one created, found none"):
        await _refold.refold(written.settings, LOADED, {"contacts_v1_next": 5}, [span], lambda _: None)


async def test_until_its_tables_are_there_a_replay_is_alone(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what is left of another would look at its own tables, and write into the new ones."""
    shared = "SELECT pg_try_advisory_xact_lock_shared($1)"
    creating, folding = Stop(), Stop()
    monkeypatch.setattr(_switch, "create_fresh", creating.before(_switch.create_fresh))
    monkeypatch.setattr(_replay_run, "refold", folding.before(_refold.refold))
    replaying = asyncio.create_task(replay(written.settings, LOADED))
    await creating.reached.wait()
    assert not await written.watching.fetchval(shared, _refold.AT_WORK)
    creating.go_on.set()
    await folding.reached.wait()
    assert await written.watching.fetchval(shared, _refold.AT_WORK)
    folding.go_on.set()
    await replaying


async def test_a_reader_that_does_not_end_is_left_alone_and_the_replay_gives_up(written: Written) -> None:
    before = await written.table()
    async with written.connection.transaction():
        await written.connection.fetch("SELECT FROM customer_sites")
        with pytest.raises(Halt, match="no switch within 1 s: LockNotAvailableError"):
            await replay(written.limited(switch_seconds_max=1, switch_lock_seconds=0.2), LOADED)
        await written.connection.fetch("SELECT FROM customer_sites")
    assert await written.table() == before


async def test_a_reader_that_ends_is_waited_for(written: Written) -> None:
    before = await written.table()
    reading = written.connection.transaction()
    await reading.start()
    await written.connection.fetch("SELECT FROM customer_sites")
    replaying = asyncio.create_task(replay(written.settings, LOADED))
    await written.replay_waits()
    await reading.rollback()
    assert (await replaying).switched
    assert await written.table() != before


async def test_a_switch_whose_commit_nobody_answered_is_a_switch(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ReplayRun._try_switch
    attempts = 0

    async def unanswered(self: ReplayRun, seconds: float) -> None:
        nonlocal attempts
        attempts += 1
        await original(self, seconds)
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(ReplayRun, "_try_switch", unanswered)
    before = await written.table()
    assert (await replay(written.settings, LOADED)).switched
    assert attempts == 1
    assert await written.table() != before
    assert await compare(written.connection, written.log.oracle) == []


async def test_a_replay_that_has_switched_needs_postgres_no_more(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = ReplayRun._switch

    async def last(self: ReplayRun) -> None:
        await switch(self)
        await self._connection.close()

    monkeypatch.setattr(ReplayRun, "_switch", last)
    report = await replay(written.settings, LOADED)
    assert report.switched
    count = "SELECT count(*) FROM {}"
    assert report.rows == {name: await written.connection.fetchval(count.format(name)) for name in report.rows}


async def test_a_commit_that_is_still_under_way_is_waited_for(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ReplayRun._try_switch
    late: list[asyncio.Task[None]] = []

    async def out_of_sight(self: ReplayRun, seconds: float) -> None:
        if not late:
            switch = _switch.switch
            switching = Stop()
            monkeypatch.setattr(_switch, "switch", switching.before(switch))
            late.append(asyncio.create_task(original(self, seconds)))
            await switching.reached.wait()
            asyncio.get_running_loop().call_later(0.3, switching.go_on.set)
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        await original(self, seconds)

    monkeypatch.setattr(ReplayRun, "_try_switch", out_of_sight)
    assert (await replay(written.settings, LOADED)).switched
    await late[0]
    assert await compare(written.connection, written.log.oracle) == []


async def test_a_worker_waits_for_the_switch_and_goes_on_in_the_new_tables(written: Written) -> None:
    """Its statements are prepared, its events come between the fold and the switch."""
    reading = written.connection.transaction()
    await reading.start()
    await written.connection.fetch("SELECT FROM territories")
    replaying = asyncio.create_task(replay(written.settings, LOADED))
    await written.replay_waits()
    lives = Lives(6, sites=5)
    for _ in range(3):
        await written.log.write(islice(lives, 20))
    await reading.rollback()
    await replaying
    await written.log.write(islice(lives, 20))
    assert await compare(written.connection, written.log.oracle) == []
    report = await replay(written.settings, LOADED, verify=True)
    assert report.differences == ()


async def test_so_many_events_between_fold_and_switch_are_folded_without_holding_workers_up(written: Written) -> None:
    reading = written.connection.transaction()
    await reading.start()
    await written.connection.fetch("SELECT FROM territories")
    replaying = asyncio.create_task(replay(written.limited(switch_events_max=10), LOADED))
    await written.replay_waits()
    await written.log.write(islice(Lives(6, sites=5), 100))
    await reading.rollback()
    report = await replaying
    assert report.events >= 890
    assert await compare(written.connection, written.log.oracle) == []


def switch_attempts(monkeypatch: pytest.MonkeyPatch, *, late: int = 0) -> list[float]:
    """Note the seconds that each attempt to switch is given; the first so many find that too much has come."""
    attempt, attempts = ReplayRun._try_switch, list[float]()

    async def noted(self: ReplayRun, seconds: float) -> None:
        attempts.append(seconds)
        if len(attempts) <= late:
            raise _replay_run._BehindError
        await attempt(self, seconds)

    monkeypatch.setattr(ReplayRun, "_try_switch", noted)
    return attempts


async def test_what_comes_while_the_fresh_tables_are_indexed_is_folded_before_the_switch_is_tried(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = _switch.finish_fresh

    async def slowly(*args: Any) -> None:
        await finish(*args)
        await written.log.write(islice(Lives(6, sites=5), 100))

    monkeypatch.setattr(_switch, "finish_fresh", slowly)
    attempts = switch_attempts(monkeypatch)
    report = await replay(written.limited(switch_events_max=10), LOADED)
    assert (report.events, len(attempts)) == (len(written.log.oracle.applied), 1)
    assert await compare(written.connection, written.log.oracle) == []


async def test_catching_up_takes_none_of_the_time_for_the_switch(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up = ReplayRun._catch_up

    async def slowly(self: ReplayRun) -> None:
        await asyncio.sleep(1.5)
        await catch_up(self)

    monkeypatch.setattr(ReplayRun, "_catch_up", slowly)
    switch_attempts(monkeypatch, late=2)
    assert (await replay(written.limited(switch_seconds_max=1), LOADED)).switched


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ("CREATE INDEX by_hand ON contacts_v1 (email)", "index by_hand"),
        ("CREATE PUBLICATION for_the_warehouse FOR TABLE contacts_v1", "publication for_the_warehouse"),
        ("CREATE PUBLICATION of_all FOR ALL TABLES", "publication of_all"),
        ("CREATE PUBLICATION of_public FOR TABLES IN SCHEMA sitelog, public", "publication of_public"),
        (
            "CREATE TRIGGER audit BEFORE UPDATE ON contacts_v1 EXECUTE FUNCTION sitelog.refuse_change()",
            "trigger audit",
        ),
        ("CREATE POLICY mine ON contacts_v1 USING (site_id = current_user)", "policy mine"),
        ("ALTER TABLE contacts_v1 ENABLE ROW LEVEL SECURITY", "row level security"),
        ("ALTER TABLE contacts_v1 ADD CONSTRAINT sane CHECK (email <> 'x')", "constraint sane"),
        ("CREATE STATISTICS together ON site_id, email FROM contacts_v1", "statistics together"),
        ("CREATE RULE silent AS ON DELETE TO contacts_v1 DO INSTEAD NOTHING", "rule silent"),
        ("ALTER TABLE contacts_v1 REPLICA IDENTITY FULL", "replica identity"),
        ("ALTER TABLE contacts_v1 ALTER email SET DEFAULT 'x'", "default of column email"),
        ("ALTER TABLE contacts_v1 ALTER email SET STATISTICS 500", "settings of column email"),
        ("ALTER TABLE contacts_v1 ALTER email SET (n_distinct = 5)", "settings of column email"),
        ("ALTER TABLE contacts_v1 ALTER email SET COMPRESSION pglz", "settings of column email"),
        ("ALTER TABLE contacts_v1 ALTER email SET STORAGE EXTERNAL", "settings of column email"),
        ("COMMENT ON INDEX contacts_v1_pkey IS 'by site'", "comment on index contacts_v1_pkey"),
        ("COMMENT ON CONSTRAINT contacts_v1_pkey ON contacts_v1 IS 'x'", "comment on constraint contacts_v1_pkey"),
        ("ALTER TABLE contacts_v1 SET UNLOGGED", "UNLOGGED"),
        (
            "INSERT INTO pg_seclabel VALUES ('contacts_v1'::regclass, 'pg_class'::regclass, 0, 'selinux', 'x')",
            "security label of selinux",
        ),
    ],
)
async def test_what_a_switch_would_lose_is_refused_by_name(written: Written, extra: str, name: str) -> None:
    await written.connection.execute(extra)
    with pytest.raises(Halt, match=f"contacts_v1 has more than its read model's file says.*{name}"):
        await replay(written.settings, LOADED, ["contacts"])
    assert (await replay(written.settings, LOADED, ["contacts"], verify=True)).differences == ()


async def test_what_is_built_to_be_compared_is_not_published(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber that has no such table would stop; nor is it written to the log that replicas and archives get."""
    published: list[str] = []

    async def look(*args: Any) -> None:
        tables = "SELECT tablename::text FROM pg_publication_tables WHERE schemaname = 'public' ORDER BY tablename"
        published.extend(row[0] for row in await written.connection.fetch(tables))
        await finish(*args)

    finish = _switch.finish_fresh
    monkeypatch.setattr(_switch, "finish_fresh", look)
    await written.connection.execute("CREATE PUBLICATION of_all FOR ALL TABLES")
    assert (await replay(written.settings, LOADED, verify=True)).differences == ()
    assert published == sorted(projection.table for projection in LOADED.projections)
    with pytest.raises(Halt, match="publication of_all"):
        await replay(written.settings, LOADED)


async def test_so_is_another_tablespace_of_a_table_or_an_index(written: Written) -> None:
    await written.connection.execute("SET allow_in_place_tablespaces = on")
    await written.connection.execute("CREATE TABLESPACE fast LOCATION ''")
    try:
        await written.connection.execute("ALTER INDEX contacts_v1_pkey SET TABLESPACE fast")
        with pytest.raises(Halt, match=r"contacts_v1 has more than .*tablespace fast of contacts_v1_pkey"):
            await replay(written.settings, LOADED, ["contacts"])
    finally:
        await written.connection.execute("ALTER INDEX contacts_v1_pkey SET TABLESPACE pg_default")
        await written.connection.execute("DROP TABLESPACE fast")


async def test_so_is_what_comes_while_the_replay_folds(written: Written) -> None:
    before = await written.table()
    reading = written.connection.transaction()
    await reading.start()
    await written.connection.fetch("SELECT FROM territories")
    replaying = asyncio.create_task(replay(written.settings, LOADED))
    await written.replay_waits()
    await written.connection.execute("ALTER TABLE contacts_v1 ENABLE ROW LEVEL SECURITY")
    await reading.commit()
    with pytest.raises(Halt, match=r"contacts_v1 has more than its read model's file says.*row level security"):
        await replaying
    assert await written.table() == before


async def test_a_view_on_the_view_goes_on_and_one_on_the_table_is_refused(written: Written) -> None:
    await written.connection.execute("CREATE VIEW mails AS SELECT email FROM contacts")
    await replay(written.settings, LOADED)
    mails = await written.connection.fetchval("SELECT count(*) FROM mails")
    assert mails == len(written.log.oracle.rows["contacts"])
    await written.connection.execute("CREATE VIEW too_deep AS SELECT email FROM contacts_v1")
    before = await written.table()
    with pytest.raises(Halt, match=r"contacts_v1 can't be replaced.*too_deep.*Let that depend on the view contacts"):
        await replay(written.settings, LOADED)
    assert await written.table() == before


CONTACTS = ", ".join(Table(next(p for p in LOADED.projections if p.name == "contacts")).shown)


@pytest.mark.parametrize(
    "changed",
    [
        f"{CONTACTS} FROM contacts_v1 WHERE email IS NOT NULL",
        f"{CONTACTS} FROM contacts_v1 UNION ALL (SELECT {CONTACTS} FROM contacts_v1)",  # noqa: S608
        f"{CONTACTS}, upper(email) AS shout FROM contacts_v1",
        f"{CONTACTS.replace('email', 'NULL::text AS email')} FROM contacts_v1",
    ],
)
async def test_a_view_that_somebody_has_changed_is_not_replaced(written: Written, changed: str) -> None:
    owner = await connect(owner_of(written.settings))
    await owner.execute("DROP VIEW contacts")
    await owner.execute(f"CREATE VIEW contacts AS SELECT {changed}")
    await owner.close()
    definition = "SELECT pg_get_viewdef('contacts'::regclass)"
    before = await written.connection.fetchval(definition)
    with pytest.raises(
        Halt, match=r"the view contacts has more than its .*made of its definition\. Give that to a view"
    ):
        await replay(written.settings, LOADED)
    assert await written.connection.fetchval(definition) == before
    assert (await replay(written.settings, LOADED, verify=True)).differences == ()


async def test_what_a_view_loses_only_to_another_version_is_refused_for_that_alone(written: Written) -> None:
    await written.connection.execute("CREATE RULE silent AS ON DELETE TO contacts DO INSTEAD NOTHING")
    await written.connection.execute(
        "CREATE TRIGGER audit INSTEAD OF UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION sitelog.refuse_change()"
    )
    await written.connection.execute("ALTER VIEW contacts ALTER email SET DEFAULT 'x'")
    kept = "SELECT count(*) FROM pg_trigger, pg_rewrite WHERE tgrelid = 'contacts'::regclass AND ev_class = tgrelid"
    assert (await replay(written.settings, LOADED, ["contacts"])).switched
    assert await written.connection.fetchval(kept) == 2
    planned = next_release()
    await install(written.settings, planned.projections)
    with pytest.raises(Halt, match=r"view contacts has more .*: trigger audit, rule silent, default of column email\."):
        await replay(written.settings, planned, ["contacts"])
    assert await written.connection.fetchval(kept) == 2


KEPT = """
SELECT relname, relacl::text, reloptions::text, obj_description(c.oid, 'pg_class'), (
    SELECT string_agg(concat_ws(' ', attname, attacl, col_description(c.oid, attnum)), ', ' ORDER BY attname)
    FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0
), (SELECT reloptions::text FROM pg_class WHERE oid = c.reltoastrelid)
FROM pg_class AS c
WHERE relnamespace = 'public'::regnamespace
ORDER BY relname
"""


KEPT_CHANGES = """
GRANT SELECT ON contacts_v1 TO analyst;
GRANT SELECT ON contacts TO PUBLIC;
GRANT SELECT ON contracts_v1 TO analyst WITH GRANT OPTION;
GRANT SELECT (site_id, email), UPDATE (email) ON contacts_v1 TO analyst;
GRANT SELECT (site_id) ON contacts TO analyst WITH GRANT OPTION;
COMMENT ON TABLE contacts_v1 IS 'whose ''addresses'' these are';
COMMENT ON COLUMN contacts_v1.email IS 'theirs';
ALTER TABLE contacts_v1 SET (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = false);
ALTER VIEW contacts SET (security_invoker = true);
"""


async def test_rights_comments_and_options_stay_as_they_are(written: Written) -> None:
    await written.connection.execute("CREATE ROLE analyst")
    try:
        await written.connection.execute(KEPT_CHANGES)
        before = await written.connection.fetch(KEPT)
        await replay(written.settings, LOADED)
        assert await written.connection.fetch(KEPT) == before
    finally:
        await written.connection.execute("DROP OWNED BY analyst; DROP ROLE analyst")


async def test_what_was_revoked_no_default_gives_back(written: Written) -> None:
    may = "SELECT has_table_privilege('analyst', $1, 'SELECT')"
    planned = next_release()
    await install(written.settings, planned.projections)
    await written.connection.execute("CREATE ROLE analyst")
    try:
        owner = await connect(owner_of(written.settings))
        await owner.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO analyst, PUBLIC")
        await owner.close()
        await replay(written.settings, LOADED, ["territories"])
        await replay(written.settings, planned, ["contacts"])
        tables = ("territories_v1", "territories", "contacts_v2", "contacts")
        assert [await written.connection.fetchval(may, table) for table in tables] == [False] * 4
    finally:
        await written.connection.execute("DROP OWNED BY analyst; DROP ROLE analyst")


async def test_a_name_that_is_none_is_refused(written: Written) -> None:
    with pytest.raises(ConfigError, match=r"expected names of read models, of contacts, .*, got sites"):
        await replay(written.settings, LOADED, ["contacts", "sites"])


async def test_an_owner_that_does_not_own_the_tables_is_told_so(written: Written) -> None:
    database = written.settings.database_config
    app = database.model_copy(update={"owner": database.primary})
    with pytest.raises(ConfigError, match=r"database_config.owner app_user must own the tables"):
        await replay(written.settings.model_copy(update={"database_config": app}), LOADED)


async def test_an_empty_log_can_be_replayed(database: Settings) -> None:
    report = await replay(database, LOADED)
    assert (report.events, report.switched) == (0, True)


async def claim(written: Written, planned: Plan) -> bool:
    positions = PostgresPositions(written.log.pool, PROJECTOR, "a worker", planned.projections)
    return await positions.claim("customer-sites-events", 0, 1, force=True) is not None


async def test_a_new_read_model_is_whole_after_its_replay(written: Written) -> None:
    new: History[Any] = History(name="newcomers", version=1, key="site_id", row=OPEN_SITES.row)
    for event, handler in OPEN_SITES.handlers.items():
        new.follows(event)(handler.fold)
    planned = plan([*LOADED.projections, new])
    await install(written.settings, planned.projections)
    owner = await connect(owner_of(written.settings))
    with pytest.raises(Halt, match="run `sitelog replay newcomers`"):
        await _install.check(owner, planned.projections)
    await replay(written.settings, planned, ["newcomers"])
    await _install.check(owner, planned.projections)
    assert await claim(written, planned)
    await owner.close()
    newcomers = await written.connection.fetch("SELECT site_id, name FROM newcomers ORDER BY site_id")
    sites = written.log.oracle.rows["customer_sites"].values()
    assert [row["site_id"] for row in newcomers] == sorted(
        site.values["site_id"] for site in sites if site.values["deleted_at"] is None
    )


def next_release() -> Plan:
    """Every read model, one of them in another version with other columns."""

    class Contact(NamedTuple):
        site_id: str
        contact_id: str
        mail: str | None

    second: Projection[Any] = Projection(name="contacts", version=2, key=("site_id", "contact_id"), row=Contact)

    @second.creates(ContactAdded)
    def add(event: ContactAdded) -> Contact:
        return Contact(event.site_id, event.contact_id, event.contact.email)

    return plan([*(p for p in LOADED.projections if p.name != "contacts"), second])


async def test_another_version_takes_the_view_over_when_it_is_built(written: Written) -> None:
    planned = next_release()
    await install(written.settings, planned.projections)
    assert "email" in dict(await written.connection.fetchrow("SELECT * FROM contacts"))
    await written.connection.execute("GRANT UPDATE (site_id, email) ON contacts TO PUBLIC")
    await replay(written.settings, planned, ["contacts"])
    rights = "SELECT has_column_privilege('readonly_user', 'contacts', $1, 'UPDATE')"
    assert [await written.connection.fetchval(rights, column) for column in ("site_id", "mail")] == [True, False]
    row = dict(await written.connection.fetchrow("SELECT * FROM contacts LIMIT 1"))
    assert row.keys() == {"site_id", "contact_id", "mail", "version", "updated_at", "log_partition", "log_seq"}
    assert await claim(written, planned)
    assert await written.connection.fetchval("SELECT has_table_privilege('readonly_user', 'contacts', 'SELECT')")
    assert await written.connection.fetchval("SELECT count(*) FROM contacts_v1") > 0


async def test_a_release_whose_version_the_view_does_not_show_is_refused_until_it_is_replayed(
    written: Written,
) -> None:
    new = next_release()
    owner = await connect(owner_of(written.settings))
    await install(written.settings, new.projections)
    await _install.check(owner, LOADED.projections)  # the old one goes on until the new one is built
    with pytest.raises(Halt, match=r"read models without a part of the log: contacts_v2 .*sitelog replay contacts"):
        await _install.check(owner, new.projections)
    await replay(written.settings, new, ["contacts"])
    await _install.check(owner, new.projections)
    await install(written.settings, LOADED.projections)
    with pytest.raises(
        Halt, match=r"contacts shows contacts_v2, expected contacts_v1\. .*run `sitelog replay contacts`"
    ):
        await _install.check(owner, LOADED.projections)
    await replay(written.settings, LOADED, ["contacts"])
    await _install.check(owner, LOADED.projections)
    assert "email" in dict(await written.connection.fetchrow("SELECT * FROM contacts"))
    assert await compare(written.connection, written.log.oracle) == []
    await owner.close()


async def test_a_view_that_somebody_has_extended_is_theirs(written: Written) -> None:
    await written.connection.execute("DROP VIEW contacts, territories")
    await written.connection.execute("CREATE TABLE contacts_v2 (LIKE contacts_v1)")
    await written.connection.execute("CREATE VIEW contacts AS TABLE contacts_v1 UNION ALL TABLE contacts_v2")
    await written.connection.execute("CREATE VIEW territories AS TABLE customer_sites_v1")
    await _install.check(written.connection, LOADED.projections)


async def test_the_command_line_says_what_came_out(written: Written, services: Services) -> None:
    config = config_file(services, written.settings.database_config.primary.database)
    equal = await sitelog(config, "replay", "--verify", "--json")
    assert equal.code == 0
    summary = equal.json()
    assert (summary["switched"], summary["differences"], summary["source"]) == (False, {}, "log")
    assert summary["rows"].keys() == {projection.name for projection in LOADED.projections}
    await ruin(written.connection)
    differing = await sitelog(config, "replay", "territories", "--dry-run")
    assert differing.code == 1
    assert "territories: 5 rows, 1 differ" in differing.out
    assert "territory_id in use nowhere, folded again None" in differing.out
    replayed = await sitelog(config, "replay")
    assert replayed.code == 0, replayed.err
    assert "territories: 4 rows, in use now" in replayed.out
    assert (await sitelog(config, "replay", "--verify")).code == 0
    unknown = await sitelog(config, "replay", "sites")
    assert (unknown.code, unknown.err.startswith("error: expected names of read models")) == (2, True)
