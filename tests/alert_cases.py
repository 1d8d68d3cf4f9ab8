"""When each alert of deploy/monitoring has to fire, and when it has to stay quiet.

Series are written as promtool writes them, a sample a minute: `3x5` stays at 3, `0+2x5` rises by 2, `_x3` is nothing,
`stale` is where Prometheus no longer finds it.
"""

from dataclasses import dataclass, replace

SITES = 'consumer="projector",topic="customer-sites-events"'
P0, P1 = f'{SITES},partition="0"', f'{SITES},partition="1"'
WORKER = 'consumer="projector",job="sitelog",instance="sitelog-projector-0"'
OTHER = WORKER.replace("-0", "-1")


@dataclass(frozen=True)
class Case:
    """What fires after so many `minutes` of `series`, by its labels; with none the alert is quiet all the time."""

    alert: str
    title: str
    series: dict[str, str]
    minutes: int
    fires: tuple[dict[str, str], ...] = ()


PROJECTOR = {"consumer": "projector"}
TOPIC = {**PROJECTOR, "topic": "customer-sites-events"}
PARTITION = {**TOPIC, "partition": "0"}
INSTANCE = {"job": "sitelog", "instance": "sitelog-projector-0"}


def ready(*values: str) -> dict[str, str]:
    """What workers say of being ready, one after the other."""
    return {f"sitelog_ready{{{labels}}}": value for labels, value in zip((WORKER, OTHER), values, strict=False)}


def partition(lag: str, position: str = "0x30", seconds: str = "0x30") -> dict[str, str]:
    """One partition: events behind, position, seconds behind."""
    return {
        f"sitelog_lag_events{{{P0}}}": lag,
        f"sitelog_position_offset{{{P0}}}": position,
        f"sitelog_lag_seconds{{{P0}}}": seconds,
        f"sitelog_topic_retention_seconds{{{SITES}}}": "604800x30",
    }


def starts(value: int, further: int = 0) -> str:
    """What a worker tells that is ended after a minute and a half each time, and waits longer before each start."""
    waits = enumerate((1, 1, 2, 3, 5, 5, 5, 5))
    return " ".join(f"{value + further * start}x1 stale _x{wait}" for start, wait in waits)


def counter(name: str, values: str, labels: str = WORKER) -> dict[str, str]:
    """One counter of a worker."""
    return {f"sitelog_{name}_total{{{labels}}}": values}


START = 'job="sitelog",instance="sitelog-projector-0"'
PARKED, FENCED = f'{WORKER},status="parked"', f'{WORKER},verdict="fenced"'
WAITING = f'{WORKER},status="waiting"'
TWO = {f"sitelog_topic_partitions{{{SITES}}}": "2x30"}
OWNED = {f"sitelog_lag_events{{{P0}}}": "0x30", f"sitelog_lag_events{{{P1}}}": "0x30"}

CASES = [
    Case("SitelogNoWorkerReady", "there is none", {}, 5, (PROJECTOR,)),
    Case("SitelogNoWorkerReady", "none is ready", ready("0x10", "0x10"), 5, (PROJECTOR,)),
    Case("SitelogNoWorkerReady", "one is ready", ready("0x10", "1x10"), 5),
    Case("SitelogNoWorkerReady", "a rebalance takes a minute", ready("1x3 0 1x9"), 6),
    Case("SitelogNoWorkerReady", "the only one has gone", ready("1x3 _x30"), 12, (PROJECTOR,)),
    Case("SitelogNoWorkerReady", "one has gone and the other does its work", ready("1x3 _x30", "1x30"), 20),
    Case("SitelogWorkerGone", "it doesn't answer", {f"up{{{WORKER}}}": "0x10"}, 6, ({**PROJECTOR, **INSTANCE},)),
    Case(
        "SitelogWorkerGone",
        "it answers once between two starts",
        {f"up{{{WORKER}}}": "1x15 " + "0x4 1 " * 6},
        39,  # it answers
        ({**PROJECTOR, **INSTANCE},),
    ),
    Case("SitelogWorkerGone", "it is back soon", {f"up{{{WORKER}}}": "1x3 0x2 1x9"}, 9),
    Case("SitelogWorkerGone", "its first start is slow", {f"up{{{WORKER}}}": "0x3 1x20"}, 20),
    Case("SitelogWorkerGone", "somebody else's is gone", {'up{job="other"}': "0x10"}, 6),
    Case("SitelogWorkerNotReady", "one of two", ready("0x10", "1x10"), 6, ({**PROJECTOR, **INSTANCE},)),
    Case("SitelogWorkerNotReady", "it was starting", ready("0x3 1x10"), 8),
    Case(
        "SitelogWorkerRestarts",
        "it is started again and again",
        {f"process_start_time_seconds{{{START}}}": "100x2 300x2 500x2 700x2"},
        10,
        (INSTANCE,),
    ),
    *(
        Case(
            "SitelogWorkerRestarts",
            f"every start waits five minutes by now, {minutes} minutes after the first",
            {f"process_start_time_seconds{{{START}}}": "100 _x5 460 _x5 820 _x5 1180 _x5 1540 _x5 1900 _x5 2260 _x5"},
            minutes,
            (INSTANCE,),
        )
        for minutes in (30, 35)  # just after a start, and just before one
    ),
    Case(
        "SitelogWorkerRestarts",
        "an update starts it once",
        {f"process_start_time_seconds{{{START}}}": "100x5 500x9"},
        12,
    ),
    Case("SitelogPartitionUnowned", "nobody has one of two", {**TWO, **partition("0x30")}, 5, (TOPIC,)),
    Case("SitelogPartitionUnowned", "nobody has any", TWO, 5, (TOPIC,)),
    Case("SitelogPartitionUnowned", "each has its worker", {**TWO, **OWNED}, 5),
    Case(
        "SitelogPartitionUnowned",
        "one moved from a worker to the other",
        {
            **TWO,
            f'sitelog_lag_events{{{P0},instance="a"}}': "0x30",
            f'sitelog_lag_events{{{P1},instance="a"}}': "0x6",
            f'sitelog_lag_events{{{P1},instance="b"}}': "_x5 0x20",
        },
        12,
    ),
    Case("SitelogPartitionStuck", "it has events and stands", partition("5x30", "40x30"), 10, (PARTITION,)),
    Case("SitelogPartitionStuck", "it moves, however slowly", partition("5x30", "40+1x30"), 10),
    Case("SitelogPartitionStuck", "there is nothing to do", partition("0x30", "40x30"), 10),
    Case("SitelogPartitionStuck", "an event has just come after a silence", partition("0x20 1 0x5", "40x30"), 20),
    *(
        Case(
            "SitelogPartitionStuck",
            f"it stands, and its worker is started again and again, {minutes} minutes after the first time",
            partition(starts(40), starts(40), "0x50"),
            minutes,
            (PARTITION,),
        )
        for minutes in (36, 42)  # while it is there, and just before the next start
    ),
    Case(
        "SitelogPartitionStuck",
        "its worker is started again and again, and gets further each time",
        partition(f"40x1 {starts(40)}", f"20+10x1 {starts(40, further=1)}", "0x60"),
        50,
    ),
    Case(
        "SitelogPartitionStuck",
        "its worker went in the middle of a backlog, and comes back after half an hour",
        partition("90x10 stale _x30 90x9", "30+1x10 stale _x30 40+1x9", "0x50"),
        50,
    ),
    Case("SitelogBehind", "ten minutes", partition("9x30", "0+5x30", "600x30"), 8, (PROJECTOR,)),
    Case("SitelogBehind", "a minute", partition("9x30", "0+5x30", "60x30"), 8),
    Case("SitelogBacklog", "half a million", partition("500000x30", "0+5x30"), 12, (PROJECTOR,)),
    Case("SitelogBacklog", "a bulk load that passes", partition("500000x4 0x20", "0+5x30"), 12),
    Case("SitelogRetentionHalfUsed", "four of seven days", partition("9x30", "0x30", "345600x30"), 3, (TOPIC,)),
    Case("SitelogRetentionHalfUsed", "one of seven days", partition("9x30", "0x30", "86400x30"), 3),
    Case(
        "SitelogRetentionHalfUsed",
        "Kafka keeps everything",
        partition("9x30", "0x30", "9999999x30")
        | {f"sitelog_topic_retention_seconds{{{SITES}}}": "Inf Inf Inf Inf Inf"},
        3,
    ),
    Case("SitelogEntitiesStopped", "two of them", {f"sitelog_stopped_entities{{{SITES}}}": "2x30"}, 17, (TOPIC,)),
    Case("SitelogEntitiesStopped", "one waited a while", {f"sitelog_stopped_entities{{{SITES}}}": "1x9 0x20"}, 17),
    Case("SitelogManyParked", "twenty a minute", counter("parked", "0+20x30", PARKED), 16, (PROJECTOR,)),
    Case("SitelogManyParked", "one a minute", counter("parked", "0+1x30", PARKED), 16),
    Case("SitelogManyParked", "they wait for their creation", counter("parked", "0+20x30", WAITING), 16),
    Case(
        "SitelogManyConflicts",
        "two in a hundred",
        counter("conflicts", "0+20x60") | counter("events", "0+1000x60"),
        40,
        (PROJECTOR,),
    ),
    Case(
        "SitelogManyConflicts",
        "one in a thousand",
        counter("conflicts", "0+1x60") | counter("events", "0+1000x60"),
        40,
    ),
    Case("SitelogManyRebalances", "one a minute", counter("rebalances", "0+1x30"), 20, (PROJECTOR,)),
    Case("SitelogManyRebalances", "an update of three workers", counter("rebalances", "0x3 1 2 3 4 5 6x20"), 20),
    Case("SitelogFenced", "one a minute", counter("batches", "0+1x30", FENCED), 20, (PROJECTOR,)),
    Case("SitelogFenced", "a zombie woke up", counter("batches", "0x3 4x20", FENCED), 20),
]


def within(namespace: str, series: dict[str, str]) -> dict[str, str]:
    """The same series as Prometheus has them from the pods of a namespace."""
    return {name.replace("{", f'{{namespace="{namespace}",'): values for name, values in series.items()}


def beside(case: Case, quiet: Case) -> Case:
    """Something wrong in one environment, and nothing in another that the same Prometheus looks at."""
    return replace(
        case,
        title=f"{case.title}, while in staging {quiet.title}",
        series=within("production", case.series) | within("staging", quiet.series),
        fires=tuple({"namespace": "production", **labels} for labels in case.fires),
    )


CASES += [
    *(  # a case without series is of no environment
        beside(case, quiet)
        for case in CASES
        for quiet in CASES
        if case.alert == quiet.alert and case.fires and case.series and not quiet.fires
    ),
    Case(
        "SitelogNoWorkerReady",
        "the only one in production has gone hours ago, and staging has one",
        within("production", ready("1x3 _x400")) | within("staging", ready("1x400")),
        300,
        ({"namespace": "production", **PROJECTOR},),
    ),
]
