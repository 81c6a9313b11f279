"""When ranks that report no progress are suspected to hang."""

from __future__ import annotations

import pytest

from llutil.agent.hang.hang_watch import AUTO, HangTimeout, HangWatch, Sight, Suspicion

BUSY, QUIET = 1.0, 0.0


class Node:
    """Ranks under a watch, and a clock. ``found`` is the first suspicion, ``at`` when it came."""

    def __init__(self, timeout: HangTimeout = AUTO, ranks: int = 1) -> None:
        self.watch = HangWatch(timeout)
        self.now = 1000.0
        self.steps: list[int] = [0] * ranks
        self.cpu = [0.0] * ranks
        self.saves = False
        self.watch.begin(self.now)

    def look(self, *, held: bool = False, late: float = 0.0) -> Suspicion | None:
        self.now = self.watch.next_look + late
        sights = [
            Sight(rank, (step, step) if step else None, cpu, self.saves)
            for rank, (step, cpu) in enumerate(zip(self.steps, self.cpu, strict=True))
        ]
        return self.watch.look(self.now, sights, held=held)

    def trains(self, looks: int = 10) -> None:
        """Every rank makes three steps between two looks."""
        for _ in range(looks):
            self.steps = [step + 3 for step in self.steps]
            self.cpu = [cpu + 20 for cpu in self.cpu]
            assert self.look() is None

    def stands(self, seconds: float, load: float = QUIET, *, held: bool = False) -> float | None:
        """No rank reports for ``seconds``: after how many one is suspected, or None."""
        began = self.now
        while self.now - began < seconds:
            self.cpu = [cpu + load * self.watch.period for cpu in self.cpu]
            if self.look(held=held) is not None:
                return self.now - began
        return None


def test_a_rank_that_never_reports_is_never_suspected() -> None:
    for timeout in (AUTO, 5.0):
        assert Node(timeout).stands(10_000 if timeout == AUTO else 500) is None


def test_an_idle_rank_is_suspected_before_nccls_timeout_of_600_s() -> None:
    node = Node()
    node.trains()
    after = node.stands(1000)
    assert after is not None
    assert 480 <= after <= 540


def test_a_rank_that_works_is_suspected_after_two_hours() -> None:
    node = Node()
    node.trains()
    after = node.stands(10_000, BUSY)
    assert after is not None
    assert 7200 <= after <= 7260


def test_a_rank_that_works_now_and_then_is_not_idle() -> None:
    node = Node()
    node.trains()
    for _ in range(10):
        assert node.stands(400) is None
        assert node.stands(30, BUSY) is None


def test_a_checkpoint_may_take_half_an_hour_without_any_work() -> None:
    node = Node()
    node.trains()
    node.saves = True
    after = node.stands(5000)
    assert after is not None
    assert 1800 <= after <= 1860


def test_the_first_reports_may_take_half_an_hour() -> None:
    node = Node()
    node.steps = [1]
    node.look()
    after = node.stands(5000)
    assert after is not None
    assert 1800 <= after <= 1860


@pytest.mark.parametrize(("load", "first", "second"), [(QUIET, 400, 1150), (BUSY, 5000, 14_900)])
def test_a_silence_that_ended_is_learned_three_times_over(
    load: float, first: float, second: float
) -> None:
    node = Node()
    node.trains()
    assert node.stands(first, load) is None
    node.trains()
    assert node.stands(second, load) is None
    assert node.stands(1000, load) is not None


def test_what_was_learned_holds_in_the_next_round_too_and_the_start_is_slow_again() -> None:
    node = Node()
    node.trains()
    assert node.stands(5000, BUSY) is None
    node.trains(1)
    node.watch.begin(node.now)
    node.steps = [0]
    assert node.look() is None
    node.trains()
    assert node.stands(14_000, BUSY) is None


def test_time_in_which_somebody_holds_a_rank_does_not_count() -> None:
    for timeout in (AUTO, 5.0):
        node = Node(timeout)
        node.trains()
        assert node.stands(100_000 if timeout == AUTO else 500, held=True) is None
        assert node.stands(1000) is not None


def test_time_in_which_nobody_looked_does_not_count() -> None:
    for timeout in (AUTO, 5.0):
        node = Node(timeout)
        node.trains()
        assert node.look(late=100_000) is None
        node.trains(1)


def test_a_timeout_in_seconds_is_taken_as_it_is() -> None:
    for load in (QUIET, BUSY):
        node = Node(5.0)
        node.trains(1)
        after = node.stands(100, load)
        assert after is not None
        assert 5.0 <= after <= 5.0 + 2 * node.watch.period


def test_a_suspicion_becomes_certain_after_half_the_timeout_more() -> None:
    node = Node(8.0)
    node.trains(1)
    assert node.stands(100) is not None
    certain = []
    while not certain or not certain[-1]:
        suspicion = node.look()
        assert suspicion is not None
        certain.append(suspicion.certain)
    assert 3 <= len(certain) <= 5


def test_none_switches_the_watch_off() -> None:
    watch = HangWatch(None)
    watch.begin(7.0)
    assert watch.next_look == float("inf")


def test_no_look_is_due_when_no_rank_runs() -> None:
    watch = HangWatch(AUTO)
    assert watch.next_look == float("inf")
    watch.begin(7.0)
    assert watch.next_look == 37.0
    watch.end()
    assert watch.next_look == float("inf")


def test_a_rank_that_was_acquitted_is_suspected_anew_after_the_same_time() -> None:
    node = Node()
    node.trains()
    for _ in range(3):
        after = node.stands(1000)
        assert after is not None
        assert after >= 480
        node.watch.acquit([0])
    node.trains(1)
    assert node.watch.limits(0)[0] < 2 * 480


def test_ranks_that_never_report_are_seen_to_be_idle() -> None:
    node = Node(ranks=2)
    node.steps = [0, 0]
    for _ in range(5):
        node.steps[0] += 1
        node.look()
    suspicion = None
    while suspicion is None:
        suspicion = node.look()
    assert set(suspicion.silent) == {0}
    assert suspicion.idle == {0, 1}


def test_reports_with_the_same_step_are_signs_of_life() -> None:
    watch = HangWatch(5.0)
    watch.begin(0.0)
    for beat in range(1, 100):
        assert watch.look(float(beat), [Sight(0, (7, beat), 0.0)], held=False) is None
