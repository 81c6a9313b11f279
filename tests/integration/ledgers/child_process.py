"""What a test's child processes run: it must be importable by a fresh interpreter."""

from __future__ import annotations

import os
import pickle
import sys
import threading

__all__ = ["ends", "forks", "message"]


def message() -> bytes:
    """A message of etcd3's, pickled."""
    from llutil.ledgers.etcd.etcd3_import import etcdrpc

    return pickle.dumps(etcdrpc.RangeRequest(key=b"from the child"))


def ends(store: str, endpoint: str, namespace: str) -> None:
    """Use a ledger, and leave it as it is."""
    from llutil.backends.endpoints import parse_endpoints
    from tests.support import stores
    from tests.support.ledger_contract import soon

    there: stores.Store = getattr(stores, store)
    ledger = there.ledger(*parse_endpoints(endpoint), namespace=namespace)
    session = ledger.open_session(10, deadline=soon())
    ledger.watch("members/", deadline=soon())
    session.join("members/", "a", b"", deadline=soon())
    print(session.state)


def forks(store: str, endpoint: str, namespace: str, count: int) -> None:
    """Fork with a busy ledger; print what each child and then the parent finds."""
    from llutil.backends.endpoints import parse_endpoints
    from llutil.ledgers import LedgerClosed
    from tests.support import stores
    from tests.support.ledger_contract import soon

    there: stores.Store = getattr(stores, store)
    ledger = there.ledger(*parse_endpoints(endpoint), namespace=namespace)
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
        own = there.ledger(*parse_endpoints(endpoint), namespace=namespace)
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
