// What opens above the table and closes by itself: the menu of a run, the list of columns, the list of keys. Prepended to
// runs_table.js.

const made = (tag, text, className) => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
};

/** Shows a popup at a place of the page; Escape and a click elsewhere close it and give the focus back. */
const openPopup = (parent, popup, x, y) => {
  const before = document.activeElement;
  popup.classList.add("rf-popup");
  popup.setAttribute("popover", "auto");
  // While it is open keys are its own, not JupyterLab's.
  popup.setAttribute("data-lm-suppress-shortcuts", "true");
  parent.append(popup);
  popup.showPopover();
  popup.style.left = `${Math.max(4, Math.min(x, innerWidth - popup.offsetWidth - 8))}px`;
  popup.style.top = `${Math.max(4, Math.min(y, innerHeight - popup.offsetHeight - 8))}px`;
  popup.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    const hadFocus = popup.contains(document.activeElement) || document.activeElement === document.body;
    popup.remove();
    if (hadFocus && before?.isConnected) before.focus();
  });
  return popup;
};

/** A menu of actions; `actions` have words, a key and why they cannot be done now, if so. */
const openMenu = (parent, label, actions, x, y, act) => {
  const menu = document.createElement("div");
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", label);
  for (const action of actions) {
    const item = made("button", "", "rf-menu-item");
    item.setAttribute("role", "menuitem");
    item.append(made("span", action.words), made("kbd", action.key));
    item.setAttribute("aria-disabled", String(Boolean(action.why)));
    item.title = action.why || "";
    item.addEventListener("click", () => {
      if (action.why) return;
      menu.hidePopover();
      act(action.verb);
    });
    menu.append(item);
  }
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children];
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to === undefined) return;
    items[(to + items.length) % items.length].focus();
    event.preventDefault();
    event.stopPropagation();
  });
  openPopup(parent, menu, x, y);
  menu.firstChild?.focus();
};

/** Which keys do what. */
const openKeys = (parent, actions, x, y) => {
  const list = document.createElement("dl");
  list.setAttribute("aria-label", "Keys");
  list.tabIndex = -1;
  const keys = [["↑ ↓", "another run"], ["space", "select it, or no longer"], ["Enter", "select it alone"], ...actions.map((one) => [one.key, one.words])];
  for (const [key, words] of keys) {
    const term = document.createElement("dt");
    term.append(made("kbd", key));
    list.append(term, made("dd", words));
  }
  openPopup(parent, list, x, y);
  list.focus();
};

/**
 * Which columns are shown, in which order, which of them stay while the others scroll.
 *
 * `columns` are all there can be, the shown ones first and in their order, each with its key, title, whether it is shown
 * and whether it is pinned; `choose` gets the keys that are shown and those that are pinned, or nothing for the usual ones.
 */
const openColumns = (parent, columns, x, y, choose) => {
  const box = document.createElement("div");
  box.setAttribute("role", "dialog");
  box.setAttribute("aria-label", "Columns");
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "find a column";
  search.setAttribute("aria-label", "find a column");
  const usual = made("button", "usual columns", "rf-link");
  const head = made("div", "", "rf-popup-head");
  head.append(search, usual);
  const list = document.createElement("ul");
  box.append(head, list);
  let order = columns.map((column) => ({ ...column }));

  const tell = () => {
    const shown = order.filter((one) => one.shown);
    choose(
      shown.map((one) => one.key),
      shown.filter((one) => one.pinned).map((one) => one.key),
    );
  };
  const tick = (label, title, isOn, change) => {
    const input = document.createElement("input");
    input.type = "checkbox";
    input.checked = isOn;
    input.setAttribute("aria-label", label);
    input.title = title;
    input.addEventListener("change", () => {
      change(input.checked);
      tell();
    });
    return input;
  };
  const move = (column, by) => {
    const shown = order.filter((one) => one.shown);
    const other = shown[shown.indexOf(column) + by];
    if (!other) return;
    const [at, to] = [order.indexOf(column), order.indexOf(other)];
    [order[at], order[to]] = [order[to], order[at]];
    tell();
    draw();
    list.querySelector(`[data-key="${CSS.escape(column.key)}"] [data-by="${by}"]`)?.focus();
  };
  const mover = (column, by, sign, words) => {
    const button = made("button", sign, "rf-mover");
    button.dataset.by = by;
    button.title = `${words} ${column.title}`;
    button.setAttribute("aria-label", button.title);
    button.disabled = !column.shown;
    button.addEventListener("click", () => move(column, by));
    return button;
  };
  const draw = () => {
    const words = search.value.trim().toLowerCase();
    list.replaceChildren(
      ...order
        .filter((one) => one.title.toLowerCase().includes(words) || one.key.toLowerCase().includes(words))
        .map((one) => {
          const item = document.createElement("li");
          item.dataset.key = one.key;
          const name = document.createElement("label");
          name.append(
            tick(`show ${one.title}`, "", one.shown, (on) => {
              one.shown = on;
              // A column that comes is the last of those that are shown.
              order = [...order.filter((other) => other.shown && other !== one), one, ...order.filter((other) => !other.shown && other !== one)];
              if (!on) one.pinned = false;
              draw();
            }),
            made("span", one.title),
          );
          name.title = one.key;
          const pin = document.createElement("label");
          pin.className = "rf-dim";
          pin.append(
            tick(`pin ${one.title}`, "stays while the others scroll", one.pinned, (on) => (one.pinned = on)),
            made("span", "pin"),
          );
          pin.firstChild.disabled = !one.shown;
          item.append(name, pin, mover(one, -1, "▲", "earlier:"), mover(one, 1, "▼", "later:"));
          return item;
        }),
    );
  };
  search.addEventListener("input", draw);
  usual.addEventListener("click", () => {
    choose([], []);
    box.hidePopover();
  });
  draw();
  openPopup(parent, box, x, y);
  search.focus();
};

