"""What a test's child processes run: it must be importable by a fresh interpreter."""

from __future__ import annotations

import os
import pickle
import sys
import threading

__all__ = ["ends", "forks", "message", "zookeeper_forks"]


def message() -> bytes:
    """A message of etcd3's, pickled."""
    from llutil.ledgers.etcd.etcd3_import import etcdrpc

    return pickle.dumps(etcdrpc.RangeRequest(key=b"from the child"))


def ends(endpoint: str, namespace: str) -> None:
    """Use a ledger, and leave it as it is."""
    from llutil.ledgers.endpoints import parse_endpoints
    from llutil.ledgers.etcd.config import EtcdConfig
    from llutil.ledgers.etcd.ledger import EtcdLedger
    from tests.ledger_contract import soon

    config = EtcdConfig(endpoints=parse_endpoints(endpoint), namespace=namespace)
    ledger = EtcdLedger(config, lambda: None)
    session = ledger.open_session(10, deadline=soon())
    ledger.watch("members/", deadline=soon())
    session.join("members/", "a", b"", deadline=soon())
    print(session.state)


def zookeeper_forks(endpoint: str, namespace: str) -> None:
    """Fork with a ledger on ZooKeeper; print what the child and then the parent finds. Leave without closing."""
    from llutil.ledgers import LedgerClosed
    from llutil.ledgers.zookeeper.config import ZooKeeperConfig
    from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
    from tests.ledger_contract import soon

    config = ZooKeeperConfig.at(endpoint, namespace=namespace)
    ledger = ZooKeeperLedger(config, lambda: None)
    session = ledger.open_session(10, deadline=soon())
    watch = ledger.watch("members/", deadline=soon())
    session.join("members/", "parent", b"", deadline=soon())
    pid = os.fork()
    if pid == 0:
        try:
            for use in (
                lambda: ledger.read("members/", deadline=soon()),
                watch.view,
                lambda: session.release(deadline=soon()),
            ):
                try:
                    use()
                except LedgerClosed as error:
                    print("child", error, flush=True)
            watch.close()
            ledger.close()
            own = ZooKeeperLedger(config, lambda: None)
            print("child sees", len(own.read("members/", deadline=soon()).records), flush=True)
            own.close()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)
    print("parent", session.state, len(ledger.read("members/", deadline=soon()).records))


def forks(endpoint: str, namespace: str, count: int) -> None:
    """Fork with a busy ledger; print what each child and then the parent finds."""
    from llutil.ledgers import LedgerClosed
    from llutil.ledgers.endpoints import parse_endpoints
    from llutil.ledgers.etcd.config import EtcdConfig
    from llutil.ledgers.etcd.ledger import EtcdLedger
    from tests.ledger_contract import soon

    config = EtcdConfig(endpoints=parse_endpoints(endpoint), namespace=namespace)
    ledger = EtcdLedger(config, lambda: None)
    session = ledger.open_session(10, deadline=soon())
    watch = ledger.watch("members/", deadline=soon())
    session.join("members/", "parent", b"", deadline=soon())
    done = threading.Event()

    def busy() -> None:
        while not done.is_set():
            ledger.read("members/", deadline=soon())

    def child() -> None:
        for use in (
            lambda: ledger.read("members/", deadline=soon()),
            watch.view,
            lambda: session.release(deadline=soon()),
        ):
            try:
                use()
            except LedgerClosed as error:
                print("child", error, flush=True)
        watch.close()
        ledger.close()
        own = EtcdLedger(config, lambda: None)
        print("child sees", len(own.read("members/", deadline=soon()).records), flush=True)
        own.close()

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                child()
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(pid, 0)
    done.set()
    for thread in threads:
        thread.join()
    view = ledger.read("members/", deadline=soon())
    print("parent", session.state, len(view.records), flush=True)
    ledger.close()
