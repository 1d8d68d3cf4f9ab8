import asyncio
import json
import os
import signal
import socket
import threading
from io import StringIO

import pytest
from typer.testing import CliRunner

from sitelog.cli import demo as demo_module
from sitelog.cli import lag, site
from sitelog.cli._decision import confirm
from sitelog.cli._run import exit_code_of
from sitelog.cli.demo import app as demo
from sitelog.cli.down import app as down
from sitelog.cli.status import app as status
from sitelog.cli.up import app as up
from sitelog.deploy import stack as stack_module
from sitelog.deploy._configuration import write_configuration
from sitelog.deploy._daemon import Daemon, stop_together
from sitelog.deploy._folder import locked
from sitelog.deploy._postgres_data import find_binaries
from sitelog.deploy._state import new_state, read_state, write_state
from sitelog.deploy.stack import Stack, Wanted
from sitelog.streams.errors import ConfigError, UnavailableError


@pytest.fixture
def run():
    return lambda app, *arguments: CliRunner().invoke(app, [str(one) for one in arguments], standalone_mode=False)


@pytest.fixture
def folder(tmp_path):
    with locked(tmp_path):
        state = new_state(brokers=2)
        state.worker_ports = [20_001]
        write_state(tmp_path, state)
    return tmp_path


def test_without_a_stack_status_says_how_to_get_one_and_answers_no(run, tmp_path):
    result = run(status, "--dir", tmp_path)
    assert result.return_value == 1
    assert "`sitelog up` makes one" in result.output
    assert json.loads(run(status, "--dir", tmp_path, "--json").output) == []


def test_a_stack_that_is_down_is_shown_so_and_answers_no(run, folder):
    result = run(status, "--dir", folder, "--json")
    assert result.return_value == 1
    assert [(service["name"], service["state"]) for service in json.loads(result.output)] == [
        ("kafka-1", "down"),
        ("kafka-2", "down"),
        ("postgres", "down"),
        ("projector-1", "down"),
    ]
    assert "run `sitelog up`" in run(status, "--dir", folder).output


def test_down_where_nothing_runs_is_harmless(run, tmp_path, folder):
    assert "Nothing was running" in run(down, "--dir", folder).output
    assert "Nothing was running" in run(down, "--dir", tmp_path / "nowhere").output
    assert not (tmp_path / "nowhere").exists()


def test_down_in_a_folder_that_is_not_ours_is_refused_and_leaves_it_as_it_is(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "foreign.json").write_text("{}")
    result = run(down, "--dir", tmp_path)
    assert "isn't a folder that `sitelog up` made" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_down_in_an_empty_folder_does_not_make_it_ours(run, tmp_path):
    assert "Nothing was running" in run(down, "--dir", tmp_path).output
    assert list(tmp_path.iterdir()) == []


def test_down_is_not_ended_by_a_foreign_file_among_the_pid_files(run, folder):
    (folder / "run").mkdir()
    (folder / "run" / "foreign.json").write_text("{}")
    assert "Nothing was running" in run(down, "--dir", folder).output
    assert (folder / "run" / "foreign.json").exists()


def test_what_can_not_be_ended_is_named_and_nothing_is_deleted_beneath_it(run, folder):
    """No step of `down` ends a daemon with this name, as none ends a process that hangs in the kernel."""
    undying = Daemon(folder, "undying")
    pid = undying.start(["sleep", "60"], os.environ).pid
    for app, options in ((down, ()), (up, ("--reset", "--yes"))):
        result = run(app, "--dir", folder, *options)
        assert f"not even SIGKILL has ended undying (pid {pid})" in str(result.exception)
        assert "Ended" not in result.output
    assert (folder / "state.json").exists()
    stop_together([undying], [(signal.SIGKILL, 5)])
    assert "Nothing was running" in run(down, "--dir", folder).output


def test_reset_lists_what_goes_and_deletes_nothing_without_a_yes(folder):
    for typed in ("n\n", ""):
        result = CliRunner().invoke(up, ["--dir", str(folder), "--reset"], input=typed)
        assert "  state.json\n" in result.output
        assert "with every event and row" in result.output
        assert isinstance(result.exception, ConfigError)
        assert str(result.exception) == "not confirmed, so nothing was done: --yes goes without asking"
        assert (folder / "state.json").exists()


def test_a_question_to_a_closed_standard_input_is_unanswered(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match=r"^not confirmed, so nothing was done"):
        confirm("Delete them?")


def test_ctrl_c_at_the_question_is_an_interruption(monkeypatch):
    class Keyboard(StringIO):
        def readline(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Keyboard())
    assert exit_code_of(lambda: confirm("Delete them?")) == 130


def test_reset_of_a_folder_that_is_not_ours_is_refused(run, tmp_path):
    (tmp_path / "logs").mkdir()
    result = run(up, "--dir", tmp_path, "--reset", "--yes")
    assert "isn't a folder that `sitelog up` made" in str(result.exception)
    assert (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--brokers", "2", "--kafka-port", "9092", "--postgres-port", "9093"), "found --postgres-port 9093"),
        (("--postgres-bin", "/nowhere"), "there is no `postgres` in"),
        ((), "(from JAVA_HOME) doesn't exist"),
    ],
)
def test_nothing_is_deleted_for_a_new_stack_that_can_not_be(run, folder, monkeypatch, options, message):
    if "JAVA_HOME" in message:
        monkeypatch.setenv("JAVA_HOME", "/nowhere")
    result = run(up, "--dir", folder, "--reset", "--yes", *options)
    assert message in str(result.exception)
    assert "deletes" not in result.output
    assert (folder / "state.json").exists()


@pytest.mark.parametrize("option", ["--kafka-port", "--postgres-port"])
def test_nothing_is_deleted_for_a_new_stack_whose_port_another_process_has(run, folder, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(up, "--dir", folder, "--reset", "--yes", option, port)
    assert f"can't listen on 127.0.0.1:{port}: the port is in use" in str(result.exception)
    assert "deletes" not in result.output
    assert (folder / "state.json").exists()


def test_a_port_that_this_stack_itself_has_is_free_for_the_next_one(folder):
    port = read_state(folder).postgres_port
    stack = Stack(folder, os.environ, print)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(UnavailableError, match=f":{port}: the port is in use"):
            stack.require_possible(Wanted(postgres_port=port))  # nothing of the stack runs
        daemon = Daemon(folder, "postgres")
        daemon.start(["sleep", "60"], os.environ)
        stack.require_possible(Wanted(postgres_port=port))
    stop_together([daemon], [(signal.SIGKILL, 5)])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--brokers", "3"), r"expected number of brokers 3, as --brokers says, found 2"),
        (("--kafka-port", "9092"), r"expected first Kafka port 9092"),
        (("--postgres-port", "5432"), r"expected Postgres port 5432"),
    ],
)
def test_what_a_stack_was_made_with_can_not_be_changed_later(run, folder, option, message):
    result = run(up, "--dir", folder, *option)
    assert message in str(result.exception)
    assert "--reset" in str(result.exception)


def test_the_demo_stays_in_its_own_stack_whatever_the_shell_points_at(run, folder, monkeypatch):
    state = new_state(brokers=1)
    reached = []

    async def up(_stack, _wanted):
        return write_configuration(folder, state)

    async def tell(_console, settings, *_):
        reached.append(settings)
        return True

    async def look(settings, *_, **__):
        reached.append(settings)

    monkeypatch.setattr(Stack, "up", up)
    monkeypatch.setattr(demo_module, "_tell", tell)
    monkeypatch.setattr(lag, "_run", look)
    monkeypatch.setattr(site, "_tell", look)
    monkeypatch.setenv("SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS", "kafka.production:9092")
    monkeypatch.setenv("SITELOG__database_config__PRIMARY__HOST", "postgres.production")
    monkeypatch.setenv("SITELOG__WORKER__SHUTDOWN_SECONDS", "7")
    assert run(demo, "--dir", folder).exception is None
    assert [settings.kafka_config.bootstrap_servers for settings in reached] == [state.bootstrap_servers] * 3
    assert {settings.database_config.primary.host for settings in reached} == {"127.0.0.1"}
    assert {settings.worker.shutdown_seconds for settings in reached} == {7}
    assert os.environ["SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS"] == "kafka.production:9092"


def test_a_wrong_postgres_is_not_remembered(run, folder):
    result = run(up, "--dir", folder, "--postgres-bin", folder / "nowhere")
    assert "there is no `postgres` in" in str(result.exception)
    assert read_state(folder).postgres_bin is None


def test_a_postgres_of_another_version_than_the_data_s_is_not_remembered(run, folder):
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    result = run(up, "--dir", folder, "--postgres-bin", find_binaries(None, os.environ).folder)
    assert "was written by Postgres 15" in str(result.exception)
    assert read_state(folder).postgres_bin is None


@pytest.mark.parametrize("ending", [Stack.down, Stack.reset])
async def test_what_ctrl_c_no_longer_waits_for_keeps_the_folder_for_itself(folder, monkeypatch, ending):
    begun, go_on = threading.Event(), threading.Event()

    def stop_workers(_):
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(stack_module, "stop_workers", stop_workers)
    interrupted = asyncio.create_task(ending(Stack(folder, {}, print)))
    await asyncio.to_thread(begun.wait, 10)
    interrupted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await interrupted
    with pytest.raises(UnavailableError, match="another `sitelog up` or `sitelog down` is at work"), locked(folder):
        pass
    go_on.set()
    async with asyncio.timeout(10):
        while not _is_unlocked(folder):  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0.01)


async def test_an_up_that_ctrl_c_ends_keeps_the_folder_for_itself_until_its_thread_has_ended(folder, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def stop_workers(*_):
        begun.set()
        go_on.wait(10)

    async def nothing(*_):
        pass

    monkeypatch.setattr(stack_module, "stop_workers", stop_workers)
    monkeypatch.setattr(Stack, "_start_services", nothing)
    monkeypatch.setattr(Stack, "_prepare", nothing)
    interrupted = asyncio.create_task(Stack(folder, {}, print).up(Wanted(workers=0, free_bytes_min=0)))
    await asyncio.to_thread(begun.wait, 10)
    interrupted.cancel()
    await asyncio.sleep(0.1)
    assert not _is_unlocked(folder)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await interrupted
    assert _is_unlocked(folder)


def _is_unlocked(folder):
    try:
        with locked(folder):
            return True
    except UnavailableError:
        return False
