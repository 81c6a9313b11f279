// The job as a whole, from what its nodes say. Each part is made alone, so that one value that
// nobody expected costs one part.

import { curvesOf } from "./node.js";
import { mergedRounds } from "./round_history.js";
import { count, greatest, last, least, number, record, text, time } from "./values.js";

const WAITS = new Set([
  "none",
  "scheduled",
  "queued",
  "up_for_retry",
  "up_for_reschedule",
  "deferred",
]);

// `parts` collects what goes wrong: the name of a part, and the error.
export function jobOf(nodes, now, parts) {
  const attempt = (name, make, otherwise) => {
    try {
      return make();
    } catch (error) {
      parts.set(name, error);
      return otherwise;
    }
  };
  const lead = leadOf(nodes);
  const running = nodes.filter((node) => node.running);
  const shown = running.length ? running : nodes;
  const elastic = lead?.elastic ?? {};
  return {
    now,
    nodes,
    lead,
    running: running.length > 0,
    known: nodes.some((node) => node.known),
    waits: nodes.length > 0 && nodes.every((node) => WAITS.has(node.instanceState)),
    hearer: running.find((node) => node.hears) ?? null,
    step: least(shown.map((node) => node.step)),
    total: greatest(shown.map((node) => node.total)),
    rate: lead?.rate ?? null,
    secondsLeft: greatest(running.map((node) => node.secondsLeft)),
    worldSize: lead?.worldSize ?? null,
    nodeCount: count(elastic.nodes),
    minNodes: count(elastic.min_nodes),
    maxNodes: count(elastic.max_nodes),
    restarts: greatest(shown.map((node) => count(node.elastic.restarts))),
    maxRestarts: count(elastic.max_restarts),
    tryNumber: greatest(nodes.map((node) => node.tryNumber)),
    seconds: number(elastic.seconds),
    backend: text(elastic.backend),
    runId: text(elastic.run_id),
    entrypoint: text(elastic.entrypoint),
    account: attempt("account", () => accountOf(lead), null),
    failures: attempt("failure", () => failuresOf(nodes), []),
    rounds: attempt("rounds", () => mergedRounds(nodes, now), []),
    curves: attempt("curves", () => jobCurves(nodes), { curves: [], latest: [] }),
    checkpoints: attempt("checkpoints", () => checkpointsOf(nodes), null),
    answer: newest(
      nodes.map((node) => node.answer),
      (answer) => answer.at,
    ),
  };
}

function newest(values, at) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.reduce(
    (best, one) => (best === null || (at(one) ?? 0) > (at(best) ?? 0) ? one : best),
    null,
  );
}

// The node that speaks for the job: the one with rank 0, else the one that spoke last.
function leadOf(nodes) {
  const running = nodes.filter((node) => node.running);
  const among = running.length ? running : nodes;
  const first = among.filter((node) => node.hears || node.ranks.some((one) => one.rank === 0));
  return newest(first.length ? first : among, (node) => node.sign);
}

function accountOf(lead) {
  const account = record(lead?.elastic.account);
  if (account === null) {
    return null;
  }
  return { text: text(account.text), percent: number(account.training_percent) };
}

// Every node tells the same failure in its own words. The one whose rank it was knows most.
function failuresOf(nodes) {
  const known = nodes.filter((node) => node.failure !== null);
  const weight = ({ failure, ranks, elastic }) => {
    const own = record(elastic.failure)?.host === elastic.host;
    const tellsWhose = failure.ranks.some((one) => one.culprit);
    return [tellsWhose ? 1 : 0, own ? 1 : 0, ranks.length ? 1 : 0, failure.report.length];
  };
  const found = known
    .map((node) => ({ node, failure: node.failure, weight: weight(node) }))
    .sort((one, other) => {
      const place = one.weight.findIndex((value, at) => value !== other.weight[at]);
      return place < 0 ? 0 : other.weight[place] - one.weight[place];
    });
  if (found.length) {
    found[0] = { ...found[0], failure: withAllRanks(found) };
  }
  return found;
}

// Each node knows how its own ranks ended.
function withAllRanks(found) {
  const ranks = new Map();
  for (const one of found.flatMap(({ failure }) => failure.ranks)) {
    const before = ranks.get(one.rank);
    ranks.set(one.rank, before?.culprit || (before?.why && !one.culprit) ? before : one);
  }
  const sorted = [...ranks.values()].sort((one, other) => (one.rank ?? 0) - (other.rank ?? 0));
  return { ...found[0].failure, ranks: sorted };
}

function jobCurves(nodes) {
  const found = nodes
    .map((node) => ({ curves: curvesOf(node), at: node.writtenAt }))
    .filter((one) => one.curves.length);
  const best = newest(found, (one) => one.at);
  const teller = newest(
    nodes.filter((node) => Object.keys(node.latest).length),
    (node) => node.sign,
  );
  const latest = Object.entries(teller?.latest ?? {})
    .slice(0, 32)
    .map(([name, value]) => ({
      name: text(name, 80),
      value: number(value),
      said: text(value, 40),
    }));
  return { curves: best?.curves ?? [], latest };
}

function checkpointsOf(nodes) {
  const all = nodes
    .map((node) => ({ value: record(node.elastic.checkpoints), at: node.writtenAt }))
    .filter((one) => one.value !== null);
  // A task that has ended before its launch does not know the folder.
  const told = all.filter((one) => one.value.folder !== null);
  const steps = new Map();
  for (const { value } of all) {
    for (const one of last(value.committed, 20)) {
      const step = count(record(one)?.step);
      if (step !== null) {
        steps.set(step, time(one.time) ?? steps.get(step) ?? null);
      }
    }
  }
  const own = newest(
    nodes.map((node) => node.checkpoint),
    (one) => time(one.time),
  );
  if (own !== null && count(own.step) !== null && !steps.has(own.step)) {
    steps.set(own.step, time(own.time));
  }
  const best = newest(told, (one) => one.at)?.value ?? {};
  const committed = [...steps].sort(([one], [other]) => other - one).slice(0, 20);
  return {
    known: told.length > 0 || committed.length > 0,
    folder: text(best.folder, 2000) || text(own?.folder, 2000),
    resumedFrom: count(best.resumed_from),
    next: count(best.next) ?? (told.length ? null : (committed[0]?.[0] ?? null)),
    committed: committed.map(([step, at]) => ({ step, at })),
  };
}
