// The report on the failure: whose it was, why, and the text that is in the log, too.

import { h, show } from "./dom.js";
import { age } from "./ticking.js";
import { UNKNOWN, counted } from "./words.js";

const FEW = 8;

function whose(failure) {
  const rank = failure.rank === null ? "" : `rank ${failure.rank}`;
  return [rank, failure.host && `on ${failure.host}`].filter(Boolean).join(" ");
}

function rankRow(one) {
  return h(
    "tr",
    { class: one.culprit ? "guilty" : "", "data-culprit": one.culprit },
    h(
      "td",
      {},
      one.rank === null ? UNKNOWN : `rank ${one.rank}`,
      one.culprit && h("span", { class: "badge bad" }, "culprit"),
    ),
    h("td", {}, one.host || UNKNOWN),
    h("td", {}, one.exit || UNKNOWN),
    h("td", { class: "why" }, one.why),
  );
}

function rankTable(ranks) {
  const sorted = [...ranks].sort((one, other) => Number(other.culprit) - Number(one.culprit));
  const table = (rows) =>
    h(
      "table",
      { class: "ended" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Rank", "Host", "End", "Why"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h("tbody", {}, rows.map(rankRow)),
    );
  return [
    table(sorted.slice(0, FEW)),
    sorted.length > FEW &&
      h(
        "details",
        {},
        h("summary", {}, `${sorted.length - FEW} more ranks`),
        table(sorted.slice(FEW)),
      ),
  ];
}

export function drawFailure(place, job) {
  const [best, ...others] = job.failures;
  if (!best) {
    show(place);
    return;
  }
  const failure = best.failure;
  const goesOn = job.running;
  const also = others.filter((one) => one.failure.why !== failure.why);
  show(
    place,
    h(
      "div",
      {
        class: `panel failure${goesOn ? " past" : ""}`,
        "data-key": `${failure.time}/${failure.why}`,
      },
      h(
        "div",
        { class: "title" },
        h("h2", {}, goesOn ? "The last failure; the job goes on" : "Why it failed"),
        failure.kind && h("span", { class: `badge ${goesOn ? "warn" : "bad"}` }, failure.kind),
        failure.time !== null && h("span", { class: "quiet" }, age(failure.time, job.now)),
      ),
      h(
        "p",
        { class: "cause" },
        whose(failure) && h("strong", { "data-role": "culprit" }, whose(failure)),
        whose(failure) && failure.why && ": ",
        failure.why,
      ),
      failure.ranks.length > 0 && rankTable(failure.ranks),
      failure.report &&
        h(
          "details",
          // One that was folded while the job went on is no reason to fold the last one.
          { open: !goesOn, "data-key": `report ${goesOn}` },
          h("summary", {}, "The whole report"),
          h("button", { type: "button", class: "small copy", "data-copy": "report" }, "Copy"),
          h("pre", { tabindex: "0", "aria-label": "Failure report" }, failure.report),
        ),
      also.length > 0 &&
        h(
          "details",
          {},
          h("summary", {}, `${counted(also.length, "other node")} said something else`),
          h(
            "ul",
            {},
            also.slice(0, 64).map((one) => h("li", {}, `${one.node.name}: ${one.failure.why}`)),
          ),
        ),
    ),
  );
}

// Copy the report. Over plain HTTP a browser has no clipboard for scripts; a selection works.
export async function copyReport(button) {
  const shown = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(shown.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
  }
}
