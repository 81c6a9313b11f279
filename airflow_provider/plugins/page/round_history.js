// The rounds of a job: each node tells those that it was in, and this puts them together.

import { count, greatest, last, least, records, text, texts, time } from "./values.js";

const MOST = 50; // rounds of one node
const CLOCKS = 30_000; // milliseconds by which the clocks of two hosts may differ

export const ENDS = {
  "": { word: "goes on", tone: "active" },
  failure: { word: "ended by a failure", tone: "bad" },
  lost: { word: "ended: a node was lost", tone: "warn" },
  membership: { word: "ended for a change of nodes", tone: "calm" },
  success: { word: "succeeded", tone: "good" },
  stop: { word: "was stopped", tone: "calm" },
  signal: { word: "ended by a signal", tone: "warn" },
};

function roundOf(value, next, node) {
  const began = time(value.began);
  const number = count(value.round);
  if (began === null || number === null) {
    return null;
  }
  const ended = time(value.ended);
  const end = text(value.end, 40);
  // A node that died had no time to tell how its round ended.
  const over = ended ?? time(next?.began) ?? (node.running ? null : (node.ended ?? node.sign));
  return {
    number,
    began,
    ended: over,
    unclear: ended === null && over !== null,
    worldSize: count(value.world_size),
    members: texts(value.nodes, 256),
    firstStep: count(value.first_step),
    lastStep: count(value.last_step),
    end,
    why: text(value.why, 600),
    lanes: [node.mapIndex],
  };
}

// Whether it is the same round, as another node tells it: the same number, and at the same time. A
// node in a later try may have counted otherwise: then it is the time alone.
function same(one, other, now) {
  const [oneEnd, otherEnd] = [one.ended ?? now, other.ended ?? now];
  const both = Math.min(oneEnd, otherEnd) - Math.max(one.began, other.began);
  const shorter = Math.min(oneEnd - one.began, otherEnd - other.began);
  const near = Math.abs(one.began - other.began) < CLOCKS && both > -CLOCKS;
  return one.number === other.number
    ? near || both > shorter / 2
    : both > CLOCKS && both > shorter / 2;
}

function joined(one, other) {
  // One of the nodes may not have written its end yet.
  const open = !one.end && !other.end && (one.ended === null || other.ended === null);
  return {
    ...one,
    began: Math.min(one.began, other.began),
    ended: open ? null : greatest([one.ended, other.ended]),
    unclear: one.unclear && other.unclear,
    worldSize: greatest([one.worldSize, other.worldSize]),
    members: one.members.length >= other.members.length ? one.members : other.members,
    firstStep: least([one.firstStep, other.firstStep]),
    lastStep: greatest([one.lastStep, other.lastStep]),
    end: one.end || other.end,
    why: one.why.length >= other.why.length ? one.why : other.why,
    lanes: [...new Set([...one.lanes, ...other.lanes])].sort((a, b) => a - b),
  };
}

// All rounds that are known, in the order in which they began.
export function mergedRounds(nodes, now) {
  const found = [];
  for (const node of nodes) {
    const told = records(last(node.elastic.rounds, MOST), MOST);
    for (const [at, value] of told.entries()) {
      const round = roundOf(value, told[at + 1], node);
      if (round === null) {
        continue;
      }
      // A node is in one round at a time.
      const place = found.findIndex(
        (other) => !other.lanes.includes(node.mapIndex) && same(round, other, now),
      );
      if (place < 0) {
        found.push(round);
      } else {
        found[place] = joined(found[place], round);
      }
    }
  }
  return found.sort((one, other) => one.began - other.began || one.number - other.number);
}
