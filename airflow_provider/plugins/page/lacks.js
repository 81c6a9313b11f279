// What this page cannot show, and why: in words, so that nobody takes it for nothing.

import { h, show } from "./dom.js";

function linesOf(job, broken) {
  const lines = [];
  if (job.nodes.length && !job.known && !job.waits && !job.running) {
    lines.push(
      "No state of an elastic job is kept for this task: it is another operator's, or its state " +
        "was cleared.",
    );
  }
  const byText = new Map();
  for (const node of job.nodes) {
    for (const lack of node.lacks) {
      byText.set(lack, [...(byText.get(lack) ?? []), node.name]);
    }
  }
  for (const [lack, names] of byText) {
    const whose = names.length > 3 ? `${names.length} nodes` : names.join(", ");
    lines.push(`${whose}: ${lack}.`);
  }
  for (const [name, error] of broken) {
    lines.push(`The part ${name} cannot be made: ${error.message}.`);
  }
  return lines;
}

// `broken` has the parts that went wrong, with their errors.
export function drawLacks(place, job, broken) {
  const lines = linesOf(job, broken);
  show(
    place,
    lines.length > 0 && [
      h("h2", {}, "What is missing here"),
      h(
        "ul",
        {},
        lines.map((line) => h("li", {}, line)),
      ),
    ],
  );
}
