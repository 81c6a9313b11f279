// Asks Airflow again and again how the job is, and shows it: often while it runs, rarely after.

import { Api, NoAnswer } from "./api.js";
import { drawCheckpoints } from "./checkpoints.js";
import { drawCurves, readCurves } from "./curves.js";
import { h, show } from "./dom.js";
import { copyReport, drawFailure } from "./failure.js";
import { drawHead } from "./head.js";
import { jobOf } from "./job.js";
import { drawLacks } from "./lacks.js";
import { nodeOf } from "./node.js";
import { Folds, drawNodes } from "./nodes.js";
import { Orders } from "./orders.js";
import { Place } from "./place.js";
import { drawRounds } from "./rounds.js";
import { followTheme } from "./theme.js";
import { tick } from "./ticking.js";
import { UNKNOWN, duration } from "./words.js";

const WHILE_RUNNING = 3; // seconds between two looks
const WHILE_ORDERED = 1.5;
const AFTERWARDS = 60;
const A_SECOND = 8; // requests, at most, for jobs of many nodes
const PAGE = 100; // task instances in one answer
const MOST = 1000; // task instances

const api = new Api();
const place = new Place(location.href);
const folds = new Folds();
const stores = new Map(); // what nodes said last, by map index
let job = null;
let timer = 0;
let looking = null;
let again = false;
let failures = 0;

const part = (name) => document.getElementById(name);
const orders = new Orders(place, api, part("orders"), () => look());

async function instances() {
  const found = [];
  let total = 1;
  while (found.length < Math.min(total, MOST)) {
    const answer = await api.get(place.instances(found.length, PAGE));
    const more = Array.isArray(answer?.task_instances) ? answer.task_instances : [];
    if (!more.length) {
      break;
    }
    found.push(...more);
    total = Number(answer.total_entries) || found.length;
  }
  return found;
}

// A node that has ended says nothing new; unless its task is tried again, or was not known.
function isSettled(instance) {
  const before = stores.get(instance.map_index);
  const same =
    before?.instanceState === instance.state && before?.tryNumber === instance.try_number;
  const over = ["success", "failed", "skipped", "upstream_failed"].includes(instance.state);
  return same && over && !before.trouble && api.now() - before.at < AFTERWARDS * 900;
}

async function askNode(instance) {
  if (isSettled(instance)) {
    return;
  }
  const said = { instanceState: instance.state, tryNumber: instance.try_number, at: api.now() };
  try {
    const answer = await api.get(place.store(instance.map_index));
    stores.set(instance.map_index, { ...said, entries: answer?.task_state_store, trouble: "" });
  } catch (error) {
    if (!(error instanceof NoAnswer) || error.kind === "logged-out") {
      throw error;
    }
    const before = stores.get(instance.map_index)?.entries ?? [];
    const trouble = error.kind === "missing" ? "" : "its state cannot be read";
    stores.set(instance.map_index, { ...said, entries: before, trouble });
  }
}

async function ask() {
  const found = await instances();
  await Promise.all(found.map(askNode));
  const broken = new Map();
  const nodes = found.map((instance) => {
    const { entries, trouble } = stores.get(instance.map_index);
    return nodeOf(instance, entries, trouble, api.now());
  });
  job = jobOf(nodes, api.now(), broken);
  drawAll(broken);
}

function title() {
  const index = place.mapIndex < 0 || (job?.nodes.length ?? 0) > 1 ? "" : ` [${place.mapIndex}]`;
  return `${place.task}${index}`;
}

function drawAll(broken = new Map()) {
  job.now = api.now();
  const parts = {
    head: (at) => drawHead(at, job, title()),
    failure: (at) => drawFailure(at, job),
    nodes: (at) => drawNodes(at, job, folds),
    curves: (at) => drawCurves(at, job),
    rounds: (at) => drawRounds(at, job),
    checkpoints: (at) => drawCheckpoints(at, job),
    orders: () => orders.draw(job),
    lacks: (at) => drawLacks(at, job, broken),
  };
  for (const [name, draw] of Object.entries(parts)) {
    try {
      draw(part(name));
      part(name).classList.toggle("panel", part(name).childElementCount > 0 && name !== "failure");
    } catch (error) {
      broken.set(name, error);
      show(part(name), h("p", { class: "warned" }, `This part cannot be shown: ${error.message}`));
    }
  }
}

const NOTICES = {
  "logged-out":
    "You are logged out of Airflow. Log in again, in another window if you like: this page then " +
    "goes on by itself.",
  forbidden: "Airflow refuses to show you the task instances of this DAG.",
  missing: "Airflow knows no such run of this DAG.",
};

function notice(error) {
  const since = job
    ? `Below is how it was at ${new Date(job.now).toLocaleTimeString("en-GB")}. `
    : "";
  const text =
    NOTICES[error.kind] ??
    `Airflow does not answer: ${error.message}. This page tries again by itself.`;
  // Who may not see the DAG sees nothing of it.
  if (error.kind === "forbidden" || error.kind === "missing") {
    job = null;
    stores.clear();
    for (const name of ["failure", "nodes", "curves", "rounds", "checkpoints", "lacks"]) {
      show(part(name));
      part(name).classList.remove("panel");
    }
    part("orders").hidden = true;
  }
  if (!job) {
    show(
      part("head"),
      h("h1", {}, error.kind === "forbidden" ? "Nothing to see" : place.task || "Elastic"),
    );
  }
  show(part("notice"), h("p", {}, `${job ? since : ""}${text}`));
}

function period() {
  if (failures) {
    return Math.min(3 * 2 ** (failures - 1), 60);
  }
  if (!job || (!job.running && !job.waits && !orders.waits)) {
    return AFTERWARDS;
  }
  const least = (1 + job.nodes.filter((node) => node.running).length) / A_SECOND;
  return Math.max(orders.waits ? WHILE_ORDERED : WHILE_RUNNING, least);
}

async function look() {
  if (looking) {
    again = true;
    return;
  }
  clearTimeout(timer);
  looking = ask();
  try {
    await looking;
    failures = 0;
    show(part("notice"));
  } catch (error) {
    failures += 1;
    notice(error instanceof NoAnswer ? error : new NoAnswer("away", `${error.message}`));
  }
  looking = null;
  part("foot").textContent = document.hidden
    ? ""
    : `Asked again every ${duration(Math.max(1, period()))}.`;
  if (again) {
    again = false;
    look();
  } else if (!document.hidden) {
    timer = setTimeout(look, period() * 1000);
  }
}

// A frame may not lead its window elsewhere, but Airflow's own page, around it, may.
function showLog(mapIndex, rank) {
  const node = job.nodes.find((one) => one.mapIndex === mapIndex);
  const link = window.parent.document.createElement("a");
  link.href = place.log(mapIndex, node.tryNumber, rank).href;
  link.click();
}

function listen() {
  document.addEventListener("click", (event) => {
    const fold = event.target.closest("[data-fold]");
    const copy = event.target.closest("[data-copy]");
    const healthy = event.target.closest("[data-healthy]");
    const log = event.target.closest("[data-log]");
    if (fold && job) {
      folds.toggle(Number(fold.dataset.fold), fold.getAttribute("aria-expanded") !== "true");
      drawAll();
    } else if (healthy && job) {
      folds.healthyToo = healthy.dataset.healthy === "show";
      drawAll();
    } else if (copy) {
      copyReport(copy);
    } else if (log && job) {
      showLog(Number(log.dataset.log), log.closest("[data-rank]").dataset.rank);
    }
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) {
      look();
    }
  });
  window.addEventListener("focus", () => look());
  new ResizeObserver(() => job && drawRounds(part("rounds"), job)).observe(part("rounds"));
  setInterval(() => tick(api.now()), 1000);
}

followTheme();
document.title = `${place.task || UNKNOWN} · Elastic`;
if (place.complete) {
  readCurves(part("curves"));
  listen();
  look();
} else {
  show(
    part("head"),
    h("p", {}, "This page is the tab Elastic of a task instance in Airflow's UI; open it there."),
  );
}
