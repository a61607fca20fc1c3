//! What is known of a method.

/// What is known of a method beside its equations and constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The name in configs and reports.
    pub name: &'static str,
    /// What other repositories call it in their configs.
    pub aliases: &'static [&'static str],
    /// The name in words.
    pub title: &'static str,
    /// How many augmentations of each image it reads: 1 (weak) or 2 (weak and strong).
    pub views: usize,
    /// Whether it has a teacher.
    pub needs_teacher: bool,
    /// Whether the teacher normalises with the statistics of each batch, which move its own, as in training.
    /// Its parameters never change.
    pub teacher_in_training: bool,
    /// Whether it reads which image of the training set each view is of.
    pub knows_images: bool,
    /// The fewest images that a batch must have.
    pub smallest_batch: u32,
}

impl About {
    /// A method with a teacher that reads one view.
    pub const DEFAULT: About = About {
        name: "",
        aliases: &[],
        title: "",
        views: 1,
        needs_teacher: true,
        teacher_in_training: false,
        knows_images: false,
        smallest_batch: 1,
    };
}
