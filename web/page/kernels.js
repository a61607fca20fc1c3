// The schedule of a step: a list of kernels with their times, arcs for what they hand on, their WGSL.

const SVG = 'http://www.w3.org/2000/svg';
const TOKENS = /(\/\/[^\n]*)|\b(fn|var|let|const|for|if|else|while|loop|return|break|continue|struct|enable|override|switch|case|default|alias)\b|\b(f32|u32|i32|f16|bool|vec[234]|mat\dx\d|array|atomic|workgroup|storage|uniform|read|read_write|function|private)\b|(@\w+)|\b(0x[0-9a-f]+u?|\d+\.?\d*(?:e[+-]?\d+)?[fuih]?)\b/gi;
const KINDS = ['comment', 'word', 'type', 'attribute', 'number'];

const $ = (id) => document.getElementById(id);
const span = (className, text) => Object.assign(document.createElement('span'), { className, textContent: text });

export class Kernels {
  /// `ask` sends a message to the worker; its answers come to `show`, `time` and `source`.
  constructor(ask) {
    this.ask = ask;
    $('show').onclick = () => this.load();
    $('of').onchange = () => this.rows && this.load();
    $('time').onclick = () => {
      $('total').textContent = 'Measuring…';
      this.ask({ type: 'seconds', network: this.network });
    };
    new ResizeObserver(() => this.arcs()).observe($('kernels'));
    this.clear();
  }

  clear() {
    this.rows = null;
    $('schedule').hidden = $('time').hidden = true;
    $('show').hidden = false;
    $('total').textContent = '';
  }

  load() {
    this.network = Number($('of').value);
    $('total').textContent = 'Compiling…';
    this.ask({ type: 'kernels', network: this.network });
  }

  show({ network, rows }) {
    this.network = network;
    this.rows = rows;
    $('show').hidden = true;
    $('schedule').hidden = $('time').hidden = false;
    const sum = (key) => rows.reduce((sum, row) => sum + row[key], 0);
    $('total').textContent = `${rows.length} kernels, ${sum('mflop').toFixed(0)} MFLOP, ${(sum('kib') / 1024).toFixed(1)} MiB moved`;
    let part = null;
    this.items = rows.map((row, number) => {
      const item = document.createElement('li');
      if (row.part !== part) item.append(span('part', (part = row.part)));
      const button = Object.assign(document.createElement('button'), { type: 'button' });
      const bar = span('bar-track', '');
      bar.append(document.createElement('i'));
      button.append(span('number', number), span('name', row.label), span('layer', row.layer), bar, span('time', ''));
      button.onclick = () => this.choose(number);
      button.onkeydown = (event) => this.key(event, number);
      item.append(button);
      return item;
    });
    this.svg = document.createElementNS(SVG, 'svg');
    this.svg.setAttribute('class', 'arcs');
    this.svg.setAttribute('aria-hidden', 'true');
    const host = document.createElement('li');
    host.className = 'arcs-host';
    host.setAttribute('role', 'presentation');
    host.append(this.svg);
    $('kernels').replaceChildren(host, ...this.items);
    this.bars(rows.map((row) => row.mflop), (value) => `${value.toFixed(1)} MFLOP`);
    this.chosen = null;
    this.choose(0);
  }

  bars(values, words) {
    const most = Math.max(...values, 1e-12);
    this.items.forEach((item, i) => {
      item.querySelector('i').style.width = `${(100 * values[i]) / most}%`;
      item.querySelector('.time').textContent = words(values[i]);
    });
  }

  time({ network, seconds, text }) {
    if (network !== this.network || !this.rows) return;
    if (text) {
      $('total').textContent = `The kernels cannot be timed here: ${text}.`;
      return;
    }
    const total = seconds.reduce((a, b) => a + b, 0);
    const shown = (s) => (s >= 0.0995 ? `${(1e3 * s).toFixed(0)} ms` : s >= 1e-4 ? `${(1e3 * s).toFixed(2)} ms` : `${(1e6 * s).toFixed(0)} µs`);
    $('total').textContent = `${this.rows.length} kernels, ${shown(total)} in all, the mean of five calls`;
    this.bars(seconds, shown);
  }

  key(event, number) {
    const to = { ArrowDown: number + 1, ArrowUp: number - 1, Home: 0, End: this.items.length - 1 }[event.key];
    if (to === undefined || !this.items[to]) return;
    event.preventDefault();
    this.items[to].querySelector('button').focus();
    this.choose(to);
  }

  choose(number) {
    this.chosen = number;
    this.items.forEach((item, i) => item.querySelector('button').setAttribute('aria-pressed', i === number));
    this.arcs();
    this.ask({ type: 'source', network: this.network, kernel: number });
  }

  source({ network, kernel, text }) {
    if (network !== this.network || kernel !== this.chosen) return;
    const { label, part, layer } = this.rows[kernel];
    $('wgsl-title').textContent = `${kernel}: ${[part, layer, label].filter(Boolean).join(' · ')}`;
    const parts = [];
    let at = 0;
    for (const match of text.matchAll(TOKENS)) {
      parts.push(text.slice(at, match.index), span(KINDS[match.slice(1).findIndex((group) => group !== undefined)], match[0]));
      at = match.index + match[0].length;
    }
    $('wgsl').replaceChildren(...parts, text.slice(at));
    $('wgsl').scrollTop = 0;
  }

  /// An arc from each kernel to those that read what it made; those of the chosen one stand out.
  arcs() {
    if (!this.rows || $('schedule').hidden) return;
    const middle = this.items.map((item) => item.offsetTop + item.offsetHeight - item.lastElementChild.offsetHeight / 2);
    const width = this.svg.parentElement.clientWidth;
    const height = $('kernels').scrollHeight;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.svg.setAttribute('width', width);
    this.svg.setAttribute('height', height);
    const path = (from, to, name) => {
      const made = document.createElementNS(SVG, 'path');
      const bow = Math.min(width - 4, 6 + 1.6 * Math.sqrt(middle[to] - middle[from]));
      made.setAttribute('d', `M${width} ${middle[from]}C${width - bow * 1.3} ${middle[from]} ${width - bow * 1.3} ${middle[to]} ${width} ${middle[to]}`);
      made.setAttribute('class', name);
      return made;
    };
    const all = this.rows.flatMap((row, to) => row.from.map((from) => [from, to]));
    const own = all.filter(([from, to]) => from === this.chosen || to === this.chosen);
    this.svg.replaceChildren(...all.map(([from, to]) => path(from, to, '')),
      ...own.map(([from, to]) => path(from, to, to === this.chosen ? 'in' : 'out')));
  }
}
