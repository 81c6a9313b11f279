// Requests to Airflow's REST API with the viewer's own session: a few at a time, none without end.

const AT_A_TIME = 6;
const LONGEST_WAIT = 20_000; // milliseconds

// Why there is no answer that can be used. `kind` is one of: logged-out, forbidden, missing, away.
export class NoAnswer extends Error {
  constructor(kind, detail) {
    super(detail);
    this.kind = kind;
  }
}

const KINDS = { 401: "logged-out", 403: "forbidden", 404: "missing" };

// Airflow answers 403, too, if it does not know a session any more: after a log-out, or a restart
// with another secret.
async function saysLoggedOut(answer) {
  if (answer.status !== 403) {
    return false;
  }
  try {
    return /token/i.test((await answer.json()).detail);
  } catch {
    return false;
  }
}

export class Api {
  constructor() {
    this._waiting = [];
    this._running = 0;
    this._ahead = 0; // milliseconds by which the server's clock is ahead of this machine's
  }

  // Milliseconds since 1970, by the server's clock.
  now() {
    return Date.now() + this._ahead;
  }

  async get(url) {
    const answer = await this._ask(url, {});
    try {
      return await answer.json();
    } catch {
      throw new NoAnswer("away", "what answers is not Airflow's REST API");
    }
  }

  async put(url, body) {
    const headers = { "Content-Type": "application/json" };
    await this._ask(url, { method: "PUT", headers, body: JSON.stringify(body) });
  }

  async _ask(url, more) {
    if (this._running >= AT_A_TIME) {
      await new Promise((resolve) => this._waiting.push(resolve));
    }
    this._running += 1;
    try {
      return await this._fetch(url, more);
    } finally {
      this._running -= 1;
      this._waiting.shift()?.();
    }
  }

  async _fetch(url, more) {
    let answer;
    try {
      answer = await fetch(url, {
        cache: "no-store",
        credentials: "same-origin",
        redirect: "manual",
        signal: AbortSignal.timeout(LONGEST_WAIT),
        ...more,
        headers: { Accept: "application/json", ...more.headers },
      });
    } catch (error) {
      const late = error.name === "TimeoutError";
      throw new NoAnswer("away", late ? "it takes longer than 20 s" : "it cannot be reached");
    }
    this._setClock(answer.headers.get("Date"));
    if (answer.type === "opaqueredirect") {
      throw new NoAnswer("logged-out", "it wants a login");
    }
    if (!answer.ok) {
      const kind = (await saysLoggedOut(answer)) ? "logged-out" : (KINDS[answer.status] ?? "away");
      throw new NoAnswer(kind, `it answers ${answer.status} ${answer.statusText}`.trim());
    }
    return answer;
  }

  _setClock(date) {
    const at = Date.parse(date ?? "");
    // The header has whole seconds: a smaller difference is none.
    if (Number.isFinite(at)) {
      const ahead = at + 500 - Date.now();
      this._ahead = Math.abs(ahead) < 2000 ? 0 : ahead;
    }
  }
}
