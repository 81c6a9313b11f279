// All ranks of a large job at a glance: a column for each node, a square for each of its ranks.

import { h, svg } from "./dom.js";
import { counted } from "./words.js";

const [SIZE, STEP] = [8, 10];

const WORDS = {
  active: "in a step",
  good: "in a checkpoint",
  calm: "held, or over",
  warn: "silent",
  bad: "failed",
};

// `toneOf` says how a rank of a node is.
export function glance(nodes, width, toneOf) {
  const high = Math.max(...nodes.map((node) => node.ranks.length));
  if (!Number.isFinite(high) || high < 1 || high > 64) {
    return null;
  }
  const wide = Math.max(1, Math.floor(width / STEP));
  const lines = Math.ceil(nodes.length / wide);
  const line = high * STEP + 4;
  const paths = new Map();
  const counts = new Map();
  for (const [at, node] of nodes.entries()) {
    const [x, y] = [(at % wide) * STEP, Math.floor(at / wide) * line];
    for (const [row, rank] of node.ranks.entries()) {
      const tone = toneOf(node, rank);
      const square = `M${x} ${y + row * STEP}h${SIZE}v${SIZE}h-${SIZE}z`;
      paths.set(tone, (paths.get(tone) ?? "") + square);
      counts.set(tone, (counts.get(tone) ?? 0) + 1);
    }
  }
  const said = [...counts].map(([tone, amount]) => `${counted(amount, "rank")} ${WORDS[tone]}`);
  const [across, down] = [Math.min(nodes.length, wide) * STEP, lines * line];
  return [
    svg(
      "svg",
      { class: "glance", width: across, height: down, role: "img", "aria-label": said.join(", ") },
      [...paths].map(([tone, d]) => svg("g", { class: `bar ${tone}` }, svg("path", { d }))),
    ),
    h("p", { class: "quiet" }, `A column for each node. ${said.join(", ")}.`),
  ];
}
