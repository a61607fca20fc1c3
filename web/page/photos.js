// Own photos: made small here, and handed to the engine in this page. Nothing is sent anywhere.
import { canvas } from './pictures.js';

const SIDE = 32;
const MOST = 200; // photos of a thing

export class Photos {
  /// `teach` gets `{ images, labels, names }`: RGB bytes, the class of each, the classes' names.
  constructor(host, button, state, teach) {
    Object.assign(this, { host, button, state, teach });
    this.bins = ['my mug', 'my other mug', ''].map((name, number) => this.bin(name, number));
    button.onclick = () => this.start();
  }

  bin(name, number) {
    const bin = { photos: [] };
    bin.host = Object.assign(document.createElement('div'), { className: 'card bin' });
    bin.name = Object.assign(document.createElement('input'), { type: 'text', value: name, maxLength: 30, placeholder: 'a third thing, if you like' });
    bin.name.setAttribute('aria-label', `Name of thing ${number + 1}`);
    const label = Object.assign(document.createElement('label'), { className: 'drop', textContent: 'Drop photos here, or choose some' });
    const input = Object.assign(document.createElement('input'), { type: 'file', accept: 'image/*', multiple: true });
    label.append(input);
    bin.list = Object.assign(document.createElement('div'), { className: 'thumbs' });
    bin.host.append(bin.name, label, bin.list);
    input.onchange = () => {
      this.take(bin, input.files);
      input.value = '';
    };
    bin.name.oninput = () => this.check();
    bin.host.ondragover = (event) => {
      event.preventDefault();
      bin.host.classList.add('over');
    };
    bin.host.ondragleave = () => bin.host.classList.remove('over');
    bin.host.ondrop = (event) => {
      event.preventDefault();
      bin.host.classList.remove('over');
      this.take(bin, event.dataTransfer.files);
    };
    this.host.append(bin.host);
    return bin;
  }

  async take(bin, files) {
    const unread = [];
    for (const file of files) {
      if (bin.photos.length >= MOST) break;
      try {
        const photo = { pixels: await shrink(file) };
        photo.button = Object.assign(document.createElement('button'), { type: 'button', title: 'Remove' });
        photo.button.setAttribute('aria-label', `Remove ${file.name}`);
        photo.button.append(canvas(photo.pixels, SIDE, SIDE));
        photo.button.onclick = () => {
          bin.photos.splice(bin.photos.indexOf(photo), 1);
          photo.button.remove();
          this.check();
        };
        bin.photos.push(photo);
        bin.list.append(photo.button);
      } catch {
        unread.push(file.name);
      }
    }
    this.check();
    if (unread.length) this.state.textContent = `Not a picture that this browser can read: ${unread.join(', ')}.`;
  }

  filled() {
    return this.bins.filter((bin) => bin.photos.length);
  }

  check() {
    const bins = this.filled();
    const enough = bins.length >= 2 && bins.every((bin) => bin.photos.length >= 2);
    this.button.disabled = !enough;
    this.state.textContent = enough
      ? `${bins.map((bin) => bin.photos.length).join(' + ')} photos; one in four is kept for the test.`
      : 'At least two photos of each of two things.';
  }

  start() {
    const bins = this.filled();
    const photos = bins.flatMap((bin) => bin.photos.map((photo) => photo.pixels));
    const images = new Uint8Array(photos.length * SIDE * SIDE * 3);
    photos.forEach((pixels, i) => images.set(pixels, i * pixels.length));
    const labels = new Uint32Array(bins.flatMap((bin, number) => bin.photos.map(() => number)));
    this.teach({ images, labels, names: bins.map((bin, i) => bin.name.value.trim() || `thing ${i + 1}`) });
  }
}

/// The middle square of a picture, in 32 x 32 pixels of RGB.
async function shrink(file) {
  let bitmap = await createImageBitmap(file);
  const side = Math.min(bitmap.width, bitmap.height);
  const surface = Object.assign(document.createElement('canvas'), { width: SIDE, height: SIDE });
  const context = surface.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  bitmap.close();
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  const pixels = new Uint8Array(SIDE * SIDE * 3);
  for (let i = 0; i < SIDE * SIDE; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return pixels;
}
