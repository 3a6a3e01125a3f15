"use strict";
// Search and filters; the address keeps them, so that a view can be returned to and handed on.
(() => {
  const words = document.getElementById("words");
  const found = document.getElementById("found");
  const none = document.getElementById("none");
  const clear = document.getElementById("clear");
  const filters = document.getElementById("filters");
  const boxes = [...document.querySelectorAll("#filters input")];
  const entries = [...document.querySelectorAll(".entry")];
  const sections = [...document.querySelectorAll("section.family")];

  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const texts = new Map(entries.map((entry) => [entry, plain(entry.dataset.search)]));
  const facets = new Map(entries.map((entry) => [entry, {
    family: [entry.dataset.family],
    structure: entry.dataset.structures.split("|"),
  }]));
  const ticked = (group) => boxes.filter((box) => box.name === group && box.checked).map((box) => box.value);

  // Every word must be found, and of each group of boxes one that is ticked, if any is.
  const show = () => {
    const wanted = plain(words.value).split(/\s+/).filter(Boolean);
    const groups = ["family", "structure"].map((group) => [group, ticked(group)]);
    let count = 0;
    for (const entry of entries) {
      const fits = wanted.every((word) => texts.get(entry).includes(word))
        && groups.every(([group, values]) => !values.length
          || values.some((value) => facets.get(entry)[group].includes(value)));
      entry.hidden = !fits;
      count += fits;
    }
    for (const section of sections) section.hidden = !section.querySelector(".entry:not([hidden])");
    const all = count === entries.length;
    const noun = entries.length === 1 ? "layer" : "layers";
    found.textContent = all ? `${count} ${noun}` : `${count} of ${entries.length} ${noun}`;
    none.hidden = count > 0;
    clear.hidden = !wanted.length && groups.every(([, values]) => !values.length);
  };

  const write = () => {
    const state = new URLSearchParams();
    if (words.value.trim()) state.set("q", words.value.trim());
    for (const box of boxes) if (box.checked) state.append(box.name, box.value);
    const hash = state.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };
  const read = () => {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return;
    const state = new URLSearchParams(hash);
    words.value = state.get("q") ?? "";
    for (const box of boxes) box.checked = state.getAll(box.name).includes(box.value);
  };
  const change = () => { show(); write(); };

  words.addEventListener("input", change);
  for (const box of boxes) box.addEventListener("change", change);
  clear.addEventListener("click", () => {
    words.value = "";
    for (const box of boxes) box.checked = false;
    change();
    words.focus();
  });
  addEventListener("hashchange", () => { read(); show(); });

  // The filters lie open beside the list, and folded above it where there is no room beside.
  const beside = matchMedia("(min-width: 64rem)");
  const unfold = () => { filters.open = beside.matches; };
  beside.addEventListener("change", unfold);
  unfold();
  document.getElementById("finder").hidden = false;
  read();
  show();
})();
