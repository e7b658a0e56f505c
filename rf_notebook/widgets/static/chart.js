// Draws a figure with plotly. The kernel sends traces and layout in plotly's words, their arrays as float32 buffers;
// colours named "ink" and "ground" are the theme's.

const LIBRARY = "__rf_notebook_plotly_4_1_1";
const PATIENCE_MS = 10_000;

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

const floatsOf = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

function tracesOf(frame, colours) {
  const named = (value) => (value === "ink" ? colours.ink : value === "ground" ? colours.ground : value);
  const x = floatsOf(frame.x);
  const y = floatsOf(frame.y);
  let from = 0;
  return frame.traces.map((given) => {
    const { n, ...trace } = given;
    const to = from + n;
    const made = { type: "scatter", ...trace, x: x.subarray(from, to), y: y.subarray(from, to) };
    if (made.line) made.line = { ...made.line, color: named(made.line.color) };
    if (made.marker?.line) made.marker = { ...made.marker, line: { ...made.marker.line, color: named(made.marker.line.color) } };
    from = to;
    return made;
  });
}

function layoutOf(frame, colours, height) {
  const axis = (given) => ({ gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line, automargin: true, ...given });
  const { xaxis, yaxis, ...rest } = frame.layout;
  const range = xaxis?.range ? {} : { autorange: true };
  return {
    ...rest,
    height,
    xaxis: axis({ ...xaxis, ...range }),
    yaxis: axis(yaxis),
    margin: { t: 12, r: 36, b: 40, l: 56 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.dim, family: colours.font, size: 12 },
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.ink } },
  };
}

export default {
  async render({ model, el }) {
    const place = document.createElement("div");
    place.className = "rf-chart";
    place.setAttribute("role", "img");
    el.append(place);
    const waiting = document.createElement("div");
    waiting.className = "rf-chart-waiting";
    waiting.textContent = "loading the chart …";
    place.append(waiting);
    const Plotly = await plotly(model);
    waiting.remove();
    let drawing = false;
    let wanted = false;
    let listening = false;

    const draw = async () => {
      const frame = model.get("frame");
      // What is hidden is drawn when it is shown again; of frames that come meanwhile only the newest counts.
      if (drawing || !frame?.traces || document.hidden || !place.offsetParent) {
        wanted = true;
        return;
      }
      drawing = true;
      wanted = false;
      const colours = theme(el);
      const started = performance.now();
      place.setAttribute("aria-label", model.get("label"));
      try {
        await Plotly.react(place, tracesOf(frame, colours), layoutOf(frame, colours, model.get("height")), {
          responsive: true,
          displaylogo: false,
          typesetMath: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"],
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

    const listen = () => {
      listening = true;
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
      place.on("plotly_click", (event) => {
        const point = event.points[0];
        const run = point?.data?.meta?.run ?? point?.data?.meta?.runs?.[point.pointIndex];
        if (run !== undefined) model.send({ kind: "click", run });
      });
    };

    const again = () => void draw();
    model.on("change:frame", again);
    document.addEventListener("visibilitychange", again);
    const shown = new ResizeObserver(() => wanted && draw());
    shown.observe(place);
    const themes = new MutationObserver(again);
    themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
    await draw();
    return () => {
      model.off("change:frame", again);
      document.removeEventListener("visibilitychange", again);
      shown.disconnect();
      themes.disconnect();
      Plotly.purge(place);
    };
  },
};
