"""deploy/kubernetes as kustomize builds it, alone and under the documented overlay; where kubectl is installed."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "kubernetes"
KINDS = ["ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"]
DIGEST = "sha256:" + "0123456789abcdef" * 4

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, whose kustomize builds the base")


def build(folder):
    """Return all that kustomize makes of a folder, by kind."""
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    documents = list(yaml.safe_load_all(built))
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    assert sorted(document["kind"] for document in documents) == KINDS
    return {document["kind"]: document for document in documents}


def pods(built):
    return [built[kind]["spec"]["template"]["spec"] for kind in ("Deployment", "Job", "StatefulSet")]


def images(built):
    return {one["image"] for pod in pods(built) for one in [*pod.get("initContainers", []), *pod["containers"]]}


def configurations(built):
    return {volume["configMap"]["name"] for pod in pods(built) for volume in pod["volumes"] if "configMap" in volume}


def test_the_base_runs_this_version_with_a_configuration_named_by_its_contents():
    built = build(BASE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert images(built) == {f"sitelog:{version}"}
    name = built["ConfigMap"]["metadata"]["name"]
    assert re.fullmatch(r"sitelog-config-\w{10}", name)
    assert configurations(built) == {name}


def test_the_overlay_that_the_documentation_shows_changes_image_configuration_and_number(tmp_path):
    text = (ROOT / "docs" / "operations.md").read_text()
    overlay = re.search(r"```yaml\n# overlays/production/kustomization.yaml\n(.*?)```", text, re.DOTALL)[1]
    folder = tmp_path / "overlays" / "production"
    folder.mkdir(parents=True)
    shutil.copytree(BASE, tmp_path / "deploy" / "kubernetes")
    (folder / "kustomization.yaml").write_text(overlay.replace("sha256:…", DIGEST))
    (folder / "sitelog.yaml").write_text("kafka_config: {}")
    built = build(folder)
    assert images(built) == {f"registry.example.com/sitelog@{DIGEST}"}
    assert built["ConfigMap"]["data"] == {"sitelog.yaml": "kafka_config: {}"}
    assert configurations(built) == {built["ConfigMap"]["metadata"]["name"]}
    assert built["StatefulSet"]["spec"]["replicas"] == 3
