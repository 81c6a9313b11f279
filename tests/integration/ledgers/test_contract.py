"""The contract of all ledgers, on each of the real stores."""

from __future__ import annotations

import pytest

from tests.support.ledger_contract import LedgerContract
from tests.support.stores import STORES


@pytest.mark.parametrize("store", STORES)
class TestLedger(LedgerContract):
    """Nodes on a shared server."""
