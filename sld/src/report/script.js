// Values under the pointer. The page is whole without this.
"use strict";
const tip = document.getElementById("tip");
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}

// Pointer position in the coordinates of the drawing.
function inside(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(svg.getScreenCTM().inverse());
}

function show(event, rows) {
  tip.replaceChildren(...rows);
  tip.hidden = false;
  const left = event.clientX + 16 + tip.offsetWidth > innerWidth ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16;
  const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
  tip.style.left = left + "px";
  tip.style.top = top + "px";
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

function data(figure) {
  return JSON.parse(figure.querySelector("script").textContent);
}

function leave(svg) {
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    svg.querySelector(".cursor").replaceChildren();
  });
}

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor"), chart = data(figure);
  const [left, top, width, height] = chart.box, [low, high, logarithmic] = chart.y;
  const first = chart.e[0], span = chart.e[chart.e.length - 1] - first || 1;
  const place = logarithmic
    ? (value) => Math.log(value / low) / Math.log(high / low)
    : (value) => (value - low) / (high - low);
  svg.addEventListener("pointermove", (event) => {
    const wanted = first + (span * (inside(svg, event).x - left)) / width;
    let nearest = 0;
    chart.e.forEach((epoch, i) => {
      if (Math.abs(epoch - wanted) < Math.abs(chart.e[nearest] - wanted)) nearest = i;
    });
    const x = left + (width * (chart.e[nearest] - first)) / span;
    const marks = [element("path", { d: `M${x} ${top}v${height}` })];
    const rows = [row("epoch " + chart.e[nearest])];
    for (const series of chart.s) {
      const value = series.v[nearest];
      if (value === null) continue;
      marks.push(element("circle", { cx: x, cy: top + height * (1 - place(value)), r: 4.5, class: "c" + series.c }));
      rows.push(row(series.n, value.toFixed(chart.d) + chart.u, series.c));
    }
    cursor.replaceChildren(...marks);
    show(event, rows);
  });
  leave(svg);
}

for (const figure of document.querySelectorAll(".heat")) {
  const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor"), { classes, rows } = data(figure);
  svg.addEventListener("pointermove", (event) => {
    const at = inside(svg, event), prediction = Math.floor(at.x), label = Math.floor(at.y), n = classes.length;
    if (prediction < 0 || label < 0 || prediction >= n || label >= n) {
      tip.hidden = true;
      cursor.replaceChildren();
      return;
    }
    const count = rows[label][prediction], all = rows[label].reduce((sum, value) => sum + value, 0);
    const share = all ? ((100 * count) / all).toFixed(1) : "0.0";
    const name = (i) => classes[i].replaceAll("_", " ");
    const width = n / 400;
    cursor.replaceChildren(
      element("path", { d: `M${prediction} ${label}h1v1h-1z`, "stroke-width": 2 * width }),
      element("path", { d: `M0 ${label + 0.5}H${prediction}M${prediction + 0.5} 0V${label}`, "stroke-width": width / 2 }),
    );
    show(event, [
      row("true class", name(label)),
      row(label === prediction ? "recognised" : "taken for", label === prediction ? "" : name(prediction)),
      row(`${count} of ${all} images`, share + "%"),
    ]);
  });
  leave(svg);
}
