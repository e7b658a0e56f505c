// The table of runs. The kernel sends rows that are sorted, filtered and grouped already; this draws them and tells what
// was selected, sorted, hidden, folded, asked for and how columns are arranged.

const NARROWEST_PX = 40;

const STATES = ["queued", "running", "stopped", "completed", "diverged", "failed", "deleted"].map((name) => `rf-${name}`);

const SVG = "http://www.w3.org/2000/svg";

/** An eye; the line through it is seen while it is closed. */
const eye = () => {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 16 16");
  made.setAttribute("aria-hidden", "true");
  for (const [name, d] of [
    ["", "M1 8 Q8 1.5 15 8 Q8 14.5 1 8 Z M8 6 A2 2 0 1 0 8 10 A2 2 0 1 0 8 6"],
    ["rf-eye-closed", "M3 14 L13 2"],
  ]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", name);
    made.append(path);
  }
  return made;
};

/** A piece of the run's line in the charts. */
const sample = () => {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 26 10");
  drawn.setAttribute("class", "rf-stroke");
  drawn.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", "M0 5 H26");
  drawn.append(line);
  return drawn;
};

export default {
  render({ model, el }) {
    const scroller = document.createElement("div");
    scroller.className = "rf-table-scroller";
    const table = document.createElement("table");
    table.className = "rf-table";
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", "Runs");
    table.setAttribute("aria-multiselectable", "true");
    const head = table.createTHead();
    const body = table.createTBody();
    scroller.append(table);
    const files = document.createElement("div");
    files.className = "rf-files";
    el.append(scroller, files);
    // Keys on a row are for its run, not for the cell that JupyterLab has selected; those with Ctrl or Cmd stay JupyterLab's.
    const claimKeys = (claims) => body.toggleAttribute("data-lm-suppress-shortcuts", claims);
    const modifiers = ["Control", "Meta", "Alt"];
    body.addEventListener("keydown", (event) => modifiers.includes(event.key) && claimKeys(false), true);
    body.addEventListener("keyup", (event) => modifiers.includes(event.key) && claimKeys(true), true);
    body.addEventListener("focusin", () => claimKeys(true));
    claimKeys(true);
    let anchor = null;
    let focused = null;

    const save = (name, value) => {
      model.set(name, value);
      model.save_changes();
    };

    /** Widens or narrows a column while the pointer is down on its edge; twice clicked, it is as wide as it was. */
    const resizer = (column, th) => {
      const edge = made("span", "", "rf-resizer");
      edge.title = "drag to resize, click twice for the usual width";
      const keep = (width) => {
        const { [column.key]: _before, ...others } = model.get("widths");
        save("widths", width === null ? others : { ...others, [column.key]: width });
      };
      edge.addEventListener("pointerdown", (down) => {
        down.preventDefault();
        edge.setPointerCapture(down.pointerId);
        const before = th.offsetWidth;
        const width = (event) => Math.max(NARROWEST_PX, Math.round(before + event.clientX - down.clientX));
        const drag = (event) => setWidth(th, width(event));
        edge.addEventListener("pointermove", drag);
        edge.addEventListener("pointerup", (up) => {
          edge.removeEventListener("pointermove", drag);
          if (up.clientX !== down.clientX) keep(width(up));
        }, { once: true });
      });
      edge.addEventListener("dblclick", () => keep(null));
      return edge;
    };
    const setWidth = (cell, width) => {
      for (const name of ["minWidth", "maxWidth", "width"]) cell.style[name] = width ? `${width}px` : "";
    };
    /** Pinned columns stay at the left, one beside the other. */
    const pin = () => {
      const [columns, pinned, widths] = [model.get("columns"), new Set(model.get("pinned")), model.get("widths")];
      const heads = [...(head.rows[0]?.cells ?? [])];
      heads.forEach((th, place) => setWidth(th, widths[columns[place].key]));
      let left = 0;
      const places = columns.map((column, place) => {
        if (!pinned.size || (column.key !== "run" && !pinned.has(column.key))) return null;
        const at = left;
        left += heads[place].offsetWidth;
        return at;
      });
      for (const tr of [head.rows[0], ...body.rows])
        [...tr.cells].forEach((cell, place) => {
          if (tr.cells.length !== columns.length) return;
          const at = places[place];
          cell.classList.toggle("rf-pinned", at !== null);
          cell.style.left = at === null ? "" : `${at}px`;
          setWidth(cell, widths[columns[place].key]);
        });
    };

    const drawHead = () => {
      const [key, descending] = model.get("sort");
      const row = document.createElement("tr");
      for (const column of model.get("columns")) {
        const th = made("th", "", column.text ? "rf-left" : "");
        th.scope = "col";
        th.setAttribute("aria-sort", column.key === key ? (descending ? "descending" : "ascending") : "none");
        const button = made("button", column.title + (column.key === key ? (descending ? " ▼" : " ▲") : ""), "rf-sort");
        button.title = `sort by ${column.title}`;
        button.addEventListener("click", () => save("sort", [column.key, column.key === key ? !descending : false]));
        th.append(button, resizer(column, th));
        row.append(th);
      }
      head.replaceChildren(row);
    };

    const select = (run, event) => {
      const order = [...body.querySelectorAll("tr[data-run]")].map((tr) => Number(tr.dataset.run));
      const chosen = new Set(model.get("selected"));
      if (event.shiftKey && anchor !== null && order.includes(anchor)) {
        const [from, to] = [order.indexOf(anchor), order.indexOf(run)].sort((a, b) => a - b);
        order.slice(from, to + 1).forEach((id) => chosen.add(id));
      } else if (event.ctrlKey || event.metaKey || event.key === " ") {
        if (!chosen.delete(run)) chosen.add(run);
      } else if (chosen.size === 1 && chosen.has(run)) chosen.clear();
      else {
        chosen.clear();
        chosen.add(run);
      }
      anchor = run;
      save("selected", [...chosen].sort((a, b) => a - b));
    };

    /** The elements of a row, made once for its columns: a click that begins before an update and ends after it still counts. */
    const build = (tr, run, columns) => {
      tr.replaceChildren(
        ...columns.map((column) => {
          const td = made("td", "", column.text ? "rf-left" : "");
          if (column.key === "run") {
            const open = made("button", "", "rf-eye");
            open.append(eye());
            open.addEventListener("click", (event) => {
              event.stopPropagation();
              const now = new Set(model.get("hidden"));
              if (!now.delete(run)) now.add(run);
              save("hidden", [...now].sort((a, b) => a - b));
            });
            td.append(open, sample(), document.createTextNode(""));
          } else if (column.key === "progress") {
            const bar = made("span", "", "rf-progress");
            bar.append(made("span", "", "rf-progress-done"));
            td.append(bar, made("span", "", "rf-dim"));
          }
          return td;
        }),
      );
    };

    const fill = (tr, row, columns, hidden) => {
      const drawn = columns.map((column) => column.key).join("\n");
      if (tr.rfColumns !== drawn) build(tr, row.run, columns);
      tr.rfColumns = drawn;
      columns.forEach((column, index) => {
        const [td, text] = [tr.cells[index], row.cells[index]];
        if (column.key === "run") {
          const [open, stroke, words] = td.childNodes;
          stroke.style.stroke = row.colour;
          stroke.style.strokeDasharray = row.dash.join(" ");
          open.title = `${hidden ? "show" : "hide"} run ${row.run}`;
          open.setAttribute("aria-label", open.title);
          open.setAttribute("aria-pressed", String(!hidden));
          words.nodeValue = text + (row.best ? " ★" : "") + (row.mark ? ` ${row.mark}` : "");
          td.title = row.best ? "the best so far" : "";
          return;
        }
        if (column.key === "progress") {
          td.firstChild.firstChild.style.width = text;
          td.lastChild.textContent = text;
          return;
        }
        if (td.textContent !== text) td.textContent = text;
        td.title = row.hints?.[index] ?? (text.length > 40 ? text : "");
        td.classList.remove(...STATES, "rf-best");
        if (column.key === "state") {
          td.classList.add(`rf-${row.state}`);
          if (row.error) td.title = row.error;
        }
        if (column.key === model.get("metric") && row.best) td.classList.add("rf-best");
      });
    };

    /** A row above the runs of a group: its name, and what they have on average. */
    const fillGroup = (tr, row, columns) => {
      const cells = columns.map((column, index) => made("td", index ? row.cells[index] : "", column.text ? "rf-left" : ""));
      const fold = made("button", `${row.folded ? "▸" : "▾"} ${row.title}`, "rf-fold");
      fold.setAttribute("aria-expanded", String(!row.folded));
      fold.addEventListener("click", () => {
        const folded = new Set(model.get("folded"));
        if (!folded.delete(row.group)) folded.add(row.group);
        save("folded", [...folded]);
      });
      const stroke = sample();
      stroke.style.stroke = row.colour;
      cells[0].append(stroke, fold);
      cells[0].title = row.title;
      tr.replaceChildren(...cells);
    };

    /** The rows in their order; while the pointer is among them in the one that is seen, so that none slips away under a click. */
    const inOrder = () => {
      const rows = JSON.parse(model.get("rows") || "[]");
      if (!body.matches(":hover") || rows.some((row) => row.group !== undefined)) return rows;
      const places = new Map([...body.rows].map((tr, place) => [Number(tr.dataset.run), place]));
      const place = (row) => places.get(row.run) ?? places.size;
      return [...rows].sort((one, other) => place(one) - place(other));
    };

    const drawBody = () => {
      const [rows, columns] = [inOrder(), model.get("columns")];
      const selected = new Set(model.get("selected"));
      const hidden = new Set(model.get("hidden"));
      const existing = new Map([...body.querySelectorAll("tr[data-run]")].map((tr) => [Number(tr.dataset.run), tr]));
      const active = document.activeElement?.closest?.("tr");
      const first = rows.find((row) => row.run !== undefined);
      const wanted = rows.map((row) => {
        if (row.group !== undefined) {
          const tr = document.createElement("tr");
          tr.className = "rf-group";
          fillGroup(tr, row, columns);
          return tr;
        }
        const tr = existing.get(row.run) ?? document.createElement("tr");
        tr.dataset.run = row.run;
        tr.classList.toggle("rf-kept", Boolean(row.mark));
        tr.setAttribute("aria-selected", String(selected.has(row.run)));
        tr.classList.toggle("rf-unseen", hidden.has(row.run));
        tr.tabIndex = row.run === (rows.some((one) => one.run === focused) ? focused : first.run) ? 0 : -1;
        fill(tr, row, columns, hidden.has(row.run));
        return tr;
      });
      // Rows that stay in order are left where they are, so that the focus is kept.
      if (wanted.length !== body.rows.length || wanted.some((tr, i) => body.rows[i] !== tr)) {
        body.replaceChildren(...wanted);
        if (active && body.contains(active)) active.focus();
      }
      if (!rows.length) {
        const tr = document.createElement("tr");
        const td = made("td", model.get("empty"), "rf-left rf-dim");
        td.colSpan = columns.length;
        tr.append(td);
        body.replaceChildren(tr);
      }
      pin();
    };

    /** Asks for something of the selected runs, to which this one comes when it is not among them. */
    const act = (verb, run) => {
      if (!model.get("selected").includes(run)) save("selected", [run]);
      ask(verb, run);
    };
    const ask = (verb, run) => {
      model.send({ kind: "verb", verb, run });
      if (verb === "open") el.closest(".rf-panel")?.scrollIntoView({ block: "start", behavior: "smooth" });
    };
    body.addEventListener("contextmenu", (event) => {
      const tr = event.target.closest("tr[data-run]");
      if (!tr || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      const run = Number(tr.dataset.run);
      tr.focus();
      const chosen = model.get("selected").includes(run) ? model.get("selected").length : 1;
      // Why something cannot be done is known of the selected runs only; of others it is said when it is asked for.
      const known = model.get("selected").includes(run);
      const actions = model.get("actions").map((one) => ({ ...one, why: known ? one.why : "" }));
      openMenu(el, chosen > 1 ? `${chosen} runs` : `run ${run}`, actions, event.clientX, event.clientY, (verb) => act(verb, run));
    });
    body.addEventListener("dblclick", (event) => {
      const tr = event.target.closest("tr[data-run]");
      if (tr && !event.target.closest("button")) ask("open", Number(tr.dataset.run));
    });

    body.addEventListener("click", (event) => {
      const tr = event.target.closest("tr[data-run]");
      if (!tr) return;
      focused = Number(tr.dataset.run);
      select(focused, event);
    });
    body.addEventListener("pointerleave", () => drawBody());
    body.addEventListener("keydown", (event) => {
      const tr = event.target.closest("tr[data-run]");
      if (!tr || event.target !== tr) return;
      const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      if (step) {
        let to = tr[step];
        while (to && !to.dataset.run) to = to[step];
        if (to) {
          focused = Number(to.dataset.run);
          tr.tabIndex = -1;
          to.tabIndex = 0;
          to.focus();
        }
      } else if (event.ctrlKey || event.metaKey || event.altKey) return;
      else if (event.key === "Enter" || event.key === " ") select(Number(tr.dataset.run), event);
      else if (event.key === "?") {
        const box = tr.getBoundingClientRect();
        openKeys(el, model.get("actions"), box.left + 40, box.bottom);
      } else {
        const key = event.key === "Backspace" ? "Delete" : event.key; // what a Mac's delete key says
        const action = model.get("actions").find((one) => one.key === key);
        if (!action) return;
        act(action.verb, Number(tr.dataset.run));
      }
      event.preventDefault();
      event.stopPropagation();
    });

    const arrange = made("button", "⚙ columns", "rf-link");
    arrange.title = "which columns are shown, and in which order";
    arrange.addEventListener("click", () => {
      const shown = new Map(model.get("columns").map((column, place) => [column.key, place]));
      const pinned = new Set(model.get("pinned"));
      const place = (column) => shown.get(column.key) ?? shown.size;
      const columns = model
        .get("available")
        .map((column) => ({ ...column, shown: shown.has(column.key), pinned: pinned.has(column.key) }))
        .sort((one, other) => place(one) - place(other));
      const box = arrange.getBoundingClientRect();
      openColumns(el, columns, box.left, box.bottom + 4, (chosen, kept) => {
        model.set({ chosen, pinned: kept });
        model.save_changes();
      });
    });
    const keys = made("button", "? keys", "rf-link");
    keys.title = "which keys act on the run that has the focus";
    keys.addEventListener("click", () => {
      const box = keys.getBoundingClientRect();
      openKeys(el, model.get("actions"), box.left, box.bottom + 4);
    });
    files.append(arrange, keys);

    // All pages hear the kernel's answer; the one that asked takes it.
    const asked = new Set();
    for (const what of ["table", "points"]) {
      const button = made("button", `⇩ ${what} as CSV`, "rf-link");
      button.title = what === "table" ? "the rows and columns above" : "every logged step of the runs that are shown";
      button.addEventListener("click", () => {
        const id = `${Date.now()}-${Math.random()}`;
        asked.add(id);
        model.send({ kind: "csv", what, id });
      });
      files.append(button);
    }
    const take = (message) => {
      if (message.kind !== "csv" || !asked.delete(message.id)) return;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([message.text], { type: "text/csv" }));
      link.download = `${model.get("name").replace(/[^\p{L}\p{N}._-]+/gu, "-")}-${message.what}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    };
    model.on("msg:custom", take);

    // Rows have a cell for each column and both change at once: this draws when all of a message has arrived, not with the
    // first thing in it.
    let drawnHead = "";
    const draw = () => {
      const wanted = JSON.stringify([model.get("columns"), model.get("sort")]);
      if (wanted !== drawnHead) drawHead();
      drawnHead = wanted;
      drawBody();
    };
    model.on("change", draw);
    draw();
    return () => {
      model.off("change", draw);
      model.off("msg:custom", take);
    };
  },
};
