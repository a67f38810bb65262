"""Generated text on the disk: written where it changed, compared where it must be current."""

from collections.abc import Mapping
from pathlib import Path


def write_files(folder: Path, files: Mapping[str, str], *, owned: str | None = None) -> list[Path]:
    """Write texts by relative path; return what changed.

    Args:
        owned: glob below ``folder`` of which only what is in ``files`` may remain; None removes
            nothing.
    """
    changed = find_differences(folder, files, owned=owned)
    for path in changed:
        text = files.get(path.relative_to(folder).as_posix())
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return changed


def find_differences(
    folder: Path, files: Mapping[str, str], *, owned: str | None = None
) -> list[Path]:
    """Return the paths below ``folder`` that are missing, different, or left over."""
    differing = [
        folder / name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
    if owned is not None:
        differing += [
            path
            for path in sorted(folder.glob(owned))
            if path.relative_to(folder).as_posix() not in files
        ]
    return differing
