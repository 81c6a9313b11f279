"""The ledger contract's asserts explain themselves here too."""

import pytest

pytest.register_assert_rewrite("tests.ledger_contract", "tests.ledger_traffic")
