"""The command line's promises: an error is a line and a code, secrets are masked, help is quick."""

import errno
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from sitelog.cli._run import exit_code_of
from sitelog.cli.main import COMMANDS, app
from sitelog.streams.errors import ConfigError, Halt, Park, UnavailableError

SITELOG = Path(sys.executable).with_name("sitelog")
SMALL = """\
kafka_config:
  bootstrap_servers: [localhost:9092]
  topics:
    customer-sites-events: {partitions: 6}
    territory-events: {partitions: 3}
database_config:
  primary: {host: localhost, database: sites, username: app_user, password: hunter2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sitelog.yaml"
    path.write_text(SMALL)
    return path


def sitelog(*arguments: str | Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user does, with nothing of this process's environment."""
    return subprocess.run(
        [SITELOG, *arguments], capture_output=True, text=True, cwd=folder, env=environ, check=False, timeout=60
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_listed_has_its_file_and_its_help(name: str) -> None:
    command = import_module(f"sitelog.cli.{name}").app

    assert isinstance(command, typer.Typer)
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_every_command_file_is_listed() -> None:
    folder = Path(str(import_module("sitelog.cli").__file__)).parent
    files = {file.stem for file in folder.glob("[!_]*.py")} - {"main"}

    assert files == set(COMMANDS)


def test_help_imports_no_command_and_none_of_their_libraries() -> None:
    code = (
        "import sys; from sitelog.cli.main import app; app(['--help'], standalone_mode=False);"
        "heavy = {'aiokafka', 'asyncpg', 'faust', 'pydantic', 'sitelog.cli.config'} & sys.modules.keys();"
        "sys.exit(str(heavy) if heavy else 0)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(name in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a\nb"), 2, "error: a\nerror: b\n"),
        (UnavailableError("no Kafka"), 69, "error: no Kafka\n"),
        (Halt("stop", 74), 74, "error: stop\n"),
        (Halt("stop"), 70, "error: stop\n"),
        (Park("wrong_bytes", "no"), 70, "error: no\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
        (OSError(errno.ENOSPC, "Full", "a"), 69, "error: a: Full. Free some space, then run this again\n"),
        (ZeroDivisionError("x"), 70, "error: unexpected ZeroDivisionError: x (SITELOG_TRACEBACK=1 shows where)\n"),
    ],
)
def test_an_error_becomes_a_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    assert exit_code_of(fail) == code
    assert capsys.readouterr().err == line


def test_a_bug_shows_where_only_when_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITELOG_TRACEBACK", "1")

    assert exit_code_of(lambda: 1 // 0) == 70

    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["confg"], "error: No such command 'confg'. Did you mean 'config'?\n"),
        (["config", "chek"], "error: No such command 'chek'. Did you mean 'check'?\n"),
        (["config", "check", "--confg", "x"], "error: No such option: --confg (Possible options: --config, --json)\n"),
    ],
)
def test_wrong_usage_is_a_line_and_the_code_2(tmp_path: Path, arguments: list[str], line: str) -> None:
    ended = sitelog(*arguments, folder=tmp_path)

    assert (ended.returncode, ended.stderr) == (2, line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["parked", "--config", "a.yaml", "discard", "17", "--reason", "x"], "expected --config after discard"),
        (["parked", "--limit", "3", "list"], "expected --limit after list"),
        (["parked", "--json", "show", "17"], "expected --json after show"),
        (["events", "--json", "show", "site_created"], "expected --json after show"),
        (["position", "--config", "a.yaml", "show"], "No such option: --config"),
    ],
)
def test_an_option_before_the_subcommand_that_would_ignore_it_is_refused(
    tmp_path: Path, arguments: list[str], line: str
) -> None:
    ended = sitelog(*arguments, folder=tmp_path, SITELOG_CONFIG="another.yaml")

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {line}")


def test_a_configuration_that_the_variable_names_reaches_a_subcommand(tmp_path: Path) -> None:
    ended = sitelog("parked", "show", "17", folder=tmp_path, SITELOG_CONFIG="named.yaml")

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: named.yaml: ")


def test_without_a_configuration_it_says_where_it_looked(tmp_path: Path) -> None:
    ended = sitelog("config", "check", folder=tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: expected a configuration in --config, SITELOG_CONFIG, ./.sitelog/site")


def test_the_configuration_is_found_by_option_then_variable_then_usual_place(tmp_path: Path) -> None:
    for place in ("option.yaml", "variable.yaml", ".sitelog/sitelog.yaml", "sitelog.yaml"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(SMALL)

    def found(*option: str, **environ: str) -> str:
        ended = sitelog("config", "check", "--json", *option, folder=tmp_path, **environ)
        return str(json.loads(ended.stdout)["file"])

    assert found("--config", "option.yaml", SITELOG_CONFIG="variable.yaml") == "option.yaml"
    assert found(SITELOG_CONFIG="variable.yaml") == "variable.yaml"
    assert found() == ".sitelog/sitelog.yaml"
    (tmp_path / ".sitelog/sitelog.yaml").unlink()
    assert found() == "sitelog.yaml"


def test_the_stack_that_the_variable_names_is_the_one_whose_configuration_is_found(tmp_path: Path) -> None:
    named = tmp_path / "named"
    for folder in (named, tmp_path / ".sitelog"):
        folder.mkdir()
        (folder / "sitelog.yaml").write_text(SMALL)

    def found() -> str:
        ended = sitelog("config", "check", folder=tmp_path, SITELOG_DIR=str(named))
        return ended.stdout.partition(": ok")[0] or ended.stderr

    assert found() == str(named / "sitelog.yaml")
    (named / "sitelog.yaml").unlink()
    (tmp_path / "sitelog.yaml").write_text(SMALL)  # another's, as after a typing error in the variable
    assert found().startswith("error: expected a configuration in --config, SITELOG_CONFIG, ")
    assert f", {named}/sitelog.yaml, where SITELOG_DIR points, found none: `sitelog up` writes {named}/" in found()


def test_config_check_says_what_a_good_file_amounts_to(config: Path, tmp_path: Path) -> None:
    ended = sitelog("config", "check", "--config", config, folder=tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{config}: ok (Kafka localhost:9092 by PLAINTEXT; topics customer-sites-events (6")


def test_config_check_asks_no_database_of_a_producer(config: Path, tmp_path: Path) -> None:
    config.write_text(SMALL.partition("database_config")[0])

    whole = sitelog("config", "check", "--config", config, folder=tmp_path)
    ended = sitelog("config", "check", "--producer", "--config", config, folder=tmp_path)

    assert (whole.returncode, whole.stderr) == (2, f"error: {config}:1: database_config: expected a value, got none\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{config}: ok (Kafka localhost:9092 by PLAINTEXT; topics customer-sites-events (6")
    assert "Postgres" not in ended.stdout


def test_config_check_names_each_wrong_line(config: Path, tmp_path: Path) -> None:
    config.write_text(SMALL + "worker: {web_prt: 1, web_host: ''}\n")

    ended = sitelog("config", "check", "--config", config, folder=tmp_path)
    for_scripts = sitelog("config", "check", "--json", "--config", config, folder=tmp_path)

    problems = [
        f"{config}:8: worker.web_host: expected text that isn't empty, got ''",
        f"{config}:8: worker.web_prt: expected a known key, got web_prt (did you mean web_port?)",
    ]
    assert (ended.returncode, ended.stderr.splitlines()) == (2, [f"error: {problem}" for problem in problems])
    assert for_scripts.returncode == 2
    assert json.loads(for_scripts.stdout) == {"file": str(config), "ok": False, "problems": problems}


@pytest.mark.parametrize(
    ("before", "inserted", "problem"),
    [
        ("kafka_config:\n", "  security_protocol: SSL\n  ssl_cafile: absent.pem\n", "kafka_config.ssl_cafile"),
        ("hunter2", ", ssl_mode: verify-full, ssl_rootcert: absent.pem", "database_config: ssl_rootcert"),
        (
            "database_config:\n",
            "  read_replica: {host: h, database: d, username: u, ssl_mode: verify-ca, ssl_rootcert: absent.pem}\n",
            "database_config: ssl_rootcert",
        ),
    ],
)
def test_config_check_reads_the_certificates_that_are_named(
    config: Path, tmp_path: Path, before: str, inserted: str, problem: str
) -> None:
    config.write_text(SMALL.replace(before, before + inserted))

    ended = sitelog("config", "check", "--config", config, folder=tmp_path)

    assert ended.returncode == 2
    assert f"{problem}: expected a PEM file of certificates, got absent.pem: No such file" in ended.stderr


def test_config_show_masks_secrets_and_shows_what_is_in_force(config: Path, tmp_path: Path) -> None:
    arguments = ("config", "show", "--config", config)
    environ = {
        "SITELOG__WORKER__WEB_PORT": "9999",
        "SITELOG__DATABASE_CONFIG__OWNER__USERNAME": "o",
        "SITELOG__DATABASE_CONFIG__OWNER__PASSWORD": "hunter3",
    }

    as_yaml = sitelog(*arguments, folder=tmp_path, **environ)
    as_json = sitelog(*arguments, "--json", folder=tmp_path, **environ)

    assert "hunter" not in as_yaml.stdout + as_json.stdout
    values = yaml.safe_load(as_yaml.stdout)
    assert values == json.loads(as_json.stdout)
    assert values["worker"]["web_port"] == 9999
    assert values["database_config"]["primary"]["password"] == "*" * 10


def test_a_kafka_that_isnt_there_is_named_with_what_to_do(config: Path, tmp_path: Path) -> None:
    # Port 1 is tcpmux's: nobody listens there.
    ended = sitelog(
        "topics",
        "check",
        "--config",
        config,
        folder=tmp_path,
        SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS="127.0.0.1:1",
    )

    assert ended.returncode == 69
    assert ended.stderr == (
        "error: Kafka can't be reached (127.0.0.1:1: connection refused). "
        "Is it running? `sitelog up` starts it, `sitelog status` shows it\n"
    )


def test_arguments_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    ended = sitelog("site", os.fsdecode(b"a\xff"), folder=tmp_path)

    assert (ended.returncode, ended.stderr) == (2, "error: expected arguments in UTF-8, got b'a\\xff'\n")


def test_a_closed_standard_input_is_wrong_usage(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$0" append --dry-run <&-', SITELOG],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 2
    assert ended.stderr == "error: stdin: expected a file, a pipe or a terminal, got none\n"


@pytest.mark.parametrize("arguments", [["events"], ["events", "show", "site_created"], ["config", "show"]])
@pytest.mark.usefixtures("config")
def test_a_full_disk_below_standard_output_is_named(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [SITELOG, *arguments], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, text=True, check=False, timeout=60
        )

    assert ended.returncode == 69
    assert ended.stderr == "error: No space left on device. Free some space, then run this again\n"


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ('exec "$0" events >/dev/full 2>&1', 69),
        ('exec "$0" lag --config nothing.yaml 2>/dev/full', 2),
        ('exec "$0" lag --config nothing.yaml 2>&-', 2),
    ],
)
def test_the_exit_code_stands_where_standard_error_takes_nothing(tmp_path: Path, shell: str, code: int) -> None:
    assert subprocess.run(["sh", "-c", shell, SITELOG], cwd=tmp_path, check=False, timeout=60).returncode == code


def test_a_bug_keeps_its_code_where_standard_error_takes_nothing(tmp_path: Path) -> None:
    bug = "import sys; from sitelog.cli._run import exit_code_of; sys.exit(exit_code_of(lambda: [].pop()))"

    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", bug], stderr=full, cwd=tmp_path, env={"SITELOG_TRACEBACK": "1"}, check=False
        )

    assert ended.returncode == 70


@pytest.mark.parametrize(
    ("arguments", "largest"),
    [
        (["parked", "show", "9223372036854775808"], 2**63 - 1),
        (["parked", "discard", "9223372036854775808", "--reason", "x"], 2**63 - 1),
        (["log", "-n", "2147483648"], 2**31 - 1),
        (["log", "--partition", "2147483648"], 2**31 - 1),
        (["position", "set", "a-topic", "2147483648", "end", "--reason", "x"], 2**31 - 1),
    ],
)
def test_a_number_that_postgres_has_no_room_for_is_wrong_usage(
    tmp_path: Path, arguments: list[str], largest: int
) -> None:
    ended = sitelog(*arguments, folder=tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: Invalid value for ")
    assert str(largest) in ended.stderr


def test_a_usual_place_that_cant_be_looked_at_is_named(tmp_path: Path) -> None:
    # To root, as in a container, no folder is closed; to nobody is one that only leads to itself open.
    (tmp_path / ".sitelog").symlink_to(".sitelog")

    ended = sitelog("config", "check", folder=tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: .sitelog/sitelog.yaml: Too many levels of symbolic links. Name a conf")


@pytest.mark.parametrize(
    "shown",
    [
        "import_module('sitelog.cli.events').app([], standalone_mode=False)",
        "import_module('sitelog.cli.status').show(Path())",
        "import_module('sitelog.cli.demo').demo(Path())",
        "import_module('sitelog.cli.main').app(['--help'], standalone_mode=False)",
        "import_module('sitelog.cli.main').app(['lag', '--help'], standalone_mode=False)",
        "import_module('sitelog.cli.main').app(['config', 'show', '--config', 'a.yaml'], standalone_mode=False)",
    ],
)
def test_a_reader_that_has_gone_is_told_by_the_exit_code(shown: str, tmp_path: Path) -> None:
    code = (
        "import sys; from importlib import import_module; from pathlib import Path\n"
        "from sitelog.cli import status; from sitelog.cli._run import exit_code_of\n"
        "from sitelog.deploy.status import ServiceStatus\n"
        "async def one(_): return [ServiceStatus('kafka', 'kafka', 'up', 1, 1, 1.0, '')]\n"
        "status.status = one\n"
        f"sys.exit(exit_code_of(lambda: {shown}))"
    )
    (tmp_path / "a.yaml").write_text(SMALL)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE, cwd=tmp_path, check=False, timeout=60
        )

    assert (ended.returncode, ended.stderr) == (141, b"")
