// The job's committed checkpoints, and which one a rerun begins from.

import { h, show } from "./dom.js";
import { age } from "./ticking.js";
import { counted, grouped } from "./words.js";

const FEW = 5;

function row(one, checkpoints, now) {
  return h(
    "li",
    { "data-key": one.step },
    h("strong", {}, `step ${grouped(one.step)}`),
    one.at !== null && h("span", { class: "quiet" }, " ", age(one.at, now)),
    one.step === checkpoints.next && h("span", { class: "badge good" }, "a rerun begins here"),
    one.step === checkpoints.resumedFrom &&
      h("span", { class: "badge calm" }, "this try began here"),
  );
}

export function drawCheckpoints(place, job) {
  const found = job.checkpoints;
  if (!found?.known) {
    show(place);
    return;
  }
  const listed = new Set(found.committed.map((one) => one.step));
  // A checkpoint of an earlier try may be too old for the list.
  const others = [found.next, found.resumedFrom].filter(
    (step) => step !== null && !listed.has(step),
  );
  const all = [...found.committed, ...[...new Set(others)].map((step) => ({ step, at: null }))];
  all.sort((one, other) => other.step - one.step);
  const rows = all.map((one) => row(one, found, job.now));
  show(
    place,
    h(
      "div",
      { class: "title" },
      h("h2", {}, "Checkpoints"),
      h("span", { class: "quiet" }, all.length ? counted(all.length, "step") : ""),
    ),
    !found.folder &&
      !all.length &&
      h(
        "p",
        { class: "quiet" },
        "This job has no checkpoint_path: a rerun begins at the beginning.",
      ),
    found.folder &&
      !all.length &&
      h("p", { class: "quiet" }, "None is committed yet: a rerun begins at the beginning."),
    found.folder && h("p", { class: "path", title: found.folder }, found.folder),
    h("ul", { class: "checkpoints" }, rows.slice(0, FEW)),
    rows.length > FEW &&
      h(
        "details",
        {},
        h("summary", {}, `${rows.length - FEW} more`),
        h("ul", { class: "checkpoints" }, rows.slice(FEW)),
      ),
  );
}
