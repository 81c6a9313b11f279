// One node of the job: what its task instance's state says, read so that no value can break it.

import {
  count,
  greatest,
  isRecord,
  last,
  list,
  number,
  record,
  records,
  text,
  texts,
  time,
} from "./values.js";

const RUNNING = new Set(["running", "restarting"]);
const LONGEST_REPORT = 20_000;
const MOST_RANKS = 4096;

// `instance` is what Airflow says of the task instance; `entries` are those of its state.
// `trouble` says why there are none.
export function nodeOf(instance, entries, trouble, now) {
  const keys = new Map(
    records(entries, 200).map((one) => [one.key, { value: one.value, at: time(one.updated_at) }]),
  );
  const lacks = [];
  const told = (key) => {
    if (!keys.has(key)) {
      return {};
    }
    const value = record(keys.get(key).value);
    if (value === null) {
      lacks.push(`the key ${key} of its state cannot be read`);
    }
    return value ?? {};
  };
  const [state, progress, elastic] = [told("state"), told("progress"), told("elastic")];
  const mapIndex = Number.isInteger(instance.map_index) ? instance.map_index : -1;
  const running = RUNNING.has(instance.state);
  const label = text(elastic.label);
  const said = count(progress.step);
  const newer = (keys.get("elastic")?.at ?? 0) >= (keys.get("progress")?.at ?? 0);
  // Nodes write more rarely the more there are. An answer of Airflow's takes a while, too.
  const every = number(elastic.every) ?? 10 * (count(elastic.nodes) ?? 1);
  const latest = Math.max(20, 2 * every) + 10; // seconds
  const sign =
    greatest(
      ["elastic", "progress", "state", "checkpoint", "control_answer"].map(
        (key) => keys.get(key)?.at ?? null,
      ),
    ) ?? time(elastic.time);
  if (keys.size && !keys.has("elastic")) {
    lacks.push("its version of the provider writes no key elastic");
  }
  if (count(elastic.version) > 1) {
    lacks.push(`it writes version ${elastic.version} of the key elastic; this page knows 1`);
  }
  // A try that has just begun has told nothing yet.
  const toldBy = count(elastic.try) ?? count(state.try);
  const earlier = running && toldBy !== null && toldBy < (count(instance.try_number) ?? 0);
  const leftOut = texts(elastic.left_out, 20);
  if (leftOut.length) {
    lacks.push(`left out of its state, which may have 64 KB: ${leftOut.join(", ")}`);
  }
  return {
    mapIndex,
    running,
    trouble,
    lacks,
    known: keys.size > 0,
    instanceState: text(instance.state) || "none",
    tryNumber: count(instance.try_number) ?? 0,
    name: mapIndex < 0 ? "the node" : `node ${count(elastic.node) ?? mapIndex}`,
    label,
    host: text(elastic.host) || text(instance.hostname),
    ended: time(instance.end_date),
    started: time(instance.start_date),
    sign,
    earlier,
    stale: running && !earlier && sign !== null && now - sign > latest * 1000,
    hears: state.control === "taken here" && !earlier,
    is: text(elastic.outcome, 1000) || text(state.is, 1000),
    since: time(state.since),
    worldSize: count(elastic.world_size) ?? count(state.world_size),
    doing: text(elastic.doing),
    step: newer ? (leastStep(elastic) ?? said) : (said ?? leastStep(elastic)),
    total: count(progress.total) ?? greatest(records(elastic.ranks).map((one) => count(one.total))),
    // That of the key progress counts the time of a pause, too: it is better than none.
    rate: number("rate" in elastic ? elastic.rate : progress.steps_per_second),
    secondsLeft: number("seconds_left" in elastic ? elastic.seconds_left : progress.seconds_left),
    latest: isRecord(progress.metrics) ? progress.metrics : {},
    writtenAt: keys.get("elastic")?.at ?? time(elastic.time),
    elastic,
    ranks: ranksOf(elastic),
    checkpoint: told("checkpoint"),
    ordered: keys.has("control"),
    answer: answerOf(told("control_answer"), keys.get("control_answer")?.at ?? null),
    failure: failureOf(elastic.failure),
  };
}

function leastStep(elastic) {
  const steps = records(elastic.ranks, MOST_RANKS).map((one) => count(one.step));
  const known = steps.filter((step) => step !== null);
  return known.length ? Math.min(...known) : null;
}

function ranksOf(elastic) {
  return records(elastic.ranks, MOST_RANKS)
    .filter((one) => count(one.rank) !== null)
    .map((one) => ({
      rank: one.rank,
      localRank: count(one.local_rank),
      pid: count(one.pid),
      doing: text(one.doing, 60),
      step: count(one.step),
      total: count(one.total),
      silent: number(one.silent),
    }))
    .sort((one, other) => one.rank - other.rank);
}

function answerOf(answer, at) {
  if (!Object.keys(answer).length) {
    return null;
  }
  return {
    at,
    asked: isRecord(answer.asked) ? text(answer.asked.do) : text(answer.asked),
    why: isRecord(answer.asked) ? text(answer.asked.why) : "",
    understood: text(answer.understood),
    refused: text(answer.refused, 600),
    then: last(answer.then, 10)
      .map((one) => text(one, 600))
      .filter(Boolean),
  };
}

// The exit status of a process; Python's, where a negative one is a signal.
function exitOf(value) {
  const status = number(value);
  if (status === null) {
    return text(value, 60);
  }
  return status < 0 ? `signal ${-status}` : `exit code ${status}`;
}

function failureOf(value) {
  const failure = record(value);
  if (failure === null || !Object.keys(failure).length) {
    return null;
  }
  return {
    kind: text(failure.class),
    why: text(failure.why, 2000),
    fatal: failure.fatal === true,
    rank: count(failure.rank),
    host: text(failure.host),
    time: time(failure.time),
    report: text(failure.report, LONGEST_REPORT),
    ranks: records(failure.ranks, MOST_RANKS).map((one) => ({
      rank: count(one.rank),
      host: text(one.host),
      exit: exitOf(one.exit),
      why: text(one.why, 600),
      culprit: one.culprit === true,
    })),
  };
}

// The points of rank 0's metrics: [step, seconds since 1970, value], in this order.
export function curvesOf(node) {
  const curves = record(node.elastic.curves);
  const metrics = curves === null ? null : record(curves.metrics);
  return Object.entries(metrics ?? {})
    .slice(0, 32)
    .map(([name, points]) => ({
      name: text(name, 80),
      points: list(points, 1000).flatMap((point) => {
        const [step, at, value] = list(point, 3).map(number);
        return step === null || step === undefined ? [] : [{ step, at, value: value ?? null }];
      }),
    }))
    .filter((curve) => curve.points.length > 0);
}
