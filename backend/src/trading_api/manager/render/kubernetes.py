"""Kubernetes: a kustomize base with everything one cluster needs to run the modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from trading_api.manager.render.compose import (
    CONTAINER_PORT,
    IMAGE,
    container_peers,
    serve_command,
    servers_of,
)
from trading_api.runtime.topology import ModuleRoutes, ProcessSpec, Topology

_HEAD = "# Rendered by `trading-api render` from {source}. Change the config, not this file.\n"
# Readiness fails first, so that the endpoints forget a pod before it stops answering.
_PRE_STOP_SECONDS = 5
_GRACE_SECONDS = 30
_REPLICAS_MAX = 6


class KubernetesRenderer:
    """Render `kustomization.yaml` and the resources it names."""

    name = "kubernetes"

    def __init__(self, *, source: str) -> None:
        self._source = source

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return one file per server, and those that all share."""
        files: dict[str, list[dict[str, Any]]] = {
            "config.yaml": [_config_map(topology)],
            "migrate.yaml": [_migrate_job()],
            "network.yaml": [_network_policy()],
            "ingress.yaml": [_ingress(topology)],
        }
        for process in servers_of(topology):
            replicas = len(topology.processes_of(process.modules[0]))
            files[f"{process.server}.yaml"] = [
                _deployment(process, replicas),
                _service(process),
                *_scaling(process, replicas),
            ]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "trading",
            "labels": [
                {"pairs": {"app.kubernetes.io/part-of": "trading"}, "includeTemplates": True}
            ],
            "resources": sorted(files),
        }
        documents = {"kustomization.yaml": [kustomization], **files}
        return {name: self._dump(items) for name, items in documents.items()}

    def _dump(self, items: list[dict[str, Any]]) -> str:
        head = _HEAD.format(source=self._source)
        return head + "---\n".join(yaml.safe_dump(item, sort_keys=False) for item in items)


def _labels(process: ProcessSpec) -> dict[str, str]:
    return {"app.kubernetes.io/name": f"trading-{process.server}"}


def _config_map(topology: Topology) -> dict[str, Any]:
    host_of = {process.server: f"trading-{process.server}" for process in servers_of(topology)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "trading"},
        "data": {
            "ENVIRONMENT": topology.environment,
            "TRADING_CONFIG": "/app/deploy/production.yaml",
            "TRADING_LOCAL_DIR": "/var/lib/trading",
            "FORWARDED_ALLOW_IPS": "*",
            "PEERS": container_peers(topology, host_of=host_of),
        },
    }


def _pod(name: str, command: list[str]) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": name,
                "image": IMAGE,
                "command": command,
                # DATABASE_URL, REDIS_URL and SECRET_KEY come from the secret of the same name.
                "envFrom": [
                    {"configMapRef": {"name": "trading"}},
                    {"secretRef": {"name": "trading"}},
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {
                    "requests": {"cpu": "100m", "memory": "192Mi"},
                    "limits": {"memory": "512Mi"},
                },
                "volumeMounts": [
                    {"name": "state", "mountPath": "/var/lib/trading"},
                    {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - in the container
                    {
                        "name": "keys",
                        "mountPath": "/var/lib/trading/secrets",
                        "readOnly": True,
                    },
                ],
            }
        ],
        "volumes": [
            {"name": "state", "emptyDir": {}},
            {"name": "temporary", "emptyDir": {}},
            {"name": "keys", "secret": {"secretName": "trading-keys", "defaultMode": 0o400}},
        ],
    }


def _deployment(process: ProcessSpec, replicas: int) -> dict[str, Any]:
    pod = _pod(process.server, serve_command(process))
    pod["containers"][0] |= {
        "ports": [{"name": "http", "containerPort": CONTAINER_PORT}],
        "startupProbe": _probe("/livez", period=2, failures=30),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_PRE_STOP_SECONDS)]}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"trading-{process.server}", "labels": _labels(process)},
        "spec": {
            "replicas": replicas,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "selector": {"matchLabels": _labels(process)},
            "template": {"metadata": {"labels": _labels(process)}, "spec": pod},
        },
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _service(process: ProcessSpec) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"trading-{process.server}", "labels": _labels(process)},
        "spec": {
            "selector": _labels(process),
            "ports": [{"name": "http", "port": CONTAINER_PORT, "targetPort": "http"}],
        },
    }


def _scaling(process: ProcessSpec, replicas: int) -> list[dict[str, Any]]:
    name = f"trading-{process.server}"
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(process)}},
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": replicas,
                "maxReplicas": max(replicas, _REPLICAS_MAX),
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 70},
                        },
                    }
                ],
            },
        },
    ]


def _migrate_job() -> dict[str, Any]:
    pod = _pod("migrate", ["trading-api", "migrate"])
    pod["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "trading-migrate"},
        "spec": {"backoffLimit": 3, "template": {"spec": pod}},
    }


def _network_policy() -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "trading-modules"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "trading"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "trading"}}},
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}
                            }
                        },
                    ],
                    "ports": [{"protocol": "TCP", "port": CONTAINER_PORT}],
                }
            ],
        },
    }


def _ingress(topology: Topology) -> dict[str, Any]:
    server_of = {module: topology.processes_of(module)[0].server for module in topology.modules}
    paths = [
        _ingress_path(prefix, server_of[route.name])
        for route in topology.routes
        for prefix in route.prefixes
    ]
    paths += _shared_paths(topology.routes, server_of, topology.config.api_base_url)
    hosts = topology.config.nginx.server_names
    rules: list[dict[str, Any]] = [{"host": host, "http": {"paths": paths}} for host in hosts] or [
        {"http": {"paths": paths}}
    ]
    spec: dict[str, Any] = {"ingressClassName": "nginx", "rules": rules}
    if hosts:
        spec["tls"] = [{"hosts": list(hosts), "secretName": "trading-tls"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "trading",
            "annotations": {
                "nginx.ingress.kubernetes.io/proxy-body-size": (
                    f"{topology.config.nginx.limits.body_kib}k"
                ),
                "nginx.ingress.kubernetes.io/proxy-read-timeout": "75",
            },
        },
        "spec": spec,
    }


def _shared_paths(
    routes: tuple[ModuleRoutes, ...], server_of: Mapping[str, str], api_base_url: str
) -> list[dict[str, Any]]:
    paths = []
    if any(route.name == "datafeed" and route.websocket_paths for route in routes):
        paths.append(_ingress_path(f"{api_base_url}/ws", server_of["datafeed"]))
    if "gateway" in server_of:
        public = ("/", "/health", "/docs", "/redoc", "/openapi.json", "/asyncapi.json")
        paths += [
            _ingress_path(path, server_of["gateway"], kind="Exact" if path == "/" else "Prefix")
            for path in (*public, api_base_url)
        ]
    return paths


def _ingress_path(path: str, server: str, *, kind: str = "Prefix") -> dict[str, Any]:
    backend = {"service": {"name": f"trading-{server}", "port": {"name": "http"}}}
    return {"path": path, "pathType": kind, "backend": backend}
