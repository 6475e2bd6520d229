"""Renders the chart as users do and holds what comes of it against Kubernetes, against what the chart promises, and against
the real program; the same for compose.yaml. deploy/suites/kubernetes runs it.

usage: check.py HELM COMPOSE COUNTERSIGN NODE_DIRECTORY SCRATCH     from the top of the repository
"""

import functools
import hashlib
import json
import math
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib

import kubernetes_validate
import yaml

HELM, COMPOSE, COUNTERSIGN, NODE, SCRATCH = sys.argv[1:6]
HERE = pathlib.Path(__file__).parent
SCRATCH = pathlib.Path(SCRATCH)
CHART = "deploy/helm"
# The oldest that the chart says it knows, and the newest of which there are schemas.
VERSIONS = ("1.27", "1.37")
CASES = {"default": [], **{file.stem: ["--values", str(file)] for file in sorted(HERE.glob("values/*.yaml"))}}

# The package reads a megabyte for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

passed, failures = 0, []


def check(what, good, more=""):
    global passed
    if good:
        passed += 1
    else:
        failures.append(f"{what}{': ' if more else ''}{more}")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def render(*options):
    return run(HELM, "template", "approvals", CHART, "--namespace", "countersign", *options)


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def matches(selector, labels):
    return selector.items() <= labels.items()


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    return value


def merged(below, above):
    """As Helm merges values: maps by key, null takes away, everything else replaces."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = dict(below)
    for key, value in above.items():
        both[key] = merged(below.get(key), value)
    return without_nulls(both)


# --- one rendered chart -----------------------------------------------------------------------


def check_pod(name, values, workload):
    template = workload["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    context, inner = pod["securityContext"], container["securityContext"]
    check(f"{name}: no root", context["runAsNonRoot"] is True and context.get("runAsUser", 1) != 0)
    check(f"{name}: seccomp", context["seccompProfile"] == {"type": "RuntimeDefault"})
    check(
        f"{name}: container is hardened",
        inner == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    )
    check(f"{name}: no token of the service account", pod["automountServiceAccountToken"] is False)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    check(f"{name}: ports", ports == {"callbacks": 8080, "internal": 9090}, str(ports))
    probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    wanted = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    check(f"{name}: probes", probes == {probe: {"path": path, "port": "internal"} for probe, path in wanted.items()}, str(probes))
    config = values["config"]
    delay = config.get("shutdown_delay_ms", 5000 if values["ledger"]["kind"] == "postgresql" else 0)
    grace = math.ceil((delay + config.get("shutdown_grace_ms", 10000)) / 1000) + 15
    check(f"{name}: grace period", pod["terminationGracePeriodSeconds"] == grace, f"{pod['terminationGracePeriodSeconds']}, not {grace}")
    sources = [volume for volume in pod["volumes"] if volume["name"] == "secrets"][0]["projected"]["sources"]
    check(f"{name}: secrets", [source["secret"]["name"] for source in sources] == values["secrets"])
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    check(f"{name}: secrets are read-only", mounts["secrets"]["readOnly"] and mounts["config"]["readOnly"])
    check(f"{name}: a ledger's volume only with SQLite", ("ledger" in mounts) == (values["ledger"]["kind"] == "sqlite"))
    writable = {mount for mount in mounts if not mounts[mount].get("readOnly")}
    check(f"{name}: what can be written", writable == ({"ledger", "tmp"} if "ledger" in mounts else set()), str(writable))
    image = values["image"]
    wanted = f"@{image['digest']}" if image["digest"] else f":{image['tag'] or cargo_version()}"
    check(f"{name}: image", container["image"] == image["repository"] + wanted, container["image"])
    return template["metadata"]["labels"], ports


def check_objects(name, values, objects):
    postgresql = values["ledger"]["kind"] == "postgresql"
    kinds = sorted(one["kind"] for one in objects)
    wanted = ["ConfigMap", "Service", "Service", "ServiceAccount", "Deployment" if postgresql else "StatefulSet"]
    wanted += ["NetworkPolicy"] * values["networkPolicy"]["enabled"] + ["Ingress"] * values["ingress"]["enabled"]
    wanted += ["PodDisruptionBudget"] * (postgresql and values["replicas"] > 1 and values["podDisruptionBudget"]["enabled"])
    wanted += ["ServiceMonitor"] * values["serviceMonitor"]["enabled"] + ["PrometheusRule"] * values["prometheusRule"]["enabled"]
    wanted += ["ConfigMap"] * values["dashboards"]["enabled"]
    check(f"{name}: kinds", kinds == sorted(wanted), f"{kinds}, not {sorted(wanted)}")

    (workload,) = of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")
    labels, ports = check_pod(name, values, workload)
    spec = workload["spec"]
    check(f"{name}: the workload's pods", matches(spec["selector"]["matchLabels"], labels))
    if postgresql:
        check(f"{name}: replicas", spec["replicas"] == values["replicas"])
        check(f"{name}: exchanged one by one", spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0})
        spread = {one["topologyKey"] for one in spec["template"]["spec"]["topologySpreadConstraints"]}
        check(f"{name}: spread", spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"})
    else:
        check(f"{name}: one pod", spec["replicas"] == 1)
        check(f"{name}: the volume stays", set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"})
        check(f"{name}: governed by a service", spec["serviceName"] in {one["metadata"]["name"] for one in of_kind(objects, "Service")})

    services = {one["spec"]["ports"][0]["targetPort"]: one for one in of_kind(objects, "Service")}
    check(f"{name}: a service for each listener", services.keys() == ports.keys())
    for service in services.values():
        check(f"{name}: the service's pods", matches(service["spec"]["selector"], labels))
    for policy in of_kind(objects, "NetworkPolicy"):
        check(f"{name}: the policy's pods", matches(policy["spec"]["podSelector"]["matchLabels"], labels))
        rules = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"] or []}
        told = {"callbacks": values["networkPolicy"]["callbacksFrom"], "internal": values["networkPolicy"]["internalFrom"]}
        # A rule without `from` would let everybody in.
        check(f"{name}: who may come", rules == {port: peers for port, peers in told.items() if peers}, str(rules))
        check(f"{name}: ingress is limited", "Ingress" in policy["spec"]["policyTypes"])
    for budget in of_kind(objects, "PodDisruptionBudget"):
        check(f"{name}: the budget", budget["spec"]["minAvailable"] == 1 and matches(budget["spec"]["selector"]["matchLabels"], labels))
    for ingress in of_kind(objects, "Ingress"):
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        check(f"{name}: only callbacks are let in", path["path"] == "/callbacks/" and path["pathType"] == "Prefix")
        backend = path["backend"]["service"]
        check(f"{name}: the ingress' service", backend == {"name": services["callbacks"]["metadata"]["name"], "port": {"name": "callbacks"}})
    for monitor in of_kind(objects, "ServiceMonitor"):
        found = [port for port, service in services.items() if matches(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])]
        check(f"{name}: what is scraped", found == ["internal"], str(found))
        check(f"{name}: the job is the release", services["internal"]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "approvals")
        port = services["internal"]["spec"]["ports"][0]["name"]
        wanted = [{"port": port, "path": "/metrics", "interval": values["serviceMonitor"]["interval"]}]
        check(f"{name}: how it is scraped", monitor["spec"]["endpoints"] == wanted, str(monitor["spec"]))
    for rule in of_kind(objects, "PrometheusRule"):
        check(f"{name}: the alerts are those of deploy/alerts.yaml", rule["spec"] == yaml.safe_load(pathlib.Path("deploy/alerts.yaml").read_text()))
    for board in of_kind(objects, "ConfigMap"):
        for file, text in board["data"].items():
            if file.endswith(".json"):
                made = pathlib.Path("deploy/dashboards", file.removeprefix("countersign-")).read_text()
                check(f"{name}: {file} is that of deploy/dashboards", json.loads(text) == json.loads(made))


# Files with what each key of the values may name, for `config check` reads them.
FAKES = {"amqp-url": "amqps://countersign:fake-of-a-test@rabbit/%2f", "ledger-url": "postgres://c:fake-of-a-test@db/c?sslmode=verify-full"}
FAKES["amqp-urls"] = FAKES["amqp-url"].replace("rabbit", "rabbit-0") + "\n" + FAKES["amqp-url"].replace("rabbit", "rabbit-1") + "\n"


def check_configuration(name, values, objects):
    text = next(one["data"]["countersign.toml"] for one in of_kind(objects, "ConfigMap") if "countersign.toml" in one["data"])
    wanted = without_nulls(values["config"])
    wanted.setdefault("http", {})["listen"] = "0.0.0.0:8080"
    wanted.setdefault("admin", {})["listen"] = "0.0.0.0:9090"
    if values["ledger"]["kind"] == "sqlite":
        wanted.setdefault("ledger", {})["url"] = "sqlite:/var/lib/countersign/countersign.db"
    else:
        wanted.setdefault("shutdown_delay_ms", 5000)
    read = tomllib.loads(text)
    check(f"{name}: countersign.toml says what the values say", read == wanted, text)

    # Where a pod has its Secrets there is a directory of ours.
    directory = SCRATCH / name
    (directory / "secrets").mkdir(parents=True)
    certificate = (SCRATCH / "ca.pem").read_text()
    key = run(COUNTERSIGN, "keygen", "--signing", "ed25519", "--json")
    signing = json.loads(key.stdout)["secret"]
    for file in set(re.findall(r"/run/secrets/countersign/([a-z.-]+)", text)) | {"admin-token"}:
        fake = FAKES.get(file) or {"ca.pem": certificate, "signing-key": signing}.get(file) or f"fake-{file}-" + hashlib.sha256(file.encode()).hexdigest()
        (directory / "secrets" / file).write_text(fake)
        (directory / "secrets" / file).chmod(0o440)
    local = text.replace("/run/secrets/countersign", str(directory / "secrets")).replace("/var/lib/countersign", str(directory))
    (directory / "countersign.toml").write_text(local)
    said = run(COUNTERSIGN, "config", "check", "--config", str(directory / "countersign.toml"))
    # The internal listener is open to the cluster, and a NetworkPolicy says to whom. `leave` is made to be open.
    warnings = [line for line in said.stderr.splitlines() if ": admin.listen: " not in line and ": endpoints[1]." not in line]
    check(f"{name}: countersign config check", said.returncode == 0 and not warnings, said.stdout + said.stderr)


@functools.cache
def cargo_version():
    return tomllib.loads(pathlib.Path("Cargo.toml").read_text())["package"]["version"]


def check_chart():
    defaults = yaml.safe_load(pathlib.Path(CHART, "values.yaml").read_text())
    chart = yaml.safe_load(pathlib.Path(CHART, "Chart.yaml").read_text())
    check("appVersion is the program's", chart["appVersion"] == cargo_version())
    check("kubeVersion is the oldest that is tried", chart["kubeVersion"] == f">={VERSIONS[0]}.0-0")
    seen, operator = set(), []
    for name, options in CASES.items():
        linted = run(HELM, "lint", CHART, "--strict", *options)
        check(f"{name}: helm lint", linted.returncode == 0, linted.stdout + linted.stderr)
        rendered = render(*options)
        check(f"{name}: helm template", rendered.returncode == 0, rendered.stderr)
        if rendered.returncode != 0:
            continue
        objects = [one for one in yaml.safe_load_all(rendered.stdout) if one]
        values = defaults
        for file in options[1::2]:
            values = merged(values, yaml.safe_load(pathlib.Path(file).read_text()))
        check_objects(name, values, objects)
        check_configuration(name, values, objects)
        for one in objects:
            text = json.dumps(one, sort_keys=True)
            if text in seen:
                continue
            seen.add(text)
            if one["apiVersion"].startswith("monitoring.coreos.com/"):
                operator.append(one)
                continue
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                    wrong = ""
                except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                    wrong = error.message
                check(f"{name}: {one['kind']} by the schema of Kubernetes {version}", not wrong, wrong)
    for object_ in operator:
        told = run("node", f"{NODE}/operator.mjs", input=json.dumps([object_]))
        check(f"{object_['kind']} by the schema of the Prometheus Operator", told.returncode == 0, told.stdout + told.stderr)

    packed = run(HELM, "package", CHART, "--destination", str(SCRATCH))
    (archive,) = SCRATCH.glob("countersign-*.tgz") if packed.returncode == 0 else (None,)
    check("helm package", packed.returncode == 0, packed.stderr)
    if archive:
        names = {name.removeprefix("countersign/") for name in tarfile.open(archive).getnames()}
        wanted = {"files/alerts.yaml", "files/dashboards/operator.json", "files/dashboards/capacity.json"}
        check("the package has what is linked, and no more", wanted == {name for name in names if name.startswith("files/")}, str(names))
        same = run(HELM, "template", "approvals", str(archive), "--namespace", "countersign", *CASES["sqlite"])
        check("the package renders as the directory does", same.stdout == render(*CASES["sqlite"]).stdout, same.stderr)

    cases = yaml.safe_load((HERE / "refused.yaml").read_text())
    # A public key is marked there, too: it may be a file as well.
    secrets = secret_keys(pathlib.Path("src/config/default.toml").read_text()) - {"public_key"}
    refused = {case["at"].split("/")[-1] for case in cases if "at" in case}
    check("secrets of src/config/default.toml are found", {"token", "urls", "app_secret", "action_callback_key"} <= secrets, str(secrets))
    check("each secret of src/config/default.toml is refused in the values", secrets <= refused, str(secrets - refused))
    for case in cases:
        told = render(*(f"--set={one}" for one in case["set"]))
        # Helm 4 says /config/admin/token, and Helm 3 config.admin.token.
        at = case.get("at", "/")
        named = f"'{at}'" in told.stderr or at[1:].replace("/", ".") in told.stderr
        good = told.returncode != 0 and named and case.get("says", "") in told.stderr
        check(f"refused: {case['set']}", good, told.stderr[-500:])

    check_documented("", defaults, json.loads(pathlib.Path(CHART, "values.schema.json").read_text()))


# --- compose.yaml -----------------------------------------------------------------------------


def check_compose():
    compose = yaml.safe_load(pathlib.Path("deploy/compose.yaml").read_text())
    asked = set(re.findall(r"\$\{([A-Z_]+)", json.dumps(compose)))
    fakes = {name: "fake-value-of-a-test" for name in asked}
    said = run(COMPOSE, "-f", "deploy/compose.yaml", "config", "--quiet", env=fakes)
    check("docker compose config", said.returncode == 0 and not said.stderr, said.stderr)
    for name in asked:
        said = run(COMPOSE, "-f", "deploy/compose.yaml", "config", "--quiet", env={other: fakes[other] for other in asked - {name}})
        check(f"docker compose asks for {name}", said.returncode != 0 and name in said.stderr, said.stderr)

    services, mounted = compose["services"], {}
    check("compose.yaml has four services", services.keys() == {"countersign", "rabbitmq", "prometheus", "grafana"})
    for name, service in services.items():
        for mount in service["volumes"]:
            source, target = mount.split(":")[:2]
            if source.startswith("./"):
                mounted[target] = pathlib.Path("deploy", source)
                check(f"compose.yaml: {source} is there", mounted[target].is_file())
            else:
                check(f"compose.yaml: {source} is a volume", source in compose["volumes"])
        opened = [port for port in service["ports"] if not port.startswith("127.0.0.1:")]
        check(f"compose.yaml: what others reach of {name}", opened == (["8080:8080"] if name == "countersign" else []), str(opened))

    # The steps of the documents make each variable that is asked for.
    for page in ("docs/install.md", "docs/zh-CN/install.md"):
        (made,) = re.findall(r"for name in ([A-Z_ ]+); do", pathlib.Path(page).read_text())
        check(f"{page} makes what compose.yaml asks for", set(made.split()) == asked, f"{made} and {asked}")

    given = {name: text.split("${")[0] + "fake-value-of-a-test" + text.split("}")[-1] for name, text in services["countersign"]["environment"].items()}
    file = mounted["/etc/countersign/countersign.toml"]
    said = run(COUNTERSIGN, "config", "check", "--config", str(file), env=given)
    # It speaks to the broker within a network of its own, and the directory is in the container.
    warnings = [line for line in said.stderr.splitlines() if ": admin.listen: " not in line and not re.search(": (amqp|ledger).url: ", line)]
    check("compose.yaml: countersign config check", said.returncode == 0 and not warnings, said.stdout + said.stderr)

    local = SCRATCH / "prometheus.yml"
    text = mounted["/etc/prometheus/prometheus.yml"].read_text()
    local.write_text(text.replace("/etc/prometheus/alerts.yaml", str(mounted["/etc/prometheus/alerts.yaml"].resolve())))
    said = run("promtool", "check", "config", str(local))
    check("compose.yaml: promtool check config", said.returncode == 0, said.stdout + said.stderr)
    (target,) = yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"]
    check("compose.yaml: Prometheus scrapes the internal listener", target == "countersign:9090" and "127.0.0.1:9090:9090" in services["countersign"]["ports"])

    (source,) = yaml.safe_load(mounted["/etc/grafana/provisioning/datasources/countersign.yaml"].read_text())["datasources"]
    check("compose.yaml: Grafana asks that Prometheus", source["url"] == "http://prometheus:9090" and source["type"] == "prometheus")
    (provider,) = yaml.safe_load(mounted["/etc/grafana/provisioning/dashboards/countersign.yaml"].read_text())["providers"]
    boards = {target for target in mounted if target.endswith(".json")}
    check("compose.yaml: Grafana has both dashboards", boards == {f"{provider['options']['path']}/{name}.json" for name in ("operator", "capacity")})
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    check("compose.yaml: Grafana opens one of them first", home in boards)


def secret_keys(reference):
    """The names of keys whose comment begins with [secret]."""
    found, marked = set(), False
    for line in reference.splitlines():
        text = line.lstrip("# ")
        key = re.match(r"(\w+) = ", text)
        if text.startswith("[secret]"):
            marked = True
        elif key and marked:
            found.add(key[1])
            marked = False
    return found


def check_documented(path, values, schema):
    """Every value has a description, but for what is below free-form ones."""
    for key, value in values.items():
        known = schema.get("properties", {}).get(key)
        if known is None:
            # Of countersign.toml it knows what the chart has to know; the program refuses the rest.
            free = "properties" not in schema or path.startswith("config.")
            check(f"values.schema.json knows {path}{key}", free)
            continue
        check(f"values.schema.json describes {path}{key}", bool(known.get("description")))
        if isinstance(value, dict):
            check_documented(f"{path}{key}.", value, known)


if __name__ == "__main__":
    check_chart()
    check_compose()
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)
