"""The page of the tab in a real browser: states that are missing, malformed, hostile or huge, and
an Airflow that does not answer.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from airflow_provider.task_state.elastic_note import Ended, LaunchFacts
from airflow_provider.task_state.job_state import JobState
from llutil.failure import JobFailure
from tests.integration.provider.plugins.rest_api import World
from tests.integration.provider.plugins.told_jobs import Told, failed_gang, instance, running_gang
from tests.support.browsers import open_page

_HOSTILE = (
    "<img src=x onerror='window.hit = 1'><script>window.hit = 1</script>\"'`${window.hit = 1}"
)
_STRANGE = (None, True, -1, 3.7, 1e308, "", "{cut", "x" * 10_240, [], {}, [[]], [None], {"a": None})


def _everywhere(value: Any, text: str) -> Any:
    """``value`` with ``text`` in place of each text in it, names of fields aside."""
    if isinstance(value, dict):
        return {name: _everywhere(one, text) for name, one in value.items()}
    if isinstance(value, list):
        return [_everywhere(one, text) for one in value]
    return text if isinstance(value, str) else value


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something is in ``value``: the first of each list stands for all."""
    found = [path] if path else []
    if isinstance(value, dict):
        for name, one in value.items():
            found += _places(one, (*path, name))
    elif isinstance(value, list) and value:
        found += _places(value[0], (*path, 0))
    return found


@pytest.mark.parametrize("job", [running_gang, failed_gang])
def test_html_of_a_rank_is_shown_as_text_and_runs_nowhere(
    page: Page, world: World, job: Any
) -> None:
    gang: Told = job()
    for index, (found, store) in gang.items():
        state = store["state"]
        hostile = _everywhere(store, _HOSTILE)
        hostile["state"]["control"] = state["control"]
        hostile["elastic"]["curves"] = {"metrics": {_HOSTILE: [[1, 2, 3], [2, 3, 4]]}}
        for kind, one in (("rounds", "began"), ("rounds", "ended"), ("checkpoints", "folder")):
            if kind == "rounds":
                for at, told in enumerate(hostile["elastic"][kind]):
                    told[one] = store["elastic"][kind][at][one]
        hostile["control_answer"] = {"asked": _HOSTILE, "refused": _HOSTILE, "then": [_HOSTILE]}
        gang[index] = found | {"hostname": _HOSTILE, "state": found["state"]}, hostile
    world.tell(gang)
    page.goto(world.address(task="%3Cimg%20src%3Dx%20onerror%3D'window.hit%3D1'%3E"))
    page.locator("[data-role=state]").wait_for()
    shown = page.locator("main").inner_text()
    assert shown.count("<img src=x onerror=") > 10
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hit") is None
    blocked = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.name; } }"
    )
    assert blocked == "TypeError"  # by the policy of trusted types: nobody can make the mistake


_DRAW = """async ({told, places, strange}) => {
  const [{nodeOf}, {jobOf}, ...drawing] = await Promise.all(
    ["node", "job", "head", "nodes", "curves", "rounds", "checkpoints", "failure", "lacks"]
      .map((name) => import(`./${name}.js`)));
  const all = Object.assign({}, ...drawing);
  const folds = new all.Folds();
  const place = document.createElement("div");
  document.body.append(place);
  const wrong = [];
  const now = Date.now();
  for (const path of places) for (const value of strange) {
    const copy = structuredClone(told);
    let at = copy[1][1];
    for (const name of path.slice(0, -1)) at = at[name];
    at[path.at(-1)] = value;
    try {
      const broken = new Map();
      const nodes = Object.values(copy).map(([instance, store]) => nodeOf(instance,
        Object.entries(store).map(([key, value]) => ({key, value, updated_at: "2026-11-30"})),
        "", now));
      const job = jobOf(nodes, now, broken);
      for (const [name, error] of broken) throw new Error(`${name}: ${error}`);
      all.drawHead(place, job, "fit");
      all.drawNodes(place, job, folds);
      for (const name of ["Curves", "Rounds", "Checkpoints", "Failure"]) {
        all[`draw${name}`](place, job);
      }
      all.drawLacks(place, job, broken);
    } catch (error) {
      wrong.push(`${path} = ${JSON.stringify(value)}: ${error}`);
    }
  }
  place.remove();
  return wrong;
}"""


def test_a_strange_value_in_any_field_breaks_no_part(page: Page, world: World) -> None:
    gang = failed_gang()
    world.tell(gang)
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    places = _places(gang[1][1])
    assert len(places) > 60
    told = {"told": {1: gang[1]}, "places": places, "strange": _STRANGE}
    assert page.evaluate(_DRAW, told) == []


def test_a_part_that_breaks_leaves_the_others(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.route(
        "**/checkpoints.js",
        lambda route: route.fulfill(
            content_type="text/javascript",
            body="export function drawCheckpoints() { throw new Error('a fault'); }",
        ),
    )
    page.goto(world.address())
    expect(page.locator("#checkpoints")).to_have_text("This part cannot be shown: a fault")
    assert page.locator("tr[data-rank]").count() == 4
    assert page.locator("#rounds li").count() == 3


def _older() -> Told:
    """A job of a version that writes no key ``elastic``."""
    gang = running_gang()
    for _, store in gang.values():
        del store["elastic"]
        store["progress"] |= {"steps_per_second": 2.5, "seconds_left": 60, "metrics": {"loss": 0.5}}
    gang[0][1]["checkpoint"] = {"step": 1200, "folder": "/data/ck", "time": "2026-11-30T01:00:00"}
    return gang


def _cut_off() -> Told:
    gang = running_gang()
    gang[0][1]["elastic"] = '{"version": 1, "ranks": [{"rank": 0, "st'
    return gang


def _again() -> Told:
    """A failed job whose next try has begun."""
    gang = failed_gang()
    return {index: (instance(index, try_number=2), store) for index, (_, store) in gang.items()}


def _left_out() -> Told:
    gang = running_gang()
    gang[1][1]["elastic"] |= {"ranks": [], "left_out": ["ranks"], "version": 7}
    return gang


def _without_launch(state: str, why: str, failure: JobFailure | None = None) -> Told:
    """A task that has ended before it had a launch."""
    store: dict[str, Any] = {}
    client = SimpleNamespace(get=store.get, set=store.__setitem__, delete=store.pop)
    kept = JobState(client, logging.getLogger("t"), LaunchFacts(try_number=1, folder=None))
    kept.close(Ended(outcome=why, failure=failure, report=why if failure else ""))
    return {-1: (instance(state=state), store)}


_REFUSED = "nproc_per_node is 0; wanted 1 to 256"


@pytest.mark.parametrize(
    ("job", "state", "said"),
    [
        (_without_launch("failed", "failed: 1 node can still come"), "Failed", "1 node can still"),
        (_without_launch("failed", "failed", JobFailure(why=_REFUSED)), "Failed", _REFUSED),
        (_without_launch("skipped", "skipped"), "Skipped", "Airflow skipped this task"),
        ({-1: (instance(state="success"), {})}, "Succeeded", "another operator's"),
        ({-1: (instance(state=None), {})}, "Not started", "has not started"),
        ({-1: (instance(), {})}, "Starts", "said nothing yet"),
        ({-1: (instance(state="up_for_retry"), {})}, "Waits for a retry", "starts the next one"),
        ({}, "Nothing here", "no instance of this task"),
        (_older(), "Runs", "writes no key elastic"),
        (_older(), "Runs", "step 1,200"),
        (_older(), "Runs", "1 min left"),
        (_cut_off(), "Runs", "the key elastic of its state cannot be read"),
        (_again(), "Starts", "A try has begun"),
        (_again(), "Starts", "No task instance takes orders now"),
        (_left_out(), "Runs", "which may have 64 KB: ranks"),
        (_left_out(), "Runs", "it writes version 7"),
    ],
)
def test_it_shows_what_there_is_and_says_what_it_lacks(
    page: Page, world: World, job: Told, state: str, said: str
) -> None:
    world.tell(job)
    page.goto(world.address())
    expect(page.locator("[data-role=state]")).to_have_text(state)
    expect(page.locator("main")).to_contain_text(said)
    assert "cannot be shown" not in page.locator("main").inner_text()


def test_what_is_not_known_of_checkpoints_is_not_told(page: Page, world: World) -> None:
    world.tell(_without_launch("failed", "failed", JobFailure(why=_REFUSED)))
    page.goto(world.address())
    expect(page.locator("main")).to_contain_text(_REFUSED)
    assert "a rerun begins" not in page.locator("main").inner_text()


def test_a_name_of_10_kb_fits_a_phone(browser: Browser, world: World) -> None:
    gang = failed_gang()
    long = "r" * 10_240
    gang = {
        index: (found | {"hostname": long}, _everywhere(store, long) | {"state": store["state"]})
        for index, (found, store) in gang.items()
    }
    world.tell(gang)
    with open_page(browser, width=400) as page:
        page.goto(world.address())
        expect(page.locator("[data-role=state]")).to_have_text("Failed")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.evaluate("document.documentElement.scrollHeight") < 6000


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (500, "", "does not answer"),
        (503, "", "503"),
        (401, "Not authenticated", "logged out"),
        (403, "Invalid JWT token", "logged out"),
    ],
)
def test_it_says_that_airflow_does_not_answer_and_goes_on_by_itself(
    page: Page, world: World, status: int, detail: str, said: str
) -> None:
    page.clock.install()
    world.tell(running_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    world.detail, world.broken = detail, status  # in this order: somebody may ask in between
    page.clock.run_for(3_500)
    expect(page.locator("#notice")).to_contain_text(said)
    expect(page.locator("#notice")).to_contain_text("Below is how it was at")
    assert page.locator("tr[data-rank]").count() == 4
    world.broken = 0
    page.clock.run_for(7_000)
    expect(page.locator("#notice")).to_be_empty()


def test_who_may_not_see_the_dag_sees_nothing(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    world.broken = 403  # the right was taken away meanwhile
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.locator("#notice")).to_contain_text("refuses to show you")
    expect(page.locator("#orders")).to_be_hidden()
    shown = page.locator("main").inner_text()
    assert "gpu-a" not in shown
    assert "1,240" not in shown


def test_after_the_end_it_asks_once_a_minute_and_when_a_person_comes_back(
    page: Page, world: World
) -> None:
    page.clock.install()
    world.tell(failed_gang())
    page.goto(world.address())
    expect(page.locator("#foot")).to_contain_text("every 1 min")
    asked = len(world.asked)
    page.clock.run_for(50_000)
    assert len(world.asked) == asked
    with page.expect_request("**/taskInstances?*"):
        page.clock.run_for(15_000)
    with page.expect_request("**/taskInstances?*"):
        page.evaluate("window.dispatchEvent(new Event('focus'))")


def test_a_page_of_which_a_file_did_not_come_says_so_and_loads_again_by_itself(
    page: Page, world: World
) -> None:
    world.tell(running_gang())
    world.lost = {"words.js"}
    page.goto(world.address())
    expect(page.locator("#notice")).to_contain_text("did not come")
    world.lost.clear()
    expect(page.locator("[data-role=state]")).to_have_text("Runs")
    expect(page.locator("#notice")).to_be_empty()
