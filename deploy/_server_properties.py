"""The embedded broker's settings: each one that differs from Kafka's default, and why."""

from pathlib import Path

from sitelog.deploy._ports import LOOPBACK
from sitelog.deploy._state import BrokerState, StackState

_REPLICAS_WANTED = 3
_INTERNAL_PARTITIONS = 5
_ASCII_END = 0x7F
_ESCAPES = {ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", ord("\f"): "\\f"}


def server_properties(state: StackState, broker: BrokerState, data: Path) -> str:
    """Return the text of `server.properties` for one broker whose log lives in `data`."""
    replicas = min(_REPLICAS_WANTED, len(state.brokers))
    voters = ",".join(f"{one.node_id}@{LOOPBACK}:{one.controller_port}" for one in state.brokers)
    settings = {
        "process.roles": "broker,controller",
        "node.id": broker.node_id,
        "controller.quorum.voters": voters,
        # Loopback only: there is no authentication here.
        "listeners": f"CLIENT://{LOOPBACK}:{broker.port},CONTROLLER://{LOOPBACK}:{broker.controller_port}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{broker.port}",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        **_durability(replicas),
        # 4 s instead of 9: after the kill of a broker the others stand still for 3 to 4 s, not for 8 to 12.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        # The default waits 3 s for more members at each first join: start-up time, and nothing else, on one machine.
        "group.initial.rebalance.delay.ms": 0,
        # A typo in a topic's name must be an error, not a new topic.
        "auto.create.topics.enable": "false",
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    """Write `value` for Java, which takes such a file for ISO-8859-1, and a backslash for an escape."""
    units = value.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(_ESCAPES.get(code) or (chr(code) if code < _ASCII_END else f"\\u{code:04x}") for code in codes)


def _durability(replicas: int) -> dict[str, object]:
    in_sync_min = max(1, replicas - 1)
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync_min,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync_min,
        # 50 by default: each is a folder and a leader election at the first start.
        "offsets.topic.num.partitions": _INTERNAL_PARTITIONS,
        "transaction.state.log.num.partitions": _INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.num.partitions": _INTERNAL_PARTITIONS,
        # A replica that misses acknowledged events may never lead.
        "unclean.leader.election.enable": "false",
    }
