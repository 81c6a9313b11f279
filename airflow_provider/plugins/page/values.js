// Reads values that anybody may have written: each reader returns what it stands for, or nothing.

const LONGEST_TEXT = 300;

export function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// A record; also one that somebody stored as JSON in a text. Null for all else.
export function record(value) {
  if (typeof value === "string" && value.trimStart().startsWith("{")) {
    try {
      return record(JSON.parse(value));
    } catch {
      return null;
    }
  }
  return isRecord(value) ? value : null;
}

export function text(value, longest = LONGEST_TEXT) {
  if (typeof value === "number" || typeof value === "boolean") {
    return String(value);
  }
  if (typeof value !== "string") {
    return "";
  }
  return value.length <= longest ? value : `${value.slice(0, longest)} …`;
}

export function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

// A whole number that is not negative: a step, a rank, how many.
export function count(value) {
  const found = number(value);
  return found !== null && Number.isInteger(found) && found >= 0 ? found : null;
}

// Milliseconds since 1970 of a time in ISO form.
export function time(value) {
  const found = typeof value === "string" ? Date.parse(value) : NaN;
  return Number.isFinite(found) ? found : null;
}

export function list(value, longest) {
  return Array.isArray(value) ? value.slice(0, longest) : [];
}

export function records(value, longest) {
  return list(value, longest).filter(isRecord);
}

export function last(value, longest) {
  return Array.isArray(value) ? value.slice(-longest) : [];
}

export function texts(value, longest) {
  return list(value, longest)
    .map((one) => text(one))
    .filter(Boolean);
}

export function least(values) {
  const known = values.filter((one) => one !== null && one !== undefined);
  return known.length ? Math.min(...known) : null;
}

export function greatest(values) {
  const known = values.filter((one) => one !== null && one !== undefined);
  return known.length ? Math.max(...known) : null;
}
