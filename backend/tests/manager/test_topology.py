from pathlib import Path

import pytest

from trading_api.runtime.settings import ConfigurationError
from trading_api.runtime.topology import (
    SOCKET_PATH_BYTES_MAX,
    DeploymentConfigError,
    LocalPaths,
    load_config,
    local_root,
    parse_config,
    socket_path,
)


def mistakes_of(text: str, **environ: str) -> list[str]:
    with pytest.raises(DeploymentConfigError) as caught:
        parse_config(text, source="bad.yaml", environ=environ)
    assert isinstance(caught.value, ConfigurationError)
    return list(caught.value.mistakes)


def test_topology_names_each_process_its_socket_log_and_environment(build, short_folder):
    topology = build()
    wallet = topology.processes_of("wallet")[0]
    assert [process.name for process in topology.processes] == [
        "gateway_0",
        "auth_0",
        "datafeed_0",
        "broker_0",
        "wallet_0",
        "copy-trading_0",
    ]
    assert wallet.program == "wallet_0_g1"
    assert wallet.address.socket == short_folder / "run/sockets/wallet_0_g1.sock"
    assert wallet.log_file == short_folder / "log/wallet_0.log"
    assert wallet.env == {"WALLET_LIMIT": "5", "VERBOSE": "true"}
    assert topology.peers()["wallet"] == [f"{short_folder}/run/sockets/wallet_0_g1.sock"]


def test_topology_routes_every_version_and_extra_prefix(build):
    routes = {route.name: route for route in build().routes}
    assert routes["broker"].prefixes == ("/api/v1/broker", "/api/v2/broker")
    assert routes["broker"].websocket_paths == ("/api/v1/broker/ws", "/api/v2/broker/ws")
    assert routes["copy-trading"].prefixes == ("/api/v1/copy-trading", "/api/v1/subscriptions")
    assert routes["auth"].websocket_paths == ()


def test_process_environment_wins_over_server_env(build):
    topology = build(environ={"WALLET_LIMIT": "9"})
    assert topology.processes_of("wallet")[0].env == {"VERBOSE": "true"}


def test_backend_port_overrides_the_file(config_text):
    config = parse_config(config_text, source="x", environ={"BACKEND_PORT": "9001"})
    assert config.nginx.port == 9001
    assert mistakes_of(config_text, BACKEND_PORT="70000") == [
        "BACKEND_PORT: must be a port number between 1 and 65535"
    ]


def test_every_mistake_is_listed_at_once_with_its_path():
    found = mistakes_of(
        """
        api_base_url: api
        ngnix: {}
        nginx: {port: eighty, limits: {body_kb: 3}}
        websocket: {routing_strategy: header}
        servers:
          broker: {modules: [], instances: 0, wrokers: 2}
          Wallet: {modules: [wallet]}
          auth: {modules: [auth], reload: true, instances: 2}
          datafeed: [datafeed]
        """
    )
    paths = [each.partition(": ")[0] for each in found]
    assert paths == [
        "ngnix",
        "api_base_url",
        "nginx.port",
        "nginx.limits.body_kb",
        "websocket.routing_strategy",
        "servers.broker.modules",
        "servers.broker.instances",
        "servers.broker.wrokers",
        "servers.Wallet",
        "servers.auth",
        "servers.datafeed",
    ]
    assert "did you mean 'nginx'?" in found[0]
    assert "did you mean 'body_kib'?" in found[3]
    assert "did you mean 'workers'?" in found[7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("- a", "must be a mapping of sections"),
        ("servers: {a: {modules: [a]}, a: {modules: [b]}}", "the key 'a' is written twice"),
        ("servers: {a: {modules: [a]", "line 1, column"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("api_base_url: /api/v1", "servers: must name at least one server"),
        ("servers: {nginx: {modules: [a]}}", "is the name of the platform's own process"),
        (
            "servers: {a: {modules: [a], port: 8000}, b: {modules: [b], port: 8100}}",
            "servers.a.port: port 8000 is already nginx's",
        ),
        (
            "servers: {a: {modules: [a], port: 9000, instances: 3}, b: {modules: [b], port: 9002}}",
            "servers.b.port: port 9002 is already a's",
        ),
        ("servers: {a: {modules: [a], env: {'A B': 1}}}", "'A B' can't be the name"),
    ],
)
def test_broken_file_is_refused_with_one_clear_line(text, expected):
    found = mistakes_of(text)
    assert len(found) == 1
    assert expected in found[0]


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DeploymentConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml", environ={})


def test_unknown_unserved_and_doubly_served_modules_are_all_named(build):
    with pytest.raises(DeploymentConfigError) as caught:
        build(
            """
            servers:
              a: {modules: [gateway, auth, brokr]}
              b: {modules: [auth, datafeed, broker, wallet]}
            """
        )
    assert caught.value.mistakes == [
        "servers.a.modules.2: unknown module 'brokr' (did you mean 'broker'?)",
        "servers: module 'auth' is served by more than one: a, b",
        "servers: no server names the module 'copy-trading': its URLs would answer 404",
    ]


def test_modules_that_are_not_enabled_are_left_out(build):
    topology = build(modules=("auth", "datafeed"))
    assert topology.modules == ("auth", "datafeed")
    assert [process.name for process in topology.processes] == ["auth_0", "datafeed_0"]


@pytest.mark.parametrize("environ", [{}, {"BROKER_DATABASE_URL": "sqlite+aiosqlite:///b.db"}])
def test_several_processes_on_sqlite_are_refused(build, config_text, environ):
    text = config_text.replace("{modules: [broker]}", "{modules: [broker], instances: 2}")
    with pytest.raises(DeploymentConfigError, match="'broker' need PostgreSQL"):
        build(text, environ=environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgresql+asyncpg://db/trading"},
        {"DB_HOST": "db"},
        {"BROKER_DATABASE_URL": "postgresql+asyncpg://db/b"},
    ],
)
def test_several_processes_on_postgresql_are_accepted(build, config_text, environ):
    text = config_text.replace("{modules: [broker]}", "{modules: [broker], instances: 2}")
    names = [process.name for process in build(text, environ=environ).processes_of("broker")]
    assert names == ["broker_0", "broker_1"]


def test_module_without_tables_may_run_several_times_on_sqlite(build, config_text):
    text = config_text.replace("{modules: [gateway]}", "{modules: [gateway], instances: 2}")
    assert len(build(text).processes_of("gateway")) == 2


def test_ports_count_up_by_instance(build, config_text):
    text = config_text.replace(
        "{modules: [gateway]}", "{modules: [gateway], instances: 2, port: 9100}"
    )
    topology = build(text)
    assert [str(each.address) for each in topology.processes_of("gateway")] == [
        "127.0.0.1:9100",
        "127.0.0.1:9101",
    ]
    assert topology.peers()["gateway"] == ["http://127.0.0.1:9100", "http://127.0.0.1:9101"]


def test_generation_changes_program_and_socket_alone(build):
    before = build()
    after = before.with_generation({"broker_0": 3})
    assert after.processes_of("broker")[0].program == "broker_0_g3"
    assert str(after.processes_of("broker")[0].address.socket).endswith("broker_0_g3.sock")
    assert after.processes_of("wallet") == before.processes_of("wallet")
    assert after.peers()["broker"] != before.peers()["broker"]


def test_long_socket_path_moves_to_a_short_folder_of_its_own(tmp_path):
    folder = tmp_path / ("deep" * 30)
    path = socket_path(folder, "broker_0_g1.sock")
    assert len(bytes(path)) <= SOCKET_PATH_BYTES_MAX
    assert path == socket_path(folder, "broker_0_g1.sock")
    assert path.parent != socket_path(folder / "other", "broker_0_g1.sock").parent


def test_local_root_follows_the_environment(tmp_path):
    assert local_root({"TRADING_LOCAL_DIR": str(tmp_path)}) == tmp_path
    assert local_root({}).name == ".local"
    assert LocalPaths.under(Path("/x")).secrets == Path("/x/secrets")
