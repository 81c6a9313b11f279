"""What a wheel and an sdist must hold: every file of the two packages as it is, and no tests.

    python -m tests.release.contents FOLDER

looks at the wheel and the sdist in a folder, and says what is wrong with them. It needs the
standard library alone.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

__all__ = ["files_of", "problems"]

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("airflow_provider", "llutil")


def files_of(archive: Path) -> dict[str, bytes]:
    """The files of a wheel, or of an sdist without its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if name[-1] != "/"}
    with tarfile.open(archive) as sdist:
        members = [member for member in sdist if member.isfile()]
        return {
            member.name.split("/", 1)[1]: file.read()
            for member in members
            if (file := sdist.extractfile(member)) is not None
        }


def _sources() -> dict[str, bytes]:
    """The files of both packages in the tree."""
    return {
        path.relative_to(_ROOT).as_posix(): path.read_bytes()
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def problems(archive: Path) -> list[str]:
    """What is wrong with a wheel or an sdist, a line each; empty if it is right."""
    found = files_of(archive)
    wanted = _sources()
    ours = {name: text for name, text in found.items() if name.split("/")[0] in _PACKAGES}
    lines = [f"{name} is missing" for name in sorted(wanted.keys() - ours.keys())]
    lines += [f"{name} is not in the tree" for name in sorted(ours.keys() - wanted.keys())]
    lines += [
        f"{name} differs from the tree's"
        for name in sorted(wanted.keys() & ours.keys())
        if wanted[name] != ours[name]
    ]
    if archive.suffix == ".whl":
        others = {name.split("/")[0] for name in found} - set(_PACKAGES)
        lines += [f"{top} does not belong there" for top in others if ".dist-info" not in top]
        metadata = [text for name, text in found.items() if name.endswith(".dist-info/METADATA")]
    else:
        needed = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
        lines += [f"{name} is missing" for name in sorted(needed - found.keys())]
        tops = {name.split("/")[0] for name in found}
        lines += [f"{top} does not belong there" for top in sorted(tops & {"tests", "docs"})]
        metadata = [text for name, text in found.items() if name == "PKG-INFO"]
    message = BytesParser().parsebytes(b"".join(metadata))
    described = message.get_payload(decode=True)
    readme = (_ROOT / "README.md").read_bytes()
    if not isinstance(described, bytes) or described.strip() != readme.strip():
        lines.append("its description is not README.md")
    if message["Description-Content-Type"] != "text/markdown":
        lines.append("its description is not said to be Markdown")
    return [f"{archive.name}: {line}" for line in lines]


def main(folder: str) -> int:
    """0 if there is one of each and both are right."""
    archives = [*Path(folder).glob("*.whl"), *Path(folder).glob("*.tar.gz")]
    lines = [line for archive in archives for line in problems(archive)]
    if len(archives) != 2:
        lines.append(f"{folder} has {len(archives)} archives, not a wheel and an sdist")
    print("\n".join(lines) or f"{' and '.join(archive.name for archive in archives)} are complete")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
