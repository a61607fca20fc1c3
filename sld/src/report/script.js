// Values under the pointer, at a tap, and by the arrow keys. The page is whole without this.
"use strict";
const tip = document.getElementById("tip");
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}

function row(text, value, colour) {
  const line = document.createElement("div");
  const name = document.createElement("span");
  if (colour !== undefined) {
    line.className = "c" + colour;
    name.append(document.createElement("i"));
  }
  name.append(text);
  line.append(name);
  if (value !== undefined) {
    const number = document.createElement("b");
    number.append(value);
    line.append(number);
  }
  return line;
}

// Shows the rows beside a point of the window, within it.
function place(x, y, rows) {
  tip.replaceChildren(...rows);
  tip.hidden = false;
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  tip.style.left = Math.max(8, Math.min(left, innerWidth - width - 8)) + "px";
  tip.style.top = Math.max(8, Math.min(y + 14, innerHeight - height - 8)) + "px";
}

let shown = null; // what the tip is about
function hide() {
  tip.hidden = true;
  if (shown) shown.clear();
  shown = null;
}

// What can be looked into. `find` gives the place under an event or null, `step` the place that an arrow key
// leads to from the last one, `show` marks a place and gives [x, y, rows].
function inspect(target, what) {
  let last = null;
  const at = (found) => {
    if (found === null) return hide();
    if (shown !== what) hide();
    [last, shown] = [found, what];
    place(...what.show(found));
  };
  const pointer = (event) => at(what.find(event));
  target.addEventListener("pointerdown", pointer);
  target.addEventListener("pointermove", pointer);
  target.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  target.addEventListener("focus", () => target.matches(":focus-visible") && at(last ?? what.first));
  target.addEventListener("blur", () => shown === what && hide());
  target.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    at(what.step(last ?? what.first, ...step));
  });
}
addEventListener("scroll", hide, { passive: true });
addEventListener("pointerdown", (event) => event.target.closest(".chart svg, .heat svg, .bars") || hide());

const within = (value, count) => Math.max(0, Math.min(count - 1, value));
const inside = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
const outside = (svg, x, y) => new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
const data = (figure) => JSON.parse(figure.querySelector("script").textContent);

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg[tabindex]"), cursor = svg.querySelector(".cursor"), chart = data(figure);
  const [left, top, width, height] = chart.box, [low, high, logarithmic] = chart.y;
  const count = chart.e.length, first = chart.e[0], span = chart.e[count - 1] - first || 1;
  const share = logarithmic
    ? (value) => Math.log(value / low) / Math.log(high / low)
    : (value) => (value - low) / (high - low);
  const text = (value) => (chart.d === null ? String(Number(value.toPrecision(3))) : value.toFixed(chart.d)) + chart.u;
  inspect(svg, {
    first: count - 1,
    find(event) {
      const wanted = first + (span * (inside(svg, event).x - left)) / width;
      return chart.e.reduce((best, epoch, i) => (Math.abs(epoch - wanted) < Math.abs(chart.e[best] - wanted) ? i : best), 0);
    },
    step: (i, right) => within(i + right, count),
    show(i) {
      const x = left + (width * (chart.e[i] - first)) / span;
      const marks = [element("path", { d: `M${x} ${top}v${height}` })];
      const rows = [row("epoch " + chart.e[i])];
      for (const series of chart.s) {
        const value = series.v[i];
        if (value === null) continue;
        marks.push(element("circle", { cx: x, cy: top + height * (1 - share(value)), r: 4.5, class: "c" + series.c }));
        rows.push(row(series.n, text(value), series.c));
      }
      cursor.replaceChildren(...marks);
      const point = outside(svg, x, top);
      return [point.x, point.y, rows];
    },
    clear: () => cursor.replaceChildren(),
  });
}

for (const figure of document.querySelectorAll(".heat")) {
  const svg = figure.querySelector("svg[tabindex]"), cursor = svg.querySelector(".cursor"), { classes, rows } = data(figure);
  const n = classes.length, name = (i) => classes[i].replaceAll("_", " ");
  inspect(svg, {
    first: [0, 0],
    find(event) {
      const { x, y } = inside(svg, event);
      return x < 0 || y < 0 || x >= n || y >= n ? null : [Math.floor(x), Math.floor(y)];
    },
    step: ([x, y], right, down) => [within(x + right, n), within(y + down, n)],
    show([prediction, label]) {
      const count = rows[label][prediction], all = rows[label].reduce((sum, value) => sum + value, 0);
      const share = all ? ((100 * count) / all).toFixed(1) : "0.0";
      const width = n / 400;
      cursor.replaceChildren(
        element("path", { d: `M${prediction} ${label}h1v1h-1z`, "stroke-width": 2 * width }),
        element("path", { d: `M0 ${label + 0.5}H${prediction}M${prediction + 0.5} 0V${label}`, "stroke-width": width / 2 }),
      );
      const point = outside(svg, prediction + 1, label + 1);
      return [point.x, point.y, [
        row("true class", name(label)),
        row(label === prediction ? "recognised" : "taken for", label === prediction ? "" : name(prediction)),
        row(`${count} of ${all} images`, share + "%"),
      ]];
    },
    clear: () => cursor.replaceChildren(),
  });
}

for (const list of document.querySelectorAll(".bars")) {
  const bars = [...list.querySelectorAll(".bar")];
  const clear = () => list.querySelector(".at")?.classList.remove("at");
  inspect(list, {
    first: 0,
    find(event) {
      const bar = event.target.closest(".bar");
      return bar && bars.indexOf(bar);
    },
    step: (i, right, down) => within(i + right + down, bars.length),
    show(i) {
      clear();
      bars[i].classList.add("at");
      const { left, bottom } = bars[i].getBoundingClientRect();
      return [left, bottom - 8, [row(bars[i].dataset.tip)]];
    },
    clear,
  });
}
