import json

import pytest
import yaml

from sitelog.deploy._configuration import shell_environment, write_configuration
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import StackState, new_state, read_state, write_state
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import load_settings


def test_what_was_written_is_read_again_secrets_and_all(tmp_path):
    state = new_state(brokers=3)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_a_folder_without_a_stack_has_no_state(tmp_path):
    assert read_state(tmp_path) is None


def test_only_its_owner_can_read_what_holds_passwords(tmp_path):
    state = new_state(brokers=1)
    write_state(tmp_path, state)
    write_configuration(tmp_path, state)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "state.json": 0o600,
        "sitelog.yaml": 0o600,
        "env": 0o600,
    }


def test_no_password_is_in_a_representation():
    state = new_state(brokers=1)
    for password in (state.superuser_password, state.owner_password, state.app_password, state.read_password):
        assert password.get_secret_value() not in repr(state)


def test_a_file_in_the_folder_s_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/state.json: Not a directory. Name another folder with --dir"):
        read_state(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', '{"surprise": true}'])
def test_a_damaged_state_file_says_what_to_do(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ConfigError, match=r"state.json isn't a state file of this version.*up --reset"):
        read_state(tmp_path)


def test_a_damaged_state_file_does_not_show_its_passwords(tmp_path):
    state = new_state(brokers=1)
    write_state(tmp_path, state)
    damaged = json.loads((tmp_path / "state.json").read_text()) | {"postgres_port": "none"}
    (tmp_path / "state.json").write_text(json.dumps(damaged))
    with pytest.raises(ConfigError) as caught:
        read_state(tmp_path)
    assert state.owner_password.get_secret_value() not in str(caught.value)


def test_every_port_is_a_different_one():
    assert len(new_state(brokers=3).ports()) == 7


def test_given_ports_are_kept_and_brokers_count_up_from_theirs():
    state = new_state(brokers=3, kafka_port=9092, postgres_port=5432)
    assert [broker.port for broker in state.brokers] == [9092, 9093, 9094]
    assert state.postgres_port == 5432
    assert len(state.ports()) == 7


@pytest.mark.parametrize("postgres_port", [9092, 9094])
def test_a_port_is_not_given_to_a_broker_and_to_postgres(postgres_port):
    with pytest.raises(ConfigError, match=rf"outside 9092 to 9094.*found --postgres-port {postgres_port}"):
        new_state(brokers=3, kafka_port=9092, postgres_port=postgres_port)
    assert new_state(brokers=3, kafka_port=9092, postgres_port=9095).postgres_port == 9095


@pytest.mark.parametrize(("brokers", "replicas"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_the_written_configuration_is_one_that_every_command_takes(tmp_path, brokers, replicas):
    state = new_state(brokers=brokers)
    settings = load_settings(write_configuration(tmp_path, state), {})
    topics = settings.kafka_config.topics
    assert {name: (topic.partitions, topic.replication_factor) for name, topic in topics.items()} == {
        "customer-sites-events": (6, replicas),
        "territory-events": (3, replicas),
    }
    assert settings.kafka_config.bootstrap_servers == state.bootstrap_servers
    database = settings.database_config
    assert (database.primary.username, database.primary.port) == ("app_user", state.postgres_port)
    assert database.primary.password == state.app_password
    assert database.primary.connection_pool.max_connections == 50
    assert database.read_replica.username == "readonly_user"
    assert database.read_replica.connection_pool.max_connections == 30
    assert database.owner.password == state.owner_password


def test_the_environment_file_names_every_client_setting(tmp_path):
    state = new_state(brokers=2)
    config = tmp_path / "a folder with blanks" / "sitelog.yaml"
    lines = shell_environment(config, state).splitlines()
    names = [line.removeprefix("export ").partition("=")[0] for line in lines]
    assert names == [
        "SITELOG_CONFIG",
        "KAFKA_BOOTSTRAP_SERVERS",
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGPASSWORD",
        "PGDATABASE",
        "DATABASE_URL",
    ]
    assert f"SITELOG_CONFIG='{config}'" in lines[0]


def properties(state, tmp_path):
    text = server_properties(state, state.brokers[0], tmp_path)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_broker_listens_on_the_loopback_interface_alone(tmp_path):
    settings = properties(new_state(brokers=3), tmp_path)
    for name in ("listeners", "advertised.listeners"):
        assert all("://127.0.0.1:" in listener for listener in settings[name].split(","))


@pytest.mark.parametrize(("brokers", "replicas", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2")])
def test_three_brokers_keep_three_copies_of_which_two_must_answer(tmp_path, brokers, replicas, in_sync):
    settings = properties(new_state(brokers=brokers), tmp_path)
    assert settings["default.replication.factor"] == settings["offsets.topic.replication.factor"] == replicas
    assert settings["min.insync.replicas"] == in_sync
    assert settings["unclean.leader.election.enable"] == "false"


def test_a_broker_s_folder_may_have_any_letters(tmp_path):
    """Java reads the file as ISO-8859-1, and takes a backslash for the beginning of an escape."""
    text = server_properties(state := new_state(brokers=1), state.brokers[0], tmp_path / "B\\ücher 日本 🎉\n")
    assert rf"log.dirs={tmp_path}/B\\\u00fccher \u65e5\u672c \ud83c\udf89\n" in text.splitlines()
    assert text.isascii()


def test_a_topic_is_never_created_by_a_typo(tmp_path):
    assert properties(new_state(brokers=1), tmp_path)["auto.create.topics.enable"] == "false"


def test_the_state_has_no_field_that_a_newer_version_would_lose(tmp_path):
    write_state(tmp_path, new_state(brokers=1))
    assert yaml.safe_load((tmp_path / "state.json").read_text()).keys() == StackState.model_fields.keys()
