//! What a step trains, and from whom.

use autograd::{Error, Tensor, Variable, VariableStore, scope};
use nn::layers::{Forward, Kind, Modules, StateEntry};
use nn::models;
use nn::optimizer::{Losses, Optimizer};
use nn::{Adaptive, Average, Clipped, Dot, Model, Rule, Sgd, SgdOptions};

use crate::augment::Mixing;
use crate::distill::{Batch, Distiller, METHODS, Target};

/// The networks of a run, what its method trains beside them, and the optimizer.
pub struct Networks {
    /// The network that learns.
    pub student: Model,
    /// In evaluation mode, so that its state never changes, but for methods whose
    /// [`crate::distill::About::teacher_in_training`] says otherwise.
    pub teacher: Option<Model>,
    /// Parameters and buffers that belong to the method.
    pub modules: Vec<StateEntry>,
    /// An average of the student's weights over training, and the network that has it: what is evaluated and saved in
    /// the student's place.
    pub average: Option<(Average, Model)>,
    /// Of the student's parameters, then the modules'.
    pub optimizer: Box<dyn Optimizer>,
    /// Whether wide residual networks update three batch norms twice a forward, as the reference's do.
    pub repeat_wrn_updates: bool,
    /// The number of training images.
    pub images: usize,
    /// [`Setup::smoothing`].
    pub smoothing: f64,
    /// [`Setup::mixing`].
    pub mixing: Option<Mixing>,
    teacher_learns: bool,
}

/// What a run's networks are made with, beside the networks.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Momentum and weight decay of SGD.
    pub options: SgdOptions,
    /// The rule of an optimizer other than SGD; the options are not read then.
    pub rule: Option<Rule>,
    /// The most that the gradients may be long together.
    pub clip: Option<f64>,
    /// For a distillation-oriented optimizer ([`Dot`]): the difference of its momenta to the options'.
    pub dot: Option<f64>,
    /// See [`Networks::repeat_wrn_updates`].
    pub repeat_wrn_updates: bool,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// The number of training images.
    pub images: usize,
    /// The part of each label that is spread over all classes.
    pub smoothing: f64,
    /// How images are mixed in pairs, if they are.
    pub mixing: Option<Mixing>,
    /// Seeds the modules' initial values.
    pub seed: u64,
}

impl Default for Setup {
    /// A data set of CIFAR's images, as many as there are.
    fn default() -> Setup {
        let options = SgdOptions::default();
        Setup {
            options,
            rule: None,
            clip: None,
            dot: None,
            repeat_wrn_updates: true,
            size: [32, 32],
            images: 50_000,
            smoothing: 0.0,
            mixing: None,
            seed: 1,
        }
    }
}

/// Images in the batch on which modules are made; any number that no layer refuses.
const PROBE: usize = 4;

impl Networks {
    /// Makes the modules of `distiller` for these networks, by writing its equations for them once, and
    /// the optimizer.
    ///
    /// # Errors
    /// The method cannot take this pair: why, and which networks it would take instead.
    pub fn new(
        student: Model,
        teacher: Option<Model>,
        distiller: &dyn Distiller,
        setup: Setup,
    ) -> anyhow::Result<Networks> {
        let mut networks = Networks::without_modules(student, teacher, setup);
        let (batch, _) = networks.pass(distiller, PROBE, setup.size, None);
        for output in [Some(&batch.student), batch.teacher.as_ref()].into_iter().flatten() {
            output.logits.check()?;
        }
        let (modules, losses) = networks.make_modules(distiller, setup).map_err(|why| {
            let why = match why {
                Error::Expression { message, .. } => message,
                other => other.to_string(),
            };
            let teacher = networks.teacher.as_ref().map_or("no teacher", Model::name);
            let student = networks.student.name();
            let name = distiller.name();
            if let Some(mixing) = mixable(&networks, distiller, setup) {
                return anyhow::anyhow!(
                    "{name} cannot learn from mixed images (SOLVER.MIXUP, SOLVER.CUTMIX): {why}{mixing}"
                );
            }
            let fitting = fitting(&networks, distiller, setup);
            anyhow::anyhow!("{name} cannot take {teacher} -> {student}: {why}{fitting}")
        })?;
        networks.modules = modules.state().to_vec();
        networks.teacher_learns = distiller.about().teacher_in_training;
        let learned = networks.modules.iter().filter(|entry| entry.kind == Kind::Parameter);
        let mut parameters = networks.student.parameters();
        parameters.extend(learned.map(|entry| entry.variable.clone()));
        networks.optimizer = match (setup.dot, setup.rule) {
            (Some(delta), _) => Box::new(Dot::new(&parameters, &losses, setup.options, delta)),
            (None, Some(rule)) => Box::new(Adaptive::new(&parameters, rule)),
            (None, None) => Box::new(Sgd::new(&parameters, setup.options)),
        };
        if let Some(most) = setup.clip {
            networks.optimizer = Box::new(Clipped::new(networks.optimizer, most));
        }
        Ok(networks)
    }

    /// With an average of the student over training, in `average`, a network of the same kind.
    ///
    /// # Errors
    /// It is another network.
    pub fn averaged(mut self, average: Model, decay: f64) -> nn::Result<Networks> {
        self.average = Some((Average::new(&self.student, &average, decay)?, average));
        Ok(self)
    }

    /// What is evaluated, and saved as the result: the average, or without one the student.
    pub fn result(&self) -> &Model {
        self.average.as_ref().map_or(&self.student, |(_, model)| model)
    }

    /// A step's updates with those of the average.
    pub(super) fn and_average(&self, mut updates: Vec<(Variable, Tensor)>) -> Vec<(Variable, Tensor)> {
        if let Some((average, _)) = &self.average {
            updates.extend(average.updates(&updates));
        }
        updates
    }

    fn without_modules(student: Model, teacher: Option<Model>, setup: Setup) -> Networks {
        let Setup { options, repeat_wrn_updates, images, smoothing, mixing, .. } = setup;
        let optimizer = Box::new(Sgd::new(&[], options));
        Networks {
            student,
            teacher,
            modules: Vec::new(),
            average: None,
            optimizer,
            repeat_wrn_updates,
            images,
            smoothing,
            mixing,
            teacher_learns: false,
        }
    }

    fn make_modules(&self, distiller: &dyn Distiller, setup: Setup) -> Result<(Modules, Losses), Error> {
        // Of another sequence than the student's, which the seed itself gives.
        let mut modules = Modules::new(!setup.seed);
        let (batch, _) = self.pass(distiller, PROBE, setup.size, None);
        let loss = distiller.loss(&batch, &mut modules);
        loss.total.check()?;
        Ok((modules, loss.losses()))
    }

    /// Both networks on a batch of `size` images, and what that changes of their running statistics. These are of
    /// `synchronized` images in all processes, if it is given ([`Forward::synchronized`]).
    pub fn pass(
        &self,
        distiller: &dyn Distiller,
        size: usize,
        [height, width]: [usize; 2],
        synchronized: Option<usize>,
    ) -> (Batch, Vec<(Variable, Tensor)>) {
        let about = distiller.about();
        let images = Tensor::input("images", &[about.views * size, height, width, self.student.channels()]);
        let training = || {
            let forward = among(Forward::train(about.views), size, synchronized);
            if self.repeat_wrn_updates { forward } else { forward.without_repeated_updates() }
        };
        let mut updates = Vec::new();
        // The teacher first: what it computes on the way is gone before the student's activations, which are kept
        // for the gradient, need room.
        let teacher = self.teacher.as_ref().filter(|_| about.needs_teacher).map(|model| {
            let _part = scope::part("teacher");
            let mut forward = if about.teacher_in_training { training() } else { Forward::eval() };
            let output = model.forward(&images, &mut forward);
            updates.extend(forward.into_updates());
            output
        });
        let mut forward = training();
        let student = {
            let _part = scope::part("student");
            self.student.forward(&images, &mut forward)
        };
        updates.extend(forward.into_updates());
        let factor = match distiller.factor(1) {
            Some(_) => Tensor::input("factor", &[]),
            None => Tensor::scalar(1.0),
        };
        let labels = |name: &str| Tensor::input_i32(name, &[size]);
        let mut target = Target::from(labels("labels")).smoothed(self.smoothing);
        if self.mixing.is_some() {
            target = target.mixed(labels("others"), Tensor::input("own_share", &[]));
        }
        (Batch::new(student, teacher, target, factor, self.images), updates)
    }

    /// The layers of the method's own for such a batch.
    pub fn own(&self, size: usize, synchronized: Option<usize>) -> Modules {
        let mut modules = Modules::of(&self.modules);
        modules.forward = among(modules.forward, size, synchronized);
        modules
    }

    /// The teacher, where its statistics move as the student's do.
    pub fn learning_teacher(&self) -> Option<&Model> {
        self.teacher.as_ref().filter(|_| self.teacher_learns)
    }

    /// Whether training can go on from the state on `device`: all of it is finite, and no variance negative.
    ///
    /// # Errors
    /// The first value that is not, and where; the device's.
    pub fn check(&self, device: &dyn VariableStore) -> nn::Result<()> {
        let average = self.average.as_ref().map(|(_, model)| model);
        for model in [Some(&self.student), self.learning_teacher(), average].into_iter().flatten() {
            model.check(device)?;
        }
        nn::check_state(&self.modules, device)?;
        self.optimizer.check(device)
    }

    /// Bytes of both networks, the modules and the optimizer's state.
    pub fn state_bytes(&self) -> u64 {
        let average = self.average.as_ref().map(|(_, model)| model);
        let models = [Some(&self.student), self.teacher.as_ref(), average];
        let models = models.into_iter().flatten().flat_map(Model::state);
        let values: usize = models.chain(&self.modules).map(|entry| entry.variable.len()).sum();
        let kept: usize = self.optimizer.state().iter().map(Variable::len).sum();
        4 * (values + kept) as u64
    }

    /// Values in parameters and memories that belong to the method, running statistics apart.
    pub fn extra_values(&self) -> usize {
        let counted = self.modules.iter().filter(|e| matches!(e.kind, Kind::Parameter | Kind::Memory));
        counted.map(|entry| entry.variable.len()).sum()
    }
}

/// Synchronizes a pass of `own` images with other processes, if they are `all` together. Input: `share` `[]`.
fn among(forward: Forward, own: usize, all: Option<usize>) -> Forward {
    match all {
        Some(all) => forward.synchronized(&Tensor::input("share", &[]), own, all),
        None => forward,
    }
}

/// What could be used instead, if the method takes this pair but no mixed images: the end of a sentence.
fn mixable(networks: &Networks, distiller: &dyn Distiller, setup: Setup) -> Option<String> {
    let pair = |setup: Setup| {
        let Networks { student, teacher, .. } = networks;
        Networks::without_modules(student.clone(), teacher.clone(), setup)
    };
    setup.mixing?;
    pair(Setup { mixing: None, ..setup }).make_modules(distiller, Setup { mixing: None, ..setup }).ok()?;
    let mixed = pair(setup);
    let methods = METHODS.iter().map(|method| method.make());
    let taught = |method: &Box<dyn Distiller>| networks.teacher.is_some() || !method.needs_teacher();
    let fit = methods.filter(taught).filter(|method| mixed.make_modules(&**method, setup).is_ok());
    let names: Vec<&str> = fit.map(|method| method.about().name).collect();
    Some(format!(
        "\n  methods that can, of these networks: {}\n  SOLVER.LABEL_SMOOTHING is for all methods",
        names.join(", ")
    ))
}

/// Which students the method would take from this teacher, and from which teachers this student could
/// learn by it: the end of a sentence.
fn fitting(networks: &Networks, distiller: &dyn Distiller, setup: Setup) -> String {
    let Some(teacher) = &networks.teacher else { return String::new() };
    let (student, classes) = (&networks.student, networks.student.classes());
    let takes = |teacher: &str, student: &str| {
        let build = |name: &str| models::outline(name, classes).ok();
        let (Some(teacher), Some(student)) = (build(teacher), build(student)) else { return false };
        let pair = Networks::without_modules(student, Some(teacher), setup);
        pair.make_modules(distiller, setup).is_ok()
    };
    let alike = |name: &&str| name.starts_with("imagenet/") == student.name().starts_with("imagenet/");
    let students = models::names().filter(alike).filter(|name| takes(teacher.name(), name));
    let teachers = models::names().filter(alike).filter(|name| takes(name, student.name()));
    let (students, teachers): (Vec<_>, Vec<_>) = (students.collect(), teachers.collect());
    let list = |names: &[&str]| if names.is_empty() { "none".into() } else { names.join(", ") };
    format!(
        "\n  students it takes from {}: {}\n  teachers it takes for {}: {}",
        teacher.name(),
        list(&students),
        student.name(),
        list(&teachers)
    )
}
