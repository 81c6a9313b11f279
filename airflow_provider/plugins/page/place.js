// Which task instance this page is about, and where Airflow's REST API is: by the page's address.
// Airflow may be served below a path, so all addresses are relative to this page's own.

export class Place {
  constructor(address) {
    const url = new URL(address);
    const asked = (name) => {
      const value = url.searchParams.get(name) ?? "";
      // The UI leaves a name that it does not know in its braces.
      return /^\{\w+\}$/.test(value) ? "" : value;
    };
    this.dag = asked("dag_id");
    this.run = asked("run_id");
    this.task = asked("task_id");
    this.mapIndex = /^\d{1,6}$/.test(asked("map_index")) ? Number(asked("map_index")) : -1;
    this._api = new URL("../api/v2/", url);
  }

  get complete() {
    return Boolean(this.dag && this.run && this.task);
  }

  // The task instances of this task in this run, from number `offset` on.
  instances(offset, limit) {
    return this._address("", { task_id: this.task, order_by: "map_index", offset, limit });
  }

  // All that is in the state of one of them.
  store(mapIndex) {
    return this._address(this._store, { map_index: mapIndex, limit: 100 });
  }

  // The key of that by which people steer.
  control(mapIndex) {
    return this._address(`${this._store}/control`, { map_index: mapIndex });
  }

  // Airflow's page with what one rank has printed in this try.
  log(mapIndex, tryNumber, rank) {
    const [dag, run, task] = [this.dag, this.run, this.task].map(encodeURIComponent);
    const mapped = mapIndex < 0 ? "" : `/mapped/${mapIndex}`;
    const url = new URL(`../../dags/${dag}/runs/${run}/tasks/${task}${mapped}`, this._api);
    url.searchParams.set("try_number", tryNumber);
    url.searchParams.set("log_source", `rank ${rank}`);
    return url;
  }

  get _store() {
    return `/${encodeURIComponent(this.task)}/state-store`;
  }

  _address(path, asked) {
    const [dag, run] = [this.dag, this.run].map(encodeURIComponent);
    const url = new URL(`dags/${dag}/dagRuns/${run}/taskInstances${path}`, this._api);
    for (const [name, value] of Object.entries(asked)) {
      url.searchParams.set(name, value);
    }
    return url;
  }
}
