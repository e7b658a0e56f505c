// The table of runs. The kernel sends rows that are sorted and filtered already; this draws them and tells what was
// selected, sorted and hidden.

const cell = (tag, text, className) => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
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
    el.append(scroller);
    let anchor = null;
    let focused = null;

    const save = (name, value) => {
      model.set(name, value);
      model.save_changes();
    };

    const drawHead = () => {
      const [key, descending] = model.get("sort");
      const row = document.createElement("tr");
      for (const column of model.get("columns")) {
        const th = cell("th", "", column.text ? "rf-left" : "");
        th.scope = "col";
        th.setAttribute("aria-sort", column.key === key ? (descending ? "descending" : "ascending") : "none");
        const button = cell("button", column.title + (column.key === key ? (descending ? " ▼" : " ▲") : ""), "rf-sort");
        button.title = `sort by ${column.title}`;
        button.addEventListener("click", () => save("sort", [column.key, column.key === key ? !descending : false]));
        th.append(button);
        row.append(th);
      }
      head.replaceChildren(row);
    };

    const select = (run, event) => {
      const order = [...body.rows].map((tr) => Number(tr.dataset.run));
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
          const td = cell("td", "", column.text ? "rf-left" : "");
          if (column.key === "run") {
            const dot = cell("button", "", "rf-dot");
            dot.addEventListener("click", (event) => {
              event.stopPropagation();
              const now = new Set(model.get("hidden"));
              if (!now.delete(run)) now.add(run);
              save("hidden", [...now].sort((a, b) => a - b));
            });
            td.append(dot, document.createTextNode(""));
          } else if (column.key === "progress") {
            const bar = cell("span", "", "rf-progress");
            bar.append(cell("span", "", "rf-progress-done"));
            td.append(bar, cell("span", "", "rf-dim"));
          }
          return td;
        }),
      );
    };

    const fill = (tr, row, columns, hidden) => {
      const made = columns.map((column) => column.key).join("\n");
      if (tr.rfColumns !== made) build(tr, row.run, columns);
      tr.rfColumns = made;
      columns.forEach((column, index) => {
        const [td, text] = [tr.cells[index], row.cells[index]];
        if (column.key === "run") {
          const [dot, words] = td.childNodes;
          dot.style.background = row.colour;
          dot.classList.toggle("rf-hidden-curve", hidden);
          dot.title = `${hidden ? "show" : "hide"} the curve of run ${row.run}`;
          dot.setAttribute("aria-label", dot.title);
          dot.setAttribute("aria-pressed", String(!hidden));
          words.nodeValue = text + (row.best ? " ★" : "");
          td.title = row.best ? "the best so far" : "";
          return;
        }
        if (column.key === "progress") {
          td.firstChild.firstChild.style.width = text;
          td.lastChild.textContent = text;
          return;
        }
        if (td.textContent !== text) td.textContent = text;
        td.title = text.length > 40 ? text : "";
        td.className = column.text ? "rf-left" : "";
        if (column.key === "state") {
          td.classList.add(`rf-${row.state}`);
          if (row.error) td.title = row.error;
        }
        if (column.key === model.get("metric") && row.best) td.classList.add("rf-best");
      });
    };

    /** The rows in their order; while the pointer is among them in the one that is seen, so that none slips away under a click. */
    const inOrder = () => {
      const rows = model.get("rows");
      if (!body.matches(":hover")) return rows;
      const places = new Map([...body.rows].map((tr, place) => [Number(tr.dataset.run), place]));
      const place = (row) => places.get(row.run) ?? places.size;
      return [...rows].sort((one, other) => place(one) - place(other));
    };

    const drawBody = () => {
      const [rows, columns] = [inOrder(), model.get("columns")];
      const selected = new Set(model.get("selected"));
      const hidden = new Set(model.get("hidden"));
      const existing = new Map([...body.rows].map((tr) => [Number(tr.dataset.run), tr]));
      const active = document.activeElement?.closest?.("tr");
      const wanted = rows.map((row) => {
        const tr = existing.get(row.run) ?? document.createElement("tr");
        tr.dataset.run = row.run;
        tr.setAttribute("aria-selected", String(selected.has(row.run)));
        tr.tabIndex = row.run === (focused ?? rows[0].run) ? 0 : -1;
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
        const td = cell("td", "no run meets the filter", "rf-left rf-dim");
        td.colSpan = columns.length;
        tr.append(td);
        body.replaceChildren(tr);
      }
    };

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
        const to = tr[step];
        if (to?.dataset.run) {
          focused = Number(to.dataset.run);
          tr.tabIndex = -1;
          to.tabIndex = 0;
          to.focus();
        }
      } else if (event.key === "Enter" || event.key === " ") select(Number(tr.dataset.run), event);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });

    const drawAll = () => {
      drawHead();
      drawBody();
    };
    const names = ["change:rows", "change:selected", "change:hidden"];
    names.forEach((name) => model.on(name, drawBody));
    model.on("change:columns change:sort", drawAll);
    drawAll();
    return () => {
      names.forEach((name) => model.off(name, drawBody));
      model.off("change:columns change:sort", drawAll);
    };
  },
};
