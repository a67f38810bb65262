import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]

NAMES = [
    "install",
    "install-test",
    "ensure-python",
    "setup",
    "run",
    "dev",
    "dev-backend",
    "dev-no-debug",
    "kill-dev",
    "backend-dev-multi",
    "backend-status",
    "backend-logs",
    "backend-stop",
    "backend-restart",
    "health",
    "list-modules",
    "test",
    "test-all",
    "test-modules",
    "test-module-broker",
    "test-integration",
    "test-boundaries",
    "test-smoke",
    "test-faults",
    "test-coverage",
    "test-cov",
    "lint",
    "lint-check",
    "lint-response-models",
    "type-check",
    "format",
    "format-all",
    "check",
    "generate",
    "generate-specs",
    "export-openapi",
    "export-asyncapi",
    "golden",
    "render",
    "migrate",
    "daemon-start",
    "daemon-stop",
    "daemon-restart",
    "daemon-status",
    "daemon-logs",
    "logs-tail",
    "logs-tail-nginx",
    "logs-clean",
    "clean",
    "clean-data",
    "clean-cache",
]


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(("folder", "file"), [(ROOT, "project.mk"), (ROOT / "backend", "Makefile")])
def test_bare_make_lists_what_there_is(folder, file):
    done = make("-s", "-f", file, folder=folder)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert "backend-dev-multi" in lines
    assert len(lines) == len(set(lines)) < 60
    assert all(len(line) <= 110 for line in done.stdout.splitlines())


def test_every_documented_name_is_a_target():
    done = make("-n", "-f", "project.mk", *NAMES)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_modules_are_named_as_their_packages():
    done = make("-n", "-s", "-f", "project.mk", "test-modules", "modules=broker,copy-trading")
    assert done.stdout.rstrip().endswith(
        "src/trading_api/modules/broker src/trading_api/modules/copy_trading"
    )


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_pinned_with_hashes(install):
    pin = install.pin_of("uv", install.LOCKS["test"])
    assert pin.startswith("uv==")
    assert pin.count("--hash=sha256:") > 3
    assert "\nuvicorn" not in pin


def test_installation_is_current_only_for_the_present_lock_and_level(install, tmp_path):
    assert not install.is_current(tmp_path, "run")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    install.stamp_of(tmp_path).write_text(install.stamp("run"))
    assert install.is_current(tmp_path, "run")
    assert not install.is_current(tmp_path, "test")
    install.stamp_of(tmp_path).write_text(install.stamp("test"))
    assert install.is_current(tmp_path, "run")
    install.stamp_of(tmp_path).write_text("unfinished\n")
    assert not install.is_current(tmp_path, "run")


def test_an_environment_of_somebody_else_is_left_alone(install, tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(SystemExit, match="somebody else's"):
        install.make_venv(tmp_path)
    assert (tmp_path / "precious").exists()


def test_old_name_of_the_manager_is_the_same_program():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/backend_manager.py", "start", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Start everything" in done.stdout
