"""Keeps on disk what a rank returned and nobody can take, so that its work is not lost.

``keep_value`` runs in the rank: it writes a pickle that any Python of the same version can read.
The pickle holds the code of classes that cannot be imported, tensors are on the CPU in it, and a
part that cannot be pickled, such as a lock or an open file, is replaced by its text.
``keep_content`` keeps what has left the rank already.

Only this user may enter the folders. Where a disk has no room, a folder of the same name in
``/dev/shm`` is taken. This module may import only the standard library and ``npz_archive``;
cloudpickle is imported when a value is pickled.
"""

from __future__ import annotations

import os
import stat
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from llutil.serialization import npz_archive

__all__ = ["how_to_read", "keep_content", "keep_value", "kept_files", "write_privately"]

_MEMORY = Path("/dev/shm")  # noqa: S108 - for a folder of our own
_BY_NAME = (type, types.FunctionType)
_FORMS = ("pickle", "json", "npz")
# Parts that are named in the text.
_MOST_NAMED = 5


def keep_value(value: Any, folder: Path, name: str) -> str:
    """Pickle ``value`` into the file ``name`` in ``folder``; returns how that ended, in words."""
    replaced: list[str] = []

    def write(file: IO[bytes]) -> None:
        replaced.clear()
        _dump(value, file, replaced)

    try:
        path = write_privately(folder, name, write)
    except Exception as error:  # noqa: BLE001 - the value's own methods run
        return f"it could not be kept in a file either: {type(error).__name__}: {error}"
    text = how_to_read(path)
    if replaced:
        named = ", ".join(replaced[:_MOST_NAMED])
        text += f"; {len(replaced)} of its parts cannot be pickled and are text there: {named}"
    return text


def keep_content(content: bytes | bytearray, folder: Path, rank: int, *, pickled: bool) -> str:
    """Write what ``rank`` returned, as it came, into a file in ``folder``; returns how that ended,
    in words.
    """
    form = "pickle" if pickled else "npz" if npz_archive.is_archive(bytes(content[:8])) else "json"
    try:
        path = write_privately(folder, f"rank_{rank}.{form}", lambda file: file.write(content))
    except OSError as error:
        return f"it could not be kept in a file either: {error}"
    return how_to_read(path)


def how_to_read(path: Path) -> str:
    """Where the file ``path`` is, and the line of Python that reads it."""
    where = f"it is kept on {os.uname().nodename} in {path}"
    match path.suffix:
        case ".pickle":
            line = f"import pickle; value = pickle.load(open({str(path)!r}, 'rb'))"
        case ".npz":
            line = f"import numpy; parts = numpy.load({str(path)!r})"
        case _:
            line = f"import json; value = json.load(open({str(path)!r}))"
    return f"{where}: {line}"


def kept_files(folder: Path) -> Iterator[Path]:
    """The files of ranks' values in ``folder``, and in the one in memory that stands in for it."""
    for place in (folder, _MEMORY / folder.name):
        if _is_private(place):
            yield from sorted(path for form in _FORMS for path in place.glob(f"rank_*.{form}"))


def write_privately(folder: Path, name: str, write: Callable[[IO[bytes]], object]) -> Path:
    """The file ``name`` in ``folder``, with what ``write`` writes into it.

    :raises OSError: it cannot be written, and not in memory either. What ``write`` raises is raised
        unchanged.
    """
    try:
        return _write(folder, name, write)
    except OSError as error:
        try:
            return _write(_MEMORY / folder.name, name, write)
        except OSError:
            raise error from None


def _write(folder: Path, name: str, write: Callable[[IO[bytes]], object]) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"{folder} is not a folder that only this user may enter")
    part = folder / f".{name}.{os.getpid()}"
    try:
        with part.open("wb") as file:
            write(file)
        return part.replace(folder / name)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & 0o077


def _dump(value: Any, file: IO[bytes], replaced: list[str]) -> None:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
        def reducer_override(self, part: Any) -> Any:
            kind = type(part)
            try:
                if isinstance(part, types.BuiltinMethodType):
                    owner = part.__self__
                    if owner is not None and not isinstance(owner, type | types.ModuleType):
                        owner.__reduce_ex__(5)  # a method of what cannot be pickled goes with it
                    return NotImplemented
                reduced = super().reducer_override(part)
                if reduced is not NotImplemented or issubclass(kind, _BY_NAME):
                    return reduced
                if kind in self.dispatch_table:
                    return self.dispatch_table[kind](part)
                return _on_cpu(part).__reduce_ex__(5)
            except Exception:  # noqa: BLE001 - any failure means that this part cannot be pickled
                text = _text(part)
                replaced.append(text)
                return str, (text,)

    Pickler(file, protocol=5).dump(value)


def _on_cpu(part: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(part, torch.Tensor) and part.device.type != "cpu":
        return part.detach().cpu()
    return part


def _text(part: Any) -> str:
    try:
        return repr(part)[:200]
    except Exception:  # noqa: BLE001 - the user's own method
        return f"<{type(part).__module__}.{type(part).__qualname__} object>"
