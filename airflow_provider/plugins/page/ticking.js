// Ages that go on by themselves between two answers of Airflow's.

import { h } from "./dom.js";
import { ago, duration } from "./words.js";

const FORMS = { ago, since: (at, now) => `for ${duration((now - at) / 1000)}` };

// How long ago something was; or, as `form` "since", for how long it has been so.
export function age(at, now, form = "ago") {
  const said = { "data-since": at, "data-form": form, datetime: new Date(at).toISOString() };
  return h("time", said, FORMS[form](at, now));
}

export function tick(now) {
  for (const shown of document.querySelectorAll("time[data-since]")) {
    const text = FORMS[shown.dataset.form](Number(shown.dataset.since), now);
    if (shown.textContent !== text) {
      shown.textContent = text;
    }
  }
}
