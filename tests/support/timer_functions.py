"""What ranks do with torch's timers."""

from __future__ import annotations

import os
import signal


def let_a_timer_expire(stranger: int) -> str:
    """In the first round, set a timer in a stranger's name and one that is over, and wait."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "1":
        return "in the second round"
    from torch.distributed.elastic.timer.file_based_local_timer import (
        FileTimerClient,
        FileTimerRequest,
    )

    client = FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"])
    client._send_request(FileTimerRequest(stranger, "theirs", 1.0, signal.SIGKILL))
    client.acquire("ours", 1.0)
    signal.pause()
    return "never"
