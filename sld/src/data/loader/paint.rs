//! From an image of a data set to a network's floats: its views, or its plain self.

use crate::augment::normalize::NormalizationTable;
use crate::augment::photo::{self, Photo, PhotoDraws};
use crate::augment::resample::Resampler;
use crate::augment::{Canvas, ViewDraws};
use crate::data::{DataError, Dataset, Files};
use crate::picture::Picture;

/// A thread's work areas.
#[derive(Default)]
pub struct Easel {
    canvas: Canvas,
    resampler: Resampler,
    contents: Vec<u8>,
    picture: Picture,
}

impl Easel {
    /// Image `index` without augmentation.
    pub fn plain(
        &mut self,
        data: &Dataset,
        table: &NormalizationTable,
        index: u32,
        out: &mut [f32],
    ) -> Result<(), DataError> {
        if let Some(values) = data.values(index as usize) {
            out.copy_from_slice(values);
            return Ok(());
        }
        let Some(files) = data.files() else {
            table.apply(data.image(index as usize), out);
            return Ok(());
        };
        self.read(files, index)?;
        let photo = photo(&self.picture);
        photo::evaluation_view(&mut self.resampler, &mut self.canvas, photo, files.resize(), data.width());
        table.apply(self.canvas.pixels(), out);
        Ok(())
    }

    /// The weak view of image `index` in an epoch of a run with `seed`, and the strong one where it is wanted.
    pub fn views(
        &mut self,
        data: &Dataset,
        table: &NormalizationTable,
        index: u32,
        (seed, epoch): (u64, u64),
        weak: &mut [f32],
        strong: Option<&mut [f32]>,
    ) -> Result<(), DataError> {
        if let Some(values) = data.values(index as usize) {
            weak.copy_from_slice(values);
            let strong = strong.map(|strong| {
                strong.copy_from_slice(values);
                strong
            });
            if let Some(augmentation) = data.augmentation() {
                augmentation.apply((seed, epoch), index, weak, strong);
            }
            return Ok(());
        }
        let (width, height) = (data.width(), data.height());
        let Some(files) = data.files() else {
            let image = data.image(index as usize);
            let draws = ViewDraws::new(seed, epoch, index.into(), width, height);
            draws.paint_weak(&mut self.canvas, image, width, height);
            table.apply(self.canvas.pixels(), weak);
            if let Some(strong) = strong {
                draws.paint_strong(&mut self.canvas, image, width, height);
                table.apply(self.canvas.pixels(), strong);
            }
            return Ok(());
        };
        self.read(files, index)?;
        let Self { canvas, resampler, picture, .. } = self;
        let photo = photo(picture);
        let draws = PhotoDraws::new(seed, epoch, index.into(), (photo.width, photo.height), width);
        draws.weak.apply(resampler, canvas, photo, width);
        table.apply(canvas.pixels(), weak);
        if let Some(strong) = strong {
            draws.strong.apply(resampler, canvas, photo, width);
            draws.randaugment.apply(canvas);
            table.apply(canvas.pixels(), strong);
        }
        Ok(())
    }

    fn read(&mut self, files: &Files, index: u32) -> Result<(), DataError> {
        files.read(index as usize, &mut self.contents, &mut self.picture).map(|_| ())
    }
}

fn photo(picture: &Picture) -> Photo<'_> {
    Photo { pixels: picture.pixels(), width: picture.width(), height: picture.height() }
}
