// The page: controls, and what the worker reports, handed to the parts that show it.
import { Chart } from './chart.js';
import { Pictures, samples } from './pictures.js';
import { Filters } from './filters.js';
import { Kernels } from './kernels.js';
import { Photos } from './photos.js';

const $ = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const NETWORKS = ['perceptron32', 'perceptron64', 'convnet4', 'convnet8', 'convnet16', 'convnet24', 'convnet32', 'resnet8', 'resnet14', 'resnet20', 'wrn_16_1'];
const TITLES = { teacher: 'teacher', alone: 'student, alone', KD: 'student, KD', SLD: 'student, SLD' };
const LIVE = ['rate', 'temperature', 'gate'];

// A part of the page by itself, for a book to embed.
const part = parameters.get('part');
if (part) {
  document.body.classList.add('alone');
  for (const section of document.querySelectorAll('[data-part]')) section.hidden = section.dataset.part !== part;
}

let worker = null;
let running = false;
let photos = null; // what is learned instead of the drawn task
let classes = [];
let rows = {}; // by network: what the table shows
let speed = null;
let task = {}; // classes and pictures of the drawn task

const charts = {
  accuracy: new Chart($('accuracy'), { percent: true, label: 'right answers' }),
  loss: new Chart($('loss'), { percent: false, label: 'loss' }),
};
const pictures = new Pictures($('pictures'));
const filters = new Filters($('filters'), $('of-filters'));
const kernels = new Kernels((message) => worker.postMessage(message));
new Photos($('bins'), $('teach'), $('photos-state'), (taken) => {
  photos = taken;
  $('drawn').hidden = false;
  open();
  run();
  document.querySelector('[data-part=curves]').scrollIntoView();
});

for (const id of ['teacher', 'student']) {
  $(id).append(...NETWORKS.map((name) => new Option(name)));
}

/// What the controls say, in the engine's words.
function settings() {
  const epochs = Number($('epochs').value) || 1;
  const chosen = {
    seed: Number($('seed').value) || 0,
    teacher: $('teacher').value,
    student: $('student').value,
    batch: Number($('batch').value),
    rate: Number((10 ** $('rate').value).toPrecision(2)),
    temperature: Number($('temperature').value),
    gate: Number($('gate').value),
    teacher_epochs: epochs,
    student_epochs: epochs,
  };
  for (const [name, value] of Object.entries(task)) {
    chosen[name] = Number(parameters.get(name) ?? value);
  }
  return chosen;
}

function showValues() {
  const { rate, temperature, gate } = settings();
  $('rate-value').textContent = rate;
  $('temperature-value').textContent = temperature;
  $('gate-value').textContent = gate + 1;
}

/// Begins with what the address says, else with what suits the device.
function initial(device) {
  const fits = device === 'cpu' || device === 'slow'
    ? { teacher: 'convnet24', student: 'convnet4', batch: 32, epochs: 8 }
    : { teacher: 'resnet14', student: 'convnet8', batch: 64, epochs: 12 };
  task = fits.batch === 32 ? { classes: 6, train: 1024, test: 300 } : { classes: 10, train: 2048, test: 500 };
  const values = { seed: 0, rate: 0.1, temperature: 4, gate: 5, ...fits };
  for (const name of Object.keys(values)) if (parameters.has(name)) values[name] = parameters.get(name);
  values.rate = Math.log10(Number(values.rate) || 0.1);
  for (const [name, value] of Object.entries(values)) {
    // Networks have more names than there is room for.
    if ((name === 'teacher' || name === 'student') && ![...$(name).options].some((option) => option.value === value)) $(name).append(new Option(value));
    $(name).value = value;
  }
  showValues();
}

/// A new experiment, in a new worker: ending the old one frees what it held.
function open() {
  worker?.terminate();
  running = false;
  rows = {};
  speed = null;
  for (const chart of Object.values(charts)) chart.clear();
  pictures.clear();
  filters.clear();
  kernels.clear();
  table('So far');
  buttons(false);
  $('speed').textContent = '';
  $('progress').value = 0;
  state('Loading the engine…');
  worker = new Worker('worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => reports[data.type](data);
  worker.onerror = (event) => failed(event.message || 'the engine could not be loaded');
  // Who wants no motion gets new pictures seldom.
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const device = $('choose-device').value;
  worker.postMessage({ type: 'open', device, settings: settings(), photos, lookEvery: calm ? 4000 : 600 });
}

const reports = {
  ready({ about, samples: pixels }) {
    classes = about.classes;
    $('device').textContent = about.device;
    samples($('samples'), pixels, classes);
    buttons(true);
    say('Ready.');
    if (!running) state(`Ready: ${about.train} pictures of ${classes.length} classes to learn from, ${about.test} to be tested on.`);
  },
  event({ event, milliseconds }) {
    const images = event.points.length * Number($('batch').value);
    // The first step of a phase compiles its kernels, and the last of an epoch tests: neither is the speed.
    if (event.steps > 1 && event.points.every((p) => p.test === null)) {
      speed = speed === null ? milliseconds : 0.9 * speed + 0.1 * milliseconds;
    }
    if (speed !== null) $('speed').textContent = `${Math.round(1000 * images / speed)} pictures a second`;
    for (const point of event.points) {
      charts.accuracy.add(point.name, event.steps / event.of, point.top1, point.test);
      charts.loss.add(point.name, event.steps / event.of, point.loss, null);
      if (point.test !== null) {
        const row = (rows[point.name] ??= { best: 0 });
        row.test = point.test;
        row.best = Math.max(row.best, point.test);
      }
    }
    if (event.points.some((p) => p.test !== null)) {
      table('So far');
      say(charts.accuracy.words());
    }
    const who = event.teaching ? 'The teacher learns' : 'The students learn';
    state(`${who}: epoch ${event.epoch}, step ${event.steps} of ${event.of}.`, event.steps / event.of);
    if (event.last && event.teaching) {
      state('The teacher has learned. The steps of the students are being compiled…');
      speed = null;
    }
  },
  look({ description, images, filters: weights, changes }) {
    for (const { name, network, parameters } of description.networks) {
      Object.assign((rows[name] ??= { best: 0 }), { network, parameters });
    }
    pictures.show(description, images, classes);
    filters.show(description, { weights, changes }, TITLES);
    table($('table-caption').textContent);
  },
  over() {
    running = false;
    buttons(true);
    $('start').disabled = $('step').disabled = true;
    table('Result');
    state('All have learned. Restart with another seed: a difference of a point or two is chance.', 1);
    say(`All have learned. ${charts.accuracy.words()}`);
  },
  kernels: (data) => kernels.show(data),
  seconds: (data) => kernels.time(data),
  source: (data) => kernels.source(data),
  error: ({ text }) => failed(text),
};

/// What is read aloud: not every step.
function say(text) {
  $('live').textContent = text;
}

function state(text, share) {
  $('state').textContent = text;
  if (share !== undefined) $('progress').value = share;
}

function failed(text) {
  running = false;
  buttons(true);
  if ($('choose-device').value === 'webgpu' && /adapter|device|lost/i.test(text)) {
    withoutWebGpu(`WebGPU could not be used: ${text}.`);
    return open();
  }
  $('notice').hidden = false;
  $('notice').textContent = `That did not work: ${text}.`;
  say($('notice').textContent);
  state('Stopped. Restart begins again.');
}

function buttons(there) {
  for (const id of ['start', 'step', 'restart']) $(id).disabled = !there;
  $('start').textContent = running ? 'Pause' : 'Start';
}

function table(caption) {
  $('table-caption').textContent = caption;
  const percent = (value) => (value === undefined ? '–' : `${(100 * value).toFixed(1)} %`);
  const cell = (text, n) => Object.assign(document.createElement('td'), { textContent: text, className: n ? 'n' : '' });
  const body = Object.entries(TITLES).map(([name, title]) => {
    const row = rows[name] ?? {};
    const line = document.createElement('tr');
    const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: title, className: `c-${name}` });
    const weights = row.parameters?.toLocaleString('en') ?? '–';
    line.append(head, cell(row.network ?? '–'), cell(weights, 1), cell(percent(row.test), 1), cell(percent(row.test && row.best), 1));
    return line;
  });
  $('table').tBodies[0].replaceChildren(...body);
}

function run() {
  running = true;
  buttons(true);
  worker.postMessage({ type: 'run' });
  if (!$('progress').value) state('The teacher\'s step is being compiled…');
}

$('start').onclick = () => {
  if (!running) return run();
  running = false;
  buttons(true);
  worker.postMessage({ type: 'pause' });
};
$('step').onclick = () => {
  if (running) $('start').click();
  worker.postMessage({ type: 'step' });
};
$('restart').onclick = open;
$('drawn').onclick = () => {
  photos = null;
  $('drawn').hidden = true;
  open();
};
$('settings').onsubmit = (event) => event.preventDefault();
$('settings').oninput = ({ target }) => {
  showValues();
  if (LIVE.includes(target.id)) worker.postMessage({ type: 'adjust', ...settings() });
};
$('settings').onchange = ({ target }) => {
  if (!LIVE.includes(target.id) && target.validity.valid) open();
};

/// Says what is missing, and goes on with the processor.
function withoutWebGpu(text) {
  $('choose-device').value = 'cpu';
  $('choose-device').querySelector('[value=webgpu]').disabled = true;
  $('notice').hidden = false;
  $('notice').textContent = `${text} The training goes on without it, on one core of the processor, with smaller networks.`;
  initial('cpu');
}

async function begin() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const wanted = parameters.get('device');
  initial('webgpu');
  if (!navigator.gpu) {
    withoutWebGpu(isSecureContext
      ? 'This browser has no WebGPU: current Chrome, Edge, Safari and Firefox have it.'
      : 'WebGPU is there only for pages that come over https or from this machine.');
  } else if (!adapter) {
    withoutWebGpu('This browser has WebGPU, but offers no graphics card to the page: its driver is missing, or not trusted.');
  } else if (wanted === 'cpu') {
    $('choose-device').value = 'cpu';
    initial('cpu');
  } else if (adapter.info?.isFallbackAdapter) {
    initial('slow');
  }
  open();
}

begin();
