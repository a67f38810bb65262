"""What charts save for their users: layouts, and templates of studies and drawings."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

CONTENT_BYTES_MAX = 1024 * 1024
"""A layout with hundreds of drawings has about 300 KiB."""

LAYOUTS_MAX = 200
TEMPLATES_MAX = 500
"""Of one user and kind."""

STORED_BYTES_MAX = 50 * 1024 * 1024
"""Of one user altogether."""


class TemplateKind(StrEnum):
    """What a template is for."""

    STUDY = "study"
    DRAWING = "drawing"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose something is.

    Attributes:
        user_id: from the session, never from the request's parameters.
        client: the front end, which keeps its layouts apart from another's; free text.
    """

    user_id: str
    client: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A saved chart.

    Attributes:
        id: ours.
        name: the user's.
        symbol: of the main series, for the list.
        resolution: of the main series, for the list.
        content: the chart's own text; "" in lists.
        saved_at: UTC.
    """

    id: str
    name: str
    symbol: str
    resolution: str
    content: str
    saved_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """What names a template among its owner's.

    Attributes:
        tool: the drawing tool that it is for; "" for studies.
        name: the user's.
    """

    kind: TemplateKind
    tool: str
    name: str
