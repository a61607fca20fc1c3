// The engine's side of the page: owns the experiment and trains, so that the page itself stays free.
import init, { Page, defaults } from './web.js';

let page = null;
let running = false;
let lookEvery = 600; // milliseconds, so that looking costs little
let lastLook = 0;

// The engine does one thing at a time: jobs wait for each other.
let queue = Promise.resolve();
const enqueue = (job) => (queue = queue.then(job).catch((error) => {
  running = false;
  postMessage({ type: 'error', text: String(error.message ?? error) });
}));

// Lets messages in between two steps.
const channel = new MessageChannel();
const breathe = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(0);
});

async function look() {
  const [description, images, ...layers] = await page.look();
  const filters = layers.slice(0, layers.length / 2), changes = layers.slice(layers.length / 2);
  lastLook = performance.now();
  postMessage({ type: 'look', description: JSON.parse(description), images, filters, changes });
}

async function step() {
  const begun = performance.now();
  const event = JSON.parse(await page.advance());
  postMessage({ type: 'event', event, milliseconds: performance.now() - begun });
  const over = event.last && !event.teaching;
  if (over) running = false;
  if (over || !running || performance.now() - lastLook > lookEvery) await look();
  if (over) postMessage({ type: 'over' });
}

async function run() {
  while (running) {
    await enqueue(step);
    await breathe();
  }
}

const commands = {
  async open({ device, settings, photos, lookEvery: every }) {
    lookEvery = every;
    await init();
    const wanted = JSON.stringify({ ...JSON.parse(defaults()), ...settings });
    page = photos
      ? await Page.photos(device, wanted, photos.images, photos.labels, photos.names)
      : await Page.drawn(device, wanted);
    const about = JSON.parse(page.about());
    postMessage({ type: 'ready', about, samples: page.samples(60) });
  },
  step: () => step(),
  async adjust({ rate, temperature, gate }) {
    page.adjust(rate, temperature, gate);
  },
  async kernels({ network }) {
    postMessage({ type: 'kernels', network, rows: JSON.parse(page.kernels(network)) });
  },
  async seconds({ network }) {
    try {
      postMessage({ type: 'seconds', network, seconds: [...await page.seconds(network)] });
    } catch (error) {
      postMessage({ type: 'seconds', network, text: String(error.message ?? error) });
    }
  },
  async source({ network, kernel }) {
    postMessage({ type: 'source', network, kernel, text: page.source(network, kernel) });
  },
};

onmessage = ({ data }) => {
  if (data.type === 'pause') {
    running = false;
  } else if (data.type === 'run') {
    if (!running) {
      running = true;
      run();
    }
  } else {
    enqueue(() => commands[data.type](data));
  }
};
