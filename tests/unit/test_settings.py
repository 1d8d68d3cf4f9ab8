"""The configuration's promises: every problem at once, by its line, and never a secret."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import Settings, load_producer_settings, load_settings

SECRETS = {"KAFKA_SASL_PASSWORD": "k-secret", "POSTGRES_PASSWORD": "p-secret", "POSTGRES_READONLY_PASSWORD": "r-secret"}

SMALL = """\
kafka_config:
  bootstrap_servers: [localhost:9092]
  topics:
    customer-sites-events: {partitions: 6}
    territory-events: {partitions: 3}
database_config:
  primary:
    host: localhost
    database: sites
    username: app_user
"""

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as `sitelog.yaml`, with variables and nothing else in the environment."""

    def load_text(text: str, **environ: str) -> Settings:
        path = tmp_path / "sitelog.yaml"
        path.write_text(text)
        return load_settings(path, environ)

    return load_text


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """What is wrong with a text, by line, without the folder's name."""

    def problems_of(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            load(text, **environ)
        return [line.removeprefix(f"{tmp_path}/") for line in str(refused.value).splitlines()]

    return problems_of


def with_change(path: str, value: Any) -> str:
    """SMALL with one value set at a dotted path, `/` instead of the dots."""
    data = yaml.safe_load(SMALL)
    *sections, last = path.split("/")
    section = data
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return yaml.safe_dump(data, sort_keys=False)


def test_the_smallest_configuration_has_the_guides_defaults(load: Load) -> None:
    settings = load(SMALL)

    primary = settings.database_config.primary
    assert (primary.port, primary.ssl_mode) == (5432, "require")
    assert primary.connection_pool.model_dump() == {
        "min_connections": 5,
        "max_connections": 50,
        "connection_timeout": 30_000,
        "idle_timeout": 600_000,
    }
    assert settings.kafka_config.topics["territory-events"].model_dump() == {
        "partitions": 3,
        "replication_factor": 3,
        "retention_ms": 604_800_000,
        "compression_type": "snappy",
    }
    assert settings.kafka_config.security_protocol == "PLAINTEXT"


def test_the_production_example_carries_the_guides_numbers() -> None:
    example = Path(str(files("sitelog.deploy") / "config" / "production.example.yaml"))

    settings = load_settings(example, SECRETS)

    kafka, databases = settings.kafka_config, settings.database_config
    assert kafka.bootstrap_servers == [f"kafka-{number}.townepark.com:9092" for number in (1, 2, 3)]
    assert (kafka.security_protocol, kafka.sasl_mechanism) == ("SASL_SSL", "PLAIN")
    assert kafka.sasl_username == "customer-sites-service"
    assert kafka.sasl_password is not None
    assert kafka.sasl_password.get_secret_value() == "k-secret"
    assert {
        name: (topic.partitions, topic.replication_factor, topic.retention_ms, topic.compression_type)
        for name, topic in kafka.topics.items()
    } == {"customer-sites-events": (6, 3, 604_800_000, "snappy"), "territory-events": (3, 3, 604_800_000, "snappy")}
    assert databases.read_replica is not None
    assert [
        (
            database.host,
            database.port,
            database.database,
            database.username,
            database.ssl_mode,
            *database.connection_pool.model_dump().values(),
        )
        for database in (databases.primary, databases.read_replica)
    ] == [
        ("customer-sites-db.townepark.com", 5432, "customer_sites", "app_user", "require", 5, 50, 30_000, 600_000),
        (
            "customer-sites-db-replica.townepark.com",
            5432,
            "customer_sites",
            "readonly_user",
            "require",
            3,
            30,
            30_000,
            600_000,
        ),
    ]
    assert {name: schema.version for name, schema in settings.event_schemas.items()} == {
        "site_created": "1.0",
        "site_updated": "1.0",
    }


def test_a_replica_that_says_half_of_its_pool_gets_the_replicas_other_half(load: Load) -> None:
    replica = {"host": "localhost", "database": "d", "username": "u", "connection_pool": {"max_connections": 20}}

    settings = load(with_change("database_config/read_replica", replica))

    assert settings.database_config.read_replica is not None
    assert settings.database_config.read_replica.connection_pool.min_connections == 3


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(problems: Callable[..., list[str]]) -> None:
    text = (
        "kafka_config:\n"
        "  bootstrap_servers: [localhost:9092]\n"
        "  security_protocl: SASL_SSL\n"
        "  topics:\n"
        "    customer-sites-events: {partitions: 0}\n"
        "    territory-events: {partitions: 3}\n"
        "worker:\n"
        "  heartbeat_interval_seconds: 5\n"
        "  conflict_policy: newest\n"
    )

    assert problems(text) == [
        "sitelog.yaml:1: database_config: expected a value, got none",
        (
            "sitelog.yaml:3: kafka_config.security_protocl: expected a known key, got security_protocl "
            "(did you mean security_protocol?)"
        ),
        "sitelog.yaml:5: kafka_config.topics.customer-sites-events.partitions: expected at least 1, got 0",
        "sitelog.yaml:9: worker.conflict_policy: expected 'last_write_wins' or 'reject', got 'newest'",
    ]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("workr/web_port", 1, "workr: expected a known key, got workr (did you mean worker?)"),
        (
            "billing_integration/timeout",
            1,
            "billing_integration: expected a known key, got billing_integration (known:",
        ),
        ("kafka_config/bootstrap_servers", ["localhost"], "bootstrap_servers.0: expected host:port"),
        ("kafka_config/bootstrap_servers", ["localhost:99999"], "bootstrap_servers.0: expected host:port"),
        ("kafka_config/bootstrap_servers", [], "bootstrap_servers: expected at least 1 of them, got a list"),
        ("kafka_config/topics/territory-events/partitions", 1_001, "partitions: expected at most 1000, got 1001"),
        ("kafka_config/topics/territory-events/partitions", True, "partitions: expected a number or quoted text"),
        (
            "kafka_config/topics/territory-events/retention_ms",
            1_000,
            "retention_ms: expected -1 (for ever) or at least",
        ),
        (
            "kafka_config/topics",
            {"customer-sites-events": {"partitions": 6}},
            "topics: expected the topic territory-eve",
        ),
        (
            "kafka_config/security_protocol",
            "SASL_SSL",
            "sasl_username: expected a value, as security_protocol is SASL_SS",
        ),
        ("kafka_config/sasl_username", "x", "sasl_username: expected none, as security_protocol PLAINTEXT would not"),
        ("kafka_config/ssl_cafile", "ca.pem", "ssl_cafile: expected none, as security_protocol PLAINTEXT would not"),
        ("database_config/primary/port", 0, "primary.port: expected at least 1, got 0"),
        ("database_config/primary/host", "", "primary.host: expected text that isn't empty, got ''"),
        ("database_config/primary/host", "db.example.com\n", "primary.host: expected a host name, an IP address or a "),
        ("database_config/primary/host", "db.example\u00a0com", "primary.host: expected a host name, an IP address or"),
        ("kafka_config/bootstrap_servers", ["\nlocalhost:9092"], "bootstrap_servers.0: expected host:port"),
        ("database_config/primary/password", "", "primary.password: expected text that isn't empty, got ''"),
        ("database_config/primary/ssl_mode", "full", "ssl_mode: expected 'disable', 'allow', 'prefer', 'require', "),
        ("database_config/primary/ssl_rootcert", "ca.pem", "ssl_rootcert: expected none, as ssl_mode require verifies"),
        (
            "database_config/primary/connection_pool",
            {"min_connections": 9, "max_connections": 8},
            "connection_pool.min_connections: expected at most max_connections (8), got 9",
        ),
        ("tracing/enabled", "perhaps", "tracing.enabled: expected true or false, got 'perhaps'"),
        ("tracing/enabled", [], "tracing.enabled: expected true or false, got a list"),
        ("worker/heartbeat_interval_seconds", 4, "expected at most a third of session_timeout_seconds (10), got 4"),
        ("worker/request_timeout_seconds", 9, "expected at least session_timeout_seconds (10), got 9"),
        ("worker/request_timeout_seconds", 20, "expected more than rebalance_timeout_seconds (20), got 20"),
        ("worker/rebalance_timeout_seconds", 31, "expected more than rebalance_timeout_seconds (31), got 30"),
        ("worker/rebalance_timeout_seconds", 12, "expected more than drain_seconds (12), got 12"),
        ("worker/idle_in_transaction_timeout_seconds", 10, "expected less than session_timeout_seconds (10), got 10"),
        ("worker/lock_timeout_seconds", 15, "lock_timeout_seconds: expected less than statement_timeout_seconds (15)"),
        ("worker/statement_timeout_seconds", 20, "expected less than transaction_timeout_seconds (20), got 20"),
        ("worker", {"statement_timeout_seconds": 8}, "expected less than statement_timeout_seconds (8), got 8"),
        (
            "worker",
            {"idle_in_transaction_timeout_seconds": 20, "session_timeout_seconds": 30, "request_timeout_seconds": 40},
            "idle_in_transaction_timeout_seconds: expected less than transaction_timeout_seconds (20), got 20",
        ),
        ("append", {"linger_ms": 5_000, "delivery_timeout_seconds": 1}, "linger_ms: expected less than delivery_time"),
        ("worker/batch_bytes_max", 65_536, "expected at least append's event_bytes_max and batch_bytes (1048576)"),
        ("append/event_bytes_max", 1_000_000_000, "append.event_bytes_max: expected at most 16777216"),
        ("event_schemas/site_creatd", {"version": "1.0"}, "got no such one (did you mean site_created?)"),
        ("event_schemas/site_created", {"version": "9.9"}, "site_created.version: expected 1.0, got '9.9'"),
        ("event_schemas/site_created", {"version": 1.0}, "site_created.version: expected text (quoted"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    problems: Callable[..., list[str]], path: str, value: Any, expected: str
) -> None:
    assert any(expected in problem for problem in problems(with_change(path, value)))


@pytest.mark.parametrize(
    ("json_schema", "expected"),
    [
        (
            {"properties": {"site_nam": {}}},
            "schema.properties.site_nam: expected a field of the Avro record SiteCreated",
        ),
        ({"required": ["site_id", "nope"]}, "schema.required.1: expected a field of the Avro record SiteCreated"),
        (
            {"properties": {"site_data": {"properties": {"adress": {"type": "object"}}}}},
            (
                "site_data.properties.adress: expected a field of the Avro record SiteValues, got adress "
                "(did you mean address?)"
            ),
        ),
        (
            {"properties": {"site_data": {"properties": {"address": {"required": ["citi"]}}}}},
            "address.required.0: expected a field of the Avro record Address, got citi (did you mean city?)",
        ),
        ({"required": "site_id"}, "schema: expected a JSON schema with properties as a mapping and required as a list"),
    ],
)
def test_a_json_schema_may_only_name_fields_that_the_avro_schema_has(
    problems: Callable[..., list[str]], json_schema: dict[str, Any], expected: str
) -> None:
    text = with_change("event_schemas/site_created", {"version": "1.0", "schema": json_schema})

    assert any(expected in problem for problem in problems(text))


@pytest.mark.parametrize("mode", ["allow", "prefer"])
@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.1", "localhost.example.com", "fe80::1"])
def test_a_mode_that_falls_back_to_plain_text_is_refused_beyond_this_machine(
    problems: Callable[..., list[str]], host: str, mode: str
) -> None:
    text = with_change("database_config/primary", {"host": host, "database": "d", "username": "u", "ssl_mode": mode})

    assert any(f"ssl_mode: expected require, verify-ca or verify-full for {host}" in line for line in problems(text))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "/var/run/postgresql"])
def test_on_this_machine_any_mode_is_allowed(load: Load, host: str) -> None:
    text = with_change(
        "database_config/primary", {"host": host, "database": "d", "username": "u", "ssl_mode": "prefer"}
    )

    assert load(text).database_config.primary.ssl_mode == "prefer"


def test_a_password_is_not_sent_in_clear_to_another_machine(problems: Callable[..., list[str]]) -> None:
    kafka = {
        "bootstrap_servers": ["kafka.example.com:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_username": "u",
        "sasl_password": "x",
        "topics": {"customer-sites-events": {"partitions": 1}, "territory-events": {"partitions": 1}},
    }

    assert problems(with_change("kafka_config", kafka)) == [
        (
            "sitelog.yaml:4: kafka_config.security_protocol: expected SASL_SSL, got SASL_PLAINTEXT: the password would "
            "cross the network to kafka.example.com:9092 in clear"
        ),
    ]


REGISTRY = "kafka_config/schema_registry"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"username": "u"}, "password: expected a value, as username has one, got none"),
        ({"password": "x"}, "username: expected a value, as password has one, got none"),
    ],
)
def test_a_registry_s_user_and_password_come_together(
    problems: Callable[..., list[str]], given: dict[str, str], expected: str
) -> None:
    text = with_change(REGISTRY, {"url": "https://registry.example.com", **given})

    assert any(f"kafka_config.schema_registry.{expected}" in line for line in problems(text))


def test_a_registry_s_password_is_not_sent_in_clear_to_another_machine(
    problems: Callable[..., list[str]], load: Load
) -> None:
    def with_url(url: str) -> str:
        return with_change(REGISTRY, {"url": url, "username": "u", "password": "x"})

    [problem] = problems(with_url("http://registry.example.com:8081/base"))
    assert problem.endswith(
        "kafka_config.schema_registry.url: expected https, got http: the password would cross the network to "
        "registry.example.com in clear"
    )
    for url in ("https://registry.example.com", "http://localhost:8081", "http://[::1]:8081", "http://127.0.0.1"):
        load(with_url(url))
    load(with_change(REGISTRY, {"url": "http://registry.example.com"}))


def test_a_missing_variable_is_named_with_its_line(problems: Callable[..., list[str]]) -> None:
    assert problems(SMALL + "    password: ${DB_PASSWORD}\n") == [
        "sitelog.yaml:11: database_config.primary.password: expected the environment variable DB_PASSWORD, got none"
    ]


def test_a_variable_replaces_text_inside_a_value_and_is_not_replaced_again(load: Load) -> None:
    text = SMALL.replace("host: localhost", "host: ${NAME}.example.com") + "    password: $${A}-${B}\n"

    primary = load(text, NAME="db", B="${NAME}").database_config.primary

    assert primary.host == "db.example.com"
    assert primary.password is not None
    assert primary.password.get_secret_value() == "${A}-${NAME}"


@pytest.mark.parametrize("reference", ["${", "${A", "${}", "${A-B}", "${A:-b}"])
def test_a_reference_of_another_form_is_refused(problems: Callable[..., list[str]], reference: str) -> None:
    assert "expected ${NAME}" in problems(SMALL + f"    password: '{reference}'\n", A="x")[0]


def test_a_variable_brings_text_and_never_a_section(problems: Callable[..., list[str]]) -> None:
    text = SMALL + "worker: ${WORKER}\n"

    assert problems(text, WORKER="{web_port: 0}") == [
        "sitelog.yaml:11: worker: expected a section (key: value), got the value of ${WORKER}"
    ]


def test_an_override_replaces_a_value_of_the_file_and_of_the_defaults(load: Load) -> None:
    settings = load(
        SMALL,
        SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS="a:1, b:2",
        SITELOG__KAFKA_CONFIG__TOPICS__TERRITORY_EVENTS__PARTITIONS="4",
        SITELOG__DATABASE_CONFIG__PRIMARY__PASSWORD="12345",  # noqa: S106 - no password of anybody
        SITELOG__WORKER__WEB_PORT="0",
        SITELOG_CONFIG="not an override",
    )

    assert settings.kafka_config.bootstrap_servers == ["a:1", "b:2"]
    assert settings.kafka_config.topics["territory-events"].partitions == 4
    assert settings.database_config.primary.password is not None
    assert settings.database_config.primary.password.get_secret_value() == "12345"
    assert settings.worker.web_port == 0


def test_tracing_is_off_unless_the_file_or_a_variable_says_yes(load: Load) -> None:
    assert not load(SMALL).tracing.enabled
    assert load(SMALL + "tracing: {enabled: yes}\n").tracing.enabled
    assert load(SMALL, SITELOG__TRACING__ENABLED="true").tracing.enabled
    assert not load(SMALL + "tracing: {enabled: true}\n", SITELOG__TRACING__ENABLED="no").tracing.enabled


def test_an_override_makes_up_for_a_variable_that_is_missing(load: Load) -> None:
    settings = load(SMALL + "    password: ${ABSENT}\n", SITELOG__DATABASE_CONFIG__PRIMARY__PASSWORD="x")  # noqa: S106

    assert settings.database_config.primary.password is not None


@pytest.mark.parametrize(
    "rest",
    ["", "database_config: {primary: {password: '${ABSENT}'}}\nworker: {web_prot: 1}\n"],
    ids=["none", "a worker's"],
)
def test_a_producer_needs_no_section_but_its_own(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "sitelog.yaml"
    path.write_text(f"{SMALL.partition('database_config')[0]}append: {{linger_ms: 7}}\n{rest}")

    settings = load_producer_settings(path, {"SITELOG__WORKER__WEB_PORT": "high"})

    assert (settings.append.linger_ms, list(settings.kafka_config.topics)) == (
        7,
        ["customer-sites-events", "territory-events"],
    )


def test_a_producers_own_sections_are_checked_as_for_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "sitelog.yaml"
    path.write_text("kafka_config: {bootstrap_servers: ['${ABSENT}']}\nappnd: {linger_ms: 7}\nworker: 3\n")

    with pytest.raises(ConfigError) as refused:
        load_producer_settings(path, {})

    assert str(refused.value).splitlines() == [
        f"{path}:1: kafka_config.bootstrap_servers.0: expected the environment variable ABSENT, got none",
        f"{path}:1: kafka_config.topics: expected a value, got none",
        f"{path}:2: appnd: expected a known key, got appnd (did you mean append?)",
    ]


def test_an_overridden_list_makes_up_for_what_its_items_are_missing(load: Load) -> None:
    text = SMALL.replace("[localhost:9092]", "['${ABSENT_1}', '${ABSENT_2}']")

    assert load(text, SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS="a:1,b:2").kafka_config.bootstrap_servers == [
        "a:1",
        "b:2",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SITELOG__WORKER__WEB_PORT", "high", "worker.web_port: expected a whole number, got 'high'"),
        (
            "SITELOG__WORKER__WEB_PORTS",
            "1",
            "worker.web_ports: expected a known key, got web_ports (did you mean web_po",
        ),
        ("SITELOG__WORKR__WEB_PORT", "1", "workr: expected a known key, got workr (did you mean worker?)"),
        ("SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS", "a", "bootstrap_servers.0: expected host:port with a port"),
        ("SITELOG__WORKER____WEB_PORT", "1", "expected SITELOG__SECTION__FIELD, got an empty step"),
        ("SITELOG__DATABASE_CONFIG__PRIMARY__HOST__X", "1", "expected a field of a section, got something below a si"),
    ],
)
def test_a_bad_override_is_reported_by_the_variables_name(
    problems: Callable[..., list[str]], name: str, value: str, expected: str
) -> None:
    [problem] = problems(SMALL, **{name: value})

    assert problem.startswith(f"environment variable {name}: ")
    assert expected in problem


@pytest.mark.parametrize(
    "text",
    [
        SMALL + "    password: [hunter2]\n",
        SMALL + "    pasword: hunter2\n",
        SMALL + "    password: {hunter2: x}\n",
        SMALL + "append: postgres://u:hunter2@db\n",
        SMALL.replace("host: localhost", "host: postgres://u:hunter2@db"),
        SMALL.replace("host: localhost", "host: u:hunter2@db"),
        SMALL.replace("[localhost:9092]", "[u:hunter2@kafka:9092]"),
        SMALL + "    port: u:hunter2@db\n",
        SMALL + "    port: ${SECRET}\n",
        SMALL + "    ssl_mode: ${SECRET}\n",
        SMALL + "event_schemas: {site_created: {version: '${SECRET}'}}\n",
    ],
)
def test_no_problem_ever_shows_a_secret(problems: Callable[..., list[str]], text: str) -> None:
    assert "hunter2" not in "\n".join(problems(text, SECRET="hunter2"))  # noqa: S106


def test_a_password_of_digits_alone_is_refused_without_being_shown(problems: Callable[..., list[str]]) -> None:
    assert problems(SMALL + "    password: 47110815\n") == [
        (
            "sitelog.yaml:11: database_config.primary.password: "
            "expected text (quoted, if it looks like something else), got a number"
        )
    ]


def test_pydantics_own_words_show_no_secret_either() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"database_config": {"primary": {"password": ["hunter2"]}}})

    assert "hunter2" not in str(refused.value)


def test_settings_never_show_a_secret(load: Load) -> None:
    settings = load(SMALL + "    password: hunter2\n")

    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump(mode='json')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\nb: }", "expected YAML, got"),
        ("kafka_config: {}\nkafka_config: {}\n", "kafka_config: expected the key once, got it in line 1 and in line 2"),
        ("- 1\n", "expected sections such as kafka_config, got something else"),
        ("just text", "expected sections such as kafka_config, got something else"),
        ("", "kafka_config: expected a value, got none"),
        ("a: &a [*a]", "expected at most 32 levels, got more"),
        ("kafka_config: {bootstrap_servers: 2026-99-99}", "expected a value that YAML can read, got another one"),
        ("a:\n  b: !!bool abc", "sitelog.yaml:2: a.b: expected a value that YAML can read, got another one"),
        ("a: !!int ''", "a: expected a value that YAML can read, got another one"),
        ("a: !!float ''", "a: expected a value that YAML can read, got another one"),
        ("a: !!timestamp abc", "a: expected a value that YAML can read, got another one"),
        (f"a: 1\nb: {'[' * 3_000}", "sitelog.yaml:2: expected at most 32 levels, got more"),
        ("\n" + "- " * 3_000, "sitelog.yaml:2: expected at most 32 levels, got more"),
        ("kafka_config: \x00", "expected YAML, got"),
        ("x" * 2_000_000, "expected at most 1048576 characters, got 2000000"),
    ],
)
def test_a_file_that_isnt_such_yaml_is_refused_in_words(
    problems: Callable[..., list[str]], text: str, expected: str
) -> None:
    assert any(expected in problem for problem in problems(text))


def test_a_file_that_is_missing_or_no_text_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: expected a file that can be read, got: No such file"):
        load_settings(tmp_path / "absent.yaml", {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml: expected UTF-8 text"):
        load_settings(tmp_path / "binary.yaml", {})
