"""Every kind of fault that a schedule may hold; `inflict` knows how each is done."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Kind:
    """`resources` are what it breaks; it lasts from `shortest` to `longest` seconds; `targets` is whom it may hit.

    Of workers and their links several may be broken at a time; of three brokers only one, or nothing would go on.
    """

    resources: tuple[str, ...]
    shortest: float
    longest: float
    targets: Literal["member", "spare", "broker"] | None
    members_min: int = 1
    """Of the crew: without others to take its partitions, a zombie is a worker that was frozen and no more."""


KINDS = {
    # kill -9, started again at the end.
    "worker_killed": Kind(("worker",), 0.2, 4, "member"),
    # SIGTERM, started again at the end.
    "worker_terminated": Kind(("worker",), 0.2, 3, "member"),
    # SIGSTOP, SIGCONT at the end.
    "worker_frozen": Kind(("worker",), 5, 60, "member"),
    # The zombie: SIGSTOP with a batch on its way to Postgres, which goes on when others have its partitions.
    "worker_zombie": Kind(("worker", "link"), 8, 20, "member", members_min=2),
    # SIGTERM, comes back at the end.
    "worker_leaves": Kind(("worker",), 8, 25, "member"),
    # One more worker, ended with SIGTERM at the end.
    "worker_joins": Kind(("worker",), 8, 30, "spare"),
    # kill -9 of one of three, started again at the end.
    "broker_killed": Kind(("broker",), 1, 10, "broker"),
    # Immediate stop, started again at the end.
    "postgres_killed": Kind(("postgres",), 0.2, 8, None),
    # 20 to 200 ms more on each message, both ways, for everybody.
    "postgres_slow": Kind(("postgres",), 3, 12, None),
    # Somebody holds a lock on a read model.
    "postgres_locked": Kind(("postgres",), 1, 12, None),
    # Connections reset in the middle of transactions.
    "postgres_cut": Kind(("postgres",), 3, 8, None),
    # Connections reset after COMMIT, before its answer.
    "commit_unanswered": Kind(("postgres",), 3, 8, None),
    # Half-open: one worker's bytes to and from Postgres stand still.
    "postgres_silent": Kind(("link",), 3, 25, "member"),
    # No byte left on Postgres's disk.
    "disk_full": Kind(("postgres",), 2, 8, None),
    # 50 to 500 ms more on each message between one worker and Kafka.
    "kafka_slow": Kind(("link",), 3, 15, "member"),
    # One worker's connections to Kafka reset, new ones refused.
    "kafka_cut": Kind(("link",), 2, 20, "member"),
    # Half-open: one worker's bytes to and from Kafka stand still.
    "kafka_silent": Kind(("link",), 3, 25, "member"),
    # Every third event is sent again, at once or later.
    "sent_twice": Kind(("producers",), 3, 12, None),
    # Every third event is sent after its successor.
    "sent_reordered": Kind(("producers",), 3, 12, None),
}
