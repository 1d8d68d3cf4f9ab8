"""How every client of ours gets into Kafka: the same options, bounded waits, and the real reason when it can't."""

import asyncio
import logging
import ssl
from typing import Any, Final, Protocol

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from sitelog.streams._section import is_loopback
from sitelog.streams.errors import ConfigError, SitelogError, UnavailableError, reason_of
from sitelog.streams.settings import KafkaSettings, ProducerSettings

CONNECT_SECONDS: Final = 10
"""For one broker to accept and let us in: a healthy one takes milliseconds, another continent's half a second."""


class WithoutPasswords(logging.Filter):
    """Keeps aiokafka from logging the request that carries the password, which it does at level debug."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record may pass."""
        args = record.args if isinstance(record.args, tuple) else ()
        return not any(type(argument).__name__.startswith("SaslAuthenticate") for argument in args)


logging.getLogger("aiokafka.conn").addFilter(WithoutPasswords())


class Client(Protocol):
    """What aiokafka's admin client, producer and consumer have in common here."""

    async def start(self) -> None:
        """Connect."""


def kafka_client_options(settings: ProducerSettings) -> dict[str, Any]:
    """Return the keyword arguments with which any aiokafka client reaches the configured Kafka.

    Raises ConfigError if `ssl_cafile` can't be read. The password is in the result: don't log it.
    """
    kafka = settings.kafka_config
    return {"bootstrap_servers": list(kafka.bootstrap_servers), **_security(kafka)}


def faust_credentials(settings: ProducerSettings) -> Any:
    """Return what Faust wants as `broker_credentials`, or None for a Kafka that asks for nothing.

    Raises ConfigError if `ssl_cafile` can't be read.
    """
    # Producers and the command line must not pay for importing Faust.
    from faust.auth import SASLCredentials, SSLCredentials  # noqa: PLC0415

    kafka = settings.kafka_config
    context = _ssl_context(kafka)
    if kafka.uses_sasl:
        return SASLCredentials(
            username=kafka.sasl_username,
            password=_password(kafka),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None


async def start_client(client: Client, settings: ProducerSettings) -> None:
    """Start an aiokafka client within a bounded time.

    Raises UnavailableError (no broker answers, with each address and reason) or ConfigError (a broker
    refuses our credentials or its certificate isn't trusted). Stopping the client stays the caller's duty,
    also after a failure.
    """
    servers = len(settings.kafka_config.bootstrap_servers)
    try:
        async with asyncio.timeout(CONNECT_SECONDS * servers):
            await client.start()
    except (KafkaError, OSError, TimeoutError) as error:
        raise await _diagnose(settings, error) from error


async def _diagnose(settings: ProducerSettings, error: Exception) -> SitelogError:
    """Find out why no broker took us: aiokafka says it only in its log."""
    kafka = settings.kafka_config
    options = _security(kafka)
    reasons = []
    for server in kafka.bootstrap_servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=CONNECT_SECONDS * 1_000, **options
            )
        except (SaslAuthenticationFailed, UnsupportedSaslMechanismError) as refused:
            return ConfigError(
                f"Kafka at {server} refused {kafka.sasl_username} ({kafka.sasl_mechanism}): {_words(refused)}. "
                "Check kafka_config.sasl_username, sasl_password and sasl_mechanism"
            )
        except ssl.SSLCertVerificationError as untrusted:
            return ConfigError(
                f"the certificate of Kafka at {server} isn't trusted: {untrusted.verify_message}. "
                "Check kafka_config.ssl_cafile and the host name in bootstrap_servers"
            )
        except (KafkaError, OSError, TimeoutError) as reason:
            reasons.append(f"{server}: {_words(reason)}")
        else:
            connection.close()
            reasons.append(f"{server}: {_words(error)}")
    return UnavailableError(f"Kafka can't be reached ({'; '.join(reasons)}). {_advice(kafka)}")


def _advice(kafka: KafkaSettings) -> str:
    """Say what to try, by where Kafka is."""
    if all(is_loopback(server.rpartition(":")[0]) for server in kafka.bootstrap_servers):
        return "Is it running? `sitelog up` starts it, `sitelog status` shows it"
    return "Check kafka_config.bootstrap_servers and security_protocol, the network and the brokers"


def _words(error: Exception) -> str:
    """Return an error in words: the operating system's sentence, or the library's, never nothing."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return reason_of(error)


def _security(kafka: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.uses_tls:
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.uses_sasl:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = _password(kafka)
    return options


def _password(kafka: KafkaSettings) -> str | None:
    return kafka.sasl_password.get_secret_value() if kafka.sasl_password else None


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """Trust `ssl_cafile`, or what the operating system trusts; the host name is always compared."""
    if not kafka.uses_tls:
        return None
    try:
        return ssl.create_default_context(cafile=kafka.ssl_cafile)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or "no certificate in it"
        raise ConfigError(
            f"kafka_config.ssl_cafile: expected a PEM file of certificates, got {kafka.ssl_cafile}: {reason}"
        ) from error
