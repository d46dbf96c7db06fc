// Drawings of numbers over time: the small ones of the table, and the large ones of a queue, with their words.

import { h, setChildren, setText, svg } from "./dom.js";
import { clock, short } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;

/** The runs of known numbers as points: nothing is drawn where a number is not known. */
function runs(values, width, height, most) {
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  const found = [];
  let run = null;
  values.forEach((value, at) => {
    if (value === null || value === undefined) {
      run = null;
      return;
    }
    if (!run) found.push((run = []));
    run.push([at * step, height - (value / (most || 1)) * height]);
  });
  return found;
}

function line(points) {
  const [first] = points;
  const all = points.length === 1 ? [first, [first[0] + 1, first[1]]] : points;
  return all.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function area(points, height) {
  return `${line(points)}L${points.at(-1)[0].toFixed(1)} ${height}L${points[0][0].toFixed(1)} ${height}Z`;
}

/** The largest number; 1 if there is none above 0. */
function mostOf(...several) {
  return Math.max(1, ...several.flat().filter((value) => value !== null && value !== undefined));
}

/** A sparkline, which a screen reader passes over: the row has the numbers. */
export class Spark {
  constructor() {
    this.fill = svg("path", { class: "spark-area" });
    this.stroke = svg("path", { class: "spark-line" });
    this.element = svg("svg", { viewBox: "0 -2 96 26", class: "spark", "aria-hidden": "true", preserveAspectRatio: "none" },
      this.fill, this.stroke);
    this.drawn = "";
  }

  show(values) {
    const drawn = (values ?? []).join();
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const found = runs(values ?? [], 96, 22, mostOf(values ?? []));
    this.stroke.setAttribute("d", found.map(line).join(""));
    this.fill.setAttribute("d", found.map((run) => area(run, 24)).join(""));
  }
}

/** A chart with its title and scale. `series`: [{name, kind}]; the numbers come with `show`. */
export class Chart {
  constructor(title, series, unit = "") {
    this.series = series;
    this.unit = unit;
    this.paths = series.map(({ kind }) => svg("path", { class: `line ${kind}` }));
    this.areas = series.map(({ kind }) => svg("path", { class: `area ${kind}` }));
    this.cross = svg("line", { class: "cross", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
      this.areas, this.paths, this.cross);
    this.most = h("span", { class: "most" });
    this.reading = h("span", { class: "reading" });
    this.from = h("span");
    this.until = h("span");
    this.element = h("figure", { class: "chart" },
      h("figcaption", {}, h("strong", {}, title),
        series.length > 1 && series.map(({ name, kind }) => h("span", { class: `key ${kind}` }, name)), this.reading),
      h("div", { class: "plot", pointermove: (event) => this.read(event), pointerleave: () => this.unread() },
        this.most, this.image),
      h("div", { class: "axis", "aria-hidden": "true" }, this.from, this.until));
    this.title = title;
    this.values = [];
    this.times = [];
  }

  show(values, times) {
    this.values = values;
    this.times = times;
    const most = mostOf(...values);
    values.forEach((some, at) => {
      const found = runs(some, WIDTH, HEIGHT, most);
      this.paths[at].setAttribute("d", found.map(line).join(""));
      this.areas[at].setAttribute("d", found.map((run) => area(run, HEIGHT)).join(""));
    });
    setText(this.most, short(most) + this.unit);
    if (times.length) {
      setText(this.from, clock(times[0]));
      setText(this.until, clock(times.at(-1)));
    }
    this.image.setAttribute("aria-label", `${this.title} over the last hour. ${this.inWords()}`);
  }

  inWords() {
    return this.series.map(({ name }, at) => {
      const known = this.values[at].filter((value) => value !== null && value !== undefined);
      if (!known.length) return `${name}: not known.`;
      const now = short(known.at(-1)) + this.unit;
      return `${name}: now ${now}, at least ${short(Math.min(...known))}, at most ${short(Math.max(...known))}.`;
    }).join(" ");
  }

  read(event) {
    const box = this.image.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = Math.round(part * (this.times.length - 1));
    if (!(at >= 0)) return;
    const told = this.series.map(({ name }, of) => `${name} ${short(this.values[of][at])}${this.unit}`);
    setText(this.reading, `${clock(this.times[at])}  ${told.join(", ")}`);
    const x = (at / Math.max(1, this.times.length - 1)) * WIDTH;
    for (const name of ["x1", "x2"]) this.cross.setAttribute(name, x);
    this.cross.setAttribute("visibility", "visible");
  }

  unread() {
    setText(this.reading, "");
    this.cross.setAttribute("visibility", "hidden");
  }
}

/** The same numbers as a table, one row for some minutes: for whoever does not see a drawing, or wants the numbers. */
export function tableOf(place, columns, times, every) {
  const rows = [];
  for (let at = times.length - 1; at >= 0; at -= every) {
    rows.push(h("tr", {}, h("th", { scope: "row" }, clock(times[at])),
      columns.map(({ values }) => h("td", { class: "number" }, short(values[at])))));
  }
  setChildren(place, [h("table", { class: "plain" },
    h("caption", { class: "sr" }, "The last hour in numbers, the newest first"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"),
      columns.map(({ name }) => h("th", { scope: "col", class: "number" }, name)))),
    h("tbody", {}, rows))]);
}
