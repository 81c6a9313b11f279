"""Writes what ranks returned to an object store, so that XCom holds a reference.

``ResultStore`` acts, in the task's process: an agent may have neither Airflow nor the credentials,
which are a connection's. Each try of a task instance has a folder of its own, so that no later one
overwrites what a reader of an earlier one still uses. A reference is only given out for a file that
is complete.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.parameters.rendezvous import SECTION
from airflow_provider.results.reference import StoredResult
from llutil.errors import ConfigError, InfrastructureError
from llutil.serialization import npz_archive
from llutil.task_link.messages import ResultInFile

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider.retries.launch_retry import LaunchRetry
    from llutil.launcher.run_id import TaskKey
    from llutil.task_link.results_file import ResultsReader

__all__ = ["ResultStore", "configured_path"]

_PREVIEW = 200  # characters
_UNSAFE = re.compile(r"[^-.~+=\w]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultStore:
    """Where one try of a task instance stores its ranks' values.

    ``attempt`` names the try as nothing else in the store does. ``inline`` is up to how many bytes
    of JSON a value stays in XCom itself. ``arrays``: arrays stay what they are, in ``.npz`` files.
    """

    path: ObjectStoragePath
    attempt: str
    inline: int
    arrays: bool = False

    @classmethod
    def of(cls, results_path: Any, inline: int, ti: Any, *, arrays: bool = False) -> ResultStore:
        """The store of the running task instance ``ti``.

        :raises ConfigError: there is no file system for such a path, or no connection of that name.
        """
        from airflow.sdk import ObjectStoragePath

        try:
            path = ObjectStoragePath(results_path)
            if not path.protocol:
                path = ObjectStoragePath(f"file://{path}")
            _ = path.fs
        except Exception as error:
            raise ConfigError(
                f"results_path is {str(results_path)!r}, which cannot be used here: "
                f"{type(error).__name__}: {error}; "
                "wanted a URI whose provider is installed on the worker, such as "
                "s3://conn_id@bucket/folder"
            ) from error
        return cls(path=path, attempt=f"{ti.try_number}_{ti.id}", inline=inline, arrays=arrays)

    def check(self) -> None:
        """Write a file and remove it, since after hours of training is late to learn that one
        cannot.

        :raises InfrastructureError: the store takes nothing.
        """
        probe = self.path / f".probe-{uuid.uuid4().hex}"
        try:
            _write(probe, [b"probe"], 5)
        except Exception as error:
            raise InfrastructureError(
                f"nothing can be written to results_path {self.path}: {type(error).__name__}: "
                f"{error}"
            ) from error
        with suppress(Exception):  # some may write, and not remove
            probe.fs.rm_file(probe.path)

    def keep(
        self,
        results: Mapping[int, Any],
        handover: ResultsReader,
        key: TaskKey,
        *,
        retry: LaunchRetry,
        stopped: Callable[[], bool],
        sleep: Callable[[float], None],
        log: logging.Logger,
        rescue: Path,
    ) -> dict[int, Any]:
        """``results`` with every filed value in it stored, or read back if it is small.

        What cannot be stored is copied into the folder ``rescue``.

        :raises InfrastructureError: the store did not take a value, as often as ``retry`` says.
        """
        kept: dict[int, Any] = {}
        for rank, value in results.items():
            if not isinstance(value, ResultInFile):
                kept[rank] = value
                continue
            form = _form(handover, value)
            if form == "json" and value.size <= self.inline:
                kept[rank] = json.loads(b"".join(handover.pieces(value)))
            else:
                target = self.folder(key) / f"rank_{rank}.{form}"
                try:
                    retry.run(
                        partial(_upload, target, handover, value),
                        stopped=stopped,
                        say=log.warning,
                        sleep=sleep,
                        what="upload",
                    )
                except InfrastructureError as error:
                    left = [one for one in results.values() if isinstance(one, ResultInFile)]
                    raise InfrastructureError(
                        f"{error}; {_rescued(rescue, handover, left)}"
                    ) from error.__cause__
                log.info("rank %d returned %s bytes, stored at %s", rank, f"{value.size:,}", target)
                kept[rank] = StoredResult(
                    uri=str(target), size=value.size, preview=_preview(handover, value), format=form
                ).to_json()
        return kept

    def folder(self, key: TaskKey) -> ObjectStoragePath:
        """The folder of the task instance ``key``, laid out as Airflow's own logs are."""
        parts = {"dag_id": key.dag_id, "run_id": key.run_id, "task_id": key.task_id}
        if key.map_index >= 0:
            parts["map_index"] = str(key.map_index)
        parts["attempt"] = self.attempt
        path = self.path
        for name, value in parts.items():
            # Some stores know no colon, others give %, # and ? a meaning; the attempt is unique in
            # any case.
            path /= f"{name}={_UNSAFE.sub('_', value)}"
        return path


def configured_path() -> str:
    """What ``[elastic_launch] results_path`` says; empty if there is none."""
    from airflow.sdk.configuration import conf

    return str(conf.get(SECTION, "results_path", fallback="") or "").strip()


def _upload(
    target: ObjectStoragePath, handover: ResultsReader, value: ResultInFile, _attempt: int
) -> None:
    try:
        _write(target, handover.pieces(value), value.size)
    except Exception as error:
        raise InfrastructureError(
            f"a result of {value.size:,} bytes could not be stored at {target}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _write(target: ObjectStoragePath, pieces: Iterable[bytes], size: int) -> None:
    """All of ``pieces``, or nothing that anybody takes for it."""
    from fsspec.implementations.local import LocalFileSystem

    files = target.fs
    with suppress(Exception):  # where folders matter and cannot be made, opening the file tells
        files.makedirs(target.parent.path, exist_ok=True)
    # An object of a store appears when it is complete; a file of a folder while it is written.
    path = f"{target.path}.part" if isinstance(files, LocalFileSystem) else target.path
    out = files.open(path, "wb")
    try:
        for piece in pieces:
            out.write(piece)
        out.close()
        if path != target.path:
            files.mv(path, target.path)
        found = files.size(target.path)
        if found != size:
            raise OSError(f"{found:,} of {size:,} bytes are there")
    except BaseException:
        with suppress(Exception):
            out.close()
        for left in {path, target.path}:
            with suppress(Exception):
                files.rm_file(left)
        raise


def _head(handover: ResultsReader, value: ResultInFile) -> bytes:
    return b"".join(
        handover.pieces(ResultInFile(value.rank, value.offset, min(value.size, 2 * _PREVIEW)))
    )


def _form(handover: ResultsReader, value: ResultInFile) -> str:
    return "npz" if npz_archive.is_archive(_head(handover, value)) else "json"


def _preview(handover: ResultsReader, value: ResultInFile) -> str:
    head = _head(handover, value)
    text = (npz_archive.json_in_head(head) if npz_archive.is_archive(head) else head).decode(
        "ascii"
    )
    return text if len(text) <= _PREVIEW else f"{text[: _PREVIEW - 3]}..."


def _rescued(folder: Path, handover: ResultsReader, values: Iterable[ResultInFile]) -> str:
    """Copy ``values`` into ``folder``; what became of that, in words."""
    try:
        folder.mkdir(exist_ok=True)
        for value in values:
            with (folder / f"rank_{value.rank}.{_form(handover, value)}").open("wb") as file:
                file.writelines(handover.pieces(value))
    except (OSError, InfrastructureError) as error:
        return f"copies on the worker failed too: {error}"
    return f"what this node's ranks returned is kept on its host, in {folder}"
