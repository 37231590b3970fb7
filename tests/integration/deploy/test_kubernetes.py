"""Checks the manifests of ops/deploy/k8s without a cluster. They are valid by the schemas of Kubernetes, and the
settings, commands, ports and paths that they name exist in the code and the image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from support.edge.edges import Fed

from api.http.app import create_app
from ops.cli.main import COMMANDS
from schemas.settings import Settings
from streams.delivery.endpoints import parse_endpoints
from streams.runtime.health import _response

ROOT = Path(__file__).parents[3]
K8S = ROOT / "ops" / "deploy" / "k8s"
KUSTOMIZATION = yaml.safe_load((K8S / "kustomization.yaml").read_text())
SECRET = yaml.safe_load((K8S / "secret.example.yaml").read_text())
VERSIONS = ("1.30.0", "1.33.0")
VARIABLES = {f"ATTN_{name.upper()}" for name in Settings.model_fields}


def parsed(text: str) -> dict[str, str]:
    """Parses lines of NAME=value."""
    return dict(line.split("=", 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))


def manifests() -> Iterator[dict[str, Any]]:
    for name in KUSTOMIZATION["resources"]:
        yield from yaml.safe_load_all((K8S / name).read_text())


MANIFESTS = list(manifests())
PODS = {each["metadata"]["name"]: each["spec"]["template"] for each in MANIFESTS if each["kind"] in (
    "Deployment", "StatefulSet", "Job")}
ROLES = ("attn-worker", "attn-edge", "attn-history", "attn-deliver")


def container(name: str) -> dict[str, Any]:
    [only] = PODS[name]["spec"]["containers"]
    return only  # type: ignore[no-any-return]


def image() -> dict[str, str]:
    """Returns the variables that the image sets."""
    text = (ROOT / "Dockerfile").read_text().partition("ENV PATH")[2].partition("\n\n")[0]
    return dict(re.findall(r"(ATTN_\w+)=(\S+)", text))


def settings_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Returns the settings that the role reads in its pod."""
    own = {each["name"]: each.get("value", f"{name}-0") for each in container(name)["env"]}
    for variable, value in (image() | parsed((K8S / "attn.env").read_text()) | SECRET["stringData"] | own).items():
        monkeypatch.setenv(variable, value)
    return Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_match_kubernetes_schemas(version: str) -> None:
    for manifest in [*MANIFESTS, SECRET]:
        kubernetes_validate.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**MANIFESTS[-1], "sepc": {}}, version, strict=True)


def test_kustomize_builds_the_manifests() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", str(K8S)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(MANIFESTS) + 1, "kustomize must add only the ConfigMap of the settings"
    pods = [each["spec"]["template"]["spec"] for each in made if "template" in each.get("spec", {})]
    [settings] = {pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in pods}
    assert settings.startswith("attn-"), "the name of the ConfigMap has no checksum of its content"
    [name] = {pod["containers"][0]["image"] for pod in pods}
    assert name == f"{KUSTOMIZATION['images'][0]['newName']}:{KUSTOMIZATION['images'][0]['newTag']}"
    assert {each["metadata"].get("namespace") for each in made} == {"attn", None}


def test_every_file_is_used_and_refers_to_existing_settings_and_commands() -> None:
    assert {path.name for path in K8S.iterdir()} == {
        *KUSTOMIZATION["resources"], "kustomization.yaml", "attn.env", "secret.example.yaml", "endpoints.example.yaml"}
    named = set(re.findall(r"\bATTN_\w+", "".join(path.read_text() for path in K8S.iterdir())))
    assert named <= VARIABLES, named - VARIABLES
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert KUSTOMIZATION["images"][0]["newTag"] == version[1]
    for name in PODS:
        assert set(container(name)["args"]) <= set(COMMANDS), name
        assert "command" not in container(name), "the entrypoint of the image runs attn"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_restricted_and_may_write_where_the_role_does(name: str) -> None:
    pod, only = PODS[name]["spec"], container(name)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}\n" in dockerfile
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    # Otherwise Kubernetes sets variables such as ATTN_EDGE_PORT for each service.
    assert pod["enableServiceLinks"] is False
    assert only["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                       "capabilities": {"drop": ["ALL"]}}
    mounts = {mount["mountPath"]: mount["name"] for mount in only["volumeMounts"]}
    files = {"/etc/attn"} if name in ("attn-worker", "attn-deliver") else set()
    assert set(mounts) == {"/tmp", image()["ATTN_DATA_DIR"]} | files
    assert all(mount.get("readOnly") for mount in only["volumeMounts"] if mount["mountPath"] in files)
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert only["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", ROLES)
def test_probes_use_port_and_paths_of_the_role(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, only = settings_of(name, monkeypatch), container(name)
    [port] = only["ports"]
    assert port["containerPort"] == (settings.port if name == "attn-edge" else settings.metrics_port)
    assert settings.host == "0.0.0.0", "the kubelet probes the pod from outside"
    probes = {kind: only[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert all(probe["port"] == port["name"] for probe in probes.values())
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    routes = set(create_app(Fed().edge).openapi()["paths"])
    for probe in probes.values():
        if name == "attn-edge":
            assert probe["path"] in routes
        else:
            assert _response(f"GET {probe['path']} HTTP/1.1\r\n".encode(), lambda: None).startswith(b"HTTP/1.1 200")
    # Kubernetes kills an unresponsive process no earlier than `attn up` does, and allows a start as much time.
    alive, started = only["livenessProbe"], only["startupProbe"]
    assert alive["periodSeconds"] * alive["failureThreshold"] >= settings.unresponsive_seconds
    assert started["periodSeconds"] * started["failureThreshold"] >= 120


@pytest.mark.parametrize("name", PODS)
def test_settings_of_a_pod_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(name, monkeypatch)
    assert settings.log_partitions == 64
    assert settings.clickhouse_query_url.startswith("https://reader:")
    assert settings.jwt_secret is None, "the example contains a token secret"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_the_secrets_of_its_role_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ATTN_JWT_SECRET", "ATTN_SEAL_KEYS", "ATTN_RECEIPT_KEYS"):
        monkeypatch.setitem(SECRET["stringData"], variable, "x" * 32)
    settings = settings_of(name, monkeypatch)
    assert bool(settings.clickhouse) == (name == "attn-history"), "only the history writes to ClickHouse"
    assert (settings.jwt_secret is not None) == (name == "attn-edge"), "only edges verify tokens"
    assert (settings.seal_keys is not None) == (name == "attn-worker"), "only workers seal and open reply tokens"
    assert (settings.receipt_keys is not None) == (name in ("attn-worker", "attn-edge"))


def test_network_policies_allow_callers_and_the_configured_services(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "NetworkPolicy"}
    assert policies["attn-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def of(name: str, way: str) -> set[int]:
        """Returns the ports that the policies open for the pod; `way`: ingress or egress."""
        ports: set[int] = set()
        for spec in policies.values():
            selector = spec["podSelector"]
            names = set(selector.get("matchLabels", {}).values()) | {
                value for each in selector.get("matchExpressions", []) for value in each["values"]}
            if name in names:
                for rule in spec.get(way, []):
                    assert way == "egress" or rule["from"], "the rule allows every source"
                    ports |= {port["port"] for port in rule["ports"]}
        return ports

    for name in PODS:
        settings = settings_of(name, monkeypatch)
        kafka = {int(host.rpartition(":")[2]) for host in settings.kafka.split(",")}
        clickhouse = {urlsplit(settings.clickhouse_query_url).port} if name in ("attn-edge", "attn-history") else set()
        assert of(name, "egress") >= {53, *kafka, *clickhouse}, name
        listening = {port["containerPort"] for port in container(name).get("ports", [])}
        assert listening <= of(name, "ingress"), name
    assert not of("attn-topics", "ingress")


def test_consumers_have_stable_instance_names() -> None:
    for name in ("attn-worker", "attn-history", "attn-deliver"):
        [stateful] = [each for each in MANIFESTS if each["kind"] == "StatefulSet" and each["metadata"]["name"] == name]
        [instance] = [each for each in container(name)["env"] if each["name"] == "ATTN_INSTANCE"]
        assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert stateful["spec"]["serviceName"] in {
            each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "Service"}


def test_every_selector_matches_a_pod() -> None:
    labels = [template["metadata"]["labels"] for template in PODS.values()]
    for manifest in MANIFESTS:
        selector = manifest["spec"].get("selector") if manifest["kind"] in (
            "Service", "Deployment", "StatefulSet", "PodDisruptionBudget") else None
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= pod.items() for pod in labels), manifest["metadata"]["name"]
    budgets = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == {"attn-worker", "attn-edge"}, "a budget for a role of one replica blocks the drain of a node"


def test_the_ingress_forwards_streams_and_not_metrics() -> None:
    [ingress] = [each for each in MANIFESTS if each["kind"] == "Ingress"]
    options = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert options["proxy-buffering"] == "off"
    assert int(options["proxy-read-timeout"]) > 3 * Settings(_env_file=None).heartbeat_seconds  # type: ignore[call-arg]
    assert {"http_authorization", "cookie_attn_session"} == set(re.findall(r"\$(\w+)", options["upstream-hash-by"]))
    services = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "Service"}
    [rule] = ingress["spec"]["rules"]
    backends = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert backends == {"/metrics": "attn-nowhere", "/": "attn-edge"}
    assert "selector" not in services["attn-nowhere"]


@pytest.mark.parametrize("name", ["attn-worker", "attn-deliver"])
def test_endpoints_are_mounted_where_the_setting_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = yaml.safe_load((K8S / "endpoints.example.yaml").read_text())
    settings = settings_of(name, monkeypatch)
    [mount] = [each for each in container(name)["volumeMounts"] if each["name"] == "endpoints"]
    [volume] = [each for each in PODS[name]["spec"]["volumes"] if each["name"] == "endpoints"]
    assert volume["secret"]["secretName"] == example["metadata"]["name"]
    [file] = example["stringData"]
    assert str(settings.endpoints) == f"{mount['mountPath']}/{file}"
    parse_endpoints(example["stringData"][file])
    uncommented = re.sub(r"(?m)^# ", "", example["stringData"][file]).replace("...", "AAAA" * 8)
    assert list(parse_endpoints(uncommented)) == ["payments"]


@pytest.mark.parametrize("name", PODS)
def test_other_roles_have_no_endpoints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (settings_of(name, monkeypatch).endpoints is None) == (name not in ("attn-worker", "attn-deliver"))
