"use strict";
// Draws the charts of a report, its parallel coordinates and its sortable table of trials.
(() => {
  const data = JSON.parse(document.getElementById("run-data").textContent);
  const style = () => getComputedStyle(document.documentElement);
  const colour = (name) => style().getPropertyValue(`--${name === "best" ? "winner" : name}`).trim();
  const phone = () => window.innerWidth < 760;
  const CURVES = ["finalist", "baseline", "winner", "other", "dim"];
  const added = [];

  function axis(title, more) {
    return {
      title: { text: title, font: { size: 12 }, standoff: 6 }, gridcolor: colour("grid"),
      zeroline: false, linecolor: colour("line"), automargin: true, ...more,
    };
  }

  function traces(panel) {
    const made = [];
    for (const one of panel.series) {
      const line = { color: colour(one.colour), width: 2, dash: one.dashed ? "dash" : "solid" };
      const hover = one.labels.length ? "%{text}: %{y}<extra></extra>" : "%{x}: %{y}<extra></extra>";
      if (one.kind === "diagonal") {
        made.push({ x: one.x, y: one.y, mode: "lines", line: { color: colour("line"), width: 1 },
          hoverinfo: "skip", showlegend: false });
        continue;
      }
      if (one.kind === "bars") {
        made.push({ type: "bar", orientation: "h", x: one.y.slice().reverse(),
          y: one.x.slice().reverse(), marker: { color: line.color }, showlegend: false });
        continue;
      }
      if (one.low.length && one.kind !== "points") {
        const edge = { mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
        made.push({ x: one.x, y: one.low, ...edge });
        made.push({ x: one.x, y: one.high, ...edge, fill: "tonexty", fillcolor: line.color + "22" });
      }
      const trace = { x: one.x, y: one.y, name: one.name, showlegend: Boolean(one.name), text: one.labels,
        hovertemplate: hover, customdata: one.ids };
      if (one.kind === "points") {
        const small = one.colour === "dim" || one.colour === "other";
        Object.assign(trace, { mode: "markers", marker: { color: line.color, size: small ? 6 : 8 } });
        if (one.low.length) {
          trace.error_y = { type: "data", symmetric: false, color: line.color, thickness: 1,
            array: one.high.map((high, i) => high - one.y[i]),
            arrayminus: one.low.map((low, i) => one.y[i] - low) };
        }
      } else {
        line.shape = one.kind === "steps" ? "hv" : "linear";
        Object.assign(trace, { mode: one.x.length === 1 ? "markers" : "lines", line });
      }
      made.push(trace);
    }
    return made;
  }

  function draw(box) {
    const chart = data.charts[box.dataset.chart];
    box.replaceChildren();
    for (const panel of chart.panels) {
      const series = [...panel.series];
      if (box.dataset.chart === "curves") {
        added.forEach((id, i) => series.push({ ...data.curves[id], name: id, kind: "line",
          colour: CURVES[i % CURVES.length], low: [], high: [], labels: [], ids: [], dashed: false }));
      }
      const place = document.createElement("div");
      box.append(place);
      const unit = panel.unit ? { range: [-0.02, 1.02], constrain: "domain" } : {};
      const named = series.some((one) => one.name);
      const layout = {
        height: chart.height, margin: { l: 48, r: 8, t: named ? 8 : 12, b: 40 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("soft") },
        xaxis: axis(panel.x, { type: panel.log ? "log" : "-", nticks: phone() ? 5 : 7, ...unit,
          ...(panel.log ? { dtick: 1, exponentformat: "power" } : {}) }),
        yaxis: axis(panel.y, panel.unit ? { ...unit, scaleanchor: "x" } : {}),
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      };
      Plotly.newPlot(place, traces({ ...panel, series }), layout,
        { responsive: true, displayModeBar: false, scrollZoom: false });
      place.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        if (id) show(String(id));
      });
    }
  }

  function show(id) {
    const box = document.querySelector('[data-chart="curves"]');
    if (!box || !data.curves[id]) return;
    const at = added.indexOf(id);
    if (at >= 0) added.splice(at, 1); else added.push(id);
    draw(box);
    box.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  function drawAll() {
    for (const box of document.querySelectorAll("[data-chart]")) {
      // A folded box has no width to draw in; it is drawn when it is opened.
      if (!box.closest("details:not([open])")) draw(box);
    }
    if (data.parallel) parallel();
  }

  const SVG = "http://www.w3.org/2000/svg";
  const brushes = new Map();

  function element(name, attributes, parent, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function parallel() {
    const box = document.getElementById("parallel-box");
    const { axes, lines } = data.parallel;
    const width = Math.max(box.clientWidth, axes.length * 92), top = 44, bottom = 268;
    const at = (i) => 46 + (i * (width - 92)) / Math.max(1, axes.length - 1);
    const y = (place) => bottom - place * (bottom - top);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("width", width);
    svg.setAttribute("height", bottom + 14);
    box.replaceChildren(svg);
    const drawn = lines.slice().sort((a, b) => a.good - b.good).map((item) => {
      let path = "", pen = "M";
      item.places.forEach((place, i) => {
        if (place === null) { pen = path ? "L" : "M"; return; }
        path += `${pen}${at(i).toFixed(1)},${y(place).toFixed(1)}`;
        pen = "L";
      });
      const kind = data.curves[item.id].baseline ? "baseline"
        : item.good > 0.9 ? "best" : item.good > 0.6 ? "good" : "";
      const made = element("path", { d: path, class: kind }, svg);
      element("title", {}, made, item.label);
      made.addEventListener("click", () => show(item.id));
      return [item, made];
    });
    function filter() {
      const kept = new Set();
      for (const [item, path] of drawn) {
        const inside = [...brushes].every(([i, [low, high]]) =>
          item.places[i] !== null && item.places[i] >= low && item.places[i] <= high);
        path.classList.toggle("out", !inside);
        if (inside) kept.add(item.id);
      }
      const some = brushes.size > 0;
      document.getElementById("selected").textContent =
        some ? `${kept.size} of ${lines.length} selected, also in the table below.` : "";
      for (const row of document.querySelectorAll("#trials tbody tr")) {
        row.hidden = some && !kept.has(row.dataset.trial);
      }
    }
    axes.forEach((one, i) => {
      const x = at(i);
      element("line", { x1: x, x2: x, y1: top, y2: bottom, class: "axis" }, svg);
      const words = one.name.split("_");
      const middle = words.length > 1 ? Math.ceil(words.length / 2) : 1;
      [words.slice(0, middle).join(" "), words.slice(middle).join(" ")].forEach((text, row) =>
        element("text", { x, y: 14 + row * 13, "text-anchor": "middle" }, svg, text));
      const side = i === axes.length - 1 ? { x: x - 6, "text-anchor": "end" } : { x: x + 6 };
      for (const [place, text] of one.ticks) {
        element("text", { ...side, y: y(place) + 4, class: "tick" }, svg, text);
      }
      const brush = element("rect", { x: x - 7, width: 14, y: 0, height: 0, class: "brush" }, svg);
      const mark = (range) => {
        brush.setAttribute("y", y(range[1]));
        brush.setAttribute("height", Math.max(0, y(range[0]) - y(range[1])));
      };
      if (brushes.has(i)) mark(brushes.get(i));
      const hit = element("rect",
        { x: x - 14, y: top - 8, width: 28, height: bottom - top + 16, class: "hit" }, svg);
      const place = (event) => {
        const inside = (bottom - (event.clientY - svg.getBoundingClientRect().top)) / (bottom - top);
        return Math.min(1.02, Math.max(-0.02, inside));
      };
      let start = null;
      hit.addEventListener("pointerdown", (event) => { start = place(event); hit.setPointerCapture(event.pointerId); });
      hit.addEventListener("pointermove", (event) => {
        if (start === null) return;
        const now = place(event);
        if (Math.abs(now - start) < 0.02) return;
        brushes.set(i, [Math.min(start, now), Math.max(start, now)]);
        mark(brushes.get(i));
        filter();
      });
      hit.addEventListener("pointerup", (event) => {
        if (Math.abs(place(event) - start) < 0.02) { brushes.delete(i); mark([0, 0]); filter(); }
        start = null;
      });
    });
    filter();
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const number = (text) => (text === "–" ? NaN : Number(text.replaceAll(",", "").split(" ")[0]));
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].textContent.trim(), row]);
        rows.sort(([a], [b]) => {
          if (a === "–" || b === "–") return (a === "–") - (b === "–");
          const difference = number(a) - number(b);
          return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) show(row.dataset.trial);
    });
  }

  drawAll();
  const table = document.getElementById("trials");
  if (table) sortable(table);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  for (const folded of document.querySelectorAll("details")) {
    folded.addEventListener("toggle", () => folded.querySelectorAll("[data-chart]").forEach(draw));
  }
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (data.parallel) parallel(); }, 200);
  });
})();
