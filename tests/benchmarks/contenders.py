"""Who takes part: how each is started, what it writes, and how one sees what it has committed."""

from dataclasses import dataclass, replace
from typing import Final

from tests.benchmarks import latest, quix, same_writes
from tests.benchmarks.debezium import DEBEZIUM as DEBEZIUM_PEER
from tests.benchmarks.flink import FLINK as FLINK_PEER
from tests.benchmarks.peer import Peer


@dataclass(frozen=True)
class Contender:
    """One way of getting the topic into Postgres.

    `module` is run with `arguments` and `--config FILE`, or `peer` launched, `processes` times, on a database with
    Sitelog's schema, where the superuser has executed `setup_sql`. `committed_sql` gives the number of events whose
    effect is visible, `sites_sql` each site as `Life.sites` has it, `log_sql` the number of events in the log.
    """

    name: str
    title: str
    writes: str
    committed_sql: str
    sites_sql: str
    module: str = ""
    arguments: tuple[str, ...] = ()
    peer: Peer | None = None
    setup_sql: str | None = None
    log_sql: str | None = None
    processes: int = 1


_SITE_COLUMNS: Final = "site_id, site_name, parking_capacity, facility_type, market_segment, version"
_LOG_SQL: Final = "SELECT count(*) FROM sitelog.event_log"
_POSITION_SQL: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sitelog.consumer_position"
_LATEST_POSITION_SQL: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM public.latest_position"
_LATEST_SQL: Final = f"SELECT {_SITE_COLUMNS} FROM public.latest"  # noqa: S608 - a literal
# Each event raises its site's version by one, so this counts events however many of them one upsert has left out.
_VERSIONS_SQL: Final = "SELECT coalesce(sum(version), 0)::bigint FROM public.latest"
_SITES_SQL: Final = f"SELECT {_SITE_COLUMNS} FROM public.customer_sites"  # noqa: S608 - a literal

PLAIN_FAUST: Final = Contender(
    name="faust",
    title="plain Faust, stream.take(1000)",
    writes="latest state",
    module="tests.benchmarks.plain_faust",
    arguments=("--take", "1000"),
    setup_sql=latest.SETUP_SQL,
    committed_sql=_LATEST_POSITION_SQL,
    sites_sql=_LATEST_SQL,
)
PLAIN_FAUST_5000: Final = replace(
    PLAIN_FAUST,
    name="faust-5000",
    title="plain Faust, stream.take(5000)",
    arguments=("--take", "5000"),
)
LOOP: Final = Contender(
    name="loop",
    title="aiokafka loop by hand",
    writes="latest state, position",
    module="tests.benchmarks.loop",
    arguments=("--writes", "latest"),
    setup_sql=latest.SETUP_SQL,
    committed_sql=_LATEST_POSITION_SQL,
    sites_sql=_LATEST_SQL,
)
LOOP_SAME: Final = Contender(
    name="loop-same",
    title="the same loop with Sitelog's writes",
    writes="log, read models, position",
    module="tests.benchmarks.loop",
    arguments=("--writes", "same"),
    setup_sql=same_writes.SETUP_SQL,
    committed_sql=_POSITION_SQL,
    sites_sql=_SITES_SQL,
    log_sql=_LOG_SQL,
)
SITELOG: Final = Contender(
    name="sitelog",
    title="sitelog worker projector",
    writes="log, read models, conflicts, position",
    module="sitelog.cli",
    arguments=("worker", "projector"),
    committed_sql=_POSITION_SQL,
    sites_sql=_SITES_SQL,
    log_sql=_LOG_SQL,
)

SITELOG_2: Final = replace(SITELOG, name="sitelog-2", title="two of sitelog worker projector", processes=2)

QUIXSTREAMS: Final = Contender(
    name="quixstreams",
    title="Quix Streams with its PostgreSQL sink",
    writes="latest state",
    peer=quix.QUIX,
    setup_sql=latest.SETUP_SQL + quix.SETUP_SQL,
    committed_sql=_VERSIONS_SQL,
    sites_sql=_LATEST_SQL,
)
DEBEZIUM: Final = Contender(
    name="debezium",
    title="Debezium's JDBC sink in Kafka Connect",
    writes="latest state, from whole rows",
    peer=DEBEZIUM_PEER,
    setup_sql=latest.SETUP_SQL,
    committed_sql=_VERSIONS_SQL,
    sites_sql=_LATEST_SQL,
)
FLINK: Final = replace(DEBEZIUM, name="flink", title="Flink SQL with its JDBC sink", peer=FLINK_PEER)

CONTENDERS: Final = (
    PLAIN_FAUST,
    PLAIN_FAUST_5000,
    LOOP,
    LOOP_SAME,
    SITELOG,
    SITELOG_2,
    QUIXSTREAMS,
    DEBEZIUM,
    FLINK,
)
DEFAULT: Final = (PLAIN_FAUST, LOOP_SAME, SITELOG, SITELOG_2, QUIXSTREAMS, DEBEZIUM, FLINK)
