// What the page shows of an explorer's state. Each part is made anew from the state; none keeps any.

/** Show a state everywhere. */
Explorer.prototype.render = function render() {
  const rows = this.rows;
  showControls(this);
  showScores(this, rows);
  showPoint(this, rows);
  showAlternatives(this, rows);
  this.write();
  this.drawn = Promise.all([drawBars(this, rows), drawCurve(this)]);
};

function showControls(view) {
  const { exact, on, names, coefficients } = view;
  for (const task of view.movable) {
    const of = (kind) => document.querySelector(`[${kind}="${CSS.escape(names[task])}"]`);
    of("data-toggle").checked = on.has(task);
    if (!exact) continue;
    of("data-slider").value = coefficients.get(task) ?? exact.low;
    of("data-value").textContent = on.has(task) ? spell(coefficients.get(task)) : "–";
  }
  const points = exact ? [] : pointsOf(view.merge, view.subset);
  const slider = $("lambda");
  slider.disabled = exact ? !on.size : points.length < 2;
  const values = on.size ? view.sorted.map((task) => coefficients.get(task)) : [0];
  Object.assign(slider, exact
    ? { min: exact.low, max: exact.high, step: 0.01, value: values.reduce((a, b) => a + b) / values.length }
    : { min: 0, max: Math.max(points.length - 1, 0), step: 1, value: points.indexOf(view.point) });
  const text = on.size ? view.point : "–";
  $("lambda-text").textContent = text.includes(":") ? "each its own" : text;
  slider.setAttribute("aria-valuetext", text);
  $("to-chosen").disabled = !view.chosen.length;
}

/** Zero-shot and the task's own expert, on a split; null where there is none. */
function levels(view, split, task) {
  const n = view.run.n[split][task], { zeroshot, expert } = view.run;
  const share = (counts) => (counts[split][task] === null ? null : counts[split][task] / n);
  return { zero: share(zeroshot), own: share(expert) };
}

const shownTasks = (view, rows) => view.names.map((_, task) => task).filter((task) => rows.val.has(task) || rows.test.has(task));

function showScores(view, rows) {
  const { run, names, on } = view;
  const cell = (text, small) => make("td", {}, text, ...(small ? [make("small", {}, ` ${small}`)] : []));
  const number = (row, n) => {
    if (!row) return cell("");
    const { value, low, high } = score(row, n);
    const open = row.high > row.low ? `${row.low} to ${row.high} of ${n}; ` : "";
    const guess = row.bound === undefined ? "" : `; interpolated, ± ${percentOf(row.bound)}`;
    return cell(percentOf(value), `${open}${percentOf(low)} to ${percentOf(high)}${guess}`);
  };
  const body = shownTasks(view, rows).map((task) => {
    const val = rows.val.get(task), test = rows.test.get(task), { zero, own } = levels(view, "val", task);
    const attributes = { "data-task": names[task], class: on.has(task) ? undefined : "outside" };
    for (const [split, row] of [["val", val], ["test", test]]) {
      if (row) Object.assign(attributes, { [`data-${split}`]: row.low, [`data-${split}-high`]: row.high, [`data-${split}-key`]: row.key });
    }
    const share = val && own ? score(val, run.n.val[task]).value / own : null;
    return make("tr", attributes,
      cell(names[task], on.has(task) ? "" : "not merged"),
      cell(zero === null ? "" : percentOf(zero)), number(val, run.n.val[task]),
      cell(own === null ? "" : percentOf(own)), cell(share === null ? "" : percentOf(share)),
      number(test, run.n.test[task]));
  });
  const tasks = view.sorted, mean = (split) => meanOf(rows[split], tasks, run.n[split]);
  const level = (kind) => {
    const found = tasks.map((task) => levels(view, "val", task)[kind]);
    return !found.length || found.includes(null) ? null : found.reduce((a, b) => a + b) / found.length;
  };
  const [chosen] = view.chosen.filter((one) => one.point === view.point && one.tasks === view.subset);
  const shown = (value) => (value === null ? "" : percentOf(value));
  const interval = chosen && chosen.test_low !== null ? `${percentOf(chosen.test_low)} to ${percentOf(chosen.test_high)}` : "";
  const last = make("tr", { class: "mean", "data-mean-val": mean("val") ?? undefined, "data-mean-test": mean("test") ?? undefined },
    cell("mean", "of the merged"), cell(shown(level("zero"))), cell(shown(mean("val"))), cell(shown(level("own"))), cell(""),
    cell(shown(mean("test")), interval));
  const heads = ["task", "zero-shot", "validation", "expert", "relative", "test"].map((text) => make("th", { scope: "col" }, text));
  $("scores").replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body, ...(tasks.length ? [last] : [])));
  const exact = view.exact;
  $("exactness").textContent = exact
    ? `Sliders are exact: this model is linear in its weights, so every coefficient from ${exact.low} to ${exact.high} is answered ` +
      `by arithmetic on margins of ${8 * exact.width} bits; where one is too near to a boundary to tell, the count is given as a range. ` +
      `Of ${exact.compared} measured rows ${exact.differing} differ${exact.differing ? `, by at most ${exact.largest} images` : ""}.`
    : "";
  const best = mean("val");
  $("status").textContent = !tasks.length ? "Pick a task."
    : best === null ? `${view.subset} at ${view.point} was not measured; pick other tasks, or one of the alternatives.`
      : `${view.point} on ${tasks.length} ${tasks.length === 1 ? "task" : "tasks"}: ${percentOf(best)} % on validation` +
        (mean("test") === null ? "" : `, ${percentOf(mean("test"))} % on test`) + (chosen ? `; chosen by ${view.study}.` : ".");
}

const quoted = (word) => (/^[\w./:+,=@%-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function exportCommand(view) {
  const { run, merge } = view, text = `${view.point}${merge.gives === "per_task" ? `@${view.names[view.sorted[0]]}` : ""}`;
  const file = ["results/export", run.model, run.mode, run.seed, merge.label, view.subset, `${text}.safetensors`].join("/");
  const files = view.files.length ? ["--configfile", ...view.files] : [];
  return ["snakemake", "--cores", "1", file, ...files].map(quoted).join(" ");
}

function showPoint(view, rows) {
  const { merge } = view, chosen = view.chosen.filter((one) => one.point === view.point);
  const entries = [
    ["point", view.point], ["tasks", view.subset],
    ...chosen.map((one) => ["chosen", `${[view.study, one.about].filter(Boolean).join(", ")}: ${one.rule}${one.at_edge ? "; at the edge of its sweep" : ""}${one.met ? "" : "; nothing meets what the study asks, this comes nearest"}`]),
    ...view.chosen.filter((one) => one.point !== view.point).map((one) => ["chosen is", one.point]),
    ["run key", `${merge.run}${view.subset}`],
  ];
  const keys = [...rows.val, ...rows.test].filter(([, row]) => row.key);
  const list = make("dl", {}, ...["val", "test"].flatMap((split) => [...rows[split]].filter(([, row]) => row.key)
    .flatMap(([task, row]) => [make("dt", {}, `${view.names[task]}, ${split}`), make("dd", {}, row.key)])));
  $("here").replaceChildren(...entries.flatMap(([name, text]) => [make("dt", {}, name), make("dd", { "data-is": name }, text)]),
    ...(keys.length ? [make("dt", {}, "row keys"), make("dd", {}, make("details", {}, make("summary", {}, `${keys.length} rows of the grid`), list))] : []));
  const without = { logits: "The method merges logits: there is no model to export.", features: "The method changes features, which no weights do: there is no model to export." }[merge.gives];
  const none = !view.on.size || !merge.label || without;
  $("command").value = none ? "" : exportCommand(view);
  $("copy").disabled = Boolean(none);
  $("export-note").textContent = without ?? (!merge.label ? "The configuration no longer has this method."
    : merge.gives === "per_task" ? "One model for each task: name another one behind the @."
      : view.run.tangent ? "What loads the file evaluates the ordinary network at this point, which is another function than the tangent model." : "");
}

/** Other points near this one: chosen ones of other merges, one task more or less, neighbours in lambda. */
function alternatives(view) {
  const { run, merge, subset } = view, found = [];
  const add = (what, to, name, point) => found.push({ what, ...to, subset: name, point });
  for (const one of view.chosen) if (one.point !== view.point) add("the chosen point", { run, merge }, subset, one.point);
  for (const other of view.runs.filter((one) => one.model === run.model)) {
    for (const to of other.merges.filter((one) => one !== merge)) {
      const where = other === run ? "" : `, ${other.mode}, seed ${other.seed}`;
      for (const one of view.chosenOf(other, to, subset)) add(`${to.title}${where}`, { run: other, merge: to }, subset, one.point);
    }
  }
  for (const task of view.movable) {
    const others = new Set(view.on);
    if (!others.delete(task)) others.add(task);
    const name = [...others].map((one) => view.names[one]).sort().join("+");
    const [one] = view.chosenOf(run, merge, name);
    if (one) add(`${view.on.has(task) ? "without" : "with"} ${view.names[task]}`, { run, merge }, name, one.point);
  }
  const points = pointsOf(merge, subset), at = points.indexOf(view.point);
  for (const point of at < 0 ? [] : [points[at - 1], points[at + 1]]) if (point) add(`λ ${point}`, { run, merge }, subset, point);
  return found;
}

function showAlternatives(view, rows) {
  const heads = ["change", "point", "there", "difference"].map((text) => make("th", { scope: "col" }, text));
  const body = alternatives(view).flatMap((one) => {
    const there = rowsOf(one.merge, one.subset).get(one.point);
    const both = view.sorted.filter((task) => there?.val.has(task) && rows.val.has(task) && one.subset.split("+").includes(view.names[task]));
    if (!both.length) return [];
    const value = meanOf(there.val, both, one.run.n.val), change = value - meanOf(rows.val, both, view.run.n.val);
    const go = () => {
      view.pick(one.run, one.merge, view.study);
      view.go(one.subset, one.point);
      view.offer();
      view.render();
    };
    return [make("tr", { "data-alternative": one.what }, make("td", {}, make("button", { type: "button", onclick: go }, one.what)), make("td", {}, one.point.includes(":") ? "each its own" : one.point),
      make("td", {}, percentOf(value)), make("td", { "data-change": change }, signed(change)))];
  });
  $("alternatives").replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
}

async function drawBars(view, rows) {
  const entries = shownTasks(view, rows).flatMap((task, order) => {
    const { zero, own } = levels(view, "val", task), name = { task: view.names[task], order };
    const of = (kind, split) => {
      if (!rows[split].has(task)) return [];
      const { value, low, high } = score(rows[split].get(task), view.run.n[split][task]);
      return [{ ...name, kind, value: 100 * value, low: 100 * low, high: 100 * high }];
    };
    return [
      ...(zero === null ? [] : [{ ...name, kind: "zero-shot", value: 100 * zero }]),
      ...(own === null ? [] : [{ ...name, kind: "expert", value: 100 * own }]),
      ...of("validation", "val"), ...of("test", "test"),
    ];
  });
  await (await view.bars)({ rows: entries });
}

/** Accuracies along the slider that was moved last, as [coefficient, point, rows]. */
function along(view) {
  if (!view.exact) {
    return pointsOf(view.merge, view.subset).filter((point) => !point.includes(":"))
      .map((point) => [Number(point), point, rowsOf(view.merge, view.subset).get(point).val]);
  }
  const { low, high } = view.exact, steps = 40;
  return Array.from({ length: steps + 1 }, (_, step) => {
    const value = low + ((high - low) * step) / steps;
    const moving = view.moved === null ? view.sorted : [view.moved];
    const vector = view.vector(new Map(moving.map((task) => [task, value])));
    return [value, spell(value), answer(view.exact, vector, view.sorted)];
  });
}

async function drawCurve(view) {
  const { run, names, exact, sorted } = view, n = run.n.val;
  const moved = view.on.has(view.moved) ? view.moved : (view.moved = null);
  $("curve-title").textContent = moved === null ? "Against λ" : `Against the coefficient of ${names[moved]}, the others as they are`;
  const points = sorted.length ? along(view) : [];
  const mean = points.map(([x, point, rows]) => ({ x, point, y: meanOf(rows, sorted, n) }))
    .filter((row) => row.y !== null).map((row) => ({ ...row, y: 100 * row.y }));
  const lines = points.flatMap(([x, , rows]) => sorted.filter((task) => rows.has(task))
    .map((task) => ({ x, task: names[task], y: 100 * score(rows.get(task), n[task]).value })));
  const single = new Map(moved === null ? pointsOf(view.merge, view.subset).map((point) => [point, meanOf(rowsOf(view.merge, view.subset).get(point).val, sorted, n)]) : []);
  const at = (point) => ({ x: Number(point), point, y: 100 * single.get(point) });
  const plain = (point) => !point.includes(":") && (single.get(point) ?? null) !== null;
  const level = (counts) => {
    const shares = sorted.map((task) => (counts.val[task] === null ? null : counts.val[task] / n[task]));
    return shares.includes(null) || !shares.length ? null : (100 * shares.reduce((a, b) => a + b)) / shares.length;
  };
  const here = moved === null ? (view.point?.includes(":") ? [] : [{ x: Number(view.point) }]) : [{ x: view.coefficients.get(moved) }];
  await (await view.curve)({
    lines, here: sorted.length ? here : [],
    mean: sorted.length > 1 ? mean : [],
    measured: exact || sorted.length > 1 ? [...single.keys()].filter(plain).map(at) : [],
    chosen: view.chosen.filter((one) => plain(one.point)).map((one) => ({ ...at(one.point), what: `chosen by ${view.study}` })),
    levels: [["zero-shot", level(run.zeroshot)], ["experts", level(run.expert)]].filter(([, y]) => y !== null).map(([name, y]) => ({ name, y })),
  });
}

unpack($("data").textContent).then((content) => {
  const view = new Explorer(content);
  view.bars = chart($("bars"), BARS);
  view.curve = chart($("curve"), curveSpec(view.names));
  view.listen();
  view.read();
  window.explorer = view;
});
