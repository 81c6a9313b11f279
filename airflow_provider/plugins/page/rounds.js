// A picture of the rounds over time: a lane for each node, a bar for each round that it was in,
// coloured by what ended it. Below it the same in words, since a colour alone says little.

import { h, show, svg } from "./dom.js";
import { ENDS } from "./round_history.js";
import { clock, counted, duration, grouped } from "./words.js";

const FEW = 5; // rounds told in words at once
const [LANE, THIN_LANE, AXIS] = [16, 3, 16];
const MANY_LANES = 16;
const LEAST_BAR = 3;

function ending(round) {
  if (round.unclear && !round.end) {
    return { word: "ended; this node did not tell how", tone: "warn" };
  }
  return ENDS[round.end] ?? { word: `ended: ${round.end}`, tone: "calm" };
}

function sentence(round, now) {
  const end = ending(round);
  const lasted = ((round.ended ?? now) - round.began) / 1000;
  const nodes = round.members.length || round.lanes.length;
  const steps =
    round.firstStep === null
      ? ""
      : `, steps ${grouped(round.firstStep)} to ${grouped(round.lastStep)}`;
  const ranks = round.worldSize === null ? "" : `, ${counted(round.worldSize, "rank")}`;
  return `${duration(lasted)}, ${counted(nodes, "node")}${ranks}${steps}; ${end.word}`;
}

function picture(job, width) {
  const rounds = job.rounds;
  const lanes = [...new Set(rounds.flatMap((round) => round.lanes))].sort((a, b) => a - b);
  const thin = lanes.length > MANY_LANES;
  const high = thin ? THIN_LANE : LANE;
  const gap = thin ? 1 : 3;
  const labels = thin || lanes.length === 1 ? 0 : 56;
  const from = Math.min(...rounds.map((round) => round.began));
  const ends = rounds.map((round) => round.ended ?? job.now);
  const to = Math.max(from + 1000, ...ends);
  const x = (at) => labels + ((width - labels) * (at - from)) / (to - from);
  const y = (lane) => lanes.indexOf(lane) * (high + gap);
  const height = lanes.length * (high + gap) + AXIS;
  const names = new Map(job.nodes.map((node) => [node.mapIndex, node.name]));
  const bars = rounds.flatMap((round, at) => {
    const [left, right] = [x(round.began), x(round.ended ?? job.now)];
    const wide = Math.max(LEAST_BAR, right - left - 1);
    return round.lanes.map((lane) =>
      svg(
        "g",
        { class: `bar ${ending(round).tone}`, "data-key": `${at}/${lane}` },
        svg(
          "title",
          {},
          `round ${round.number}: ${sentence(round, job.now)}${round.why ? `: ${round.why}` : ""}`,
        ),
        svg("rect", {
          x: left.toFixed(1),
          y: y(lane),
          width: wide.toFixed(1),
          height: high,
          rx: 2,
        }),
        !thin &&
          wide > 18 &&
          svg("text", { x: (left + 5).toFixed(1), y: y(lane) + high - 4.5 }, String(round.number)),
      ),
    );
  });
  return svg(
    "svg",
    {
      class: "rounds",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `${counted(rounds.length, "round")}; the list below says the same`,
    },
    labels > 0 &&
      lanes.map((lane) =>
        svg(
          "text",
          { class: "lane", x: 0, y: y(lane) + high - 4.5 },
          (names.get(lane) ?? `node ${lane}`).slice(0, 9),
        ),
      ),
    bars,
    svg("text", { class: "lane", x: labels, y: height - 3 }, clock(from, job.now)),
    svg("text", { class: "lane end", x: width, y: height - 3 }, clock(to, job.now)),
  );
}

function item(round, job) {
  const members =
    round.members.length > 8
      ? `${round.members.slice(0, 8).join(", ")} and ${round.members.length - 8} more`
      : round.members.join(", ");
  return h(
    "li",
    { "data-key": `${round.number}@${round.began}` },
    h("span", { class: `badge ${ending(round).tone}` }, `round ${round.number}`),
    " ",
    h("span", {}, `${clock(round.began, job.now)} · ${sentence(round, job.now)}`),
    round.why && h("p", { class: "why" }, round.why),
    members && h("p", { class: "quiet members" }, members),
  );
}

export function drawRounds(place, job) {
  if (!job.rounds.length) {
    show(place);
    return;
  }
  const newest = [...job.rounds].reverse();
  const width = Math.max(240, place.parentElement.clientWidth - 30);
  show(
    place,
    h(
      "div",
      { class: "title" },
      h("h2", {}, "Rounds"),
      h("span", { class: "quiet" }, "each restart or change of nodes opens the next one"),
    ),
    picture(job, width),
    h(
      "ol",
      { class: "rounds", reversed: true },
      newest.slice(0, FEW).map((round) => item(round, job)),
    ),
    newest.length > FEW &&
      h(
        "details",
        {},
        h("summary", {}, `${newest.length - FEW} earlier`),
        h(
          "ol",
          { class: "rounds" },
          newest.slice(FEW).map((round) => item(round, job)),
        ),
      ),
  );
}
