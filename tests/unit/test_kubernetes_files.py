"""deploy/kubernetes, held to Kubernetes's own schemas, to the worker's settings and to the image."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sitelog.agents._health import PING_SECONDS_MAX
from sitelog.agents._worker import LOG_SECONDS_MAX
from sitelog.streams._group import GONE_SECONDS
from sitelog.streams._kafka import CONNECT_SECONDS
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import load_settings
from sitelog.streams.topics import _REQUEST_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
CONFIG = FOLDER / "sitelog.yaml"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RESOURCES = {name: yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]}
OLDEST, NEWEST = "1.31", "1.37"
PODS = {name: found["spec"]["template"] for name, found in RESOURCES.items() if "template" in found["spec"]}
CONTAINERS = {
    f"{name}: {container['name']}": container
    for name, pod in PODS.items()
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
}
PROJECTOR = RESOURCES["projector.yaml"]
WORKER = CONTAINERS["projector.yaml: worker"]
FROM_THE_IMAGE = dict(re.findall(r"(SITELOG__\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))


SECRETS = re.findall(r"\$\{(\w+)\}", CONFIG.read_text())


def environment(container):
    """What a container's variables may look like."""
    secrets = SECRETS if container["envFrom"] == [{"secretRef": {"name": "sitelog-worker"}}] else []
    names = [*secrets, *(variable["name"] for variable in container.get("env", []))]
    return FROM_THE_IMAGE | dict.fromkeys(names, "sitelog-projector-0")


@pytest.fixture
def settings():
    """What the projector is told."""
    return load_settings(CONFIG, environment(WORKER))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_takes_every_resource(name, version):
    assert kubernetes_validate.validate(RESOURCES[name], version, strict=True) == version


def test_a_field_that_kubernetes_does_not_know_is_found():
    wrong = yaml.safe_load((FOLDER / "projector.yaml").read_text())
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_every_file_is_part_of_the_base():
    named = {"kustomization.yaml", *KUSTOMIZATION["resources"], *KUSTOMIZATION["configMapGenerator"][0]["files"]}
    assert named == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_settings_take_every_variable_that_a_container_has(name):
    settings = load_settings(CONFIG, environment(CONTAINERS[name]))
    owner = settings.database_config.owner
    assert (owner is not None) == (name in {"init.yaml: tables", "admin.yaml: admin"})
    if name == "projector.yaml: worker":
        assert settings.worker.instance_id == "sitelog-projector-0"
    with pytest.raises(ConfigError, match="SITELOG__WORKER__INSTANCE_NAME"):
        load_settings(CONFIG, environment(CONTAINERS[name]) | {"SITELOG__WORKER__INSTANCE_NAME": "x"})


def test_what_a_failed_try_of_the_job_has_said_is_kept():
    assert PODS["init.yaml"]["spec"]["restartPolicy"] == "Never"


def test_a_member_of_the_group_has_its_pod_s_name():
    (variable,) = (one for one in WORKER["env"] if one["name"] == "SITELOG__WORKER__INSTANCE_ID")
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_passwords_come_from_secrets_alone_and_the_worker_never_sees_the_owner_s():
    for container in CONTAINERS.values():
        assert all("value" not in variable for variable in container.get("env", []))
    assert WORKER["envFrom"] == [{"secretRef": {"name": "sitelog-worker"}}]
    assert not any("secretKeyRef" in variable["valueFrom"] for variable in WORKER["env"])


def test_the_owner_s_pod_is_not_there_until_it_is_asked_for_and_never_belongs_to_the_workers():
    admin = RESOURCES["admin.yaml"]["spec"]
    assert admin["replicas"] == 0
    assert admin["template"]["metadata"]["labels"].items() >= admin["selector"]["matchLabels"].items()
    assert admin["selector"]["matchLabels"] != PROJECTOR["spec"]["selector"]["matchLabels"]
    assert CONTAINERS["admin.yaml: admin"]["command"] == ["sleep", "infinity"]


def test_the_files_that_the_configuration_names_are_mounted(settings):
    for file in (settings.kafka_config.ssl_cafile, settings.database_config.primary.ssl_rootcert):
        assert any(mount["mountPath"] == str(Path(file).parent) for mount in WORKER["volumeMounts"])
    config = re.search(r"SITELOG_CONFIG=(\S+)", (ROOT / "Dockerfile").read_text())[1]
    for container in CONTAINERS.values():
        assert {"name": "config", "mountPath": str(Path(config).parent), "readOnly": True} in container["volumeMounts"]
    assert Path(config).name in KUSTOMIZATION["configMapGenerator"][0]["files"]


def seconds(probe):
    return probe["periodSeconds"] * probe["failureThreshold"]


def test_a_start_is_ended_only_after_it_had_time_to_say_what_is_missing(settings):
    brokers = len(settings.kafka_config.bootstrap_servers)
    kafka = 2 * CONNECT_SECONDS * brokers + _REQUEST_SECONDS
    postgres = settings.database_config.primary.connection_pool.connection_timeout / 1000
    # One or the other: where servers don't answer nobody is looked for in the group.
    strangers = settings.worker.session_timeout_seconds + GONE_SECONDS
    assert seconds(WORKER["startupProbe"]) > max(kafka + postgres, strangers)


def test_a_worker_that_does_not_know_yet_that_it_is_stuck_is_left_alone_and_one_that_is_goes_soon(settings):
    worker, probe = settings.worker, WORKER["livenessProbe"]
    assert probe["httpGet"] == {"path": "/livez", "port": "health"}
    # Neither a drain nor a session's end may be taken for a hang.
    assert seconds(probe) > max(worker.session_timeout_seconds, worker.drain_seconds)
    assert worker.stuck_after_seconds + seconds(probe) <= 120


def test_readiness_has_time_to_ask_postgres():
    probe = WORKER["readinessProbe"]
    assert probe["httpGet"] == {"path": "/readyz", "port": "health"}
    assert PING_SECONDS_MAX < probe["timeoutSeconds"] < probe["periodSeconds"]


def test_a_worker_has_time_to_end_by_itself_and_an_update_to_let_the_group_settle(settings):
    worker, pod = settings.worker, PODS["projector.yaml"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 2 * (worker.shutdown_seconds + LOG_SECONDS_MAX)
    assert PROJECTOR["spec"]["minReadySeconds"] > worker.session_timeout_seconds


def test_no_more_workers_than_partitions_and_no_more_connections_than_postgres_has_by_default(settings):
    partitions = max(topic.partitions for topic in settings.kafka_config.topics.values())
    assert 2 <= PROJECTOR["spec"]["replicas"] <= partitions
    assert partitions * settings.database_config.primary.connection_pool.max_connections < 97


@pytest.mark.parametrize("name", PODS)
def test_pods_meet_the_restricted_security_standard_as_the_image_s_user(name):
    pod = PODS[name]["spec"]
    user = int(re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert (context["runAsUser"], context["fsGroup"]) == (user, user)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_may_do_and_use_no_more_than_they_need(name):
    container = CONTAINERS[name]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108
    assert container["resources"].keys() == {"requests", "limits"}
    assert all(container["resources"][kind].keys() == {"cpu", "memory"} for kind in ("requests", "limits"))


@pytest.mark.parametrize("name", ["projector-disruption.yaml", "projector-service.yaml"])
def test_what_belongs_to_the_projector_selects_its_pods(name):
    selector = RESOURCES[name]["spec"]["selector"]
    chosen = selector.get("matchLabels", selector)
    assert chosen == PROJECTOR["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= PODS["projector.yaml"]["metadata"]["labels"].items()
    assert PROJECTOR["spec"]["serviceName"] == RESOURCES["projector-service.yaml"]["metadata"]["name"]
