// Draws a figure with plotly. The kernel sends traces and layout in plotly's words, their arrays as float32 buffers, and
// then what changed of them; colours named "ink" and "ground" are the theme's.

const LIBRARY = "__rf_notebook_plotly_4_1_1";
const PATIENCE_MS = 10_000;
/** Charts that show what is at one x together, by the name of their group. */
const GROUPS = (globalThis.__rf_notebook_charts ??= new Map());

/** plotly.js, asked of the kernel once a page; asked again by the next chart when that kernel went away before it answered. */
async function plotly(model) {
  const shared = (globalThis[LIBRARY] ??= Promise.withResolvers?.() ?? withResolvers());
  const receive = async (message, buffers) => {
    if (message.kind !== "library") return;
    const bytes = new Uint8Array(buffers[0].buffer ?? buffers[0], buffers[0].byteOffset ?? 0, buffers[0].byteLength);
    const source = new TextDecoder().decode(bytes);
    // The library looks for CommonJS and AMD loaders that a page may have; it is to hand itself to us instead.
    const parts = ["const module = {exports: {}}, exports = module.exports, define = undefined;\n", source, "\nexport default module.exports;"];
    const url = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
    try {
      shared.resolve((await import(url)).default);
    } finally {
      URL.revokeObjectURL(url);
    }
  };
  model.on("msg:custom", receive);
  try {
    for (;;) {
      if (!(shared.askedAt > performance.now() - PATIENCE_MS)) {
        shared.askedAt = performance.now();
        model.send({ kind: "library" });
      }
      const found = await Promise.race([shared.promise, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
      if (found) return found;
    }
  } finally {
    model.off("msg:custom", receive);
  }
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve) => (made.resolve = resolve));
  return made;
}

function theme(element) {
  const style = getComputedStyle(element);
  const read = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  return {
    ink: read("--jp-ui-font-color1", "#222"),
    dim: read("--jp-ui-font-color2", "#666"),
    line: read("--jp-border-color2", "#ddd"),
    ground: read("--jp-layout-color0", "#fff"),
    font: read("--jp-ui-font-family", "system-ui, sans-serif"),
  };
}

/** Any CSS colour, to be seen through. */
function faint(colour) {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = colour;
  const plain = canvas.fillStyle; // "#rrggbb" or "rgba(…)"
  return plain.startsWith("#") ? `${plain}2e` : plain;
}


const floatsOf = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

/** A figure that is told piece by piece: layout, keys of its traces in their order, traces by key. */
class Told {
  layout = {};
  keys = [];
  traces = new Map();
  seq = -1;

  /** Takes a message in; false when one before it is missing. */
  take(message, buffers) {
    if (!message.whole && message.seq !== this.seq + 1) return false;
    this.seq = message.seq;
    if (message.whole) {
      this.layout = {};
      this.keys = [];
      this.traces.clear();
    }
    this.layout = message.layout ?? this.layout;
    const [x, y] = [floatsOf(buffers[0]), floatsOf(buffers[1])];
    let from = 0;
    for (const { key, n, ...props } of message.traces ?? []) {
      this.traces.set(key, { ...props, x: x.slice(from, from + n), y: y.slice(from, from + n) });
      from += n;
    }
    if (message.keys) {
      this.keys = message.keys;
      for (const key of [...this.traces.keys()]) if (!message.keys.includes(key)) this.traces.delete(key);
    }
    return true;
  }
}

function tracesOf(told, colours) {
  const named = (value) => (value === "ink" ? colours.ink : value === "ground" ? colours.ground : value);
  return told.keys.map((key) => {
    const made = { type: "scatter", ...told.traces.get(key) };
    if (made.fillcolor) made.fillcolor = faint(made.fillcolor);
    if (made.line) made.line = { ...made.line, color: named(made.line.color) };
    if (made.marker?.line) made.marker = { ...made.marker, line: { ...made.marker.line, color: named(made.marker.line.color) } };
    return made;
  });
}

function layoutOf(told, colours, height) {
  const axis = (given) => ({ gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line, automargin: true, ...given });
  const { xaxis, yaxis, ...rest } = told.layout;
  const range = xaxis?.range ? {} : { autorange: true };
  return {
    ...rest,
    height,
    xaxis: axis({ ...xaxis, ...range }),
    yaxis: axis({ ...yaxis, ...(yaxis?.range ? {} : { autorange: true }) }),
    margin: { t: 12, r: 36, b: 40, l: 56 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.dim, family: colours.font, size: 12 },
    hoverlabel: { namelength: 48, bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.ink } },
  };
}

const within = (value, [one, other]) => value >= Math.min(one, other) && value <= Math.max(one, other);

/**
 * The runs that the user's boxes leave: of runs that are points those inside of any box; of runs that are lines those that
 * go through a box at each place that has one.
 */
function brushed(told, boxes) {
  const found = new Set();
  const inside = (x, y) => boxes.some((box) => within(x, [box.x0, box.x1]) && within(y, [box.y0, box.y1]));
  const asked = (x) => boxes.some((box) => within(x, [box.x0, box.x1]));
  for (const { meta, x, y } of told.traces.values()) {
    const places = [...x.keys()];
    if (meta?.runs) places.filter((place) => inside(x[place], y[place])).forEach((place) => found.add(meta.runs[place]));
    else if (meta?.run !== undefined && places.some((place) => asked(x[place])))
      if (places.every((place) => !asked(x[place]) || inside(x[place], y[place]))) found.add(meta.run);
  }
  return [...found].sort((one, other) => one - other);
}

/** A chart's label as a file can be called. */
const fileName = (label) => label.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80) || "chart";

export default {
  async render({ model, el }) {
    const place = document.createElement("div");
    place.className = "rf-chart";
    place.setAttribute("role", "figure");
    el.append(place);
    const waiting = document.createElement("div");
    waiting.className = "rf-chart-waiting";
    waiting.textContent = "loading the chart …";
    place.append(waiting);
    const told = new Told();
    const takeFigure = (message, buffers) => {
      if (message.kind !== "figure") return;
      if (told.take(message, buffers)) draw();
      else if (told.seq >= 0) askForAll();
    };
    const askForAll = () => model.send({ kind: "whole" });
    let Plotly = null;
    let drawing = false;
    let wanted = false;
    let listening = false;
    /** What the user has drawn to select runs; a drawing without it would take it away. */
    let boxes = [];

    const draw = async () => {
      // What is hidden is drawn when it is shown again; of frames that come meanwhile only the newest counts.
      if (!Plotly || drawing || told.seq < 0 || document.hidden || !place.offsetParent) {
        wanted = true;
        return;
      }
      drawing = true;
      wanted = false;
      const colours = theme(el);
      const started = performance.now();
      place.setAttribute("aria-label", model.get("label"));
      place.style.height = `${model.get("height")}px`; // what it keeps when its width changes
      try {
        const layout = { ...layoutOf(told, colours, model.get("height")), selections: boxes };
        await Plotly.react(place, tracesOf(told, colours), layout, {
          responsive: true,
          displaylogo: false,
          showSendToCloud: false,
          plotlyServerURL: "",
          typesetMath: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d"],
          toImageButtonOptions: { format: "png", filename: fileName(model.get("label")), scale: 2 },
          modeBarButtonsToAdd: [
            {
              name: "toSvg",
              title: "Download plot as an SVG",
              icon: Plotly.Icons.disk,
              click: (chart) => Plotly.downloadImage(chart, { format: "svg", filename: fileName(model.get("label")) }),
            },
          ],
        });
        if (!listening) listen();
      } finally {
        // A slow page is given three times as long as it draws, so that it stays responsive.
        const rest = Math.max(30, 3 * (performance.now() - started));
        setTimeout(() => {
          drawing = false;
          if (wanted) draw();
        }, rest);
      }
    };

    /** What other charts of the group show at the x below the pointer. */
    const others = () => [...(GROUPS.get(model.get("hover_group")) ?? [])].filter((other) => other !== place && other.offsetParent);
    const listen = () => {
      listening = true;
      if (model.get("hover_group")) {
        const group = model.get("hover_group");
        if (!GROUPS.has(group)) GROUPS.set(group, new Set());
        GROUPS.get(group).add(place);
        place.on("plotly_hover", (event) => {
          // What a hover of ours causes is no hover of the user's.
          if (!event.event?.isTrusted) return;
          const at = event.xvals?.[0];
          if (at === undefined) return;
          for (const other of others()) {
            const [low, high] = other._fullLayout.yaxis.range;
            Plotly.Fx.hover(other, { xval: at, yval: (low + high) / 2 }, "xy");
          }
        });
        place.on("plotly_unhover", () => others().forEach((other) => Plotly.Fx.unhover(other)));
      }
      place.on("plotly_relayout", (change) => {
        const low = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
        const high = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
        if (low !== undefined && high !== undefined) model.set("zoom", [Number(low), Number(high)]);
        else if (change["xaxis.autorange"]) model.set("zoom", []);
        else return;
        model.save_changes();
      });
      place.on("plotly_doubleclick", () => {
        model.set("zoom", []);
        model.save_changes();
      });
      // Of a box that is drawn plotly tells the points inside; a line's run may be left out by another place of it.
      place.on("plotly_selected", (event) => {
        if (!event?.selections?.length) return;
        boxes = event.selections.map(({ x0, x1, y0, y1 }) => ({ type: "rect", x0, x1, y0, y1 }));
        model.send({ kind: "brush", runs: brushed(told, boxes) });
      });
      place.on("plotly_deselect", () => {
        boxes = [];
        model.send({ kind: "brush", runs: [] });
      });
      place.on("plotly_click", (event) => {
        const point = event.points[0];
        const run = point?.data?.meta?.run ?? point?.data?.meta?.runs?.[point.pointIndex];
        if (run !== undefined) model.send({ kind: "click", run });
      });
    };

    const again = () => void draw();
    model.on("msg:custom", takeFigure);
    model.on("change:height", again);
    document.addEventListener("visibilitychange", again);
    let width = place.offsetWidth;
    const shown = new ResizeObserver(() => {
      if (wanted) draw();
      else if (listening && place.offsetWidth && place.offsetWidth !== width) Plotly.Plots.resize(place);
      width = place.offsetWidth;
    });
    shown.observe(place);
    const themes = new MutationObserver(again);
    themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
    askForAll();
    Plotly = await plotly(model);
    waiting.remove();
    await draw();
    return () => {
      model.off("msg:custom", takeFigure);
      GROUPS.get(model.get("hover_group"))?.delete(place);
      model.off("change:height", again);
      document.removeEventListener("visibilitychange", again);
      shown.disconnect();
      themes.disconnect();
      Plotly.purge(place);
    };
  },
};
