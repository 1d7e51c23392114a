// What is shown is a run, a merge method, a study, a set of tasks and their coefficients; all else follows.

const $ = (id) => document.getElementById(id);
// Of two that are as near the even one, as in the report: 76.25 is 76.2.
const tenths = (percent) => (percent % 1 === 0.25 ? percent - 0.01 : percent).toFixed(1);
const percentOf = (share) => tenths(100 * share);
const signed = (share) => {
  const text = tenths(Math.abs(100 * share));
  return text === "0.0" ? text : `${share > 0 ? "+" : "−"}${text}`;
};
const distinct = (values) => [...new Set(values)];

/** Make an element with text or children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

class Explorer {
  constructor(content) {
    Object.assign(this, content);
    this.names = content.tasks;
    this.on = new Set();
    this.coefficients = new Map(); // of each task, by its place
    this.point = null;
    this.moved = null; // the task whose slider was moved last; null for all of them
  }

  // --- what is picked ---------------------------------------------------------------------------

  get subset() { return this.sorted.map((task) => this.names[task]).join("+"); }
  get sorted() { return [...this.on].sort((a, b) => (this.names[a] < this.names[b] ? -1 : 1)); }
  get exact() { return this.merge.sum ? this.run.exact : null; }
  get there() { return rowsOf(this.merge, this.subset).get(this.point); }
  get chosen() { return this.chosenOf(this.run, this.merge, this.subset); }

  chosenOf(run, merge, subset) {
    return merge.chosen.filter((one) => one.study === this.study && one.subset === subset);
  }

  /** The rows of the point that is shown: measured, or answered by margins. */
  get rows() {
    const measured = this.there;
    if (!this.exact || !this.on.size) return measured ?? { val: new Map(), test: new Map() };
    const answered = answer(this.exact, this.vector());
    return { val: new Map([...answered, ...(measured?.val ?? [])]), test: measured?.test ?? new Map() };
  }

  /** Coefficients of the moving tasks; of those that are not merged, 0. */
  vector(changed = new Map()) {
    return this.exact.moving.map((task) =>
      (this.on.has(task) ? changed.get(task) ?? this.coefficients.get(task) : 0));
  }

  pick(run, merge, study) {
    Object.assign(this, { run, merge, study });
    if (this.exact && !this.exact.parts[0]?.values) openMargins(this.exact);
    this.movable = distinct(Object.keys(merge.subsets).flatMap((name) => name.split("+")))
      .map((name) => this.names.indexOf(name)).sort((a, b) => a - b);
  }

  /** Show a subset at a point. */
  go(subset, point) {
    this.on = new Set(subset.split("+").map((name) => this.names.indexOf(name)));
    this.setPoint(point);
  }

  setPoint(point) {
    this.point = point;
    const names = this.sorted.map((task) => this.names[task]);
    readPoint(point, names).forEach((value, at) => this.coefficients.set(this.sorted[at], value));
  }

  /** After tasks came or went: stay at the point where it is there, else go to the chosen one. */
  settle() {
    if (!this.on.size) return;
    if (this.exact) {
      const last = [...this.coefficients.values()].at(-1) ?? this.exact.high;
      for (const task of this.on) if (!this.coefficients.has(task)) this.coefficients.set(task, last);
      this.spell();
      return;
    }
    const points = pointsOf(this.merge, this.subset);
    if (!points.includes(this.point)) this.point = this.chosen[0]?.point ?? points[0] ?? this.point;
    this.setPoint(this.point);
  }

  spell() {
    const tasks = this.sorted;
    this.point = spellPoint(tasks.map((task) => this.names[task]), tasks.map((task) => this.coefficients.get(task)));
  }

  /** The largest subset that the study chose for, at the point it chose; else the largest there is. */
  opening(merge, study) {
    const size = (name) => name.split("+").length;
    const own = merge.chosen.filter((one) => one.study === study);
    const first = own.sort((a, b) => size(b.subset) - size(a.subset))[0];
    const subset = first?.subset ?? Object.keys(merge.subsets).sort((a, b) => size(b) - size(a))[0];
    return { subset, point: first?.point ?? pointsOf(merge, subset)[0] };
  }

  start() {
    const { subset, point } = this.opening(this.merge, this.study);
    this.go(subset, point);
  }

  /** The method that does best on validation where it opens, of those that merge the most tasks. */
  bestOf(run) {
    const known = run.merges.map((merge) => {
      const { subset, point } = this.opening(merge, "addition");
      const tasks = subset.split("+").map((name) => this.names.indexOf(name));
      return { merge, size: tasks.length, value: meanOf(rowsOf(merge, subset).get(point).val, tasks, run.n.val) ?? 0 };
    });
    return known.sort((a, b) => b.size - a.size || b.value - a.value)[0].merge;
  }

  // --- controls ---------------------------------------------------------------------------------

  /** Offer what there is, given what is picked before. */
  offer() {
    const { run, merge, runs } = this;
    const fill = (id, values, value) => {
      $(id).replaceChildren(...values.map(([key, text]) => make("option", { value: key }, text)));
      $(id).value = value;
    };
    const plain = (values) => distinct(values).map((value) => [value, String(value)]);
    const modes = runs.filter((one) => one.model === run.model);
    fill("model", plain(runs.map((one) => one.model)), run.model);
    fill("mode", plain(modes.map((one) => one.mode)), run.mode);
    fill("seed", plain(modes.filter((one) => one.mode === run.mode).map((one) => one.seed)), run.seed);
    fill("method", run.merges.map((one, at) => [at, one.title]), run.merges.indexOf(merge));
    fill("study", plain(merge.chosen.map((one) => one.study)), this.study);
    const range = this.exact && { type: "range", min: this.exact.low, max: this.exact.high, step: 0.01 };
    $("tasks").replaceChildren($("tasks").firstElementChild, ...this.movable.map((task) => {
      const name = this.names[task], box = make("input", { type: "checkbox", "data-toggle": name });
      const swatch = make("span", { class: "swatch", style: `border-top-style: ${dashOf(task)[0]}; color: ${colourOf(task)}` });
      const row = make("div", { class: "task" }, swatch, make("label", {}, box, ` ${name}`));
      box.addEventListener("change", () => this.toggle(task, box.checked));
      if (!range) return row;
      const slider = make("input", { ...range, "data-slider": name, "aria-label": `coefficient of ${name}` });
      slider.addEventListener("input", () => this.drag(task, Number(slider.value)));
      row.append(slider, make("output", { "data-value": name }));
      return row;
    }));
  }

  repick(change) {
    const asked = { model: this.run.model, mode: this.run.mode, seed: this.run.seed, ...change };
    const keys = ["model", "mode", "seed"];
    const last = keys.findIndex((key) => key in change);
    // What comes behind the pick that changed is kept where it is there.
    const fits = (run, depth) => keys.slice(0, depth).every((key) => String(run[key]) === String(asked[key]));
    const run = [3, 2, 1].filter((depth) => depth > last).map((depth) => this.runs.find((one) => fits(one, depth))).find(Boolean);
    const merge = run.merges[change.method] ?? run.merges.find((one) => one.title === this.merge.title) ?? this.bestOf(run);
    const studies = merge.chosen.map((one) => one.study);
    const study = [change.study, this.study, "addition"].find((one) => studies.includes(one)) ?? studies[0];
    const subset = this.subset;
    this.pick(run, merge, study);
    const [first] = this.chosenOf(run, merge, subset);
    if (first) this.go(subset, first.point);
    else this.start();
    this.offer();
    this.render();
  }

  toggle(task, on) {
    if (on) this.on.add(task);
    else this.on.delete(task);
    this.settle();
    this.render();
  }

  drag(task, value) {
    for (const one of task === null ? this.on : [task]) this.coefficients.set(one, value);
    if (task !== null) this.on.add(task);
    this.moved = task;
    this.spell();
    this.render();
  }

  listen() {
    for (const id of ["model", "mode", "seed", "method", "study"]) {
      $(id).addEventListener("change", () => this.repick({ [id]: $(id).value }));
    }
    $("lambda").addEventListener("input", () => {
      const value = Number($("lambda").value);
      if (this.exact) return this.drag(null, value);
      this.setPoint(pointsOf(this.merge, this.subset)[value]);
      this.render();
    });
    $("to-chosen").addEventListener("click", () => {
      this.setPoint(this.chosen[0].point);
      this.render();
    });
    $("copy").addEventListener("click", async () => {
      $("command").select();
      // Where the page may not write to the clipboard, what is selected can still be copied by hand.
      await navigator.clipboard.writeText($("command").value).catch(() => document.execCommand("copy"));
      $("copy").textContent = "Copied";
      setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
    });
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => this.read());
  }

  // --- the address: a view can be kept and sent ---------------------------------------------------

  write() {
    const { model, mode, seed } = this.run;
    const view = { model, mode, seed, method: this.merge.title, study: this.study ?? "", subset: this.subset, point: this.point };
    history.replaceState(null, "", `#${new URLSearchParams(view)}`);
  }

  /** Show what the address says, as far as it is there. */
  read() {
    const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const run = this.runs.find((one) => ["model", "mode", "seed"].every((key) => String(one[key]) === asked[key])) ?? this.runs[0];
    const merge = run.merges.find((one) => one.title === asked.method) ?? this.bestOf(run);
    const studies = merge.chosen.map((one) => one.study);
    this.pick(run, merge, [asked.study, "addition"].find((one) => studies.includes(one)) ?? studies[0]);
    this.start();
    const known = (asked.subset ?? "").split("+").every((name) => this.movable.includes(this.names.indexOf(name)));
    if (known && (this.exact || rowsOf(merge, asked.subset).has(asked.point))) this.go(asked.subset, asked.point);
    this.offer();
    this.render();
  }
}
