"""The one description of the fleet: a deployment config joined with the modules' manifests.

What lives here: the typed shape of the config file, the list of everything that is wrong with it,
and `Topology`, from which nginx, the supervisor, docker-compose, systemd, Kubernetes and the
manager are all rendered. What does not: starting anything, and knowing any module's code: the
manifests are handed in.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trading_api.runtime.settings import ConfigurationError

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_API_BASE_URL = re.compile(r"(?:/[a-z0-9][a-z0-9_-]*)+/v[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Mistake:
    """Describe one thing that is wrong, and where: `servers.broker.instances: must be ≥ 1`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class DeploymentConfigError(ConfigurationError):
    """Carry every mistake of a configuration file at once; never the value of a secret."""

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        super().__init__([str(mistake) for mistake in mistakes])
        self.source = source

    def __str__(self) -> str:
        count = len(self.mistakes)
        headline = f"{self.source}: {count} mistake{'' if count == 1 else 's'}"
        return "\n".join([headline, *(f"  {mistake}" for mistake in self.mistakes)])


# --- the config file ---------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_S = TypeVar("_S", bound=_Section)


class NginxLimits(_Section):
    """Bound what one client may ask of nginx; wide in development, strict in production."""

    body_kib: int = Field(64, ge=1, le=1_048_576, description="request body, KiB")
    import_body_mib: int = Field(64, ge=1, le=4096, description="body of an upload route, MiB")
    header_timeout_seconds: int = Field(10, ge=1, le=600)
    body_timeout_seconds: int = Field(10, ge=1, le=600)
    send_timeout_seconds: int = Field(10, ge=1, le=600)
    keepalive_timeout_seconds: int = Field(30, ge=0, le=3600)
    requests_per_second: int = Field(20, ge=1, le=1_000_000, description="per client address")
    request_burst: int = Field(40, ge=0, le=1_000_000)
    login_requests_per_minute: int = Field(5, ge=1, le=1_000_000, description="per client address")
    login_burst: int = Field(5, ge=0, le=1_000_000)
    connections_per_client: int = Field(50, ge=1, le=65_535)  # nginx counts in 16 bits


class NginxTls(_Section):
    """Name the certificate and key that nginx serves; both are paths on its own host."""

    certificate: str = Field(min_length=1)
    certificate_key: str = Field(min_length=1)


class NginxConfig(_Section):
    """Say how the one public door listens."""

    host: str = Field("127.0.0.1", min_length=1, description="address that nginx listens on")
    port: int = Field(8000, ge=1, le=65535)
    server_names: tuple[str, ...] = Field(
        (), description="host names answered; empty: any. Others get 421"
    )
    tls: NginxTls | None = None
    worker_processes: int | Literal["auto"] = "auto"
    worker_connections: int = Field(1024, ge=32, le=1_048_576)
    limits: NginxLimits = NginxLimits()

    @field_validator("worker_processes")
    @classmethod
    def _ensure_workers(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 512:
            raise ValueError("must be 'auto' or between 1 and 512")
        return value

    @field_validator("host")
    @classmethod
    def _ensure_host(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9.:\[\]*-]+", value):
            raise ValueError("must be an address to listen on, such as 127.0.0.1 or 0.0.0.0")
        return value

    @field_validator("server_names")
    @classmethod
    def _ensure_server_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9.*:\[\]-]+", name):
                raise ValueError(f"{name!r} is not a host name")
        return value


class ServerConfig(_Section):
    """Describe one server: the modules one process serves, and how many such processes run."""

    modules: tuple[str, ...] = Field(min_length=1)
    instances: int = Field(1, ge=1, le=256)
    workers: int = Field(1, ge=1, le=64, description="gunicorn workers per instance")
    port: int | None = Field(
        None, ge=1, le=65535, description="TCP on loopback, instance i at port + i; unset: a socket"
    )
    reload: bool = False
    env: dict[str, str] = Field(default_factory=dict)

    @field_validator("env", mode="before")
    @classmethod
    def _ensure_env(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(key): _environment_text(item) for key, item in value.items()}

    @field_validator("env")
    @classmethod
    def _ensure_env_names(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not _ENVIRONMENT_NAME.fullmatch(key):
                raise ValueError(f"{key!r} can't be the name of an environment variable")
            if "\0" in text or "\n" in text:
                raise ValueError(f"{key} holds a line break or NUL")
        return value

    @model_validator(mode="after")
    def _ensure_consistent(self) -> ServerConfig:
        if len(set(self.modules)) != len(self.modules):
            raise ValueError("names a module twice")
        if self.reload and (self.workers > 1 or self.instances > 1):
            raise ValueError("reload needs one instance and one worker")
        if self.port is not None and self.port + self.instances - 1 > 65535:
            raise ValueError("port + instances goes past 65535")
        return self


class WebSocketConfig(_Section):
    """Say how a client names the module of the socket it opens."""

    routing_strategy: Literal["path", "query_param"] = "path"
    query_param_name: str = Field("type", pattern=r"^[a-z][a-z0-9_]{0,31}$")


class DeploymentConfig(_Section):
    """The whole config file, each section valid on its own."""

    api_base_url: str = "/api/v1"
    nginx: NginxConfig = NginxConfig()
    servers: dict[str, ServerConfig]
    websocket: WebSocketConfig = WebSocketConfig()


def load_config(path: Path, *, environ: Mapping[str, str]) -> DeploymentConfig:
    """Read and check a config file; `BACKEND_PORT` in `environ` overrides `nginx.port`.

    Raises:
        DeploymentConfigError: the file is missing, unreadable, not YAML or wrong; every mistake of
            every section is listed with its path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DeploymentConfigError(str(path), [Mistake("", "no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentConfigError(str(path), [Mistake("", f"can't be read: {error}")]) from error
    return parse_config(text, source=str(path), environ=environ)


def parse_config(text: str, *, source: str, environ: Mapping[str, str]) -> DeploymentConfig:
    """Check the text of a config file.

    Raises:
        DeploymentConfigError: with every mistake found.
    """
    try:
        # A SafeLoader that only adds the refusal of keys written twice.
        raw = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise DeploymentConfigError(source, [Mistake("", _yaml_problem(error))]) from error
    if not isinstance(raw, dict):
        message = "is empty" if raw is None else "must be a mapping of sections"
        raise DeploymentConfigError(source, [Mistake("", message)])

    known = DeploymentConfig.model_fields
    mistakes = [
        Mistake(str(key), "unknown section" + _did_you_mean(str(key), known))
        for key in raw
        if key not in known
    ]

    base_url = raw.get("api_base_url", "/api/v1")
    if not isinstance(base_url, str) or not _API_BASE_URL.fullmatch(base_url):
        mistakes.append(Mistake("api_base_url", "must look like /api/v1"))

    nginx_raw = raw.get("nginx") if raw.get("nginx") is not None else {}
    if "BACKEND_PORT" in environ and isinstance(nginx_raw, dict):
        port_text = environ["BACKEND_PORT"]
        if port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65535:
            nginx_raw = {**nginx_raw, "port": int(port_text)}
        else:
            mistakes.append(Mistake("BACKEND_PORT", "must be a port number between 1 and 65535"))
    nginx = _parse_section(NginxConfig, nginx_raw, "nginx", mistakes)
    websocket_raw = raw.get("websocket") if raw.get("websocket") is not None else {}
    websocket = _parse_section(WebSocketConfig, websocket_raw, "websocket", mistakes)
    servers = _parse_servers(raw.get("servers"), mistakes)
    mistakes += _find_port_clashes(nginx, servers)
    if mistakes:
        raise DeploymentConfigError(source, mistakes)
    assert nginx is not None
    assert websocket is not None
    return DeploymentConfig(
        api_base_url=base_url, nginx=nginx, servers=servers, websocket=websocket
    )


# --- the joined topology -----------------------------------------------------------------------


class _ManifestVersion(Protocol):
    @property
    def name(self) -> str:
        """Return the module's own name, kebab-case."""
        ...


class ManifestLike(Protocol):
    """What the topology needs to know of a module; `runtime.module.Manifest` satisfies it."""

    @property
    def name(self) -> str:
        """Return the module's own name, kebab-case."""
        ...

    @property
    def versions(self) -> Sequence[_ManifestVersion]:
        """Return the API versions it answers."""
        ...

    @property
    def url_prefixes(self) -> Sequence[str]:
        """Return paths beside its own that it answers."""
        ...

    @property
    def has_websocket(self) -> bool:
        """Say whether it opens WebSockets."""
        ...

    @property
    def needs_database(self) -> bool:
        """Say whether it keeps tables."""
        ...


@dataclass(frozen=True, slots=True)
class LocalPaths:
    """The folders one fleet lives in; two fleets with different roots don't touch each other."""

    run: Path
    log: Path
    data: Path
    secrets: Path

    @staticmethod
    def under(root: Path) -> LocalPaths:
        """Name the four folders below `root`, without creating them."""
        return LocalPaths(root / "run", root / "log", root / "data", root / "secrets")


def local_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of the fleet's state: `TRADING_LOCAL_DIR`, else `backend/.local`.

    An installed package has no `backend/` around it and uses the working folder instead.
    """
    if environ.get("TRADING_LOCAL_DIR"):
        return Path(environ["TRADING_LOCAL_DIR"]).expanduser().absolute()
    backend = Path(__file__).resolve().parents[3]
    if (backend / "pyproject.toml").is_file():
        return backend / ".local"
    return Path.cwd() / ".local"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a unix socket, or a host and TCP port."""

    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int | None = None

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket is not None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the fleet, in one generation.

    `env` holds only what this process gets beside the environment that its supervisor has.
    """

    name: str
    server: str
    index: int
    generation: int
    modules: tuple[str, ...]
    address: Address
    workers: int
    reload: bool
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """Return the supervisor's name of it, `broker_0_g1`; a generation is never reused."""
        return f"{self.name}_g{self.generation}"


@dataclass(frozen=True, slots=True)
class ModuleRoutes:
    """What of a module is reachable from outside, and whether it keeps tables."""

    name: str
    prefixes: tuple[str, ...]
    websocket_paths: tuple[str, ...]
    has_database: bool


@dataclass(frozen=True, slots=True)
class Topology:
    """The fleet: config, processes and routes, all derived from the same two sources."""

    config: DeploymentConfig
    paths: LocalPaths
    processes: tuple[ProcessSpec, ...]
    routes: tuple[ModuleRoutes, ...]
    environment: str

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the names of all modules that run, in the order of their servers."""
        return tuple(route.name for route in self.routes)

    def processes_of(self, module: str) -> tuple[ProcessSpec, ...]:
        """Return the processes that serve `module`; empty where it doesn't run."""
        return tuple(process for process in self.processes if module in process.modules)

    @property
    def websocket_modules(self) -> tuple[str, ...]:
        """Return the names of the modules that open WebSockets."""
        return tuple(route.name for route in self.routes if route.websocket_paths)

    def peers(self) -> dict[str, list[str]]:
        """Return where other processes reach each module: socket paths, or `http://host:port`."""
        return {
            module: [
                f"http://{process.address}"
                if process.address.socket is None
                else str(process.address.socket)
                for process in self.processes_of(module)
            ]
            for module in self.modules
        }

    def declared_peers(self) -> str:
        """Return the same as `PEERS` reads it, for processes without the manager's file."""
        return ",".join(
            f"{module}={address}"
            for module, addresses in self.peers().items()
            for address in addresses
        )

    def with_generation(self, generations: Mapping[str, int]) -> Topology:
        """Return the same fleet with some processes (by name) in another generation."""
        return replace(
            self,
            processes=tuple(
                _in_generation(process, generations.get(process.name, process.generation), self)
                for process in self.processes
            ),
        )


def build_topology(
    config: DeploymentConfig,
    manifests: Sequence[ManifestLike],
    *,
    paths: LocalPaths,
    environ: Mapping[str, str],
    dotenv: Mapping[str, str] | None = None,
    known: Sequence[str] | None = None,
    source: str = "config",
) -> Topology:
    """Join a config with the manifests of the modules that are to run.

    Args:
        config: the checked config.
        manifests: of the enabled modules; each must be named by exactly one server.
        paths: folders of the fleet.
        environ: the process environment; it wins over `servers.<name>.env`.
        dotenv: what `.env` says; `servers.<name>.env` wins over it.
        known: names of all modules there are; a server may name one that isn't enabled, which is
            then left out. None: the manifests are all there is.
        source: named in the error.

    Raises:
        DeploymentConfigError: unknown, doubly served or unserved modules; several processes of a
            module on SQLite.
    """
    outer = {**(dotenv or {}), **environ}
    by_name = {manifest.name: manifest for manifest in manifests}
    known_names = tuple(known) if known is not None else tuple(by_name)
    mistakes: list[Mistake] = []
    served_by: dict[str, list[str]] = defaultdict(list)
    for server_name, server in config.servers.items():
        for position, module in enumerate(server.modules):
            served_by[module].append(server_name)
            if module not in known_names and module not in by_name:
                hint = _did_you_mean(module, known_names) or _known_list(known_names)
                path = f"servers.{server_name}.modules.{position}"
                mistakes.append(Mistake(path, f"unknown module {module!r}{hint}"))
    for module, servers in served_by.items():
        if len(servers) > 1:
            listed = ", ".join(servers)
            mistakes.append(
                Mistake("servers", f"module {module!r} is served by more than one: {listed}")
            )
    mistakes += [
        Mistake("servers", f"no server names the module {module!r}: its URLs would answer 404")
        for module in by_name
        if module not in served_by
    ]
    for server_name, server in config.servers.items():
        settings = {**(dotenv or {}), **server.env, **environ}
        mistakes += _find_sqlite_conflicts(server_name, server, by_name, settings)
    if mistakes:
        raise DeploymentConfigError(source, mistakes)

    topology = Topology(
        config=config,
        paths=paths,
        processes=(),
        routes=tuple(
            _routes_of(by_name[module], config)
            for server in config.servers.values()
            for module in server.modules
            if module in by_name
        ),
        environment=outer.get("ENVIRONMENT", "development"),
    )
    return replace(
        topology,
        processes=tuple(
            _in_generation(process, 1, topology)
            for process in _list_processes(config, by_name, paths, environ)
        ),
    )


def socket_path(folder: Path, name: str) -> Path:
    """Return where the unix socket `name` lies: in `folder`, or in a short hashed temp folder.

    The kernel refuses longer paths than `SOCKET_PATH_BYTES_MAX` bytes. The name of the temp folder
    is derived from `folder` and the user, so every process of a fleet computes the same one.
    """
    path = folder / name
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(f"{os.getuid()}:{folder}".encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"trading-{digest}" / name


def database_url_of(module: str, environ: Mapping[str, str]) -> str | None:
    """Return the database URL in force for a module, or None for its own SQLite file."""
    own = environ.get(f"{module.upper().replace('-', '_')}_DATABASE_URL")
    if own:
        return own
    if environ.get("DATABASE_URL"):
        return environ["DATABASE_URL"]
    return "postgresql+asyncpg:" if environ.get("DB_HOST") else None


# --- helpers -----------------------------------------------------------------------------------


def _list_processes(
    config: DeploymentConfig,
    by_name: Mapping[str, ManifestLike],
    paths: LocalPaths,
    environ: Mapping[str, str],
) -> Iterable[ProcessSpec]:
    for server_name, server in config.servers.items():
        modules = tuple(module for module in server.modules if module in by_name)
        if not modules:
            continue
        env = {key: text for key, text in server.env.items() if key not in environ}
        for index in range(server.instances):
            name = f"{server_name}_{index}"
            yield ProcessSpec(
                name=name,
                server=server_name,
                index=index,
                generation=1,
                modules=modules,
                address=Address(port=None if server.port is None else server.port + index),
                workers=server.workers,
                reload=server.reload,
                log_file=paths.log / f"{name}.log",
                env=env,
            )


def _in_generation(process: ProcessSpec, generation: int, topology: Topology) -> ProcessSpec:
    address = process.address
    if address.port is None:
        name = f"{process.name}_g{generation}.sock"
        address = Address(socket=socket_path(topology.paths.run / "sockets", name))
    return replace(process, generation=generation, address=address)


def _routes_of(manifest: ManifestLike, config: DeploymentConfig) -> ModuleRoutes:
    root, _, current = config.api_base_url.rpartition("/")
    versions = [version.name for version in manifest.versions] or [current]
    own = [f"{root}/{version}/{manifest.name}" for version in versions]
    extra = [prefix.rstrip("/") for prefix in manifest.url_prefixes]
    return ModuleRoutes(
        name=manifest.name,
        prefixes=tuple(dict.fromkeys([*own, *(prefix for prefix in extra if prefix)])),
        websocket_paths=tuple(f"{prefix}/ws" for prefix in own) if manifest.has_websocket else (),
        has_database=manifest.needs_database,
    )


def _find_sqlite_conflicts(
    server_name: str,
    server: ServerConfig,
    by_name: Mapping[str, ManifestLike],
    settings: Mapping[str, str],
) -> list[Mistake]:
    conflicts = []
    for key, count in (("instances", server.instances), ("workers", server.workers)):
        if count == 1:
            continue
        on_sqlite = [
            module
            for module in server.modules
            if module in by_name
            and by_name[module].needs_database
            and (database_url_of(module, settings) or "sqlite").startswith("sqlite")
        ]
        conflicts += [
            Mistake(
                f"servers.{server_name}.{key}",
                f"{count} processes of {module!r} need PostgreSQL (set DATABASE_URL);"
                " SQLite takes one",
            )
            for module in on_sqlite
        ]
    return conflicts


def _parse_servers(raw: Any, mistakes: list[Mistake]) -> dict[str, ServerConfig]:
    if not isinstance(raw, dict) or not raw:
        mistakes.append(Mistake("servers", "must name at least one server"))
        return {}
    servers: dict[str, ServerConfig] = {}
    for name, section in raw.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(
                Mistake(f"servers.{name}", "must be lower-case letters, digits and hyphens")
            )
            continue
        if name in {"nginx", "bus"}:
            mistakes.append(Mistake(f"servers.{name}", "is the name of the platform's own process"))
        parsed = _parse_section(ServerConfig, section, f"servers.{name}", mistakes)
        if parsed is not None:
            servers[name] = parsed
    return servers


def _find_port_clashes(
    nginx: NginxConfig | None, servers: Mapping[str, ServerConfig]
) -> list[Mistake]:
    owners: dict[int, str] = {} if nginx is None else {nginx.port: "nginx"}
    clashes = []
    for name, server in servers.items():
        if server.port is None:
            continue
        for port in range(server.port, server.port + server.instances):
            if port in owners:
                clashes.append(
                    Mistake(f"servers.{name}.port", f"port {port} is already {owners[port]}'s")
                )
            owners.setdefault(port, name)
    return clashes


def _parse_section(model: type[_S], raw: Any, path: str, mistakes: list[Mistake]) -> _S | None:
    if not isinstance(raw, dict):
        mistakes.append(Mistake(path, "must be a mapping"))
        return None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            location = ".".join([path, *(str(part) for part in item["loc"])])
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = "unknown key" + _did_you_mean(
                    str(item["loc"][-1]), _fields_at(model, item["loc"][:-1])
                )
            mistakes.append(Mistake(location, message))
        return None


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> Sequence[str]:
    for part in location:
        annotation = (
            model.model_fields[str(part)].annotation if part in model.model_fields else None
        )
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [item for item in candidates if isinstance(item, type)]
        models = [item for item in nested if issubclass(item, BaseModel)]
        if not models:
            return ()
        model = models[0]
    return tuple(model.model_fields)


def _environment_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _did_you_mean(word: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(candidates), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _known_list(names: Sequence[str]) -> str:
    return f" (known: {', '.join(sorted(names))})" if names else " (no module is known)"


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = error.problem or error.context or "not YAML"
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    return f"not YAML: {error}".splitlines()[0]


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, where YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            if isinstance(key, str | int):
                seen.add(key)
        return super().construct_mapping(node, deep)
