"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const list = byId("rows"), count = byId("count"), end = byId("end");
  const hue = (i) => Math.round((i * 137.5 + 210) % 360);
  const shown = data.labels.map(() => true);
  const STEP = 60;
  let matching = [], drawn = 0, least = 0, words = "";

  const counted = (number, one, several) => number.toLocaleString("en") + " " + (number === 1 ? one : several);
  const make = (name, text, style) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (style) node.className = style;
    return node;
  };
  const keeps = (part) => shown[part[1]] && (typeof part[3] !== "number" || part[3] >= least);
  const shownScore = (score) => (score === null ? "" : " " + (typeof score === "number" ? score.toFixed(2) : score));
  const flat = (row) => row.parts.map((part) => (typeof part === "string" ? part : part[0])).join("");
  for (const row of data.rows) row.search = flat(row).toLowerCase();

  const bars = data.labels.map((label, i) => {
    const line = make("label", undefined, "bar");
    line.style.setProperty("--hue", hue(i));
    const box = make("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { shown[i] = box.checked; update(); });
    const name = make("span");
    name.append(box, " ", label);
    const track = make("span", undefined, "track");
    const fill = make("span", undefined, "fill");
    track.setAttribute("aria-hidden", "true");
    track.append(fill);
    const number = make("span", "0");
    line.append(name, track, number);
    byId("labels").append(line);
    return { box, fill, number };
  });

  // Places of the searched words; none where lower case has another length, so that places do not agree.
  const hitsOf = (row) => {
    const hits = [];
    if (!words || row.search.length !== flat(row).length) return hits;
    for (let at = row.search.indexOf(words); at >= 0; at = row.search.indexOf(words, at + words.length)) hits.push(at);
    return hits;
  };
  // Append the text from a place of the row on, with the parts of it marked that belong to a hit.
  const append = (node, text, begin, hits) => {
    let at = 0;
    for (const hit of hits) {
      const from = Math.max(at, hit - begin), to = Math.min(text.length, hit + words.length - begin);
      if (to <= from) continue;
      node.append(text.slice(at, from), make("b", text.slice(from, to), "hit"));
      at = to;
    }
    node.append(text.slice(at));
  };
  const drawRow = (row) => {
    const item = make("li"), hits = hitsOf(row);
    let at = 0;
    const element = row.element === undefined ? "" : ", element " + row.element.toLocaleString("en");
    item.append(make("span", "row " + row.number.toLocaleString("en") + element, "number"));
    for (const part of row.parts) {
      const text = typeof part === "string" ? part : part[0], begin = at;
      at += text.length;
      if (typeof part === "string" || !keeps(part)) { append(item, text, begin, hits); continue; }
      const mark = make("mark");
      append(mark, text, begin, hits);
      mark.style.setProperty("--hue", hue(part[1]));
      const name = part[2] === null ? data.labels[part[1]] : data.fine_labels[part[2]];
      mark.append(make("small", name + shownScore(part[3])));
      item.append(mark);
    }
    if (row.cut) item.append(make("span", "Cut here: " + counted(row.cut, "more character is", "more characters are") +
      " in the file.", "cut"));
    return item;
  };
  const drawMore = () => {
    const next = matching.slice(drawn, drawn + STEP);
    list.append(...next.map(drawRow));
    drawn += next.length;
    end.textContent = drawn < matching.length ? "Scroll for more." : matching.length ? "That is all." : "No row fits.";
  };
  const update = () => {
    const only = byId("only").checked;
    const labels = data.labels.map(() => 0), names = new Map();
    let entities = 0;
    matching = [];
    for (const row of data.rows) {
      if (words && !row.search.includes(words)) continue;
      let kept = 0;
      for (const part of row.parts) {
        if (typeof part === "string" || !keeps(part)) continue;
        kept += 1;
        labels[part[1]] += 1;
        const key = part[1] + "\u0000" + part[0];
        names.set(key, (names.get(key) || 0) + 1);
      }
      entities += kept;
      if (!only || kept) matching.push(row);
    }
    const most = Math.max(1, ...labels);
    bars.forEach((bar, i) => {
      bar.fill.style.width = (100 * labels[i]) / most + "%";
      bar.number.textContent = labels[i].toLocaleString("en");
    });
    const top = [...names].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 15);
    byId("top").replaceChildren(...top.map(([key, times]) => {
      const [label, text] = key.split("\u0000");
      const item = make("li"), button = make("button", undefined, "find"), mark = make("mark", text);
      mark.style.setProperty("--hue", hue(Number(label)));
      button.type = "button";
      button.title = "Show the rows with this text";
      button.addEventListener("click", () => { byId("search").value = text; search(text); });
      button.append(mark);
      item.append(button, " " + times.toLocaleString("en"));
      return item;
    }));
    count.textContent = matching.length.toLocaleString("en") + " of " + counted(data.rows.length, "row", "rows") + ", " +
      counted(entities, "entity", "entities");
    drawn = 0;
    list.replaceChildren();
    drawMore();
  };
  const set = (value) => { bars.forEach((bar, i) => { bar.box.checked = shown[i] = value; }); update(); };
  const search = (text) => { words = text.toLowerCase(); update(); };
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 120);
  });
  byId("score").addEventListener("input", (event) => {
    least = Number(event.target.value);
    byId("least").textContent = least.toFixed(2);
    update();
  });
  byId("only").addEventListener("change", update);
  byId("all").addEventListener("click", () => set(true));
  byId("none").addEventListener("click", () => set(false));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("fold").open = !matchMedia("(max-width: 45rem)").matches;
  byId("about").textContent = data.about;
  new IntersectionObserver((seen) => {
    if (seen.some((one) => one.isIntersecting) && drawn < matching.length) drawMore();
  }, { rootMargin: "1200px" }).observe(end);
  update();
})();
