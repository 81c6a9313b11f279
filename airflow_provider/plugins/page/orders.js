// The buttons: an order is the key `control` of the state of the task instance that takes orders.
// The job deletes it when it has read it, and says in `control_answer` what came of it.

import { h, show } from "./dom.js";
import { age } from "./ticking.js";

const SLACK = 2000; // milliseconds: the server's times have whole seconds
const LONGEST = 15_000; // milliseconds for which an order keeps others from repeating it

const FORBIDDEN =
  "You may look at this job, but not steer it: Airflow does not let you edit task instances of " +
  "this DAG.";

const MEANINGS = {
  checkpoint: "All ranks save after the same step",
  pause: "All ranks wait at the end of the same step",
  resume: "They go on",
  stacks: "Each node writes into its task's log what its ranks do at this moment, call by call",
  stop: "All ranks save and stop after the same step; the task succeeds",
};

export class Orders {
  constructor(place, api, part, look) {
    this._place = place;
    this._api = api;
    this._part = part;
    this._look = look; // asks Airflow again at once
    this._sent = null;
    this._forbidden = false;
    this._failed = "";
    this._job = null;
    part.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-order]");
      if (button) {
        this._press(button);
      }
    });
    this._dialog = document.getElementById("stop-dialog");
    this._why = document.getElementById("stop-why");
    document.getElementById("stop-cancel").addEventListener("click", () => this._dialog.close());
    document.getElementById("stop-go").addEventListener("click", () => this._stop());
    this._dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault(); // the return key in the text stops nothing
    });
  }

  // Whether an order is on its way, so that its answer is worth a look soon. Of some, nothing ever
  // comes: ranks may ignore it, or the node that takes orders fails.
  get waits() {
    return this._sent !== null && !this._sent.done && !this._overdue;
  }

  get _overdue() {
    return performance.now() - this._sent.pressed >= LONGEST;
  }

  // Why no order is possible now; empty if one is.
  refusal(job) {
    if (this._forbidden) {
      return FORBIDDEN;
    }
    if (!job.nodes.length) {
      return "There is no task instance.";
    }
    if (!job.running) {
      return job.waits
        ? "The task has not started; there is no job that could take an order."
        : "The job has ended; nobody is there to take an order.";
    }
    if (!job.hearer) {
      return "No task instance takes orders now: it is the one with rank 0, while its ranks run.";
    }
    return "";
  }

  // Why this one is of no use now.
  _useless(word, job) {
    const doing = job.lead?.doing || (/^paused/.test(job.lead?.is ?? "") ? "paused" : "");
    const held = doing === "paused" || doing === "pauses";
    if (word === "pause" && held) {
      return "The job is paused already.";
    }
    if (word === "resume" && !held) {
      return "The job is not paused.";
    }
    if (word === "checkpoint" && job.checkpoints?.known && !job.checkpoints.folder) {
      return "The job has no checkpoint_path.";
    }
    if (this.waits && word === this._sent.word) {
      return `The order ${this._sent.word} is on its way.`;
    }
    return "";
  }

  draw(job) {
    this._job = job;
    this._part.hidden = !job.known && !job.running;
    this._follow(job);
    const refusal = this.refusal(job);
    for (const button of this._part.querySelectorAll("button[data-order]")) {
      const reason = refusal || this._useless(button.dataset.order, job);
      button.setAttribute("aria-disabled", reason ? "true" : "false");
      button.title = reason || MEANINGS[button.dataset.order];
    }
    const taker =
      job.nodes.length > 1 && job.hearer
        ? `All nodes follow; ${job.hearer.name} takes the order. `
        : "";
    document.getElementById("order-reason").textContent =
      refusal || `${taker}An order takes effect within about 5 seconds.`;
    show(document.getElementById("order-status"), this._status(job));
  }

  _press(button) {
    const word = button.dataset.order;
    const reason = this._job ? this.refusal(this._job) || this._useless(word, this._job) : "";
    if (button.getAttribute("aria-disabled") === "true") {
      document.getElementById("order-reason").textContent = reason || button.title;
    } else if (word === "stop") {
      this._why.value = "";
      this._dialog.showModal();
    } else {
      this._send(word, "");
    }
  }

  _stop() {
    this._dialog.close();
    this._send("stop", this._why.value.trim());
  }

  async _send(word, why) {
    const hearer = this._job?.hearer;
    if (!hearer) {
      return;
    }
    this._failed = "";
    const sent = {
      word,
      at: this._api.now(),
      pressed: performance.now(),
      arrived: false,
      done: false,
      index: hearer.mapIndex,
    };
    this._sent = sent;
    this.draw(this._job);
    try {
      const said = why || "a button of the tab Elastic was pressed";
      await this._api.put(this._place.control(hearer.mapIndex), { value: { do: word, why: said } });
      sent.arrived = true;
    } catch (error) {
      sent.done = true;
      this._forbidden = error.kind === "forbidden";
      this._failed =
        error.kind === "logged-out"
          ? "You are logged out; the order was not sent."
          : `Airflow did not take the order ${word}: ${error.message}.`;
    }
    this.draw(this._job);
    this._look();
  }

  _follow(job) {
    if (!this._sent || this._sent.done || !this._sent.arrived) {
      return;
    }
    const node = job.nodes.find((one) => one.mapIndex === this._sent.index);
    const answer = node?.answer;
    const later = answer && !node.ordered ? (answer.at ?? 0) - this._sent.at : Number.NaN;
    const same = answer?.asked === this._sent.word;
    const taken = same && later >= -SLACK;
    const replaced = !same && later >= SLACK; // by the order of another person
    const over = taken && (answer.refused || answer.then.length);
    this._sent.done = Boolean(over || replaced || !job.running);
    this._sent.taken = taken;
  }

  _status(job) {
    const lines = [];
    if (this._failed) {
      lines.push(h("p", { class: "warned", "data-key": "failed" }, this._failed));
    } else if (this._sent && !this._sent.done) {
      const state = !this._sent.arrived
        ? "is being sent"
        : this._sent.taken
          ? "was understood; waiting for what comes of it"
          : "was sent; the job looks for orders every 5 seconds";
      const late = this._sent.arrived && this._overdue ? "; nothing has come of it yet" : "";
      lines.push(
        h(
          "p",
          { "data-key": "sent" },
          h("span", { class: "badge active" }, this._sent.word),
          ` ${state}${late}`,
        ),
      );
    }
    const answer = job.answer;
    if (answer && !(this._sent && !this._sent.done && !this._sent.taken)) {
      const word = answer.understood || answer.asked || "an order";
      const tone = answer.refused ? "warn" : answer.then.length ? "good" : "active";
      lines.push(
        h(
          "p",
          { "data-key": "answer", "data-role": "answer" },
          h("span", { class: `badge ${tone}` }, word),
          answer.refused ? ` refused: it ${answer.refused}` : " understood",
          answer.at !== null && [" ", h("span", { class: "quiet" }, age(answer.at, job.now))],
        ),
        answer.then.length > 0 &&
          h(
            "ul",
            { class: "then" },
            answer.then.map((one) => h("li", {}, withoutTime(one))),
          ),
      );
    }
    return lines;
  }
}

function withoutTime(line) {
  return line.replace(/^\d{4}-\d\d-\d\dT[\d:.+Z-]+ /, "");
}
