"""The guide's SASL_SSL with PLAIN against a real broker: let in, or told the real reason."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from pydantic import SecretStr

from sitelog.deploy import kafka as deploy_kafka
from sitelog.deploy._configuration import configuration
from sitelog.deploy._ports import free_port
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import BrokerState, StackState, new_state, write_state
from sitelog.streams._kafka import faust_credentials, kafka_client_options
from sitelog.streams.errors import ConfigError, UnavailableError
from sitelog.streams.settings import Settings
from sitelog.streams.topics import check_topics, create_topics
from tests.conftest import watched_folder

pytestmark = pytest.mark.services

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_service="right";'
TLS_LISTENER = """\
listeners={listeners},TLS://127.0.0.1:{port}
advertised.listeners={advertised},TLS://localhost:{port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SASL_SSL
sasl.enabled.mechanisms=PLAIN
listener.name.tls.sasl.enabled.mechanisms=PLAIN
listener.name.tls.plain.sasl.jaas.config={jaas}
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
"""


@dataclass(frozen=True)
class SecureKafka:
    """A broker with a TLS port, and the settings that its users need."""

    settings: Settings
    tls_port: int
    plain_port: int

    def settings_with(self, **values: object) -> Settings:
        kafka = self.settings.kafka_config.model_copy(update=values)
        return self.settings.model_copy(update={"kafka_config": kafka})


def certificate(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate of `name` for this machine, valid for a day, in PEM."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if name != issuer:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def write_certificates(folder: Path) -> tuple[Path, Path]:
    """Write an authority's certificate, and the broker's keystore that it signed."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, keystore = folder / "authority.pem", folder / "keystore.pem"
    authority.write_bytes(certificate("authority", "authority", authority_key, authority_key))
    # Kafka's reader of PEM wants PKCS#8, and the chain behind the key.
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    keystore.write_bytes(secret + certificate("broker", "authority", key, authority_key) + authority.read_bytes())
    return authority, keystore


@pytest.fixture(scope="module")
async def secure() -> AsyncIterator[SecureKafka]:
    with watched_folder() as folder:
        yield await start_secure_kafka(folder)


async def start_secure_kafka(folder: Path) -> SecureKafka:
    """Start the broker of `sitelog up` with one more listener, which wants TLS and a password."""
    authority, keystore = write_certificates(folder)
    state = new_state(brokers=1)
    write_state(folder, state)
    tls_port = free_port(besides=state.ports())

    def with_tls(state: StackState, broker: BrokerState, data: Path) -> str:
        usual = dict(line.split("=", 1) for line in server_properties(state, broker, data).splitlines())
        values = {"listeners": usual["listeners"], "advertised": usual["advertised.listeners"]}
        # In a properties file the last of two equal keys counts.
        text = "".join(f"{name}={value}\n" for name, value in usual.items())
        return text + TLS_LISTENER.format(port=tls_port, jaas=JAAS, keystore=keystore, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy_kafka, "server_properties", with_tls)
        await deploy_kafka.start_brokers(folder, state, os.environ, print)
    values = configuration(state)
    values["kafka_config"] |= {
        "bootstrap_servers": [f"localhost:{tls_port}"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "service",
        "sasl_password": "right",
        "ssl_cafile": str(authority),
    }
    return SecureKafka(Settings.model_validate(values), tls_port, plain_port=state.brokers[0].port)


async def test_topics_are_created_and_events_travel_over_tls_with_a_password(secure: SecureKafka) -> None:
    settings = secure.settings_with()
    await create_topics(settings)
    await check_topics(settings)
    options = kafka_client_options(settings)

    async with AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait("territory-events", b"sent over TLS", partition=0)
    async with AIOKafkaConsumer("territory-events", **options, auto_offset_reset="earliest") as consumer:
        assert (await consumer.getone()).value == b"sent over TLS"


def test_faust_gets_in_with_the_same_options(secure: SecureKafka) -> None:
    for_faust = dict(credentials_to_aiokafka_auth(faust_credentials(secure.settings)))
    ours = kafka_client_options(secure.settings)

    assert for_faust.pop("ssl_context").check_hostname is ours["ssl_context"].check_hostname is True
    assert for_faust.items() <= ours.items()


async def test_a_wrong_password_is_called_that_and_not_shown(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError) as refused:
        await check_topics(secure.settings_with(sasl_password=SecretStr("hunter2")))

    message = str(refused.value)
    assert message.startswith(f"Kafka at localhost:{secure.tls_port} refused service (PLAIN): ")
    assert "Authentication failed" in message
    assert "kafka_config.sasl_username, sasl_password" in message
    assert "hunter2" not in message


async def test_a_mechanism_that_the_broker_lacks_is_named(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"refused service \(SCRAM-SHA-512\): .*sasl_mechanism"):
        await check_topics(secure.settings_with(sasl_mechanism="SCRAM-SHA-512"))


async def test_a_certificate_of_an_unknown_authority_is_refused(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"isn't trusted: .*Check kafka_config\.ssl_cafile"):
        await check_topics(secure.settings_with(ssl_cafile=None))


async def test_a_certificate_of_another_host_is_refused(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1.* isn't trusted: .*127\.0\.0\.1"):
        await check_topics(secure.settings_with(bootstrap_servers=[f"127.0.0.1:{secure.tls_port}"]))


async def test_tls_spoken_to_a_plain_port_ends_in_words_within_seconds(secure: SecureKafka) -> None:
    with pytest.raises((UnavailableError, ConfigError), match=rf"127\.0\.0\.1:{secure.plain_port}"):
        await check_topics(secure.settings_with(bootstrap_servers=[f"127.0.0.1:{secure.plain_port}"]))
