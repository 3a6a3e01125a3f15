/* The live part of a page: choose sizes and an input, and see the Jacobian that the page itself evaluates.
 *
 *   jaccompLive.mount(container, layer)
 *
 * `layer` is the object of an emitted script: sizes, scalars, inputs, draw, forward, blocks. What is shown can be read
 * from `container.jaccomp`. Nothing is fetched, and every text is set as text. */
const jaccompLive = (() => {
  "use strict";

  const CELL = 22; // the largest side of an entry, and the largest sides of the whole picture, in pixels
  const WIDTH = 660;
  const HEIGHT = 480;
  const EDITABLE = 400; // elements of an input that can be written by hand
  let mounted = 0;

  /* An element with properties and children; strings become text. */
  function element(name, properties, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function field(prefix, label, properties) {
    const id = `${prefix}-${properties.name}`;
    const control = element("input", { type: "number", ...properties, id, className: "jc-live-number" });
    return { control, row: element("div", { className: "jc-live-field" }, element("label", { htmlFor: id }, label), control) };
  }

  function product(extents) {
    return extents.reduce((a, b) => a * b, 1);
  }

  /* [i, j, ...] of a flat place in row-major order. */
  function unravelled(place, shape) {
    const indices = [];
    for (let k = shape.length - 1; k >= 0; k--) {
      indices.unshift(place % shape[k]);
      place = Math.floor(place / shape[k]);
    }
    return indices;
  }

  function read(name, indices) {
    return indices.length ? `${name}[${indices.join(",")}]` : name;
  }

  function shown(value) {
    if (Number.isNaN(value)) return "NaN";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    const text = size >= 1e5 || (size > 0 && size < 1e-4) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
    return text.replaceAll("-", "−");
  }

  /* The elements of an array as text, a line for each run of the last axis. */
  function written(data, shape) {
    const line = shape.length ? shape[shape.length - 1] : 1;
    const lines = [];
    for (let k = 0; k < data.length; k += line) lines.push(Array.from(data.slice(k, k + line), (v) => Number(v.toPrecision(4))).join("  "));
    return lines.join("\n");
  }

  /* The numbers of a text; null where it holds something else. */
  function numbers(text) {
    const words = text.replaceAll("−", "-").split(/[\s,;]+/).filter((word) => word !== "");
    const values = words.map((word) => (/^[+-]?inf(inity)?$/i.test(word) ? Number(word.replace(/inf(inity)?$/i, "Infinity")) : Number(word)));
    return words.every((word, k) => !Number.isNaN(values[k]) || /^nan$/i.test(word)) ? Float64Array.from(values) : null;
  }

  function counted(count, word) {
    return `${count} ${word}${count === 1 ? "" : "s"}`;
  }

  function extent(lengths) {
    return lengths.length ? lengths.join(" × ") : "one number";
  }

  /* What is true of the entries, for the legend and the summary. */
  function facts(values) {
    let least = Infinity;
    let greatest = -Infinity;
    let nonzero = 0;
    let other = 0;
    for (const value of values) {
      if (value !== 0) nonzero++;
      if (Number.isFinite(value)) {
        if (value < least) least = value;
        if (value > greatest) greatest = value;
      } else other++;
    }
    const any = least <= greatest;
    return { least: any ? least : 0, greatest: any ? greatest : 0, nonzero, other, most: any ? Math.max(-least, greatest, 0) : 0 };
  }

  /* Colours: CSS variables of the container, as [red, green, blue]; the canvas itself knows how to read them. */
  function palette(container) {
    const style = getComputedStyle(container);
    const context = element("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    const colour = (name, otherwise) => {
      context.fillStyle = otherwise;
      context.fillStyle = style.getPropertyValue(name).trim() || otherwise;
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    };
    return {
      zero: colour("--jc-heat-zero", "#f7f7f5"),
      negative: [colour("--jc-heat-negative-half", "#7fb2dd"), colour("--jc-heat-negative", "#14508f")],
      positive: [colour("--jc-heat-positive-half", "#f2a35e"), colour("--jc-heat-positive", "#9c3c00")],
      other: colour("--jc-heat-other", "#8a8a8a"),
    };
  }

  /* The colour of a value between -most and most: from zero over the half to the full colour of its sign. */
  function colour(colours, value, most) {
    if (!Number.isFinite(value)) return colours.other;
    const share = most > 0 ? Math.min(Math.abs(value) / most, 1) : 0;
    const [half, full] = value < 0 ? colours.negative : colours.positive;
    const [from, to, part] = share < 0.5 ? [colours.zero, half, 2 * share] : [half, full, 2 * share - 1];
    return from.map((low, k) => Math.round(low + (to[k] - low) * part));
  }

  function paint(canvas, rows, columns, values, most, colours) {
    canvas.width = Math.max(columns, 1);
    canvas.height = Math.max(rows, 1);
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let k = 0; k < rows * columns; k++) {
      const [red, green, blue] = colour(colours, values[k], most);
      image.data.set([red, green, blue, 255], 4 * k);
    }
    context.putImageData(image, 0, 0);
  }

  /* The sides of an entry: square where there is room, else as wide or as high as fits. */
  function cell(rows, columns, width) {
    const across = Math.min(CELL, width / Math.max(columns, 1));
    const down = Math.min(CELL, HEIGHT / Math.max(rows, 1));
    const side = Math.min(across, down);
    return side >= 3 ? [side, side] : [Math.min(across, Math.max(side, 8)), Math.min(down, Math.max(side, 8))];
  }

  function mount(container, layer) {
    const prefix = `jc-live-${++mounted}`;
    const state = { layer, block: 0, seed: 1, at: null, values: new Float64Array(0), rows: 0, columns: 0, shape: [] };
    const sizes = layer.sizes.map((one) =>
      Object.assign(field(prefix, one.label, { name: one.id, min: 0, max: one.most, step: 1, value: one.value, required: true }), { one }),
    );
    const scalars = layer.scalars.map((one) =>
      Object.assign(field(prefix, one.label, { name: one.id, step: one.whole ? 1 : "any", value: one.value, required: true }), { one }),
    );
    const seed = field(prefix, "seed", { name: "seed", min: 0, max: 999999, step: 1, value: state.seed, required: true });
    const choice = element(
      "select",
      { id: `${prefix}-block`, className: "jc-live-block" },
      ...layer.blocks.map((block, k) => element("option", { value: k }, `∂${block.of}/∂${block.wrt}`)),
    );
    const again = element("button", { type: "button", className: "jc-live-again" }, "New input");
    const canvas = element("canvas", { className: "jc-live-canvas" });
    canvas.setAttribute("aria-hidden", "true");
    const mark = element("div", { className: "jc-live-mark", hidden: true });
    const map = element("div", { className: "jc-live-map", tabIndex: 0, role: "application" }, canvas, mark);
    map.setAttribute("aria-roledescription", "heat map");
    map.setAttribute("aria-describedby", `${prefix}-help ${prefix}-summary`);
    const entry = element("output", { className: "jc-live-entry" });
    entry.setAttribute("aria-live", "polite");
    const summary = element("p", { id: `${prefix}-summary`, className: "jc-live-summary" });
    summary.setAttribute("aria-live", "polite");
    const problem = element("p", { className: "jc-live-problem", role: "alert", hidden: true });
    const scale = element("canvas", { className: "jc-live-scale" });
    scale.setAttribute("aria-hidden", "true");
    const ends = ["least", "middle", "greatest"].map((name) => element("span", { className: `jc-live-${name}` }));
    const legend = element("div", { className: "jc-live-legend" }, scale, element("div", { className: "jc-live-ends" }, ...ends));
    const across = element("p", { className: "jc-live-across" });
    const down = element("p", { className: "jc-live-down" });
    const controls = element(
      "form",
      { className: "jc-live-controls" },
      element("div", { className: "jc-live-field" }, element("label", { htmlFor: choice.id }, "block"), choice),
      ...sizes.map((one) => one.row),
      ...scalars.map((one) => one.row),
      seed.row,
      again,
    );
    controls.setAttribute("aria-label", "sizes and input");
    const editors = layer.inputs.map((one) => {
      const id = `${prefix}-${one.id}`;
      const control = element("textarea", { id, className: "jc-live-values", rows: 4, spellcheck: false });
      const caption = element("label", { htmlFor: id });
      return { one, control, caption, row: element("div", { className: "jc-live-field" }, caption, control) };
    });
    const writing = element(
      "details",
      { className: "jc-live-writing" },
      element("summary", {}, "The input, to be changed by hand"),
      ...editors.map((editor) => editor.row),
    );
    const help = element("p", { id: `${prefix}-help`, className: "jc-live-help" }, "Point at an entry, or move over the map with the arrow keys, Home, End, Page Up and Page Down.");
    const figure = element("div", { className: "jc-live-figure" }, across, element("div", { className: "jc-live-side" }, down, map), entry, legend);
    container.classList.add("jc-live");
    container.replaceChildren(controls, problem, summary, figure, help, writing);

    function block() {
      return layer.blocks[state.block];
    }

    /* The numbers in the fields by id; null, with a message, where one is none. */
    function chosen() {
      for (const { control } of [...sizes, ...scalars, seed]) {
        const fine = control.checkValidity();
        control.setAttribute("aria-invalid", String(!fine));
        if (!fine) {
          fail(`${control.labels[0].textContent}: ${control.validationMessage}`);
          return null;
        }
      }
      const numbers = (fields) => Object.fromEntries(fields.map(({ one, control }) => [one.id, Number(control.value)]));
      return { sizes: numbers(sizes), scalars: numbers(scalars), seed: Number(seed.control.value) };
    }

    function fail(message) {
      problem.textContent = message;
      problem.hidden = false;
      figure.hidden = summary.hidden = help.hidden = true;
    }

    /* New inputs at the chosen sizes and seed, and what follows from them. */
    function update() {
      const now = chosen();
      if (now === null) return;
      const { of, wrt, rows: letters } = block();
      const shape = block().shape(now.sizes, now.scalars);
      if (product(shape) > layer.limit) {
        fail(`∂${of}/∂${wrt} would have ${product(shape)} entries, more than ${layer.limit}: choose smaller sizes.`);
        return;
      }
      Object.assign(state, now, { shape, rows: product(shape.slice(0, letters.length)), columns: product(shape.slice(letters.length)) });
      attempt(() => {
        state.inputs = layer.draw(now.seed, now.sizes, now.scalars);
        for (const { one, control, caption } of editors) {
          const own = one.shape(now.sizes, now.scalars);
          const fits = product(own) <= EDITABLE;
          caption.textContent = `${one.label}: ${extent(own)}${fits ? "" : ", too many to write by hand"}`;
          control.disabled = !fits;
          control.value = fits ? written(state.inputs[one.id], own) : "";
          control.removeAttribute("aria-invalid");
        }
        evaluate();
      });
    }

    /* The input as it was written by hand. */
    function take({ one, control }) {
      const values = numbers(control.value);
      const count = product(one.shape(state.sizes, state.scalars));
      const below = one.below(state.sizes, state.scalars);
      const fits = (v) => one.kind !== "whole" || (Number.isInteger(v) && (below === Infinity || (v >= 0 && v < below)));
      const fine = values !== null && values.length === count && values.every(fits);
      control.setAttribute("aria-invalid", String(!fine));
      if (!fine) {
        const ends = below === Infinity ? "" : ` from 0 to ${below - 1}`;
        fail(`${one.label} takes ${counted(count, one.kind === "whole" ? "whole number" : "number")}${ends}.`);
        return;
      }
      state.inputs = { ...state.inputs, [one.id]: values };
      attempt(evaluate);
    }

    function attempt(action) {
      try {
        action();
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        fail(`The layer does not allow this: ${error.message}.`);
      }
    }

    function evaluate() {
      state.values = block().evaluate(state.inputs, state.sizes, state.scalars)[block().output].data;
      state.facts = facts(state.values);
      problem.hidden = true;
      figure.hidden = summary.hidden = help.hidden = false;
      state.at = null;
      describe();
      draw();
    }

    function describe() {
      const { of, wrt, rows, columns } = block();
      const [above, below] = [state.shape.slice(0, rows.length), state.shape.slice(rows.length)];
      const { least, greatest, nonzero, other } = state.facts;
      const count = state.rows * state.columns;
      const odd = other ? `; ${other} are not finite` : "";
      const spread = count ? `Least ${shown(least)}, greatest ${shown(greatest)}; ` : "";
      summary.textContent =
        `∂${of}/∂${wrt}: ${counted(state.rows, "row")} (${of}: ${extent(above)}) by ${counted(state.columns, "column")} ` +
        `(${wrt}: ${extent(below)}). ` +
        `${spread}${nonzero} of ${count} entries are not zero${odd}.`;
      map.setAttribute("aria-label", `heat map of ∂${of}/∂${wrt}, ${state.rows} by ${state.columns}`);
      across.textContent = `columns: ${read(wrt, columns)} →`;
      down.textContent = `rows: ${read(of, rows)} ↓`;
      const most = state.facts.most;
      ends.forEach((span, k) => (span.textContent = shown([-most, 0, most][k])));
      entry.textContent = "";
    }

    function draw() {
      const colours = palette(container);
      const most = state.facts.most;
      paint(canvas, state.rows, state.columns, state.values, most, colours);
      paint(scale, 1, 101, Array.from({ length: 101 }, (_, k) => ((k - 50) / 50) * (most || 1)), most || 1, colours);
      const [wide, high] = cell(state.rows, state.columns, Math.min(WIDTH, room()));
      state.cell = [wide, high];
      map.style.width = `${Math.max(state.columns * wide, 1)}px`;
      map.style.height = `${Math.max(state.rows * high, 1)}px`;
      point(state.at);
    }

    function room() {
      return Math.max(container.clientWidth - down.offsetWidth - 24, 120);
    }

    /* Show the entry at a flat place, or none. */
    function point(at) {
      state.at = at;
      mark.hidden = at === null;
      if (at === null) return;
      const { of, wrt, rows } = block();
      const indices = unravelled(at, state.shape);
      const [row, column] = [Math.floor(at / state.columns), at % state.columns];
      const [wide, high] = state.cell;
      Object.assign(mark.style, { left: `${column * wide}px`, top: `${row * high}px`, width: `${wide}px`, height: `${high}px` });
      const names = [read(of, indices.slice(0, rows.length)), read(wrt, indices.slice(rows.length))];
      entry.textContent = `∂${names[0]}/∂${names[1]} = ${shown(state.values[at])}`;
    }

    function under(event) {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * state.columns);
      const row = Math.floor(((event.clientY - box.top) / box.height) * state.rows);
      const inside = row >= 0 && row < state.rows && column >= 0 && column < state.columns;
      return inside ? row * state.columns + column : null;
    }

    function step(event) {
      if (state.rows * state.columns === 0) return;
      const [row, column] = state.at === null ? [0, 0] : [Math.floor(state.at / state.columns), state.at % state.columns];
      const [last, end] = [state.rows - 1, state.columns - 1];
      const page = Math.max(1, Math.floor(state.rows / 8));
      const moves = {
        ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1],
        ArrowUp: [row - 1, column],
        ArrowDown: [row + 1, column],
        Home: event.ctrlKey ? [0, 0] : [row, 0],
        End: event.ctrlKey ? [last, end] : [row, end],
        PageUp: [row - page, column],
        PageDown: [row + page, column],
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const [to, beside] = state.at === null ? [row, column] : moves[event.key];
      const limited = (value, most) => Math.min(Math.max(value, 0), most);
      point(limited(to, last) * state.columns + limited(beside, end));
    }

    controls.addEventListener("submit", (event) => event.preventDefault());
    controls.addEventListener("input", () => update());
    choice.addEventListener("change", () => {
      state.block = Number(choice.value);
      update();
    });
    for (const editor of editors) editor.control.addEventListener("input", () => take(editor));
    again.addEventListener("click", () => {
      seed.control.value = String((Number(seed.control.value) + 1) % 1000000);
      update();
    });
    map.addEventListener("keydown", step);
    map.addEventListener("focus", () => state.at === null && state.values.length && point(0));
    map.addEventListener("pointermove", (event) => point(under(event)));
    map.addEventListener("pointerdown", (event) => point(under(event)));
    map.addEventListener("pointerleave", () => document.activeElement !== map && point(null));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    new MutationObserver(draw).observe(document.documentElement, { attributes: true });
    let width = 0;
    new ResizeObserver(() => {
      if (container.clientWidth !== width && !figure.hidden) {
        width = container.clientWidth;
        draw();
      }
    }).observe(container);
    container.jaccomp = Object.assign(state, { update, point });
    update();
  }

  return Object.freeze({ mount });
})();
