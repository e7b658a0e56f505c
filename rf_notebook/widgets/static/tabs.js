// Pages as tabs: one is chosen, arrow keys go to the next.

export default {
  render({ model, el }) {
    const list = document.createElement("div");
    list.className = "rf-tabs";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "Pages");
    list.setAttribute("data-lm-suppress-shortcuts", "true");
    const tabs = model.get("pages").map((name) => {
      const tab = document.createElement("button");
      tab.className = "rf-tab";
      tab.textContent = name;
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => choose(name));
      return tab;
    });
    list.append(...tabs);
    el.append(list);

    const choose = (name) => {
      model.set("page", name);
      model.save_changes();
    };
    const draw = () => {
      for (const tab of tabs) {
        const isOn = tab.textContent === model.get("page");
        tab.setAttribute("aria-selected", String(isOn));
        tab.tabIndex = isOn ? 0 : -1;
      }
    };
    list.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      const next = tabs[(to + tabs.length) % tabs.length];
      choose(next.textContent);
      next.focus();
      event.preventDefault();
      event.stopPropagation();
    });
    model.on("change:page", draw);
    draw();
    return () => model.off("change:page", draw);
  },
};
