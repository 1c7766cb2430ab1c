"""The examples of ``examples/deploy`` pass the schemas of Compose and Kubernetes, and fit together."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from wherefrom import Settings
from wherefrom.settings import PREFIX, setting_rows
from wherefrom.stores import open_store

from .documents import ROOT

FOLDER = ROOT / "examples" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OBJECTS: list[dict[str, Any]] = [
    each
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
]
VERSIONS = ("1.28", kubernetes_validate.latest_version())
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|HASH_KEY)$")
SETTINGS = {row.variable for row in setting_rows()}


def name(each: Mapping[str, Any]) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def pod_of(each: Mapping[str, Any]) -> dict[str, Any] | None:
    """The template of the pods that an object makes."""
    spec = each.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template if isinstance(template, dict) else None


def containers() -> Iterator[dict[str, Any]]:
    for each in OBJECTS:
        if (pod := pod_of(each)) is not None:
            yield from pod["spec"]["containers"]


def check_settings(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable of ours is a setting, and the values are accepted together."""
    ours = {key: value for key, value in variables.items() if key.startswith(PREFIX)}
    assert ours.keys() <= SETTINGS
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    open_store(Settings().store).close()


def check_command(words: list[str]) -> None:
    """The command line takes the words, up to ``--help``."""
    assert words[0] == "wherefrom"
    command = [sys.executable, "-m", *words, "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0, words


def test_the_compose_file_has_the_form_of_the_specification() -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)
    jsonschema.validate(COMPOSE, schema)
    assert list(validator(schema).iter_errors({**COMPOSE, "services": {"app": {"imagee": "x"}}}))


def test_the_services_of_compose_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they depend on, mount and read is there; who is waited for to be healthy has a check."""
    for each, service in SERVICES.items():
        for other, rule in service.get("depends_on", {}).items():
            checked = SERVICES[other].get("healthcheck")
            assert rule["condition"] != "service_healthy" or checked
        assert set(service["secrets"]) <= COMPOSE["secrets"].keys()
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        assert "healthcheck" in service or service["restart"] == "no", each
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        check_settings(service["environment"], monkeypatch)
        command = service.get("command", [])
        if command:
            check_command(command)
        script = " ".join(service.get("entrypoint", ()))
        read = set(re.findall(r"/run/secrets/(\w+)", script + str(service["environment"])))
        assert set(service["secrets"]) <= read
    build = COMPOSE["x-traced"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).is_file()


def test_the_image_is_made_of_what_is_there() -> None:
    """Each file that is copied exists, and so does each extra that is installed."""
    text = (FOLDER / "Dockerfile").read_text()
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in copied.split())
    (extras,) = re.findall(r"/src\[([\w,]+)\]", text)
    known = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", known, re.MULTILINE) for extra in extras.split(","))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("each", OBJECTS, ids=name)
def test_kubernetes_takes_each_object(each: dict[str, Any], version: str) -> None:
    """No field is unknown, and none has another type."""
    kubernetes_validate.validate(each, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**each, "specc": {}}, version, strict=True)


def test_the_objects_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selectors select, ports have names, and variables come from what exists."""
    maps = {each["metadata"]["name"]: each["data"] for each in OBJECTS if each["kind"] == "ConfigMap"}
    pods = {name(each): pod for each in OBJECTS if (pod := pod_of(each)) is not None}
    assert {each.partition(" ")[0] for each in pods} == {"Deployment", "CronJob"}
    for each in OBJECTS:
        if each["kind"] == "Deployment":
            wanted = each["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= pods[name(each)]["metadata"]["labels"].items()
        if each["kind"] == "Service":
            wanted = each["spec"]["selector"]
            (pod,) = [p for p in pods.values() if wanted.items() <= p["metadata"]["labels"].items()]
            ports = {port["name"] for one in pod["spec"]["containers"] for port in one["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    told = (FOLDER / "kubernetes" / "settings.yaml").read_text()
    for container in containers():
        (source,) = container["envFrom"]
        check_settings(maps[source["configMapRef"]["name"]], monkeypatch)
        for variable in container["env"]:
            if (reference := variable.get("valueFrom", {}).get("secretKeyRef")) is not None:
                assert reference["name"] == "wherefrom"
                assert f"--from-literal={reference['key']}=" in told
        words = container.get("command", [])
        lines = words[-1].split("; ") if words[:1] == ["sh"] else [" ".join(words)] * bool(words)
        for line in lines:
            check_command(line.split())


def test_no_secret_is_in_a_file() -> None:
    """Passwords and tokens come from files of Compose, and from a Secret of Kubernetes."""
    for service in SERVICES.values():
        assert not [key for key in service["environment"] if SECRET.search(key)]
        assert not re.search(r"://[^/@]*:", service["environment"].get("WHEREFROM_STORE", ""))
    assert all("file" in secret for secret in COMPOSE["secrets"].values())
    for container in containers():
        assert not [each for each in container["env"] if SECRET.search(each["name"]) and "value" in each]
    assert not [each for each in OBJECTS if each["kind"] == "Secret"]
