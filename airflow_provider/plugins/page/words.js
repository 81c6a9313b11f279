// Numbers and times as people say them.

const GROUPED = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const DAY = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

export const UNKNOWN = "–";

export function grouped(value) {
  return value === null ? UNKNOWN : GROUPED.format(value);
}

// Four digits that count.
export function short(value) {
  if (value === null) {
    return UNKNOWN;
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) {
    return value.toExponential(2);
  }
  return GROUPED.format(Number(value.toPrecision(4)));
}

// A time that has passed or is left, with the two greatest units that matter.
export function duration(seconds) {
  if (seconds === null) {
    return UNKNOWN;
  }
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  const shown = first < 0 ? [[0, "s"]] : parts.slice(first, first + 2);
  return shown
    .filter(([amount], place) => place === 0 || amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ");
}

export function ago(at, now) {
  const seconds = (now - at) / 1000;
  return seconds < 1.5 ? "just now" : `${duration(seconds)} ago`;
}

// The time of day of a moment, with the day if that is not today.
export function clock(at, now) {
  const same = new Date(at).toDateString() === new Date(now).toDateString();
  return (same ? CLOCK : DAY).format(at);
}

export function counted(amount, one, many = `${one}s`) {
  return `${grouped(amount)} ${amount === 1 ? one : many}`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}
