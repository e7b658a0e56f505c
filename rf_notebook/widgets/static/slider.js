// A value between two others, with its name before it and itself behind it.

export default {
  render({ model, el }) {
    const label = document.createElement("label");
    label.className = "rf-slider";
    const name = document.createElement("span");
    name.textContent = model.get("name");
    const input = document.createElement("input");
    input.type = "range";
    for (const bound of ["min", "max", "step"]) input[bound] = model.get(bound);
    const value = document.createElement("output");
    label.append(name, input, value);
    el.append(label);
    const draw = () => {
      input.value = model.get("value");
      value.textContent = model.get("value").toFixed(2);
    };
    let waiting = 0;
    input.addEventListener("input", () => {
      value.textContent = Number(input.value).toFixed(2);
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        model.set("value", Number(input.value));
        model.save_changes();
      }, 60);
    });
    model.on("change:value", draw);
    draw();
    return () => model.off("change:value", draw);
  },
};
