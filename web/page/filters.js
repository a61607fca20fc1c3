// The first layers' weights as pictures.
import { canvas } from './pictures.js';

export class Filters {
  /// `choice` is a select: `weights` or `changes`.
  constructor(host, choice) {
    this.host = host;
    this.choice = choice;
    this.empty = host.firstElementChild;
    choice.onchange = () => this.latest && this.show(...this.latest);
  }

  clear() {
    this.latest = null;
    this.host.replaceChildren(this.empty);
  }

  show(description, layers, titles) {
    this.latest = [description, layers, titles];
    const pixels = layers[this.choice.value];
    this.host.replaceChildren(...description.networks.map(({ name, network, filter: [height, width] }, i) => {
      const length = height * width * 3;
      const count = pixels[i].length / length;
      const figure = document.createElement('figure');
      figure.className = 'card';
      const caption = document.createElement('figcaption');
      const title = Object.assign(document.createElement('h3'), { textContent: titles[name], className: `c-${name}` });
      const what = Object.assign(document.createElement('p'), { textContent: `${network}: ${count} filters of ${width} × ${height} pixels` });
      caption.append(title, what);
      const tiles = document.createElement('div');
      tiles.className = height > 8 ? 'tiles large' : 'tiles';
      tiles.setAttribute('role', 'img');
      tiles.setAttribute('aria-label', `${count} filters of ${titles[name]}`);
      for (let k = 0; k < count; k++) tiles.append(canvas(pixels[i].subarray(k * length, (k + 1) * length), width, height));
      figure.append(caption, tiles);
      return figure;
    }));
  }
}
