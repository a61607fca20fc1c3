// The drawn pictures, and what the networks say of a few of them.

const SIDE = 32;
const NAMES = ['teacher', 'alone', 'KD', 'SLD'];
/// Classes whose probabilities are shown for a picture.
const SHOWN = 4;

/// A canvas that shows RGB pixels.
export function canvas(pixels, width, height, label) {
  const made = Object.assign(document.createElement('canvas'), { width, height });
  const data = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    data.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    data.data[4 * i + 3] = 255;
  }
  made.getContext('2d').putImageData(data, 0, 0);
  if (label) {
    made.setAttribute('role', 'img');
    made.setAttribute('aria-label', label);
  }
  return made;
}

const picture = (pixels, number, label) =>
  canvas(pixels.subarray(number * SIDE * SIDE * 3, (number + 1) * SIDE * SIDE * 3), SIDE, SIDE, label);

const made = (name, className, ...children) => {
  const element = document.createElement(name);
  element.className = className;
  element.append(...children);
  return element;
};

/// The first pictures of the task, which come class after class.
export function samples(list, pixels, classes) {
  const count = Math.min(pixels.length / (SIDE * SIDE * 3), Math.max(classes.length, 12), 20);
  const items = Array.from({ length: count }, (_, i) => {
    const name = classes[i % classes.length];
    return made('li', '', picture(pixels, i), made('span', '', name));
  });
  list.replaceChildren(...items);
}

export class Pictures {
  constructor(host) {
    this.host = host;
    this.empty = host.firstElementChild;
  }

  clear() {
    this.host.replaceChildren(this.empty);
  }

  show({ labels, swapped, networks }, images, classes) {
    const known = Object.fromEntries(networks.map((network) => [network.name, network.probabilities]));
    const cards = labels.map((label, i) => {
      const teacher = known.teacher[i];
      const first = teacher.indexOf(Math.max(...teacher));
      const wrong = first !== label;
      const head = made('div', 'head', picture(images, i), made('div', '', made('b', '', classes[label]),
        made('span', wrong ? 'verdict wrong' : 'verdict right', wrong ? `teacher: ${classes[first]}` : 'teacher: right')));
      const students = NAMES.slice(1).filter((name) => known[name]);
      // Before there are students, what the teacher says is all there is to see.
      const order = [...teacher.keys()].sort((a, b) => teacher[b] - teacher[a]);
      const shown = order.slice(0, SHOWN);
      if (!shown.includes(label)) shown[shown.length - 1] = label;
      const bars = shown.map((c) => this.bars(c, classes[c], c === label, teacher[c], wrong && students.length ? swapped[i][c] : null));
      const card = made('div', 'card picture', head, made('div', 'probabilities', ...bars));
      if (students.length) card.append(made('dl', 'students', ...students.flatMap((name) => this.student(name, known[name][i], label, classes))));
      card.setAttribute('role', 'listitem');
      return card;
    });
    this.host.replaceChildren(...cards);
  }

  /// A class's probability by the teacher, before and, where the swap changes the picture's, after it.
  bars(number, name, own, before, after) {
    const bar = (value, kind) => {
      const inner = made('i', kind);
      inner.style.width = `${100 * value}%`;
      return made('span', 'bar-track', inner);
    };
    const percent = (value) => `${Math.round(100 * value)} %`;
    const moved = after !== null && Math.abs(after - before) > 1e-4;
    const row = made('div', `probability${own ? ' own' : ''}${moved ? ' moved' : ''}`, made('span', 'class', name),
      made('span', 'tracks', bar(before, 'before'), ...(after === null ? [] : [bar(after, 'after')])),
      made('span', 'value', moved ? `${percent(before)} → ${percent(after)}` : percent(before)));
    return row;
  }

  student(name, probabilities, label, classes) {
    const first = probabilities.indexOf(Math.max(...probabilities));
    const right = first === label;
    return [made('dt', `c-${name}`, name),
      made('dd', right ? 'right' : 'wrong', `${right ? '✓' : '✗'} ${classes[first]}, ${Math.round(100 * probabilities[first])} %`)];
  }
}
