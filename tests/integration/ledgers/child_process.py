"""What the child processes of tests run. A fresh interpreter must be able to import it."""

from __future__ import annotations

import os
import pickle
import sys
import threading

__all__ = ["message", "use_and_exit", "use_and_fork"]


def message() -> bytes:
    """One of etcd3's messages, pickled."""
    from llutil.ledgers.etcd.etcd3_import import etcdrpc

    return pickle.dumps(etcdrpc.RangeRequest(key=b"from the child"))


def use_and_exit(store: str, endpoint: str, namespace: str) -> None:
    """Use a ledger, and end the process without closing it."""
    from llutil.backends.endpoints import parse_endpoints
    from tests.support import stores
    from tests.support.ledger_contract import soon

    kind: stores.Store = getattr(stores, store)
    ledger = kind.ledger(*parse_endpoints(endpoint), namespace=namespace)
    session = ledger.open_session(10, deadline=soon())
    ledger.watch("members/", deadline=soon())
    session.join("members/", "a", b"", deadline=soon())
    print(session.state)


def use_and_fork(store: str, endpoint: str, namespace: str, count: int) -> None:
    """Fork while a ledger is in use; print what each child and then the parent finds."""
    from llutil.backends.endpoints import parse_endpoints
    from llutil.ledgers import LedgerClosed
    from tests.support import stores
    from tests.support.ledger_contract import soon

    kind: stores.Store = getattr(stores, store)
    ledger = kind.ledger(*parse_endpoints(endpoint), namespace=namespace)
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
        own = kind.ledger(*parse_endpoints(endpoint), namespace=namespace)
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
