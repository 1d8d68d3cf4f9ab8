"""The broker of `sitelog up` with two more listeners that want TLS and a password; one has an expired certificate."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from sitelog.deploy import kafka as deploy_kafka
from sitelog.deploy._configuration import configuration
from sitelog.deploy._ports import free_port
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import BrokerState, StackState
from sitelog.streams.settings import Settings
from tests.certificates import EXPIRED, Authority, Identity

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_service="{password}";'
LISTENERS = """\
listeners={listeners},TLS://127.0.0.1:{tls},EXPIRED://127.0.0.1:{expired}
advertised.listeners={advertised},TLS://localhost:{tls},EXPIRED://localhost:{expired}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SASL_SSL,EXPIRED:SASL_SSL
sasl.enabled.mechanisms=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS
"""
LISTENER = """\
listener.name.{name}.sasl.enabled.mechanisms=PLAIN
listener.name.{name}.plain.sasl.jaas.config={jaas}
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={keystore}
"""


@dataclass(frozen=True)
class SecureKafka:
    """A broker's ports, and the settings that its users need: `values` is a whole configuration."""

    values: dict[str, object]
    settings: Settings
    tls_port: int
    expired_port: int
    plain_port: int

    def settings_with(self, **values: object) -> Settings:
        kafka = self.settings.kafka_config.model_copy(update=values)
        return self.settings.model_copy(update={"kafka_config": kafka})


def write_keystore(path: Path, authority: Authority, identity: Identity) -> Path:
    """Write what Kafka's reader of PEM wants: the key, and the chain behind it."""
    path.write_bytes(identity.key + identity.certificate + authority.pem)
    return path


async def start_secure_kafka(folder: Path, state: StackState, password: str = "right") -> SecureKafka:  # noqa: S107
    """Start the one broker of `state`, and let `service` in with this password."""
    authority = Authority()
    (folder / "authority.pem").write_bytes(authority.pem)
    keystores = {
        "tls": write_keystore(folder / "broker.pem", authority, authority.issue()),
        "expired": write_keystore(folder / "expired.pem", authority, authority.issue(valid=EXPIRED)),
    }
    tls = free_port(besides=state.ports())
    expired = free_port(besides={*state.ports(), tls})
    jaas = JAAS.format(password=password)

    def with_tls(state: StackState, broker: BrokerState, data: Path) -> str:
        usual = dict(line.split("=", 1) for line in server_properties(state, broker, data).splitlines())
        values = {"listeners": usual["listeners"], "advertised": usual["advertised.listeners"]}
        # In a properties file the last of two equal keys counts.
        text = "".join(f"{name}={value}\n" for name, value in usual.items())
        text += LISTENERS.format(tls=tls, expired=expired, **values)
        return text + "".join(LISTENER.format(name=n, jaas=jaas, keystore=k) for n, k in keystores.items())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy_kafka, "server_properties", with_tls)
        await deploy_kafka.start_brokers(folder, state, os.environ, print)
    values = configuration(state)
    values["kafka_config"] |= {
        "bootstrap_servers": [f"localhost:{tls}"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "service",
        "sasl_password": password,
        "ssl_cafile": str(folder / "authority.pem"),
    }
    settings = Settings.model_validate(values)
    return SecureKafka(values, settings, tls, expired, plain_port=state.brokers[0].port)
