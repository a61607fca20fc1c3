//! The experiment: a teacher is trained, then the same student alone, with KD and with SLD, side by side.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nn::Schedule;
use nn::models::Model;
use schedule::Device;
use serde::{Deserialize, Serialize};
use sld::augment::Normalization;
use sld::data::inspect::Summary;
use sld::data::split;
use sld::data::synthetic::{SyntheticConfig, generate};
use sld::data::{Dataset, Splits};
use sld::distill::{Distiller, Kd, Network, Observation, Sld, Vanilla};
use sld::training::Metric;

use crate::exam::Exam;
use crate::learner::{Learner, Plan, Progress};
use crate::networks::{self, SIDE};
use crate::view::{self, View};

/// What can be chosen. Rate, temperature and gate also while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Of the drawn task, the networks' weights, the order of images and their augmentation.
    pub seed: u64,
    /// Names of networks, see [`networks::build`].
    pub teacher: String,
    /// As `teacher`.
    pub student: String,
    /// Images of a batch, for all networks.
    pub batch: usize,
    /// Learning rate of the teacher, of the student alone and of KD. SLD's is half: it adds two views.
    pub rate: f64,
    /// KD's temperature. SLD's are 1, 2, 3 and so on up to it.
    pub temperature: f64,
    /// SLD's last epoch without the student's own term.
    pub gate: u32,
    /// Passes of the teacher over the training images.
    pub teacher_epochs: usize,
    /// Passes of each student over the training images.
    pub student_epochs: usize,
    /// Classes and images of the drawn task.
    pub classes: usize,
    /// Drawn images to learn from.
    pub train: usize,
    /// Drawn images to be tested on.
    pub test: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 0,
            teacher: "convnet24".into(),
            student: "convnet4".into(),
            batch: 32,
            rate: 0.1,
            temperature: 4.0,
            gate: 5,
            teacher_epochs: 8,
            student_epochs: 8,
            classes: 6,
            train: 1024,
            test: 300,
        }
    }
}

/// The four networks in training.
pub const NAMES: [&str; 4] = ["teacher", "alone", "KD", "SLD"];

/// Photos of an epoch, at least.
const PHOTOS: usize = 256;
/// Training images among which the teacher's mistakes are looked for.
const SEEN: usize = 256;

/// What a step of one network measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// Means over the batch: the loss, and the share of right answers.
    pub loss: f32,
    /// See `loss`.
    pub top1: f32,
    /// Share of the batch whose teacher's logits are swapped, for SLD.
    pub swapped: Option<f32>,
    /// Share of right answers on the test images, at the end of an epoch.
    pub test: Option<f64>,
}

/// What a step of the experiment did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Whether the teacher learned; else the students did.
    pub teaching: bool,
    /// From 1.
    pub epoch: usize,
    /// Steps of this phase so far, and in all.
    pub steps: usize,
    /// See `steps`.
    pub of: usize,
    /// What each network that learned measured.
    pub points: Vec<Point>,
    /// Whether this was the phase's last step.
    pub last: bool,
}

/// The experiment.
pub struct Lab {
    device: Box<dyn Device>,
    settings: Settings,
    train: Arc<Dataset>,
    test: Arc<Dataset>,
    teacher: Learner,
    /// Alone, with KD, with SLD; none until the teacher has learned.
    students: Vec<Learner>,
    view: Option<View>,
    exams: [Option<Exam>; 4],
}

impl Lab {
    /// On the drawn task.
    pub fn drawn(device: Box<dyn Device>, settings: Settings) -> Result<Lab> {
        let Settings { classes, train, test, seed, .. } = settings;
        let config = SyntheticConfig { classes, train, test, seed, ..SyntheticConfig::default() };
        Lab::new(device, settings, generate(&config)?)
    }

    /// On the visitor's own photos: RGB images of [`SIDE`], one after another, and the class of each.
    ///
    /// # Errors
    /// Fewer than two classes, or a class with fewer than two photos: one is kept for the test.
    pub fn photos(
        device: Box<dyn Device>,
        settings: Settings,
        images: Vec<u8>,
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<Lab> {
        ensure!(classes.len() >= 2, "two classes are needed at least: something to tell the first one from");
        for (class, name) in classes.iter().enumerate() {
            let photos = labels.iter().filter(|&&label| label as usize == class).count();
            ensure!(photos >= 2, "`{name}` needs two photos at least: one is kept for the test");
        }
        let raw = Normalization::RAW;
        let photos = Dataset::new("photos", (SIDE, SIDE), images, labels, classes, raw)?;
        let Summary { mean, std, .. } = Summary::new(&photos);
        // A colour that never varies must not blow up the black around a crop.
        let normalization =
            Normalization { mean: mean.map(|m| m as f32), std: std.map(|s| (s as f32).max(0.05)) };
        let photos = photos.normalized_by(normalization);
        let (few, test) = split::hold_out(&photos, 0.25, settings.seed)?;
        // A few photos many times in an epoch, each time with another crop.
        let times = PHOTOS.div_ceil(few.len());
        let train = few.subset("photos", &(0..times * few.len()).map(|i| i % few.len()).collect::<Vec<_>>());
        Lab::new(device, settings, Splits { train, test })
    }

    fn new(device: Box<dyn Device>, settings: Settings, splits: Splits) -> Result<Lab> {
        let (train, test) = (Arc::new(splits.train), Arc::new(splits.test));
        let model = network(&settings, &settings.teacher, &train, 2)?;
        // Not only when the teacher has learned.
        network(&settings, &settings.student, &train, 1)?;
        let plan = plan(&settings, settings.teacher_epochs, 1.0);
        let teacher = Learner::new(&*device, model, None, Box::new(Vanilla {}), &train, plan)?;
        let exams = [const { None }; 4];
        Ok(Lab { device, settings, train, test, teacher, students: vec![], view: None, exams })
    }

    /// What was chosen, with what was changed since.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// The device's name.
    pub fn device(&self) -> String {
        self.device.name()
    }
    /// The images that are learned from.
    pub fn train(&self) -> &Dataset {
        &self.train
    }
    /// The images that accuracy is measured on.
    pub fn test(&self) -> &Dataset {
        &self.test
    }
    /// The networks, those of the phases so far.
    pub fn models(&self) -> Vec<&Model> {
        std::iter::once(&self.teacher).chain(&self.students).map(Learner::model).collect()
    }
    /// Whether all have learned.
    pub fn is_done(&self) -> bool {
        !self.students.is_empty() && self.students.iter().all(Learner::is_done)
    }

    /// The next step: the teacher's until it has learned all its epochs, then one of each student.
    ///
    /// # Errors
    /// All have learned; the device's.
    pub async fn advance(&mut self) -> Result<Event> {
        ensure!(!self.is_done(), "all have learned");
        let teaching = !self.teacher.is_done();
        if !teaching && self.students.is_empty() {
            self.students = self.new_students()?;
            self.view = None;
        }
        let learners =
            if teaching { std::slice::from_mut(&mut self.teacher) } else { &mut self.students[..] };
        let mut event = Event { teaching, epoch: 0, steps: 0, of: 0, points: Vec::new(), last: false };
        for (number, learner) in learners.iter_mut().enumerate() {
            let progress = learner.advance().await?;
            let mut test = None;
            if progress.steps.is_multiple_of(learner.steps_per_epoch()) {
                test = Some(learner.test(&*self.device, &self.test, |_, _| ()).await?.top1() / 100.0);
            }
            event.points.push(point(NAMES[number + usize::from(!teaching)], &progress, test));
            (event.epoch, event.steps) = (progress.epoch, progress.steps);
            (event.of, event.last) = (learner.steps_in_all(), learner.is_done());
        }
        Ok(event)
    }

    /// Goes on with another rate, temperature and gate. Steps that another temperature changes are compiled again.
    pub fn adjust(&mut self, rate: f64, temperature: f64, gate: u32) -> Result<()> {
        ensure!(rate > 0.0 && rate <= 1.0, "a learning rate of {rate}; it must be over 0 and at most 1");
        ensure!((1.0..=20.0).contains(&temperature), "a temperature of {temperature}; it must be 1 to 20");
        let compile = temperature != self.settings.temperature;
        self.settings = Settings { rate, temperature, gate, ..self.settings.clone() };
        self.teacher.set_rate(rate);
        for (number, learner) in self.students.iter_mut().enumerate() {
            let (method, share) = method(&self.settings, number + 1);
            learner.set_rate(rate * share);
            let compile = compile && method.needs_teacher();
            learner.set_method(&*self.device, method, compile)?;
        }
        Ok(())
    }

    /// What the networks say of a few images, and their first layers.
    pub async fn view(&mut self) -> Result<&View> {
        if self.view.is_none() {
            let chosen = self.chosen().await?;
            let images = self.train.subset("a few images", &chosen);
            self.view = Some(View::new(&*self.device, &self.models(), images)?);
        }
        let view = self.view.as_mut().context("a view was made")?;
        view.look().await?;
        Ok(view)
    }

    /// The step of one of the [`NAMES`], to be read and timed. It belongs to networks of its own, so that looking
    /// changes nothing.
    pub fn exam(&mut self, number: usize) -> Result<&mut Exam> {
        ensure!(number < NAMES.len(), "there is no network {number}");
        if self.exams[number].as_ref().is_none_or(|exam| exam.temperature != self.settings.temperature) {
            let settings = &self.settings;
            let teacher = network(settings, &settings.teacher, &self.train, 2)?;
            let (student, from) = match number {
                0 => (teacher, None),
                _ => (network(settings, &settings.student, &self.train, 1)?, Some(&teacher)),
            };
            let (method, share) = method(settings, number);
            let plan = plan(settings, 1, share);
            let exam = Exam::new(&*self.device, settings.temperature, |device| {
                Learner::new(device, student, from, method, &self.train, plan)
            });
            self.exams[number] = Some(exam?);
        }
        self.exams[number].as_mut().context("an exam was made")
    }

    /// Training images to look at: at first one of each class; then, of those seen, first such as the teacher is
    /// wrong about.
    async fn chosen(&mut self) -> Result<Vec<usize>> {
        let seen: Vec<usize> = (0..self.train.len().min(SEEN)).collect();
        if self.students.is_empty() {
            return Ok(view::choose(self.train.labels(), |_| false));
        }
        let seen = Arc::new(self.train.subset("seen", &seen));
        let mut wrong = Vec::new();
        let classes = self.train.classes().len();
        let note = |logits: &[f32], labels: &[u32]| {
            let rows = logits.chunks_exact(classes).zip(labels);
            wrong.extend(rows.map(|(row, &label)| row.iter().any(|&logit| logit > row[label as usize])));
        };
        self.teacher.test(&*self.device, &seen, note).await?;
        Ok(view::choose(seen.labels(), |image| wrong[image]))
    }

    fn new_students(&self) -> Result<Vec<Learner>> {
        let student = |number| {
            let (method, share) = method(&self.settings, number);
            // The same weights and the same order of images for all three.
            let model = network(&self.settings, &self.settings.student, &self.train, 1)?;
            let plan = plan(&self.settings, self.settings.student_epochs, share);
            Learner::new(&*self.device, model, Some(self.teacher.model()), method, &self.train, plan)
        };
        (1..NAMES.len()).map(student).collect()
    }
}

/// A new network for these images.
fn network(settings: &Settings, name: &str, images: &Dataset, salt: u64) -> Result<Model> {
    Ok(networks::build(name, images.classes().len(), settings.seed.wrapping_mul(4).wrapping_add(salt))?)
}

/// The method of one of the [`NAMES`], and its share of the learning rate.
fn method(settings: &Settings, number: usize) -> (Box<dyn Distiller>, f64) {
    let Settings { temperature, gate: gate_epoch, .. } = *settings;
    match NAMES[number] {
        "KD" => (Box::new(Kd { temperature, ..Kd::default() }), 1.0),
        "SLD" => {
            let temperatures = (1..=temperature.round() as u32).map(f64::from).collect();
            (Box::new(Sld { temperatures, gate_epoch, ..Sld::default() }), 0.5)
        }
        _ => (Box::new(Vanilla {}), 1.0),
    }
}

/// About as late in the epochs as in the published schedule (150, 180 and 210 of 240) the rate falls.
fn plan(settings: &Settings, epochs: usize, share: f64) -> Plan {
    let rate = Schedule::multi_step(settings.rate * share, &[epochs * 5 / 8, epochs * 7 / 8], 0.1);
    Plan { batch: settings.batch, epochs, rate, seed: settings.seed }
}

fn point(name: &'static str, progress: &Progress, test: Option<f64>) -> Point {
    let value = |metric| progress.get(metric).unwrap_or(f32::NAN);
    let swapped = progress.get(Metric::Observed(Observation::Swapped(Network::Teacher)));
    Point { name, loss: value(Metric::Loss), top1: value(Metric::Top1), swapped, test }
}
