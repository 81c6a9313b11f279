"""Imports etcd3 0.12.0 under protobuf 4 and newer.

etcd3's generated modules were made for protobuf 3. They build the descriptor of each field by hand,
and newer versions refuse that ("Descriptors cannot be created directly"). But each module also
holds the compiled .proto file as one string constant. ``_load`` lets Python import etcd3 as usual,
except for these three modules. For them it takes the constant and builds the message classes the
way that modules generated today do.

The descriptors go into their own pool. In the process-wide pool, another etcd client may have taken
names as plain as ``kv.proto``; whoever registers them second fails.

This needs no environment variable, no other protobuf and no copied code. Nothing stays patched when
``_load`` returns. This module may import etcd3, protobuf and the standard library, and nothing of
``llutil``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from google.protobuf.descriptor_pool import (  # type: ignore[import-untyped]
    DescriptorPool,
)
from google.protobuf.internal import builder  # type: ignore[import-untyped]  # nor here

__all__ = ["etcdrpc"]

_PACKAGE = "etcd3.etcdrpc"
_NEEDS = {"kv": (), "auth": (), "rpc": ("kv", "auth")}
"""The .proto files of etcd3. By file: the others that it imports."""


def _proto_of(module: str) -> str | None:
    """The stem of the .proto file that ``module`` was generated from; None if it is not one of the
    three.
    """
    package, _, name = module.rpartition(".")
    stem = name.removesuffix("_pb2")
    return stem if package == _PACKAGE and name.endswith("_pb2") and stem in _NEEDS else None


class _Loader(SourceFileLoader):
    """Fills a module with the classes of the .proto file in its source. The source is not run."""

    def __init__(self, module: str, path: str, stem: str, pool: DescriptorPool) -> None:
        super().__init__(module, path)
        self._stem = stem
        self._pool = pool

    def exec_module(self, module: ModuleType) -> None:
        for needed in _NEEDS[self._stem]:  # a file's imports must be in the pool before it
            importlib.import_module(f"{_PACKAGE}.{needed}_pb2")
        self._pool.AddSerializedFile(self._compiled_proto(module.__name__))
        file = self._pool.FindFileByName(f"{self._stem}.proto")
        module.__dict__["DESCRIPTOR"] = file
        builder.BuildMessageAndEnumDescriptors(file, module.__dict__)
        builder.BuildTopDescriptorsAndMessages(file, module.__name__, module.__dict__)

    def _compiled_proto(self, module: str) -> bytes:
        """The constant that holds the serialized FileDescriptorProto. It begins with field 1, the
        file's own name.
        """
        code = self.get_code(module)
        name = f"{self._stem}.proto"
        head = f"\x0a{chr(len(name))}{name}"
        texts = [const for const in (code.co_consts if code else ()) if isinstance(const, str)]
        found = [text for text in texts if text.startswith(head)]
        if len(found) != 1:
            raise ImportError(
                f"{self.path} holds {len(found)} compiled copies of {name}, wanted one: "
                "this is not etcd3 0.12.0",
                name=module,
                path=self.path,
            )
        return found[0].encode("latin-1")


class _Finder(MetaPathFinder):
    """Finds the three modules where Python would find them, and gives them our loader."""

    def __init__(self) -> None:
        self._pool = DescriptorPool()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        stem = _proto_of(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if stem else None
        if spec is None or stem is None or spec.origin is None:
            return None
        spec.loader = _Loader(fullname, spec.origin, stem, self._pool)
        return spec


def _load() -> ModuleType:
    """Import ``etcd3.etcdrpc``, with our finder first in ``sys.meta_path``."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(_PACKAGE)
    finally:
        sys.meta_path.remove(finder)


etcdrpc: Any = _load()
"""etcd3's messages and gRPC stubs."""
