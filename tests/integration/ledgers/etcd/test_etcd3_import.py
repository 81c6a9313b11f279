"""etcd3 imports beside any other user of protobuf, in any order, in any process, without
environment variables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_STEPS = {
    "ours": """
        from llutil.ledgers.etcd.etcd3_import import etcdrpc
        request = etcdrpc.TxnRequest(compare=[etcdrpc.Compare(key=b"k", create_revision=0)])
        assert etcdrpc.TxnRequest.FromString(request.SerializeToString()) == request
    """,
    "opentelemetry": """
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    """,
    "google": """
        from google.api import annotations_pb2, http_pb2
        from google.rpc import status_pb2
    """,
    # Another package registers files and messages with the same names and other content.
    "same_names": """
        from google.protobuf import descriptor_pb2, descriptor_pool
        for name, package, message in [
            ("kv.proto", "mvccpb", "KeyValue"), ("auth.proto", "authpb", "User"),
            ("rpc.proto", "etcdserverpb", "TxnRequest"),
        ]:
            file = descriptor_pb2.FileDescriptorProto(name=name, package=package)
            file.message_type.add(name=message).field.add(name="other", number=77, type=5, label=1)
            descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    """,
    # Another package tried to import etcd3 without our loader, and went on after the failure.
    "failed": """
        try:
            import etcd3
        except TypeError as error:
            assert "Descriptors cannot be created directly" in str(error)
        else:
            raise SystemExit("etcd3 imports by itself now: the fix can go")
    """,
    "client": """
        import etcd3
        assert etcd3.client and etcd3.Etcd3Client
    """,
}


def _python(*arguments: str, code: str) -> subprocess.CompletedProcess[str]:
    dedented = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS")
    }
    return subprocess.run(
        [sys.executable, *arguments, "-c", dedented],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "order",
    [
        "ours client opentelemetry google same_names",
        "opentelemetry google same_names ours client",
        "same_names ours opentelemetry google",
        "opentelemetry ours same_names",
        "failed ours client opentelemetry",
        "opentelemetry failed google ours",
    ],
)
def test_it_imports_in_this_order(order: str) -> None:
    done = _python(code="".join(_STEPS[step] for step in order.split()))
    assert (done.returncode, done.stderr) == (0, "")


def test_it_imports_without_a_warning_and_leaves_no_import_hook() -> None:
    code = f"""
        import sys
        {_STEPS["ours"]}
        assert not [hook for hook in sys.meta_path if "llutil" in type(hook).__module__]
        from google.protobuf import descriptor_pool
        try:
            descriptor_pool.Default().FindFileByName("kv.proto")
        except KeyError:
            pass
        else:
            raise SystemExit("it is in the process-wide pool")
    """
    done = _python("-W", "error", code=code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_it_imports_in_a_child_and_its_messages_can_be_pickled(method: str) -> None:
    code = f"""
        import multiprocessing
        import pickle
        import sys
        sys.path.insert(0, {str(Path.cwd())!r})
        if {method == "fork"}:
            {_STEPS["opentelemetry"].strip().splitlines()[0]}
            from llutil.ledgers.etcd.etcd3_import import etcdrpc
        from tests.integration.ledgers import child_process
        with multiprocessing.get_context({method!r}).Pool(1) as pool:
            data = pool.apply(child_process.message)
        from llutil.ledgers.etcd.etcd3_import import etcdrpc
        assert pickle.loads(data) == etcdrpc.RangeRequest(key=b"from the child")
    """
    done = _python("-W", "ignore::DeprecationWarning", code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_modules_that_need_no_etcd_do_not_import_its_client() -> None:
    code = """
        import sys
        from llutil.ledgers import Ledger
        from llutil.backends.endpoints import parse_endpoints
        from llutil.ledgers.etcd.config import EtcdConfig
        from llutil.ledgers.memory import MemoryLedger
        assert not {"grpc", "etcd3", "tenacity", "google.protobuf"} & set(sys.modules)
    """
    done = _python("-W", "error", code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_version_of_etcd3_is_refused_by_name() -> None:
    code = """
        import importlib.machinery
        get_code = importlib.machinery.SourceFileLoader.get_code
        def without_kv(self, name):
            if name.endswith("kv_pb2"):
                return compile("pass", name, "exec")
            return get_code(self, name)
        importlib.machinery.SourceFileLoader.get_code = without_kv
        from llutil.ledgers.etcd.etcd3_import import etcdrpc
    """
    done = _python(code=code)
    assert done.returncode == 1
    assert (
        "holds 0 compiled copies of kv.proto, wanted one: this is not etcd3 0.12.0" in done.stderr
    )
