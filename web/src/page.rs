//! What the page's worker calls. Numbers and names travel as JSON, pictures as bytes.

use cpu::CpuDevice;
use gpu::GpuDevice;
use schedule::Device;
use serde_json::json;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::lab::{Lab, NAMES, Settings};

type Answer<T> = Result<T, JsError>;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
}

fn failed(error: impl Into<anyhow::Error>) -> JsError {
    JsError::new(&format!("{:#}", error.into()))
}

/// The settings that hold where the page chooses none, as JSON.
#[wasm_bindgen]
pub fn defaults() -> Answer<String> {
    serde_json::to_string(&Settings::default()).map_err(failed)
}

/// The experiment on one of the browser's devices.
#[wasm_bindgen]
pub struct Page {
    lab: Lab,
}

#[wasm_bindgen]
impl Page {
    /// On the drawn task. `device` is `webgpu` or `cpu`, `settings` JSON.
    pub async fn drawn(device: String, settings: String) -> Answer<Page> {
        let settings = serde_json::from_str(&settings).map_err(failed)?;
        Ok(Page { lab: Lab::drawn(open(&device).await?, settings).map_err(failed)? })
    }

    /// On photos: RGB images of 32 x 32 pixels, the class of each, the classes' names.
    pub async fn photos(
        device: String,
        settings: String,
        images: Vec<u8>,
        labels: Vec<u32>,
        names: Vec<String>,
    ) -> Answer<Page> {
        let settings = serde_json::from_str(&settings).map_err(failed)?;
        let lab = Lab::photos(open(&device).await?, settings, images, labels, names);
        Ok(Page { lab: lab.map_err(failed)? })
    }

    /// What is trained on what.
    pub fn about(&self) -> String {
        let lab = &self.lab;
        json!({
            "device": lab.device(), "classes": lab.train().classes(),
            "train": lab.train().len(), "test": lab.test().len(), "settings": lab.settings(),
        })
        .to_string()
    }

    /// The first images of the task: RGB.
    pub fn samples(&self, count: usize) -> Vec<u8> {
        let train = self.lab.train();
        train.images()[..count.min(train.len()) * train.image_len()].to_vec()
    }

    /// The next step: an event.
    pub async fn advance(&mut self) -> Answer<String> {
        let event = self.lab.advance().await.map_err(failed)?;
        serde_json::to_string(&event).map_err(failed)
    }

    /// Goes on with another rate, temperature and gate.
    pub fn adjust(&mut self, rate: f64, temperature: f64, gate: u32) -> Answer<()> {
        self.lab.adjust(rate, temperature, gate).map_err(failed)
    }

    /// What the networks say of a few images: `[description, images]`, then each network's first
    /// layer, then what has changed of each.
    pub async fn look(&mut self) -> Answer<Vec<JsValue>> {
        let models = self.lab.models();
        let about: Vec<_> = models.iter().map(|m| (m.name().to_string(), m.parameter_count())).collect();
        let view = self.lab.view().await.map_err(failed)?;
        let networks = view.probabilities.iter().zip(&view.filters).zip(NAMES).zip(&about);
        let networks = networks.map(|(((probabilities, filters), name), (network, parameters))| {
            json!({
                "name": name, "network": network, "parameters": parameters,
                "probabilities": probabilities, "filter": filters.size,
            })
        });
        let description = json!({
            "labels": view.images().labels(), "swapped": view.swapped, "networks": networks.collect::<Vec<_>>(),
        });
        let bytes = |pixels: &[u8]| JsValue::from(js_sys::Uint8Array::from(pixels));
        let mut all = vec![description.to_string().into(), bytes(view.images().images())];
        all.extend(view.filters.iter().map(|filters| bytes(&filters.weights)));
        all.extend(view.filters.iter().map(|filters| bytes(&filters.changes)));
        Ok(all)
    }

    /// The kernels of a network's step.
    pub fn kernels(&mut self, network: usize) -> Answer<String> {
        serde_json::to_string(&self.lab.exam(network).map_err(failed)?.rows).map_err(failed)
    }

    /// Seconds of each of them.
    pub async fn seconds(&mut self, network: usize) -> Answer<Vec<f64>> {
        self.lab.exam(network).map_err(failed)?.seconds().await.map_err(failed)
    }

    /// The WGSL of one of them.
    pub fn source(&mut self, network: usize, kernel: usize) -> Answer<String> {
        let exam = self.lab.exam(network).map_err(failed)?;
        exam.source(kernel).map(str::to_string).map_err(failed)
    }
}

async fn open(device: &str) -> Answer<Box<dyn Device>> {
    if device != "webgpu" {
        return Ok(Box::new(CpuDevice::new(1)));
    }
    let adapters = gpu::adapters_async().await;
    let adapter =
        adapters.first().ok_or_else(|| JsError::new("this browser offers no adapter to the page"))?;
    let device = GpuDevice::with_adapter_async(adapter, gpu::Options::default()).await;
    Ok(Box::new(device.map_err(failed)?))
}
