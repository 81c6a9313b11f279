"""The page of the tab in a real browser, with an API that answers what a test wants: jobs as they
should be.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.provider.plugins.rest_api import World
from tests.integration.provider.plugins.told_jobs import failed_gang, paused, running_gang
from tests.support.browsers import open_page, screenshot


def _state(page: Page) -> str:
    """The job's state in a word, once it is there."""
    return page.locator("[data-role=state]").inner_text()


def _order(page: Page, word: str) -> None:
    page.locator(f"button[data-order={word}]").click()


def _focus(page: Page) -> None:
    """What a browser does when a person comes back to its window."""
    page.evaluate("window.dispatchEvent(new Event('focus'))")


def test_a_gang_is_one_view_of_all_its_nodes(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address(map_index="1"))
    assert _state(page) == "Runs"
    head = page.locator("#head")
    expect(head).to_contain_text("step 1,240 of 5,000 · 25 % · 29 min 24 s left")
    expect(head).to_contain_text("11 min 30 s, 88 % training, 1 restart cost 40 s")
    assert page.locator("tr.node").count() == 2
    assert page.locator("tr[data-rank]").count() == 4
    expect(page.locator("tr[data-rank='3']")).to_contain_text("1,241")
    assert page.locator("svg[data-curve=loss]").count() == 1
    expect(page.locator("#rounds li").first).to_contain_text("round 2")
    expect(page.locator("#rounds")).to_contain_text("rank 3 on gpu-b: out of memory")
    begins = page.locator("#checkpoints li", has_text="a rerun begins here")
    expect(begins).to_contain_text("step 1,200")
    assert page.locator("#failure > *").count() == 0
    assert page.locator("#lacks > *").count() == 0


def test_a_failure_names_the_culprit_and_has_the_report(page: Page, world: World) -> None:
    world.tell(failed_gang())
    page.goto(world.address())
    assert _state(page) == "Failed"
    assert page.locator("[data-role=culprit]").inner_text() == "rank 3 on gpu-b"
    (row,) = page.locator("tr[data-culprit]").all()
    assert "rank 3" in row.inner_text()
    assert "exit code 1" in row.inner_text()
    expect(page.locator("#failure pre")).to_contain_text("Traceback (most recent call last)")
    expect(page.locator("tr.rank.guilty")).to_contain_text("failed here")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("[data-copy]")).to_have_text("Copied")
    pause = page.locator("button[data-order=pause]")
    expect(pause).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#order-reason")).to_contain_text("The job has ended")


def test_an_order_is_sent_understood_and_done(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address(map_index="1"))
    _order(page, "pause")
    status = page.locator("#order-status")
    expect(status).to_contain_text("was sent")
    ((index, order),) = world.orders
    assert index == 0  # the one that takes orders
    assert order["do"] == "pause"
    world.tell(paused())
    _focus(page)
    expect(status).to_contain_text("paused after step 1240")
    assert _state(page) == "Paused"
    expect(page.locator("#head")).not_to_contain_text("left")
    expect(page.locator("button[data-order=pause]")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("button[data-order=resume]")).to_have_attribute("aria-disabled", "false")


def test_an_order_of_which_nothing_comes_locks_only_itself_and_not_for_long(
    page: Page, world: World
) -> None:
    page.clock.install()
    world.tell(running_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    _order(page, "checkpoint")
    expect(page.locator("#order-status")).to_contain_text("was sent")
    gang = running_gang()
    gang[0][1]["control_answer"] = {"asked": {"do": "checkpoint"}, "understood": "checkpoint"}
    world.tell(gang)
    _focus(page)
    expect(page.locator("#order-status")).to_contain_text("was understood")
    checkpoint = page.locator("button[data-order=checkpoint]")
    expect(checkpoint).to_have_attribute("aria-disabled", "true")
    expect(checkpoint).to_have_attribute("title", "The order checkpoint is on its way.")
    for word in ("pause", "stacks", "stop"):
        button = page.locator(f"button[data-order={word}]")
        expect(button).to_have_attribute("aria-disabled", "false")
    page.clock.run_for(16_000)
    expect(checkpoint).to_have_attribute("aria-disabled", "false")
    expect(page.locator("#order-status")).to_contain_text("nothing has come of it yet")


def test_an_order_that_another_one_has_replaced_is_over(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    _order(page, "stacks")
    stacks = page.locator("button[data-order=stacks]")
    expect(stacks).to_have_attribute("aria-disabled", "true")
    gang = running_gang()
    gang[0][1]["control_answer"] = {"asked": {"do": "checkpoint"}, "understood": "checkpoint"}
    world.tell(gang)
    _focus(page)
    expect(stacks).to_have_attribute("aria-disabled", "false", timeout=12_000)
    expect(page.locator("#order-status")).not_to_contain_text("stacks")


def test_a_stop_is_confirmed_with_a_reason(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    _order(page, "stop")
    page.get_by_role("button", name="Let it run").click()
    _order(page, "stop")
    page.keyboard.press("Escape")
    _order(page, "stop")
    page.get_by_label("Why").fill("good enough")
    page.keyboard.press("Enter")  # in the text: it stops nothing
    assert world.orders == []
    page.get_by_role("button", name="Stop the job").click()
    expect(page.locator("#order-status")).to_contain_text("was sent")
    assert world.orders == [(0, {"do": "stop", "why": "good enough"})]


def test_who_may_not_steer_is_told_so(page: Page, world: World) -> None:
    world.tell(running_gang())
    world.refused = 403
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    _order(page, "checkpoint")
    expect(page.locator("#order-status")).to_contain_text("did not take the order checkpoint")
    expect(page.locator("#order-reason")).to_contain_text("not steer it")
    for button in page.locator("button[data-order]").all():
        expect(button).to_have_attribute("aria-disabled", "true")


def test_steps_move_and_what_a_person_has_opened_stays(page: Page, world: World) -> None:
    world.tell(running_gang(nodes=6))
    page.goto(world.address())
    fold = page.locator("tbody[data-node='3'] button")
    fold.click()
    expect(page.locator("tr[data-rank='6']")).to_contain_text("1,240")
    page.locator("button[data-order=pause]").focus()
    world.tell(running_gang(nodes=6, step=1300))
    expect(page.locator("tr[data-rank='6']")).to_contain_text("1,300")  # by itself
    expect(page.locator("button[data-order=pause]")).to_be_focused()
    expect(page.locator("[data-role=step]")).to_contain_text("step 1,300")


def test_a_large_job_is_asked_a_few_at_a_time_and_its_problems_come_first(
    page: Page, world: World
) -> None:
    gang = running_gang(64, 8)
    gang[50][0]["state"] = "failed"
    world.tell(gang)
    page.goto(world.address())
    expect(page.locator("#nodes .glance")).to_be_visible()
    assert 1 < world.at_once <= 6
    assert sum("state-store" in url for url in world.asked) == 64
    rows = page.locator("tbody[data-node]").all()
    assert [row.get_attribute("data-node") for row in rows[:2]] == ["50", "0"]
    assert len(rows) == 9
    assert page.locator("tr[data-rank]").count() == 8  # those of the node with a problem
    expect(page.locator("#nodes")).to_contain_text("504 ranks in a step")
    expect(page.locator("#foot")).to_contain_text("every 8 s")
    page.get_by_role("button", name="Show 55 more").click()
    assert page.locator("tbody[data-node]").count() == 64


def test_values_of_a_curve_are_read_by_pointer_and_by_keys(page: Page, world: World) -> None:
    world.tell(running_gang())
    page.goto(world.address())
    curve = page.locator("svg[data-curve=loss]")
    value = page.locator(".curve", has=curve).locator(".value")
    curve.hover(position={"x": 1, "y": 10})
    expect(value).to_contain_text("step 0: 2.4")
    page.mouse.move(0, 0)
    expect(value).to_be_empty()
    curve.focus()
    page.keyboard.press("ArrowLeft")
    expect(value).to_contain_text("step 1,200")


_TELLS = """() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    paint.fillStyle = color;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => {
    const [r, g, b] = rgb(color).map((one) => {
      const part = one / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
  };
  const found = [];
  for (const one of document.querySelectorAll("main *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest("svg") || !one.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([contrast, `${one.className || one.tagName}: ${one.textContent.slice(0, 40)}`]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_has_the_theme_of_the_page_around_it_and_contrast_in_it(
    browser: Browser, world: World, theme: str
) -> None:
    world.tell(failed_gang())
    with open_page(browser, dark=theme == "light") as page:  # what the browser prefers is other
        page.goto(f"{world.url}/base/outer.html?theme={theme}")
        frame = page.frame_locator("iframe")
        frame.locator("[data-role=state]").wait_for()
        expect(frame.locator("html")).to_have_attribute("data-theme", theme)
        inner = page.frames[1]
        contrasts = inner.evaluate(_TELLS)
        assert len(contrasts) > 40
        assert contrasts[0][0] >= 4.5, contrasts[:5]
        screenshot(page, f"failed-{theme}")
        other = {"light": "dark", "dark": "light"}[theme]
        page.evaluate(f"document.documentElement.className = '{other}'")
        expect(frame.locator("html")).to_have_attribute("data-theme", other)


def test_it_fits_a_phone(browser: Browser, world: World) -> None:
    with open_page(browser, width=400) as page:
        for name, gang in (("running", running_gang()), ("failed", failed_gang())):
            world.tell(gang)
            page.goto(world.address())
            page.locator("[data-role=state]").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            screenshot(page, f"{name}-phone")


def test_all_that_can_be_pressed_is_reached_by_the_tab_key_and_has_a_name(
    page: Page, world: World
) -> None:
    world.tell(failed_gang())
    page.goto(world.address())
    page.locator("[data-role=state]").wait_for()
    wanted = page.locator("main button:enabled, main summary, main [tabindex='0']").count()
    reached = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.ariaLabel || document.activeElement.textContent) + "
                "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
            )
        )
    assert len(reached) == wanted
    assert not [name for name in reached if re.fullmatch(r"\d+", name)]
