// The metrics that ranks gave `worker.step`, as small curves: the last value, the least, the most,
// and each value under the pointer or by the arrow keys.

import { h, show, svg } from "./dom.js";
import { clock, grouped, short } from "./words.js";

const [WIDTH, HEIGHT, EDGE] = [240, 48, 3];

const shown = new Map(); // the points of each curve that is drawn, by its name
const read = new Map(); // which of them a person reads

function scaled(points) {
  const known = points.filter((point) => point.value !== null);
  const values = known.map((point) => point.value);
  const steps = points.map((point) => point.step);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, end] = [Math.min(...steps), Math.max(...steps)];
  const x = (step) => EDGE + ((WIDTH - 2 * EDGE) * (step - first)) / (end - first || 1);
  const y = (value) =>
    high === low
      ? HEIGHT / 2
      : HEIGHT - EDGE - ((HEIGHT - 2 * EDGE) * (value - low)) / (high - low);
  const at = points.map((point) => ({
    ...point,
    x: x(point.step),
    y: point.value === null ? null : y(point.value),
  }));
  return { at, low, high, known };
}

// A value that is no number, such as NaN, is a gap.
function pathOf(points) {
  let open = false;
  const words = [];
  for (const { x, y } of points) {
    if (y !== null) {
      words.push(`${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`);
    }
    open = y !== null;
  }
  return words.join("");
}

function card(curve) {
  const { at, low, high, known } = scaled(curve.points);
  const end = known.at(-1);
  const lastDot = at.findLast((point) => point.y !== null);
  shown.set(curve.name, at);
  const said = `last ${short(end?.value ?? null)}`;
  const range = known.length ? `least ${short(low)}, most ${short(high)}` : "no number";
  return h(
    "figure",
    { class: "curve", "data-key": curve.name },
    h(
      "figcaption",
      {},
      h("span", { class: "name", title: curve.name }, curve.name),
      h("strong", {}, short(end?.value ?? null)),
    ),
    svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        tabindex: "0",
        "data-curve": curve.name,
        "aria-label": `${curve.name}: ${said}, ${range}. Arrow keys read its values.`,
      },
      svg("path", { d: pathOf(at), class: "line" }),
      lastDot &&
        svg("path", { d: `M${lastDot.x.toFixed(1)} ${lastDot.y.toFixed(1)}h0`, class: "dot" }),
      svg("path", { d: "", class: "cursor", "data-keep": true }),
    ),
    h("p", { class: "value", "data-keep": true, "aria-live": "polite" }),
    h("p", { class: "quiet" }, range),
  );
}

export function drawCurves(place, job) {
  const { curves, latest } = job.curves;
  shown.clear();
  if (!curves.length && !latest.length) {
    show(place);
    return;
  }
  const names = new Set(curves.map((curve) => curve.name));
  const rest = latest.filter((one) => !names.has(one.name));
  show(
    place,
    h(
      "div",
      { class: "title" },
      h("h2", {}, "Metrics"),
      h("span", { class: "quiet" }, "of rank 0"),
    ),
    h("div", { class: "curves" }, curves.map(card)),
    rest.length > 0 &&
      h(
        "dl",
        { class: "facts" },
        rest.map((one) =>
          h(
            "div",
            {},
            h("dt", { title: one.name }, one.name),
            h("dd", {}, one.value === null ? one.said : short(one.value)),
          ),
        ),
      ),
  );
}

function point(drawing, at) {
  const figure = drawing.closest("figure");
  const points = shown.get(drawing.dataset.curve) ?? [];
  const one = points[at];
  if (one) {
    read.set(drawing.dataset.curve, at);
  } else {
    read.delete(drawing.dataset.curve);
  }
  figure.querySelector(".cursor").setAttribute("d", one ? `M${one.x.toFixed(1)} 0V${HEIGHT}` : "");
  const when =
    one && one.at !== null && one.at !== undefined ? ` at ${clock(one.at * 1000, Date.now())}` : "";
  figure.querySelector(".value").textContent = one
    ? `step ${grouped(one.step)}: ${one.value === null ? "no number" : short(one.value)}${when}`
    : "";
}

// Have values shown under the pointer and by the arrow keys.
export function readCurves(place) {
  place.addEventListener("pointermove", (event) => {
    const drawing = event.target.closest("svg[data-curve]");
    if (drawing) {
      const box = drawing.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      const points = shown.get(drawing.dataset.curve) ?? [];
      const far = points.map((one) => Math.abs(one.x - x));
      point(drawing, far.indexOf(Math.min(...far)));
    }
  });
  place.addEventListener("pointerout", (event) => {
    const drawing = event.target.closest("svg[data-curve]");
    if (drawing && !drawing.contains(event.relatedTarget)) {
      point(drawing, -1);
    }
  });
  place.addEventListener("keydown", (event) => {
    const drawing = event.target.closest("svg[data-curve]");
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (drawing && way) {
      const points = shown.get(drawing.dataset.curve) ?? [];
      const at = (read.get(drawing.dataset.curve) ?? points.length) + way;
      point(drawing, Math.min(Math.max(at, 0), points.length - 1));
      event.preventDefault();
    }
  });
}
