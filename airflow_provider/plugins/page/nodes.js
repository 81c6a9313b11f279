// Nodes and their ranks: a table on wide screens, cards on narrow ones (by the style sheet). Nodes
// with a problem come first; those of a large job are folded, and most of the healthy ones hidden.

import { h, show } from "./dom.js";
import { glance } from "./glance.js";
import { age } from "./ticking.js";
import { UNKNOWN, counted, grouped } from "./words.js";

const FEW = 4; // nodes that are not folded
const HEALTHY = 8; // nodes without a problem that are shown, unless a person wants all
const LONG_SILENCE = 60; // seconds

const TONES = { running: "active", success: "good", failed: "bad", up_for_retry: "warn" };
const DOING = { steps: "in a step", checkpoint: "saves", held: "held", debugged: "debugged" };

// What is wrong with a node, worst first.
function problems(node, culprits) {
  const found = [];
  if (node.instanceState === "failed") {
    found.push("failed");
  }
  if (node.ranks.some((one) => culprits.has(one.rank))) {
    found.push("the failed rank was here");
  }
  if (node.instanceState === "up_for_retry") {
    found.push("waits for a retry");
  }
  if (node.stale) {
    found.push("no sign of life");
  }
  if (node.running && node.ranks.some((one) => isSilent(one, 0))) {
    found.push("a rank is silent");
  }
  if (node.trouble) {
    found.push(node.trouble);
  }
  return found;
}

function isSilent(rank, more) {
  return rank.doing === "steps" && rank.silent !== null && rank.silent + more > LONG_SILENCE;
}

// Seconds since the node last told how its ranks are.
function sinceTold(node, now) {
  return node.sign === null ? 0 : Math.max(0, (now - node.sign) / 1000);
}

function toneOf(node, rank, culprits, now) {
  if (culprits.has(rank.rank)) {
    return "bad";
  }
  if (!node.running) {
    return node.instanceState === "success" ? "good" : "calm";
  }
  if (isSilent(rank, sinceTold(node, now)) || node.stale) {
    return "warn";
  }
  return { steps: "active", checkpoint: "good" }[rank.doing] ?? "calm";
}

function cell(label, ...content) {
  return h("td", { "data-label": label }, h("span", {}, content));
}

function lastReport(node, rank, now) {
  if (!node.running) {
    return UNKNOWN;
  }
  if (rank.silent === null) {
    return "has reported nothing";
  }
  const more = sinceTold(node, now);
  const said = age(now - (rank.silent + more) * 1000, now);
  return h("span", { class: isSilent(rank, more) ? "warned" : "" }, said);
}

function logButton(node, rank) {
  const name = `rank ${rank.rank}`;
  const shows = { title: `The log of ${name}`, "aria-label": `${name}: show its log` };
  return h("button", { type: "button", class: "log", "data-log": node.mapIndex, ...shows }, name);
}

function rankRow(node, rank, culprits, now) {
  const guilty = culprits.has(rank.rank);
  const doing = DOING[rank.doing] ?? (rank.doing || UNKNOWN);
  const key = `r${node.mapIndex}/${rank.rank}`;
  return h(
    "tr",
    { class: `rank${guilty ? " guilty" : ""}`, "data-key": key, "data-rank": rank.rank },
    cell("Rank", logButton(node, rank), guilty && h("span", { class: "badge bad" }, "failed here")),
    cell("Does", node.running ? doing : UNKNOWN),
    cell("Step", grouped(rank.step)),
    cell("Last report", lastReport(node, rank, now)),
    cell("Process", rank.pid === null ? UNKNOWN : `pid ${rank.pid}`),
  );
}

function nodeName(node, open) {
  const labelled = node.label && node.label !== node.host && node.label !== node.name;
  const told = [labelled ? node.label : "", node.host].filter(Boolean);
  const taker = { class: "badge calm", title: "It takes the orders for all nodes" };
  return h(
    "div",
    { class: "name" },
    h(
      "button",
      {
        type: "button",
        class: "fold",
        "data-fold": node.mapIndex,
        "aria-expanded": open ? "true" : "false",
        "aria-label": `${node.name}: ${open ? "hide" : "show"} its ranks`,
        disabled: !node.ranks.length,
      },
      node.name,
    ),
    h("span", { class: "host", title: told.join(" · ") }, told[0] ?? ""),
    node.hears && node.running && h("span", taker, "takes orders"),
  );
}

function nodeRow(node, open, wrong, now) {
  const bad = node.instanceState === "failed" ? "bad" : "warn";
  const tone = wrong.length ? bad : (TONES[node.instanceState] ?? "calm");
  const notes = wrong.filter((one) => one !== node.instanceState);
  const sign = node.sign === null ? UNKNOWN : age(node.sign, now);
  const ranks = node.ranks.length ? `${counted(node.ranks.length, "rank")} · ` : "";
  return h(
    "tr",
    { class: "node", "data-key": `n${node.mapIndex}` },
    h("th", { scope: "row" }, nodeName(node, open)),
    cell(
      "State",
      h("span", { class: `badge ${tone}` }, node.instanceState),
      node.running && node.doing && node.doing !== "runs" && ` ${node.doing}`,
      notes.length > 0 && h("span", { class: "warned" }, ` ${notes.join("; ")}`),
    ),
    cell("Step", grouped(node.step)),
    cell("Sign of life", h("span", { class: node.stale ? "warned" : "" }, sign)),
    cell("Ranks", `${ranks}try ${node.tryNumber}`),
  );
}

// What people have folded, opened, and had shown: by map index.
export class Folds {
  constructor() {
    this._chosen = new Map();
    this.healthyToo = false;
  }

  toggle(mapIndex, open) {
    this._chosen.set(mapIndex, open);
  }

  isOpen(node, otherwise) {
    return node.ranks.length > 0 && (this._chosen.get(node.mapIndex) ?? otherwise);
  }
}

export function drawNodes(place, job, folds) {
  if (!job.nodes.length) {
    show(place);
    return;
  }
  const culprits = culpritsOf(job);
  const judged = job.nodes.map((node) => ({ node, wrong: problems(node, culprits) }));
  const few = judged.length <= FEW;
  const bad = judged.filter((one) => one.wrong.length);
  const healthy = judged.filter((one) => !one.wrong.length);
  const kept = folds.healthyToo ? healthy : healthy.slice(0, HEALTHY);
  const hidden = healthy.length - kept.length;
  const said = bad.length ? `, ${bad.length} with a problem` : "";
  const tone = (node, rank) => toneOf(node, rank, culprits, job.now);
  const columns = ["Node", "State", "Step", "Sign of life", "Processes"];
  show(
    place,
    h(
      "div",
      { class: "title" },
      h("h2", {}, "Nodes and ranks"),
      h("span", { class: "quiet" }, counted(judged.length, "node"), said),
    ),
    !few && glance(job.nodes, Math.max(200, place.parentElement.clientWidth - 30), tone),
    h(
      "table",
      { class: "nodes" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      (few ? judged : [...bad, ...kept]).map(({ node, wrong }) => {
        const open = folds.isOpen(node, few || wrong.length > 0);
        return h(
          "tbody",
          { "data-key": `b${node.mapIndex}`, "data-node": node.mapIndex },
          nodeRow(node, open, wrong, job.now),
          open && node.ranks.map((rank) => rankRow(node, rank, culprits, job.now)),
        );
      }),
    ),
    (hidden > 0 || folds.healthyToo) &&
      h(
        "button",
        { type: "button", class: "small more", "data-healthy": hidden > 0 ? "show" : "hide" },
        hidden > 0 ? `Show ${hidden} more without a problem` : "Show fewer",
      ),
  );
}

// Ranks that failed, as long as nothing has run since.
function culpritsOf(job) {
  const failure = job.failures[0]?.failure;
  if (!failure || job.running) {
    return new Set();
  }
  const guilty = failure.ranks.filter((one) => one.culprit && one.rank !== null);
  const named = guilty.map((one) => one.rank);
  return new Set(named.length || failure.rank === null ? named : [failure.rank]);
}
