// The state of the job in a word and a sentence, how far it is, and its facts.

import { h, show } from "./dom.js";
import { age } from "./ticking.js";
import { UNKNOWN, counted, duration, grouped, percent, short } from "./words.js";

const DOING = {
  waits: ["Waits", "calm", "No rank runs now: the nodes wait for each other."],
  runs: ["Runs", "active", ""],
  pauses: ["Pauses", "calm", "All ranks will wait at the end of the same step."],
  paused: ["Paused", "calm", "All ranks wait at the end of a step, until somebody resumes them."],
  saves: ["Saves", "active", "Ranks are inside a checkpoint."],
  stops: ["Stops", "calm", "All ranks will stop after the same step."],
  ends: ["Ends", "warn", "Airflow or a signal asked this node to end."],
  debugged: ["Debugged", "calm", "A person debugs a rank; the others wait for it."],
  ended: ["Ended", "calm", ""],
};

const BY_TEXT = [
  [/^runs/, "runs"],
  [/^paused/, "paused"],
  [/^waits/, "waits"],
  [/^ends/, "ends"],
];

const INSTANCE = {
  none: ["Not started", "calm", "Airflow has not scheduled this task yet."],
  scheduled: ["Not started", "calm", "Airflow has scheduled this task; it waits for its turn."],
  queued: ["Queued", "calm", "The task waits for a free slot of Airflow's."],
  up_for_retry: ["Waits for a retry", "warn", "The last try failed; Airflow starts the next one."],
  up_for_reschedule: ["Waits", "calm", "The node has given its slot back, and comes again."],
  deferred: ["Waits", "calm", "The task is deferred."],
  skipped: ["Skipped", "calm", "Airflow skipped this task."],
  upstream_failed: ["Not started", "warn", "A task before this one failed."],
  removed: ["Removed", "calm", "The DAG has no such task any more."],
};

// The word, its tone and a sentence.
export function headline(job) {
  if (!job.nodes.length) {
    return ["Nothing here", "calm", "The run has no instance of this task."];
  }
  if (job.running) {
    return runningHeadline(job);
  }
  const states = new Set(job.nodes.map((node) => node.instanceState));
  const said = job.lead?.is ?? "";
  if (states.has("failed")) {
    // The report below says why.
    return ["Failed", "bad", job.failures.length ? "" : said.replace(/^failed: /, "")];
  }
  if (states.size === 1 && states.has("success")) {
    return said.startsWith("was stopped")
      ? ["Stopped", "good", `The job ${said}`]
      : ["Succeeded", "good", ""];
  }
  const known = [...states].find((state) => state in INSTANCE);
  return known ? INSTANCE[known] : [[...states].join(", "), "calm", ""];
}

function runningHeadline(job) {
  const said = job.lead?.is ?? "";
  const doing = job.lead?.doing || BY_TEXT.find(([form]) => form.test(said))?.[1] || "";
  if (!job.known) {
    return ["Starts", "active", "The task runs, and its job has said nothing yet."];
  }
  if (job.lead?.earlier) {
    const sentence =
      "A try has begun, and has said nothing yet: below is what the one before said.";
    return ["Starts", "active", sentence];
  }
  const [word, tone, meaning] = DOING[doing] ?? ["Runs", "active", said];
  const gone = job.nodes.filter((node) => ["failed", "up_for_retry"].includes(node.instanceState));
  const stale = job.nodes.filter((node) => node.stale);
  const is = said.startsWith("paused") ? `is ${said}` : said;
  const notes = [said && !/^(runs|paused$|waits$)/.test(said) ? `It ${is}.` : meaning];
  if (gone.length) {
    notes.push(`${counted(gone.length, "node")} of ${job.nodes.length} failed.`);
  }
  if (stale.length) {
    const are = stale.length === 1 ? "node has" : "nodes have";
    notes.push(`${grouped(stale.length)} ${are} said nothing for longer than they should.`);
  }
  return [word, gone.length || stale.length ? "warn" : tone, notes.filter(Boolean).join(" ")];
}

function progress(job) {
  if (job.step === null) {
    return null;
  }
  const total = job.total ?? 0;
  const share = total > 0 ? Math.min(1, job.step / total) : null;
  const moves = job.running && ["", "runs", "saves"].includes(job.lead?.doing ?? "");
  const left = moves && job.secondsLeft !== null ? `${duration(job.secondsLeft)} left` : "";
  const of = share === null ? "" : ` of ${grouped(total)}`;
  return h(
    "div",
    { class: "progress", "data-key": "progress" },
    share !== null &&
      h("progress", { max: total, value: job.step, "aria-label": "Steps of the slowest rank" }),
    h(
      "p",
      {},
      h("strong", { "data-role": "step" }, `step ${grouped(job.step)}${of}`),
      share !== null && ` · ${percent(share)}`,
      left && ` · ${left}`,
    ),
  );
}

function fact(name, value) {
  return value && value !== UNKNOWN
    ? h("div", { "data-key": name }, h("dt", {}, name), h("dd", { title: value }, value))
    : null;
}

function facts(job) {
  const between =
    job.minNodes !== null && job.maxNodes !== null && job.minNodes !== job.maxNodes
      ? ` (${job.minNodes} to ${job.maxNodes})`
      : "";
  const nodes = job.nodeCount ?? job.nodes.length;
  const of = job.maxRestarts === null ? "" : ` of ${job.maxRestarts}`;
  return h(
    "dl",
    { class: "facts", "data-key": "facts" },
    fact("Nodes", nodes ? `${grouped(nodes)}${between}` : ""),
    fact("Ranks", grouped(job.worldSize)),
    fact("Steps a second", job.running && job.lead?.doing !== "paused" ? short(job.rate) : ""),
    fact("Restarts", job.restarts === null ? "" : `${grouped(job.restarts)}${of}`),
    fact("Try", grouped(job.tryNumber)),
    fact("Running for", job.seconds === null ? "" : duration(job.seconds)),
    fact("Backend", job.backend),
    fact("Runs", job.entrypoint),
    fact("Rendezvous id", job.runId),
  );
}

export function drawHead(place, job, title) {
  const [word, tone, sentence] = headline(job);
  const since = job.lead?.since ?? null;
  show(
    place,
    h(
      "div",
      { class: "headline" },
      h("span", { class: `badge ${tone}`, "data-role": "state" }, word),
      h("h1", {}, title),
      since !== null &&
        h("span", { class: "quiet" }, age(since, job.now, job.running ? "since" : "ago")),
    ),
    sentence && h("p", { class: "sentence", "data-key": "sentence" }, sentence),
    progress(job),
    facts(job),
    job.account?.text && h("p", { class: "account", "data-key": "account" }, job.account.text),
  );
}
