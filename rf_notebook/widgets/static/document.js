// Shows a document: a tree of [tag, attributes, children] and texts. Elements are made by name from closed lists and texts
// are set as text, so nothing that comes from a config, a name or an error is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set("svg g path line rect circle text title polyline".split(" "));
const HTML_TAGS = new Set("div span b i code pre p ul ol li table thead tbody tr th td button details summary section h3 h4 dl dt dd img".split(" "));
const ATTRIBUTES = new Set(
  ("class id role title tabindex disabled colspan scope open style alt width height viewBox d x y x1 x2 y1 y2 cx cy r points " +
    "fill stroke stroke-width stroke-dasharray opacity text-anchor font-family font-size font-weight transform preserveAspectRatio data-action data-run src").split(" "),
);
const allowed = (name, value) => (ATTRIBUTES.has(name) || name.startsWith("aria-")) && (name !== "src" || value.startsWith("data:image/"));

function create(node, inSvg) {
  if (typeof node === "string") return document.createTextNode(node);
  const [tag, attributes, children] = node;
  const svg = SVG_TAGS.has(tag) && (inSvg || tag === "svg");
  if (!svg && !HTML_TAGS.has(tag)) return document.createTextNode("");
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (allowed(name, value)) made.setAttribute(name, value);
  for (const child of children) made.append(create(child, svg));
  made.rfNode = node;
  return made;
}

/** Change what differs, keep what does not: an open fold, a focus and a scroll position outlive an update. */
function update(parent, children, inSvg) {
  const present = [...parent.childNodes];
  children.forEach((node, index) => {
    const old = present[index];
    if (old === undefined) parent.append(create(node, inSvg));
    else if (typeof node === "string") {
      if (old.nodeType !== Node.TEXT_NODE) old.replaceWith(create(node, inSvg));
      else if (old.nodeValue !== node) old.nodeValue = node;
    } else if (old.nodeType !== Node.ELEMENT_NODE || old.localName !== node[0]) old.replaceWith(create(node, inSvg));
    else {
      const [tag, attributes, inner] = node;
      const before = old.rfNode?.[1] ?? {};
      for (const name of Object.keys(before)) if (!(name in attributes) && name !== "open") old.removeAttribute(name);
      for (const [name, value] of Object.entries(attributes)) if (before[name] !== value && allowed(name, value)) old.setAttribute(name, value);
      old.rfNode = node;
      update(old, inner, inSvg || tag === "svg");
    }
  });
  for (const extra of present.slice(children.length)) extra.remove();
}

export default {
  render({ model, el }) {
    const place = document.createElement("div");
    place.className = "rf-document";
    el.append(place);
    const draw = () => {
      const root = model.get("root");
      update(place, root ? [root] : [], false);
    };
    const act = (event) => {
      const target = event.target.closest?.("[data-action]");
      if (target && place.contains(target)) model.send({ kind: "action", action: target.dataset.action });
    };
    place.addEventListener("click", act);
    model.on("change:root", draw);
    draw();
    return () => model.off("change:root", draw);
  },
};
