"""Writes what ranks returned to an object store, so that XCom holds only references.

``ResultStore`` works in the task's process: an agent may lack Airflow, and the credentials of a
connection. Each try of a task instance has a folder of its own. So a later try does not overwrite a
file that a reader of an earlier try still uses. A reference is returned only when its file is
complete.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.parameters.missing_connection import NOT_SAID, connection_is_missing
from airflow_provider.parameters.rendezvous import SECTION
from airflow_provider.results.reference import StoredResult
from llutil.errors import ConfigError, InfrastructureError, ResultError
from llutil.serialization import npz_archive
from llutil.serialization.kept_value import how_to_read, kept_files, write_privately
from llutil.task_link.messages import ResultInFile

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider.retries.launch_retry import LaunchRetry
    from llutil.launcher.run_id import TaskKey
    from llutil.task_link.results_file import ResultsReader

__all__ = ["ResultStore", "configured_path", "keep_unstored"]

# Bytes of one piece of a copy: 4 MiB.
_CHUNK = 1 << 22
# Characters of a preview at most.
_PREVIEW_LENGTH = 200
# Characters that a folder's name does not keep: some stores do not allow a colon, and %, # and ?
# have a meaning in others.
_UNSAFE = re.compile(r"[^-.~+=\w]")
# What Airflow and providers raise for a path that no later try can use (Airflow 3.3). Anything else
# may be the network, or a service that gives credentials.
_FOR_GOOD = (ImportError, AttributeError, TypeError, ValueError, PermissionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultStore:
    """Where one try of a task instance stores its ranks' values.

    ``attempt`` names the try; no other try has the same name. A value of up to ``inline`` bytes of
    JSON stays in XCom itself. With ``arrays``, values keep their arrays, in ``.npz`` files.
    """

    path: ObjectStoragePath
    attempt: str
    inline: int
    arrays: bool = False

    @classmethod
    def of(cls, results_path: Any, inline: int, ti: Any, *, arrays: bool = False) -> ResultStore:
        """The store of the running task instance ``ti``.

        :raises ConfigError: no file system is installed for such a path, or the connection that it
            names does not exist.
        :raises InfrastructureError: Airflow does not say now whether there is such a connection, or
            the file system cannot be set up now.
        """
        from airflow.sdk import ObjectStoragePath, exceptions

        try:
            path = ObjectStoragePath(results_path)
            if not path.protocol:
                path = ObjectStoragePath(f"file://{path}")
            _ = path.fs
        except Exception as error:
            given = f"results_path is {str(results_path)!r}"
            not_found = isinstance(error, exceptions.AirflowNotFoundException)
            if not_found and not connection_is_missing(path.conn_id or ""):
                raise InfrastructureError(
                    f"{given}, and Airflow does not say whether there is such a connection: "
                    f"{NOT_SAID}"
                ) from error
            why = f"{type(error).__name__}: {error}"
            not_there = exceptions.AirflowOptionalProviderFeatureException
            if not (not_found or isinstance(error, (*_FOR_GOOD, not_there))):
                raise InfrastructureError(f"{given}, which cannot be used now: {why}") from error
            raise ConfigError(
                f"{given}, which cannot be used here: {why}; wanted a URI whose provider is "
                "installed on the worker, such as s3://conn_id@bucket/folder"
            ) from error
        return cls(path=path, attempt=f"{ti.try_number}_{ti.id}", inline=inline, arrays=arrays)

    def check(self) -> None:
        """Write a file and remove it: a store that cannot be written to is noticed before training.

        :raises InfrastructureError: the store cannot be written to.
        """
        probe = self.path / f".probe-{uuid.uuid4().hex}"
        try:
            _write(probe, [b"probe"], 5)
        except Exception as error:
            raise InfrastructureError(
                f"nothing can be written to results_path {self.path}: {type(error).__name__}: "
                f"{error}"
            ) from error
        with suppress(Exception):  # some users may write, but not remove
            probe.fs.rm_file(probe.path)

    def keep(
        self,
        results: Mapping[int, Any],
        reader: ResultsReader,
        key: TaskKey,
        *,
        retry: LaunchRetry,
        stopped: Callable[[], bool],
        sleep: Callable[[float], None],
        log: logging.Logger,
        kept_folder: Path,
    ) -> dict[int, Any]:
        """``results`` with a ``StoredResult`` in place of each value in the results file.

        A value that is small enough is read from the file instead of being stored. Values that
        cannot be stored are copied into the folder ``kept_folder``; so are all that are not stored
        yet when something else interrupts this, such as the alarm of ``execution_timeout``.

        :raises ResultError: the store did not take a value in any of the attempts of ``retry``; for
            values after that one there is one attempt. The error has the values of other ranks.
        """
        told: list[str] = []

        def upload(target: ObjectStoragePath, value: ResultInFile) -> None:
            attempts = replace(retry, attempts=1) if told else retry
            attempts.run(
                partial(_upload, target, reader, value),
                stopped=stopped,
                say=log.warning,
                sleep=sleep,
                what="upload",
            )
            size = f"{value.size:,}"
            log.info("rank %d returned %s bytes, stored at %s", value.rank, size, target)

        kept: dict[int, Any] = {}
        try:
            for rank, value in results.items():
                try:
                    in_file = isinstance(value, ResultInFile)
                    kept[rank] = self._kept(value, reader, key, upload) if in_file else value
                except InfrastructureError as error:
                    told.append(f"rank {rank}: {error}; {_copied(kept_folder, reader, value)}")
        except BaseException:
            stored = {rank for rank, value in kept.items() if isinstance(value, StoredResult)}
            left = {rank: value for rank, value in results.items() if rank not in stored}
            keep_unstored(left, reader, kept_folder, log)
            raise
        if told:
            heading = "the job has succeeded, but a result is missing:"
            missing = ResultError("\n".join((heading, *told)))
            missing.results = kept
            raise missing
        return kept

    def copy_kept(self, folder: Path, key: TaskKey) -> list[str]:
        """Copy the values kept in ``folder``, which nobody could take, to the store: a pod's disk
        goes with the pod. Returns how that ended, in words.
        """
        told = []
        for path in kept_files(folder):
            target = self.folder(key) / path.name
            try:
                with path.open("rb") as file:
                    pieces = iter(lambda: file.read(_CHUNK), b"")
                    _write(target, pieces, path.stat().st_size)
            except Exception as error:  # noqa: BLE001 - the store's own
                told.append(f"{path} could not be copied to {target}: {error}")
            else:
                told.append(f"a copy of {path} is at {target}")
        return told

    def _kept(
        self,
        value: ResultInFile,
        reader: ResultsReader,
        key: TaskKey,
        upload: Callable[[ObjectStoragePath, ResultInFile], None],
    ) -> Any:
        form = _form(reader, value)
        if form == "json" and value.size <= self.inline:
            return json.loads(b"".join(reader.pieces(value)))
        target = self.folder(key) / f"rank_{value.rank}.{form}"
        upload(target, value)
        return StoredResult(
            uri=str(target), size=value.size, preview=_preview(reader, value), format=form
        )

    def folder(self, key: TaskKey) -> ObjectStoragePath:
        """The folder of the task instance ``key``, named as the folders of Airflow's logs are."""
        parts = {"dag_id": key.dag_id, "run_id": key.run_id, "task_id": key.task_id}
        if key.map_index >= 0:
            parts["map_index"] = str(key.map_index)
        parts["attempt"] = self.attempt
        path = self.path
        for name, value in parts.items():
            path /= f"{name}={_UNSAFE.sub('_', value)}"
        return path


def keep_unstored(
    results: Mapping[int, Any], reader: ResultsReader, folder: Path, log: logging.Logger
) -> None:
    """Copy those of ``results`` that are only in the results file into ``folder``, and log where
    they are.
    """
    for rank, value in results.items():
        if isinstance(value, ResultInFile):
            where = _copied(folder, reader, value)
            log.warning("rank %d: what it returned is not stored; %s", rank, where)


def configured_path() -> str:
    """``[elastic_launch] results_path``; empty if it is not set."""
    from airflow.sdk.configuration import conf

    return str(conf.get(SECTION, "results_path", fallback="") or "").strip()


def _upload(
    target: ObjectStoragePath, reader: ResultsReader, value: ResultInFile, _attempt: int
) -> None:
    try:
        _write(target, reader.pieces(value), value.size)
    except Exception as error:
        raise InfrastructureError(
            f"a result of {value.size:,} bytes could not be stored at {target}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _write(target: ObjectStoragePath, pieces: Iterable[bytes], size: int) -> None:
    """Write all of ``pieces``; if that fails, leave no file that could be taken for complete."""
    from fsspec.implementations.local import LocalFileSystem

    files = target.fs
    with suppress(Exception):  # if the folder is needed and cannot be made, opening the file fails
        files.makedirs(target.parent.path, exist_ok=True)
    # An object in a store appears when it is complete, but a local file while it is written.
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
        for leftover in {path, target.path}:
            with suppress(Exception):
                files.rm_file(leftover)
        raise


def _head(reader: ResultsReader, value: ResultInFile) -> bytes:
    return b"".join(
        reader.pieces(ResultInFile(value.rank, value.offset, min(value.size, 2 * _PREVIEW_LENGTH)))
    )


def _form(reader: ResultsReader, value: ResultInFile) -> str:
    return "npz" if npz_archive.is_archive(_head(reader, value)) else "json"


def _preview(reader: ResultsReader, value: ResultInFile) -> str:
    head = _head(reader, value)
    json_head = npz_archive.json_in_head(head) if npz_archive.is_archive(head) else head
    text = json_head.decode("ascii")
    return text if len(text) <= _PREVIEW_LENGTH else f"{text[: _PREVIEW_LENGTH - 3]}..."


def _copied(folder: Path, reader: ResultsReader, value: ResultInFile) -> str:
    """Copy ``value`` into ``folder``; returns how that ended, in words."""
    try:
        name = f"rank_{value.rank}.{_form(reader, value)}"
        path = write_privately(folder, name, lambda file: file.writelines(reader.pieces(value)))
    except (OSError, InfrastructureError) as error:
        return f"a copy on the worker failed too: {error}"
    return how_to_read(path)
