"""FastAPI's route, built when it is first asked for."""

from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import compile_path


class LateRoute(APIRoute):
    """A route that looks at its endpoint's parameters when somebody needs them.

    Validators of parameters and answers are most of what an app takes to build, and a process
    serves few of its routes soon. Until then only what finds a route by its path is there;
    anything else that is asked of it, by a request or by the OpenAPI document, builds it whole.

    An endpoint that FastAPI can't serve raises ``FastAPIError`` there; ``complete`` asks for it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._late: tuple[str, Callable[..., Any], dict[str, Any]] | None
        self._late = (path, endpoint, options)
        self.path, self.endpoint = path, endpoint
        self.methods = set(options["methods"])
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)

    def __getattr__(self, name: str) -> Any:
        # Python comes here for what is not there yet.
        late = self.__dict__.get("_late")
        if late is None:
            raise AttributeError(name)
        path, endpoint, options = late
        self._late = None
        try:
            super().__init__(path, endpoint, **options)
        except BaseException:
            self._late = late
            raise
        return getattr(self, name)

    def complete(self) -> None:
        """Build what is not built yet; raises ``FastAPIError`` where that can't be done."""
        _ = self.dependant
