"""What torch's own backends are handed of a configuration's options."""

from __future__ import annotations

from typing import Any

from torch.distributed.elastic.rendezvous import RendezvousHandler

from llutil.backends.backend import Backend
from llutil.backends.table import C10D, STATIC
from llutil.rendezvous.build_handler import build_handler
from llutil.rendezvous.config import RendezvousConfig


def handler(backend: Backend, endpoint: str, **options: Any) -> RendezvousHandler:
    config = RendezvousConfig(
        backend=backend,
        endpoint=endpoint,
        run_id="r",
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
        options=backend.values(options, "rdzv_configs"),
    )
    return build_handler(config)


def test_c10d_gets_whole_seconds_from_one_on() -> None:
    made = handler(
        C10D,
        "127.0.0.1:0",
        is_host="true",
        timeout="2.5",
        last_call_timeout=0,
        close_timeout=3,
        keep_alive_max_attempt="7",
    )
    settings = made._inner._settings
    times = settings.timeout
    assert [one.total_seconds() for one in (times.join, times.last_call, times.close)] == [3, 1, 3]
    assert settings.keep_alive_max_attempt == 7


def test_static_gets_its_rank_as_a_number() -> None:
    made = handler(STATIC, "127.0.0.1:1", rank="0", timeout=2.5)
    assert (made.rank, made.timeout.total_seconds()) == (0, 3)
