// Two figures, by Vega-Lite; each is made once and then given rows.

const COLOURS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#b3a500", "#56b4e9"];
const DASHES = [["solid", [1, 0]], ["dashed", [5, 2]], ["dotted", [2, 2]]];
const CONFIG = {
  font: '"DejaVu Sans", Verdana, sans-serif',
  axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", gridColor: "#e8e8e8" },
  legend: { orient: "bottom", labelFontSize: 11, title: null, labelLimit: 260, columns: 2, symbolLimit: 40 },
  view: { stroke: null },
};
const OPTIONS = { actions: false, renderer: "svg", config: CONFIG };
const percent = { format: ".1f", type: "quantitative" };

const KINDS = ["zero-shot", "expert", "validation", "test"];
const kindColour = { scale: { domain: KINDS, range: ["#888888", "#222222", "#0173b2", "#d55e00"] } };

/** Per task: where the merge stands between the base and the expert. */
const BARS = {
  $schema: "https://vega.github.io/schema/vega-lite/v6.json",
  description: "Accuracy of the merge on each task, with zero-shot and the task's own expert",
  width: "container",
  height: { step: 34 },
  data: { name: "rows", values: [] },
  encoding: {
    y: { field: "task", type: "nominal", sort: { field: "order" }, title: null, axis: { labelLimit: 120 } },
  },
  layer: KINDS.flatMap((kind, at) => {
    const shift = { validation: -3, test: 5 }[kind] ?? 0;
    const only = [{ filter: { field: "kind", equal: kind } }];
    const colour = { datum: kind, type: "nominal", ...kindColour };
    const x = { field: "value", type: "quantitative", title: "accuracy [%]", scale: { zero: false, nice: true } };
    const tooltip = ["task", "kind", "value", "low", "high"].map((field) =>
      ({ field, ...(["task", "kind"].includes(field) ? { type: "nominal" } : percent) }));
    const mark = at < 2
      ? { type: "tick", thickness: at ? 3 : 2, size: 22 }
      : { type: "point", filled: kind === "validation", size: 55, yOffset: shift, opacity: 1, fill: kind === "test" ? "white" : undefined };
    const line = { transform: only, mark: { type: "rule", yOffset: shift, strokeWidth: 1.5 }, encoding: { x: { ...x, field: "low" }, x2: { field: "high" }, color: colour } };
    return [...(at < 2 ? [] : [line]), { transform: only, mark, encoding: { x, color: colour, tooltip } }];
  }),
};

const x = { field: "x", type: "quantitative", title: null, scale: { zero: false, nice: false } };
const y = { field: "y", type: "quantitative", title: "accuracy [%]", scale: { zero: false } };

const colourOf = (task) => COLOURS[task % COLOURS.length];
const dashOf = (task) => DASHES[Math.floor(task / COLOURS.length) % DASHES.length];

/** Against a coefficient: each task, the mean, what was chosen, and where one is. */
function curveSpec(tasks) {
  // Names are explained where tasks are picked.
  const by = (range) => ({ field: "task", type: "nominal", legend: null, scale: { domain: tasks, range } });
  const colour = by(tasks.map((_, at) => colourOf(at)));
  const dash = by(tasks.map((_, at) => dashOf(at)[1]));
  return {
    $schema: BARS.$schema,
    description: "Accuracy on validation against the scaling coefficient; the chosen point is a diamond",
    width: "container",
    height: 240,
    layer: [
      { data: { name: "levels", values: [] }, mark: { type: "rule", color: "#888", strokeDash: [4, 3] }, encoding: { y } },
      { data: { name: "levels", values: [] }, mark: { type: "text", color: "#555", align: "right", dy: -6, fontSize: 11 }, encoding: { x: { value: { expr: "width" } }, y, text: { field: "name" } } },
      { data: { name: "here", values: [] }, mark: { type: "rule", color: "#999", strokeWidth: 6, opacity: 0.35 }, encoding: { x } },
      { data: { name: "lines", values: [] }, mark: { type: "line", strokeWidth: 1.3, opacity: 0.8 }, encoding: { x, y, color: colour, strokeDash: dash, tooltip: [{ field: "task" }, { field: "x", type: "quantitative" }, { field: "y", ...percent }] } },
      { data: { name: "mean", values: [] }, mark: { type: "line", color: "#222", strokeWidth: 2.6 }, encoding: { x, y } },
      { data: { name: "measured", values: [] }, mark: { type: "point", color: "#222", filled: true, size: 26, opacity: 1 }, encoding: { x, y, tooltip: [{ field: "point" }, { field: "y", ...percent }] } },
      { data: { name: "chosen", values: [] }, mark: { type: "point", shape: "diamond", filled: true, size: 190, color: "#c00", opacity: 1 }, encoding: { x, y, tooltip: [{ field: "what" }, { field: "point" }, { field: "y", ...percent }] } },
    ],
  };
}

/** Put a figure into an element; return what gives it rows, by the names of its data. */
async function chart(element, spec) {
  const { view } = await vegaEmbed(element, spec, OPTIONS);
  return (sets) => {
    for (const [name, rows] of Object.entries(sets)) view.data(name, rows);
    return view.runAsync();
  };
}
