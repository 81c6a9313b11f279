"""The tab *Elastic* in the UI of a real Airflow, in a real browser, beside a gang that trains.

The tests are one story: a person looks, steers, and sees a rank die.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests.airflow.client import Client, Run
from tests.airflow.server import Airflow
from tests.support.browsers import chromium, open_page, screenshot

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def run(client: Client, folder: Path) -> Iterator[Run]:
    """A run of the gang, started before the browser."""
    client.await_dags("seen")
    run = client.trigger("seen", {"folder": str(folder)})
    yield run
    run.end()


@pytest.fixture(scope="module")
def browser(run: Run) -> Iterator[Browser]:
    """Closed with the module: other tests on this thread may want an event loop."""
    assert run
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser, server: Airflow, run: Run) -> Iterator[Page]:
    """Airflow's page of node 1, at which somebody has logged in and opened the tab."""
    with open_page(browser, height=1240) as page:
        path = f"/dags/seen/runs/{run.run_id}/tasks/train/mapped/1"
        page.goto(f"{server.url}{path}")
        page.get_by_label("Username").fill(server.user)
        page.get_by_label("Password").fill(server.password)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Elastic").click()
        yield page


@pytest.fixture(scope="module")
def tab(page: Page, run: Run) -> FrameLocator:
    """What is in the tab, once ranks run."""
    for number in (0, 1):
        node = run.task("train", number)
        node.await_text(f"rank {2 * number} begins after step", seconds=150)
    return page.frame_locator("iframe[title=Elastic]")


@contextmanager
def _window_of(user: str, browser: Browser, server: Airflow, run: Run) -> Iterator[Page]:
    """The tab's page in a window of its own, of somebody who has logged in."""
    answer = httpx.post(
        f"{server.url}/auth/token", json={"username": user, "password": server.password}
    )
    with open_page(browser, width=400) as page:
        token = answer.raise_for_status().json()["access_token"]
        page.context.add_cookies([{"name": "_token", "value": token, "url": server.url}])
        asked = httpx.QueryParams(
            {"dag_id": "seen", "run_id": run.run_id, "task_id": "train", "map_index": "0"}
        )
        page.goto(f"{server.url}/elastic-launch/index.html?{asked}")
        yield page


def _press(tab: FrameLocator, order: str) -> None:
    tab.locator(f"button[data-order={order}][aria-disabled=false]").click()


def test_the_tab_shows_all_nodes_and_steps_move(tab: FrameLocator) -> None:
    expect(tab.locator("[data-role=state]")).to_have_text("Runs")
    expect(tab.locator("tr.node")).to_have_count(2)
    step = tab.locator("[data-role=step]")
    expect(step).to_have_text(re.compile(r"step [\d,]+ of 100,000"))
    expect(tab.locator("tr[data-rank]")).to_have_count(4)
    expect(tab.locator("svg[data-curve=loss]")).to_be_visible()
    expect(tab.locator("#lacks")).to_be_empty()
    before = step.inner_text()
    expect(step).not_to_have_text(before)


def test_a_checkpoint_is_ordered_and_committed(tab: FrameLocator, folder: Path) -> None:
    _press(tab, "checkpoint")
    expect(tab.locator("#order-status")).to_contain_text("is committed")
    expect(tab.locator("#checkpoints li").first).to_contain_text("a rerun begins here")
    assert list(folder.glob("*/step-*/COMMITTED"))


def test_a_pause_holds_the_job_until_it_is_resumed(tab: FrameLocator, run: Run) -> None:
    _press(tab, "pause")
    expect(tab.locator("[data-role=state]")).to_have_text("Paused")
    expect(tab.locator("#head")).to_contain_text("It is paused after step")
    run.task("train", 1).await_text("all ranks pause after step")
    _press(tab, "resume")
    expect(tab.locator("[data-role=state]")).to_have_text("Runs")


def test_stacks_of_all_ranks_are_written_into_the_logs_of_their_nodes(
    tab: FrameLocator, page: Page, run: Run
) -> None:
    _press(tab, "stacks")
    expect(tab.locator("#order-status")).to_contain_text("ranks are in its log")
    for number, ranks in ((0, (0, 1)), (1, (2, 3))):
        node = run.task("train", number)
        node.await_text(f"stacks of rank {ranks[1]}")
        shown = node.text().partition("stacks, since")[2]
        for rank in ranks:
            assert f"stacks of rank {rank} (pid " in shown
        assert "in work" in shown  # the function of the DAG file
    expect(tab.locator("[data-role=state]")).to_have_text("Runs")
    expect(tab.locator("button[data-order=stacks]")).to_have_attribute("aria-disabled", "false")
    screenshot(page, "airflow-light")


def test_a_viewer_sees_the_job_and_cannot_steer_it(
    browser: Browser, server: Airflow, run: Run
) -> None:
    with _window_of("viewer", browser, server, run) as page:
        expect(page.locator("[data-role=state]")).to_have_text("Runs")
        page.locator("button[data-order=pause][aria-disabled=false]").click()
        expect(page.locator("#order-reason")).to_contain_text("not steer it")
        path = f"{server.url}/api/v2/{run.task('train', 0).path}/state-store/control?map_index=0"
        assert page.request.put(path, data={"value": "pause"}).status == 403
        screenshot(page, "airflow-phone")
    assert "control" not in run.task("train", 0).stored()


def test_who_may_not_see_the_dag_sees_nothing(browser: Browser, server: Airflow, run: Run) -> None:
    with _window_of("nobody", browser, server, run) as page:
        expect(page.locator("#notice")).to_contain_text("refuses to show you")
        expect(page.locator("#orders")).to_be_hidden()
        assert "step" not in page.locator("main").inner_text()
        path = f"{server.url}/api/v2/{run.task('train', 0).path}"
        for address in (path, f"{path}/0", f"{path}/state-store?map_index=0"):
            assert page.request.get(address).status == 403
    assert httpx.get(f"{server.url}/api/v2/{run.path}").status_code == 401


def test_a_rank_leads_to_what_it_printed(tab: FrameLocator, page: Page, run: Run) -> None:
    here = page.url
    tab.locator("tr[data-rank='2'] button").click()
    page.wait_for_url(re.compile(r"/mapped/1\?try_number=1&log_source=rank\+2$"))
    line = page.locator(".event", has_text="[rank 2] rank 2 begins after step")
    expect(line).to_be_visible(timeout=30_000)
    expect(page.locator(".event", has_text="[rank 3]")).to_have_count(0)
    page.goto(here)
    expect(tab.locator("[data-role=state]")).to_have_text("Runs")


def _pid(run: Run, rank: int) -> int:
    """The process of a rank of node 1, by that node's log."""
    said = run.task("train", 1).text()
    ranks, pids = re.findall(r"ranks \((.+?)\) are here, pids \((.+?)\)", said)[-1]
    return dict(zip(ranks.split(", "), map(int, pids.split(", ")), strict=True))[str(rank)]


def test_a_rank_that_is_killed_is_named(tab: FrameLocator, page: Page, run: Run) -> None:
    os.kill(_pid(run, 3), signal.SIGKILL)
    expect(tab.locator("[data-role=state]")).to_have_text("Failed", timeout=90_000)
    expect(tab.locator("[data-role=culprit]")).to_contain_text("rank 3")
    expect(tab.locator("tr[data-culprit]")).to_contain_text("signal 9")
    expect(tab.locator("#failure pre")).to_contain_text("rank 3: signal 9 (SIGKILL")
    expect(tab.locator("tr.rank.guilty")).to_contain_text("rank 3")
    expect(tab.locator("#rounds li").first).to_contain_text("ended by a failure")
    expect(tab.locator("#order-reason")).to_contain_text("The job has ended")
    page.emulate_media(color_scheme="dark")  # Airflow's theme follows it, and the tab Airflow's
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    screenshot(page, "airflow-dark")
