//! Images as batch files hold them: plane by plane.

/// Width and height of every image.
pub(super) const SIDE: usize = 32;
/// Values in one colour plane of an image.
pub(super) const PLANE: usize = SIDE * SIDE;

/// Images and labels of one or more batch files, before they are a [`Dataset`](crate::data::Dataset).
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) images: Vec<u8>,
    pub(super) labels: Vec<u32>,
}

impl Batch {
    /// Appends one image given plane by plane (R, G, B), interleaving its pixels.
    pub(super) fn push(&mut self, planes: &[u8], label: u32) {
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        let pixels = red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| [r, g, b]);
        self.images.extend(pixels.flatten());
        self.labels.push(label);
    }
}
