//! Chapter 10: distillation and the swap, on what two real networks say about twelve real pictures.

use autograd::{Result, Tensor, grad};
use sld::distill::{self, Distiller, Kd, Sld, swap};

use crate::picture::{GREY, Picture};

/// What was recorded: see the file's first lines.
const RECORDED: &str = include_str!("batch.txt");

/// Twelve pictures of CIFAR-100 in the eyes of two networks.
pub struct Batch {
    pub classes: Vec<String>,
    pub labels: Vec<usize>,
    /// A row of logits a picture.
    pub teacher: Vec<Vec<f32>>,
    pub student: Vec<Vec<f32>>,
}

impl Batch {
    pub fn recorded() -> Batch {
        let mut lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
        let classes = lines.next().unwrap_or("").split(' ').map(String::from).collect();
        let mut batch = Batch { classes, labels: vec![], teacher: vec![], student: vec![] };
        for line in lines {
            let numbers = |part: Option<&str>| -> Vec<f32> {
                part.unwrap_or("").split_whitespace().filter_map(|number| number.parse().ok()).collect()
            };
            let mut parts = line.split('|');
            batch.labels.extend(numbers(parts.next()).first().map(|&label| label as usize));
            batch.teacher.push(numbers(parts.next()));
            batch.student.push(numbers(parts.next()));
        }
        batch
    }

    fn tensor(&self, rows: &[Vec<f32>]) -> Tensor {
        Tensor::constant(&[rows.len(), self.classes.len()], rows.concat())
    }

    pub fn teacher(&self) -> Tensor {
        self.tensor(&self.teacher)
    }
    pub fn student(&self) -> Tensor {
        self.tensor(&self.student)
    }
    pub fn labels(&self) -> Tensor {
        let labels = self.labels.iter().map(|&label| label as f32).collect();
        Tensor::constant(&[self.labels.len()], labels).to_integer()
    }
}

/// Each row's classes, the most probable first, with their probabilities.
fn ranked(logits: &Tensor, temperature: f64) -> Result<Vec<Vec<(usize, f64)>>> {
    let probabilities = (logits / temperature).softmax(1).evaluate()?;
    let ranked = probabilities.chunks(logits.dim(1)).map(|row| {
        let mut row: Vec<(usize, f64)> = row.iter().copied().enumerate().collect();
        row.sort_by(|a, b| b.1.total_cmp(&a.1));
        row
    });
    Ok(ranked.collect())
}

// ANCHOR: softened
/// The first picture in the teacher's eyes, at several temperatures.
pub fn softened() -> Result<()> {
    let batch = Batch::recorded();
    println!("a picture of class {}", batch.classes[batch.labels[0]]);
    for temperature in [1.0, 2.0, 4.0] {
        let ranked = ranked(&batch.teacher(), temperature)?;
        let best = ranked[0].iter().take(5).map(|&(c, p)| format!("{} {p:.3}", batch.classes[c]));
        println!("T = {temperature}: {}", best.collect::<Vec<_>>().join(", "));
    }
    Ok(())
}
// ANCHOR_END: softened

// ANCHOR: squared
/// How strongly the softened divergence pulls, with and without the factor T².
pub fn squared() -> Result<()> {
    let batch = Batch::recorded();
    let (s, t) = (batch.student(), batch.teacher());
    println!("T    gradient   times T²");
    for temperature in [1.0, 2.0, 4.0, 8.0] {
        let divergence = (&s / temperature).kl_divergence(&(&t / temperature)).mean_all();
        let gradient = grad(&divergence, std::slice::from_ref(&s))[0].square().sum_all().sqrt();
        let size = gradient.evaluate()?[0];
        println!("{temperature}  {size:10.4} {:10.4}", size * temperature * temperature);
    }
    Ok(())
}
// ANCHOR_END: squared

// ANCHOR: swapped
/// What the swap does to each picture.
pub fn swapped() -> Result<()> {
    let batch = Batch::recorded();
    let before = ranked(&batch.teacher(), 1.0)?;
    let after = ranked(&swap(&batch.teacher(), &batch.labels()), 1.0)?;
    let of =
        |row: &[(usize, f64)], class: usize| row.iter().find(|entry| entry.0 == class).map_or(0.0, |e| e.1);
    println!("picture of       teacher says            of the class: before   after");
    for (i, &label) in batch.labels.iter().enumerate() {
        let (answer, sure) = before[i][0];
        println!(
            "{:<16} {:<16} {sure:.2}           {:14.3}   {:.3}{}",
            batch.classes[label],
            batch.classes[answer],
            of(&before[i], label),
            of(&after[i], label),
            if answer == label { "" } else { "  swapped" }
        );
    }
    Ok(())
}
// ANCHOR_END: swapped

// ANCHOR: pulls
/// Where a picture's logits are pulled that the teacher is wrong about: minus the gradient.
pub fn pulls() -> Result<()> {
    let batch = Batch::recorded();
    let answers: Vec<usize> = ranked(&batch.teacher(), 1.0)?.iter().map(|row| row[0].0).collect();
    let Some(wrong) = (0..answers.len()).find(|&i| answers[i] != batch.labels[i]) else { return Ok(()) };
    let (label, answer) = (batch.labels[wrong], answers[wrong]);
    println!("a {} that the teacher takes for a {}:", batch.classes[label], batch.classes[answer]);

    let (s, t) = (batch.student(), batch.teacher());
    let soft = |target: &Tensor| (&s / 4.0).kl_divergence(&(target / 4.0)).sum_all() * 16.0;
    for (name, loss) in [
        ("labels alone", s.cross_entropy(&batch.labels()).sum_all()),
        ("the teacher as it is", soft(&t)),
        ("the teacher, swapped", soft(&swap(&t, &batch.labels()))),
    ] {
        let gradient = grad(&loss, std::slice::from_ref(&s)).remove(0).evaluate()?;
        let pull = |class: usize| -gradient[wrong * batch.classes.len() + class];
        println!(
            "{name:<21} {}: {:+.3}, {}: {:+.3}",
            batch.classes[label],
            pull(label),
            batch.classes[answer],
            pull(answer)
        );
    }
    Ok(())
}
// ANCHOR_END: pulls

// ANCHOR: terms
/// The loss of the batch by three methods, term by term.
pub fn terms() -> Result<()> {
    let batch = Batch::recorded();
    // Recorded without distortion, so that both views of a picture are the same here.
    let twice = |rows: Tensor| Tensor::concatenate(&[&rows, &rows], 0);
    for (name, distiller, factor) in [
        ("KD", Box::new(Kd::default()) as Box<dyn Distiller>, 1.0),
        ("SLD, before the gate", Box::new(Sld::default()), 0.0),
        ("SLD, after it", Box::new(Sld::default()), 1.0),
    ] {
        let (student, teacher) = (twice(batch.student()), twice(batch.teacher()));
        let factor = Tensor::scalar(factor);
        let seen = distill::Batch::of_logits(student, Some(teacher), batch.labels(), factor);
        let loss = distiller.loss(&seen, &mut nn::layers::Modules::new(0));
        print!("{name:<21} {:8.3} =", loss.total.evaluate()?[0]);
        for (term, value) in &loss.terms {
            print!("  {term} {:.3}", value.evaluate()?[0]);
        }
        println!();
    }
    Ok(())
}
// ANCHOR_END: terms

/// For each picture, how the probability is divided among the classes, before and after the swap.
fn strips(of: &str, logits: Tensor, batch: &Batch) -> Result<String> {
    let (row, left, width) = (26.0, 108.0, 250.0);
    let rows = batch.labels.len() as f64;
    let mut picture = Picture::new(left + 2.0 * width + 60.0, 78.0 + row * rows);
    picture.text(
        (16.0, 20.0),
        "start",
        "black",
        &format!("How {of} divides its probability among the classes"),
    );
    picture.text((left, 44.0), "start", GREY, "as it is");
    picture.text((left + width + 30.0, 44.0), "start", GREY, "after the swap");
    let sides = [ranked(&logits, 1.0)?, ranked(&swap(&logits, &batch.labels()), 1.0)?];
    for (i, &label) in batch.labels.iter().enumerate() {
        let top = 54.0 + row * i as f64;
        picture.text((left - 8.0, top + 15.0), "end", "black", &batch.classes[label]);
        for (side, ranked) in sides.iter().enumerate() {
            let start = left + side as f64 * (width + 30.0);
            let mut at = start;
            // The six largest, and the label's wherever it is.
            for (place, &(class, probability)) in ranked[i].iter().enumerate() {
                let own = class == label;
                if place >= 6 && !own {
                    continue;
                }
                let length = width * probability;
                let colour = match (own, place) {
                    (true, _) => "#1b8a5a",
                    (false, 0) => "#d95f02",
                    _ => "#c8c8c8",
                };
                picture.rectangle((at, top), (length, row - 6.0), colour, "white");
                if length > 60.0 {
                    let room = (length / 7.5) as usize;
                    let name: String = batch.classes[class].chars().take(room).collect();
                    let ink = if own || place == 0 { "white" } else { "black" };
                    picture.text((at + length / 2.0, top + 14.5), "middle", ink, &name);
                }
                at += length;
            }
            picture.rectangle((start, top), (width, row - 6.0), "none", "#bbbbbb");
        }
    }
    picture.text((left, 68.0 + row * rows), "start", "#1b8a5a", "green: the true class");
    picture.text(
        (left + width + 30.0, 68.0 + row * rows),
        "start",
        "#d95f02",
        "orange: a wrong first answer",
    );
    Ok(picture.svg())
}

pub fn teacher_picture() -> Result<String> {
    let batch = Batch::recorded();
    strips("the teacher", batch.teacher(), &batch)
}

pub fn student_picture() -> Result<String> {
    let batch = Batch::recorded();
    strips("a student after three epochs", batch.student(), &batch)
}
