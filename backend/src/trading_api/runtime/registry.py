"""Finds modules: the built-in packages, and third-party ones by entry point.

Nothing vanishes: a module that can't be imported, a name used twice, or a name that nobody has
stops the start with one line that says which and why.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from trading_api.runtime.module import Manifest, Module
from trading_api.runtime.settings import ConfigurationError

BUILT_IN_PACKAGE = "trading_api.modules"
ENTRY_POINT_GROUP = "trading_api.modules"

_ANY_FAILURE = (Exception, SystemExit)
"""A module's code may fail in any way; one that exits must not take the start along silently."""


class RegistryError(ConfigurationError):
    """The set of modules can't be used."""


def discover(
    *, package: str = BUILT_IN_PACKAGE, group: str = ENTRY_POINT_GROUP
) -> dict[str, type[Module]]:
    """Import every module and return the classes by module name, sorted.

    Raises:
        RegistryError: lists every module that can't be imported and every name used twice.
    """
    mistakes: list[str] = []
    found: dict[str, type[Module]] = {}
    for origin, load in (*_built_in(package), *_third_party(group)):
        try:
            module = load()
        except _ANY_FAILURE as error:
            mistakes.append(_cannot_import(origin, error))
            continue
        name = module.manifest.name
        if name in found:
            mistakes.append(
                f"module {origin} has the name {name!r}, which "
                f"{found[name].__module__}.{found[name].__name__} has already"
            )
            continue
        found[name] = module
    if mistakes:
        raise RegistryError(mistakes)
    return dict(sorted(found.items()))


def select(modules: Mapping[str, type[Module]], names: str) -> dict[str, type[Module]]:
    """Return the modules that ``ENABLED_MODULES`` names: ``all``, or names by comma.

    Raises:
        RegistryError: a name is unknown or given twice, or none is given.
    """
    if names.strip() == "all":
        return dict(modules)
    wanted = [each.strip() for each in names.split(",") if each.strip()]
    known = ", ".join(modules)
    mistakes = [
        f"ENABLED_MODULES: there is no module {name!r}; known are {known}"
        for name in wanted
        if name not in modules
    ]
    mistakes += [
        f"ENABLED_MODULES: {name!r} is named twice"
        for name in sorted({name for name in wanted if wanted.count(name) > 1})
    ]
    if not wanted:
        mistakes.append(f"ENABLED_MODULES names no module; use `all`, or some of {known}")
    if mistakes:
        raise RegistryError(mistakes)
    return {name: modules[name] for name in wanted}


def load(names: str) -> dict[str, type[Module]]:
    """Import and return only the modules that ``ENABLED_MODULES`` names.

    A process that serves one module doesn't pay for the imports of the others. A name that isn't
    a built-in package's is looked for among all modules.

    Raises:
        RegistryError: as ``discover`` and ``select``.
    """
    wanted = [each.strip() for each in names.split(",") if each.strip()]
    loaders = dict(_built_in(BUILT_IN_PACKAGE))
    found: dict[str, type[Module]] = {}
    for name in wanted:
        loader = loaders.get(name.replace("-", "_"))
        if loader is None:
            return select(discover(), names)
        try:
            module = loader()
        except _ANY_FAILURE as error:
            raise RegistryError([_cannot_import(name, error)]) from error
        if module.manifest.name != name or name in found:
            return select(discover(), names)
        found[name] = module
    return found or select(discover(), names)


def _cannot_import(origin: str, error: BaseException) -> str:
    return f"module {origin} can't be imported: {type(error).__name__}: {error}"


class _Loader:
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> type[Module]:
        module = importlib.import_module(self.path)
        classes = [
            each
            for _, each in inspect.getmembers(module, inspect.isclass)
            if issubclass(each, Module) and each is not Module and each.__module__ == self.path
        ]
        if len(classes) != 1:
            raise TypeError(f"{self.path} must define one Module, it defines {len(classes)}")
        return _with_manifest(classes[0], self.path)


def _built_in(package: str) -> Iterator[tuple[str, _Loader]]:
    parent = importlib.import_module(package)
    for info in pkgutil.iter_modules(parent.__path__):
        if info.ispkg:
            yield info.name, _Loader(f"{package}.{info.name}.module")


class _EntryPointLoader(_Loader):
    def __init__(self, path: str, load: object) -> None:
        super().__init__(path)
        self._load = load

    def __call__(self) -> type[Module]:
        loaded = self._load()  # type: ignore[operator]
        if not (inspect.isclass(loaded) and issubclass(loaded, Module)):
            raise TypeError(f"{self.path} is not a Module subclass")
        return _with_manifest(loaded, self.path)


def _with_manifest(module: type[Module], path: str) -> type[Module]:
    if not isinstance(getattr(module, "manifest", None), Manifest):
        raise TypeError(f"{path} has no manifest")
    return module


def _third_party(group: str) -> Iterator[tuple[str, _Loader]]:
    for point in sorted(entry_points(group=group), key=lambda each: each.name):
        yield f"{point.name} ({point.value})", _EntryPointLoader(point.value, point.load)
