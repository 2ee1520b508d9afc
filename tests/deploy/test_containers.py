"""What is said to Docker, compose and Kubernetes: that it fits the code, and itself. None of them is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from receiver.cli import cli
from receiver.config import SETTINGS
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NAMES = {setting.name for setting in SETTINGS.values()}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
LOOPS = ("jobs", "jobs-2", "backup")
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
OPTIONAL = ["gateway.yaml", "pod-monitor.yaml", "backup.yaml"]
MANIFESTS = [
    manifest
    for name in (*KUSTOMIZATION["resources"], *OPTIONAL)
    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())
]


def find(kind: str, name: str = "receiver") -> dict[str, Any]:
    """The one manifest of that kind and name."""
    (found,) = [one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return dict(found)


def pods() -> Iterator[dict[str, Any]]:
    """The pods that the manifests make, as templates."""
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            yield template


def commands_of(loop: str) -> set[str]:
    """What a loop has `receiver` do, without arguments."""
    return set(re.findall(r"receiver (run \w+|backup)\b", loop))


def accepts(arguments: list[str]) -> bool:
    """Whether `receiver` knows such a command."""
    return CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0


def test_every_name_of_ours_is_a_setting() -> None:
    # What compose and kustomization fill in by themselves, and the client's own.
    others = {"RECEIVER_IMAGE"}
    for path in (DEPLOY / "compose.yml", DEPLOY / "Dockerfile", *(DEPLOY / "kubernetes").iterdir()):
        named = set(re.findall(r"\bRECEIVER_[A-Z_]+\b", path.read_text()))
        assert named - others <= NAMES, path.name


def test_dockerfile_copies_what_the_build_is_given_and_runs_what_exists() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in given)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert copied == ["requirements.lock", "deploy/lock.py", "."]
    assert set(copied[:2]) <= given
    assert {"receiver", "migrations", "pyproject.toml", "README.md"} <= given
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE), "the last stage runs as nobody in particular"
    assert "--require-hashes" in text
    assert "/healthz" in text
    assert accepts(re.findall(r'^CMD \["(\w+)"\]$', text, re.MULTILINE))


def test_healthcheck_of_the_image_asks_where_the_server_listens(tmp_path: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*?\])$", text.replace("\\\n", ""), re.MULTILINE)
    assert found is not None
    program, *arguments = json.loads(found[1])
    assert program == "python"
    environment = {"RECEIVER_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment |= {"RECEIVER_BIND": "127.0.0.1:1"}  # of the image: whoever runs it may have said another

    def check() -> int:
        done = subprocess.run(
            [sys.executable, "-P", *arguments], env=environment, cwd=tmp_path, capture_output=True, check=False
        )
        return done.returncode

    assert check() == 1
    with ServeProcess(tmp_path):
        assert check() == 0
    assert check() == 1


def test_compose_names_files_networks_and_volumes_that_exist() -> None:
    needed = {"./tls"}  # the house's own
    for name, service in SERVICES.items():
        assert service["image"].startswith("${"), f"{name}: the image cannot be had from a mirror"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source in needed or (DEPLOY / source).exists(), (name, source)
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        if name not in ("migrate", *LOOPS):
            is_ours = service["image"].startswith("${RECEIVER_IMAGE")  # the image brings its own
            assert is_ours or "healthcheck" in service, name
    assert (
        DEPLOY / SERVICES["receiver-1"]["build"]["context"] / SERVICES["receiver-1"]["build"]["dockerfile"]
    ).exists()
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} == COMPOSE["secrets"].keys()
    assert accepts(SERVICES["migrate"]["command"])


def test_receivers_of_compose_have_their_own_volumes_and_start_after_the_schema() -> None:
    receivers = [SERVICES["receiver-1"], SERVICES["receiver-2"]]
    assert receivers[0]["volumes"] != receivers[1]["volumes"]
    for receiver in receivers:
        assert receiver["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        assert receiver["environment"]["RECEIVER_DATA_DIR"].startswith(receiver["volumes"][0].split(":")[1])


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_compose_run_what_exists_beside_the_receiver_whose_volume_they_have(name: str) -> None:
    service = SERVICES[name]
    (volume,) = [volume.split(":")[0] for volume in service["volumes"] if volume.endswith(":/data")]
    assert service["depends_on"] == {volume: {"condition": "service_healthy"}}
    if name != "backup":
        assert service["network_mode"] == f"service:{volume}"
    loop = service["command"][0].replace("$$", "$")
    assert subprocess.run(["bash", "-n", "-c", loop], check=False).returncode == 0
    assert name == "backup" or commands_of(loop) >= {"run alarms", "backup"}
    assert all(accepts(command.split()) for command in commands_of(loop))


def test_alarms_of_compose_look_at_each_receiver_and_at_the_backup() -> None:
    watching = [SERVICES[name] for name in LOOPS if "run alarms" in SERVICES[name]["command"][0]]
    assert {service["network_mode"] for service in watching} == {"service:receiver-1", "service:receiver-2"}
    data_dir = SERVICES["backup"]["environment"]["RECEIVER_DATA_DIR"]
    assert data_dir == SERVICES["receiver-1"]["environment"]["RECEIVER_DATA_DIR"]


def test_addresses_of_compose_are_those_of_nginx_and_its_port_those_of_prometheus() -> None:
    nginx = (DEPLOY / "nginx/receiver.conf").read_text()
    environment = SERVICES["receiver-1"]["environment"]
    address = {
        name: SERVICES[name]["networks"]["internal"]["ipv4_address"]
        for name in SERVICES
        if "networks" in SERVICES[name] and isinstance(SERVICES[name]["networks"], dict)
    }
    for name in ("receiver-1", "receiver-2"):
        assert f"server {address[name]}:8000" in nginx
    assert "listen 10.0.0.5:443" in nginx
    assert environment["RECEIVER_TRUSTED_PROXIES"] == address["nginx"]
    assert address["prometheus"] in environment["RECEIVER_METRICS_ALLOW"]
    port = environment["RECEIVER_BIND"].rpartition(":")[2]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"receiver-1:{port}", f"receiver-2:{port}"]


def test_pods_are_restricted_and_refer_to_what_exists() -> None:
    generated = {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    secrets = {"receiver"}
    found = list(pods())
    assert len(found) == 5
    for pod in found:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in spec["volumes"]}
        claims = find("StatefulSet")["spec"]["volumeClaimTemplates"] if "terminationGracePeriodSeconds" in spec else []
        volumes |= {claim["metadata"]["name"] for claim in claims}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert not security["allowPrivilegeEscalation"]
            assert security["readOnlyRootFilesystem"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["image"] in images
            assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= generated
            assert {one["valueFrom"]["secretKeyRef"]["name"] for one in container.get("env", [])} <= secrets
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "command" in container or accepts(container["args"])


def test_each_pod_has_its_alarms_and_its_backup_beside_the_server() -> None:
    (beside,) = find("StatefulSet")["spec"]["template"]["spec"]["containers"][1:]
    *shell, loop = beside["command"]
    assert shell == ["sh", "-c"]
    assert subprocess.run(["bash", "-n", "-c", loop], check=False).returncode == 0
    assert commands_of(loop) == {"run alarms", "backup"}
    assert all(accepts(command.split()) for command in commands_of(loop))
    assert "/data" in {mount["mountPath"] for mount in beside["volumeMounts"]}


def loop_beside_the_server() -> str:
    """What the second container of the pods runs."""
    return str(find("StatefulSet")["spec"]["template"]["spec"]["containers"][1]["command"][-1])


@pytest.mark.parametrize(
    ("loop", "place"),
    [
        *((SERVICES[name]["command"][0].replace("$$", "$"), "/data/backups") for name in ("jobs", "jobs-2")),
        (loop_beside_the_server(), "/backups"),
    ],
    ids=["compose", "compose-2", "kubernetes"],
)
def test_spool_is_backed_up_once_a_day_however_often_the_loop_starts(loop: str, place: str, tmp_path: Path) -> None:
    backups, done = tmp_path / "backups", tmp_path / "done"
    backups.mkdir()
    doubles = {
        "date": f"cat {tmp_path}/today",
        "receiver": f'echo "$*" >>{done}; case $1 in backup) mkdir "{backups}/receiver-$(date)T020000Z" ;; esac',
        "sleep": f"echo minute >>{done}; [ $(grep -c minute {done}) -lt 130 ] || kill $PPID",
    }
    for name, text in doubles.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def run_on(day: str) -> list[str]:
        """What two hours of that day have `receiver` do."""
        (tmp_path / "today").write_text(day)
        done.unlink(missing_ok=True)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", loop.replace(place, str(backups))], env=environment, check=False, timeout=60)
        return done.read_text().splitlines()

    once = f"backup {backups} --keep 3"
    assert [run_on("20261129").count(once), run_on("20261129").count(once)] == [1, 0]
    assert run_on("20261130").count(once) == 1


def test_backups_of_the_spool_have_room_and_none_of_it_is_the_spools() -> None:
    stateful_set = find("StatefulSet")["spec"]
    server, beside = stateful_set["template"]["spec"]["containers"]
    (kept,) = re.findall(r"receiver backup /backups --keep (\d+)", beside["command"][-1])
    sizes = {
        claim["metadata"]["name"]: int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
        for claim in stateful_set["volumeClaimTemplates"]
    }
    spool = int(SETTINGS["spool_max_bytes"].default)
    assert sizes["backups"] > (int(kept) + 1) * spool
    assert sizes["data"] > spool
    assert {"name": "backups", "mountPath": "/backups"} in beside["volumeMounts"]
    assert "backups" not in {mount["name"] for mount in server["volumeMounts"]}


def test_dumps_of_kubernetes_are_made_by_the_script_that_the_database_is_backed_up_by() -> None:
    spec = find("CronJob", "receiver-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["bash", "/script/backup.sh", "--keep", "14", "/backups"]
    assert [one["name"] for one in container["env"]] == ["RECEIVER_DATABASE_URL"]
    generators = yaml.safe_load((DEPLOY / "postgresql/kustomization.yaml").read_text())["configMapGenerator"]
    assert {"name": "script", "configMap": {"name": generators[0]["name"]}} in spec["volumes"]
    assert {"name": "script", "mountPath": "/script", "readOnly": True} in container["volumeMounts"]
    assert generators[0]["files"] == ["backup.sh"]


def test_every_file_of_kubernetes_is_applied_or_named_as_a_choice() -> None:
    directory = DEPLOY / "kubernetes"
    files = {path.name for path in directory.iterdir()} - {"kustomization.yaml"}
    assert files == {*KUSTOMIZATION["resources"], *OPTIONAL}
    text = (directory / "kustomization.yaml").read_text()
    assert [name for name in OPTIONAL if name not in text] == []


def test_gateway_lets_in_what_the_ingress_does() -> None:
    ingress, gateway, route = find("Ingress", "receiver-push"), find("Gateway"), find("HTTPRoute", "receiver-push")
    assert gateway["apiVersion"] == route["apiVersion"] == "gateway.networking.k8s.io/v1"
    (listener,) = gateway["spec"]["listeners"]  # none for plain HTTP, which some controllers redirect
    (tls,) = ingress["spec"]["tls"]
    assert (listener["protocol"], listener["port"], [listener["hostname"]]) == ("HTTPS", 443, tls["hosts"])
    assert listener["tls"]["certificateRefs"] == [{"name": tls["secretName"]}]
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"], "sectionName": listener["name"]}]
    assert route["spec"]["hostnames"] == tls["hosts"]
    ((rule,), ((let_in),)) = route["spec"]["rules"], ingress["spec"]["rules"][0]["http"]["paths"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": let_in["path"]}}]
    (backend,) = rule["backendRefs"]
    ports = {port["port"] for port in find("Service", "receiver-push")["spec"]["ports"]}
    assert (backend["name"], backend["port"] in ports) == (let_in["backend"]["service"]["name"], True)


def test_monitored_pods_are_the_servers_and_of_the_job_that_the_alerts_ask_for() -> None:
    monitor, server = find("PodMonitor")["spec"], find("StatefulSet")["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= server["metadata"]["labels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in server["spec"]["containers"][0]["ports"]}
    assert endpoint["path"] == "/metrics"
    (job,) = {relabeling["replacement"] for relabeling in endpoint["relabelings"] if relabeling["targetLabel"] == "job"}
    assert f'up{{job="{job}"}}' in (DEPLOY / "prometheus/alerts.yml").read_text()


def test_services_probes_and_policies_meet_the_pods() -> None:
    server = find("StatefulSet")["spec"]
    labels = server["template"]["metadata"]["labels"]
    container = server["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    literals = dict(literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"])
    assert ports == {
        "push": int(literals["RECEIVER_BIND"].rpartition(":")[2]),
        "internal": int(literals["RECEIVER_INTERNAL_BIND"].rpartition(":")[2]),
    }
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "internal"}
    services = [one for one in MANIFESTS if one["kind"] == "Service"]
    assert {one["metadata"]["name"]: one["spec"]["ports"][0]["targetPort"] for one in services} == {
        "receiver-push": "push",
        "receiver-internal": "internal",
        server["serviceName"]: "internal",
    }
    selectors = [one["spec"]["selector"] for one in services]
    selectors += [find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], server["selector"]["matchLabels"]]
    selectors += [find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    for selector in selectors:
        assert selector.items() <= labels.items()
    backend = find("Ingress", "receiver-push")["spec"]["rules"][0]["http"]["paths"]
    assert [(path["path"], path["backend"]["service"]["name"]) for path in backend] == [("/push/", "receiver-push")]


@pytest.mark.parametrize("setting", ["RECEIVER_PUBLIC_URL", "RECEIVER_BIND", "RECEIVER_TRUSTED_PROXIES"])
def test_settings_of_both_are_such_that_receiver_takes_them(setting: str) -> None:
    literals = dict(literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"])
    parse = SETTINGS[setting.removeprefix("RECEIVER_").lower()].parse
    assert parse(literals[setting])
    if not SERVICES["receiver-1"]["environment"][setting].startswith("${"):
        assert parse(SERVICES["receiver-1"]["environment"][setting])
