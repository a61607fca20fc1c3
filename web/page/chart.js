// Curves of the four networks, drawn as they come.

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 250;
const MARGIN = { top: 12, right: 10, bottom: 26, left: 46 };
/// How much a batch's value moves the thin line.
const SMOOTHING = 0.12;
const TITLES = { teacher: 'teacher', alone: 'alone', KD: 'KD', SLD: 'SLD' };
/// Differ without colour, too.
const MARKS = {
  teacher: 'M0-5 5 0 0 5-5 0z',
  alone: 'M-4-4h8v8h-8z',
  KD: 'M0-5 5 4H-5z',
  SLD: 'M0-4.5a4.5 4.5 0 1 0 .01 0z',
};

const element = (name, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

export class Chart {
  constructor(host, { percent, label }) {
    this.host = host;
    this.percent = percent;
    this.label = label;
    this.legend = Object.assign(document.createElement('ul'), { className: 'legend' });
    this.svg = element('svg', { role: 'img' });
    host.append(this.legend, this.svg);
    this.clear();
    new ResizeObserver(() => this.draw()).observe(host);
  }

  clear() {
    this.series = {};
    this.draw();
  }

  /// A batch's value at a share of the training, and the test's if there was one.
  add(name, x, batch, test) {
    const series = (this.series[name] ??= { batches: [], tests: [], smooth: batch });
    series.smooth += SMOOTHING * (batch - series.smooth);
    series.batches.push([x, series.smooth]);
    if (test !== null) series.tests.push([x, test]);
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  format(value) {
    return this.percent ? `${Math.round(100 * value)} %` : Number(value.toPrecision(2)).toString();
  }

  draw() {
    const width = Math.max(this.host.clientWidth, 240);
    const values = Object.values(this.series).flatMap((s) => [...s.batches, ...s.tests].map((p) => p[1]));
    const top = this.percent ? 1 : ceiling(Math.max(...values, 0));
    const left = MARGIN.left, right = width - MARGIN.right, bottom = HEIGHT - MARGIN.bottom;
    const x = (share) => left + share * (right - left);
    const y = (value) => bottom - Math.min(value / top, 1.05) * (bottom - MARGIN.top);
    const parts = [];
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      const at = y(tick * top);
      parts.push(element('path', { class: 'grid', d: `M${left} ${at}H${right}` }));
      parts.push(element('text', { x: left - 8, y: at + 4, 'text-anchor': 'end' }, this.format(tick * top)));
      const anchor = tick === 0 ? 'start' : tick === 1 ? 'end' : 'middle';
      parts.push(element('text', { x: x(tick), y: HEIGHT - 8, 'text-anchor': anchor }, `${100 * tick} %`));
    }
    const line = (points) => points.map(([a, b], i) => `${i ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('');
    for (const [name, { batches, tests }] of Object.entries(this.series)) {
      const every = Math.ceil(batches.length / 300);
      const thin = batches.filter((_, i) => i % every === 0 || i === batches.length - 1);
      const kind = tests.length || this.percent ? 'thin' : 'line';
      parts.push(element('path', { class: `${kind} c-${name}`, d: line(thin) }));
      if (tests.length) parts.push(element('path', { class: `line c-${name}`, d: line(tests) }));
      for (const [a, b] of tests) {
        parts.push(element('path', { class: `mark c-${name}`, d: MARKS[name], transform: `translate(${x(a).toFixed(1)} ${y(b).toFixed(1)})` }));
      }
    }
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute('aria-label', this.words());
    this.svg.replaceChildren(...parts);
    this.legend.replaceChildren(...Object.entries(TITLES).map(([name, title]) => this.entry(name, title)));
  }

  latest(name) {
    const series = this.series[name];
    const value = series && (series.tests.at(-1) ?? series.batches.at(-1))?.[1];
    return value === undefined ? null : this.format(value);
  }

  entry(name, title) {
    const item = document.createElement('li');
    const mark = element('svg', { viewBox: '-14 -7 28 14', 'aria-hidden': 'true' },
      element('path', { class: `line c-${name}`, d: 'M-13 0H13' }), element('path', { class: `mark c-${name}`, d: MARKS[name] }));
    const value = document.createElement('b');
    value.textContent = this.latest(name) ?? '';
    item.append(mark, title, ' ', value);
    return item;
  }

  words() {
    const known = Object.keys(TITLES).filter((name) => this.latest(name) !== null);
    if (!known.length) return `Chart of ${this.label}: nothing yet.`;
    return `Chart of ${this.label}, latest: ${known.map((name) => `${TITLES[name]} ${this.latest(name)}`).join(', ')}.`;
  }
}

/// The least of 1, 2, 4, 6 and 8 times a power of ten that is not below the value.
function ceiling(value) {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 4, 6, 8, 10].find((factor) => factor * power >= value) ?? 10);
}
