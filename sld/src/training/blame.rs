//! Why a step gave numbers that are none.

use super::evaluate::Evaluator;
use super::snapshot::Progress;
use super::step::Metric;
use super::team::Team;
use crate::data::Dataset;
use crate::data::loader::Batch;

/// What became of the metrics of a step, whose fault that is, and what to do. `values` are the metrics', of which one is
/// not finite, and `batch` the images.
///
/// # Errors
/// The device's.
pub fn blame(
    team: Team,
    train: &Dataset,
    progress: &Progress,
    metrics: &[Metric],
    values: &[f32],
    mut batch: Batch,
) -> anyhow::Result<String> {
    let bad = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let measured = |&(metric, value): &(&Metric, &f32)| match metric {
        Metric::Term(name) => Some(format!("{name} {value}")),
        _ => None,
    };
    let terms: Vec<String> = metrics.iter().zip(values).filter_map(|pair| measured(&pair)).collect();
    let said = format!(
        "{} became {} in epoch {}, step {} ({})",
        metrics[bad].name(),
        values[bad],
        progress.epoch,
        progress.batch,
        terms.join(", ")
    );
    if let Some(teacher) = team.networks.teacher.as_ref().filter(|_| team.method.needs_teacher()) {
        let (rows, size) = (batch.images.len() / train.image_len(), [train.height(), train.width()]);
        let mut evaluator = Evaluator::compile(team.device, teacher, rows, size)?;
        if let Err(why) = evaluator.logits(&mut batch.images, train.name(), &batch.indices) {
            return Ok(format!("{said}: the teacher is to blame, not the student: {why}"));
        }
    }
    Ok(match progress.steps {
        1 => format!(
            "{said} before anything was learned: it is not SOLVER.LR; look at the method's temperatures and weights"
        ),
        _ => format!("{said}; a smaller SOLVER.LR usually helps"),
    })
}
