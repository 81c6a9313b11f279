"""The ledger on a real etcd: the contract, and what it promises beyond it."""

from __future__ import annotations

import pytest

from tests.ledger_contract import LedgerContract

pytestmark = pytest.mark.etcd


class TestEtcdLedger(LedgerContract):
    pass
