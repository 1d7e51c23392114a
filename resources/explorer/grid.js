// The grid as it is packed into the page, and what follows from it by arithmetic; nothing here touches the page.

const Z = 1.959963984540054; // of a two-sided interval of 95 %

/** Return what `taskgrid.explorer.page` packed: JSON, gzip, base64. */
async function unpack(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Return Wilson's interval of a share, as `store.intervals.wilson`. */
function wilson(correct, n) {
  const share = correct / n, spread = 1 + (Z * Z) / n, centre = (share + (Z * Z) / (2 * n)) / spread;
  const half = (Z / spread) * Math.sqrt((share * (1 - share)) / n + (Z * Z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/** Spell a coefficient as `lattice.points.format_lambda` does. */
function spell(value) {
  const [whole, decimals] = Math.abs(value).toFixed(6).split(".");
  const text = `${whole}.${decimals.replace(/0+$/, "").padEnd(2, "0")}`;
  return value < 0 && Number(text) ? `-${text}` : text;
}

/** Spell a point: one coefficient where all are equal, else one for each task. */
function spellPoint(names, coefficients) {
  const texts = coefficients.map(spell);
  if (new Set(texts).size === 1) return texts[0];
  return names.map((name, at) => `${name}:${texts[at]}`).join(",");
}

/** Return a point's coefficient of each task. */
function readPoint(text, names) {
  if (!text.includes(":")) return names.map(() => Number(text));
  const named = Object.fromEntries(text.split(",").map((part) => part.split(":")));
  return names.map((name) => Number(named[name]));
}

/** Return the rows of a subset by point and split: task -> {low, high, key, bound}, counts of right answers. */
function rowsOf(merge, subset) {
  const found = merge.subsets[subset];
  if (found && !found.at) {
    found.at = new Map();
    for (const [split, point, task, correct, key, bound] of found.rows) {
      const text = merge.points[point];
      if (!found.at.has(text)) found.at.set(text, { val: new Map(), test: new Map() });
      found.at.get(text)[split].set(task, { low: correct, high: correct, key, bound });
    }
  }
  return found?.at ?? new Map();
}

/** Return the points of a subset, in order. */
function pointsOf(merge, subset) {
  const there = rowsOf(merge, subset);
  return merge.points.filter((point) => there.has(point));
}

/** Make a run's margins of numbers: ints of some bytes, times the scale of their image. */
function openMargins(exact) {
  for (const part of exact.parts) {
    part.counts = new Uint16Array(bytes(part.counts).buffer);
    part.scales = new Float32Array(bytes(part.scales).buffer);
    const planes = part.planes.map(bytes), top = new Int8Array(planes.at(-1).buffer);
    const columns = exact.moving.length + 1;
    part.values = new Float64Array(top.length);
    let at = 0;
    part.counts.forEach((count, image) => {
      for (const end = at + count * columns; at < end; at++) {
        let value = top[at];
        for (let plane = planes.length - 2; plane >= 0; plane--) value = value * 256 + planes[plane][at];
        part.values[at] = value * part.scales[image];
      }
    });
  }
  return exact;
}

/**
 * Return between which numbers the right answers on a task lie at some coefficients, one for each moving task.
 *
 * The two are one number unless an image is nearer to a boundary than the rounding of its margins.
 */
function countRight(part, coefficients) {
  const { counts, scales, values } = part;
  const size = coefficients.reduce((sum, value) => sum + Math.abs(value), 1);
  let right = part.right, open = 0, at = 0;
  for (let image = 0; image < counts.length; image++) {
    let least = Infinity;
    for (let rival = 0; rival < counts[image]; rival++) {
      let margin = values[at++];
      for (let task = 0; task < coefficients.length; task++) margin += coefficients[task] * values[at++];
      if (margin < least) least = margin;
    }
    const rounding = 0.500001 * scales[image] * size;
    if (least > rounding) right++;
    else if (least >= -rounding) open++;
  }
  return { low: right, high: right + open };
}

/** Return the rows of tasks on validation that margins answer at some coefficients. */
function answer(exact, coefficients, tasks) {
  const parts = exact.parts.filter((part) => !tasks || tasks.includes(part.task));
  return new Map(parts.map((part) => [part.task, countRight(part, coefficients)]));
}

/** Return a row's accuracy and interval as fractions: the middle, where it is known to a few images only. */
function score(row, n) {
  return {
    value: (row.low + row.high) / 2 / n,
    low: wilson(row.low, n)[0],
    high: wilson(row.high, n)[1],
  };
}

/** Return the mean accuracy on tasks; null where one was not measured. */
function meanOf(rows, tasks, n) {
  const found = tasks.map((task) => rows.get(task));
  if (!tasks.length || found.includes(undefined)) return null;
  return found.reduce((sum, row, at) => sum + score(row, n[tasks[at]]).value, 0) / tasks.length;
}
