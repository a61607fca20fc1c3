//! The experiment, natively: what the page shows is what happened, and looking changes nothing.
#![cfg(not(target_family = "wasm"))]

use cpu::CpuDevice;
use schedule::pending::wait;
use web::lab::{Event, Lab, NAMES, Settings};

fn small() -> Settings {
    Settings {
        teacher: "perceptron16".into(),
        student: "perceptron8".into(),
        teacher_epochs: 2,
        student_epochs: 3,
        gate: 1,
        rate: 0.005,
        batch: 16,
        classes: 4,
        train: 64,
        test: 32,
        ..Settings::default()
    }
}

fn lab(settings: Settings) -> Lab {
    Lab::drawn(Box::new(CpuDevice::new(1)), settings).expect("an experiment")
}

/// All events; `between` is called after each.
fn run(lab: &mut Lab, mut between: impl FnMut(&mut Lab, usize)) -> Vec<Event> {
    let mut events = Vec::new();
    while !lab.is_done() {
        events.push(wait(lab.advance()).expect("a step"));
        between(lab, events.len());
    }
    events
}

#[test]
fn the_teacher_learns_first_then_three_students_side_by_side() {
    let events = run(&mut lab(small()), |_, _| ());
    let (teacher, students) = events.split_at(2 * 4);
    assert_eq!(students.len(), 3 * 4);
    assert!(teacher.iter().all(|event| event.teaching && event.points.len() == 1 && event.of == 8));
    for (number, event) in students.iter().enumerate() {
        let names: Vec<&str> = event.points.iter().map(|point| point.name).collect();
        assert_eq!(names, NAMES[1..]);
        assert_eq!((event.steps, event.of, event.epoch), (number + 1, 12, number / 4 + 1));
        assert_eq!(event.last, number == 11);
        // Tested at the end of an epoch; only SLD swaps.
        assert!(event.points.iter().all(|point| point.test.is_some() == (number % 4 == 3)));
        assert!(event.points.iter().all(|point| point.swapped.is_some() == (point.name == "SLD")));
    }
    // They begin with the same weights and the same batch, and are then taught differently.
    let [alone, kd, sld] = &students[0].points[..] else { panic!("three students") };
    assert_eq!((alone.top1, kd.top1), (kd.top1, sld.top1));
    assert_ne!(students[11].points[0].loss, students[11].points[1].loss);
    let loss = |events: &[Event]| events.iter().map(|event| event.points[0].loss).sum::<f32>();
    assert!(loss(&teacher[4..]) < loss(&teacher[..4]), "it learns");
}

#[test]
fn a_seed_gives_the_same_curves_however_one_looks() {
    let events = run(&mut lab(small()), |_, _| ());
    let looked = run(&mut lab(small()), |lab, step| {
        let view = wait(lab.view()).expect("a view");
        assert_eq!(view.probabilities.len(), if step <= 8 { 1 } else { 4 });
        if step == 10 {
            wait(lab.exam(3).expect("an exam").seconds()).expect("times");
        }
    });
    assert_eq!(events, looked);
    assert_ne!(
        events,
        run(&mut lab(Settings { seed: 1, ..small() }), |_, _| ()),
        "another seed, other curves"
    );
}

#[test]
fn what_is_adjusted_changes_what_follows_and_nothing_before() {
    let plain = run(&mut lab(small()), |_, _| ());
    let change = |rate, temperature, gate| {
        run(&mut lab(small()), move |lab, step| {
            if step == 10 {
                lab.adjust(rate, temperature, gate).expect("adjusted");
            }
        })
    };
    let same = change(0.005, 4.0, 1);
    assert_eq!(same, plain);
    // Of the students' points: by the rate all change, by the temperature those with a teacher, by the gate SLD.
    for (events, changed) in [
        (change(0.01, 4.0, 1), [true, true, true]),
        (change(0.005, 2.0, 1), [false, true, true]),
        (change(0.005, 4.0, 9), [false, false, true]),
    ] {
        assert_eq!(events[..10], plain[..10]);
        let last = events.iter().zip(&plain).last().expect("events");
        let points = last.0.points.iter().zip(&last.1.points);
        assert_eq!(points.map(|(a, b)| a.loss != b.loss).collect::<Vec<_>>(), changed);
    }
    let unknown = Settings { student: "perceptronX".into(), ..small() };
    assert!(Lab::drawn(Box::new(CpuDevice::new(1)), unknown).is_err(), "told at once");
    assert!(lab(small()).adjust(0.0, 4.0, 1).is_err() && lab(small()).adjust(0.1, 0.5, 1).is_err());
}

#[test]
fn the_view_shows_the_teachers_mistakes_put_right() {
    let mut lab = lab(small());
    let students = |lab: &Lab| lab.models().len() == 4;
    while !students(&lab) {
        wait(lab.advance()).expect("a step");
    }
    let view = wait(lab.view()).expect("a view");
    let largest = |row: &[f32]| row.iter().copied().fold(0.0, f32::max);
    let mut wrong = Vec::new();
    for ((before, after), &label) in
        view.probabilities[0].iter().zip(&view.swapped).zip(view.images().labels())
    {
        assert_eq!(after[label as usize], largest(before), "the true class gets the largest probability");
        wrong.push(before[label as usize] < largest(before));
        assert_eq!(before == after, !wrong[wrong.len() - 1], "and nothing changes where it has it");
    }
    assert!(wrong[0] && wrong.is_sorted_by(|a, b| a >= b), "mistakes come first: {wrong:?}");
    for (filters, hidden) in view.filters.iter().zip([16, 8, 8, 8]) {
        assert_eq!((filters.weights.len(), filters.size), (hidden * 32 * 32 * 3, [32, 32]));
        assert!(filters.changes.len() == filters.weights.len() && filters.changes != filters.weights);
    }
}

#[test]
fn every_kernel_has_a_time_and_a_program() {
    let mut lab = lab(small());
    for number in 0..NAMES.len() {
        let exam = lab.exam(number).expect("an exam");
        let rows = exam.rows.clone();
        assert!(
            rows.len() > 3 && rows.iter().enumerate().all(|(at, row)| row.from.iter().all(|&from| from < at))
        );
        assert!(rows.iter().any(|row| row.part == "backward") && rows.iter().any(|row| row.part == "update"));
        let seconds = wait(exam.seconds()).expect("times");
        assert!(
            seconds.len() == rows.len()
                && seconds.iter().all(|&s| s >= 0.0)
                && seconds.iter().sum::<f64>() > 0.0
        );
        // Of the CPU device, too: what WebGPU would run.
        let has_program = |kernel| exam.source(kernel).expect("a program").contains("@compute");
        assert!((0..rows.len()).all(has_program));
        assert!(exam.source(rows.len()).is_err());
    }
}

#[test]
fn photos_are_a_task_like_any_other() {
    // Red and blue pictures.
    let photo = |class: u32, number: usize| {
        let level = 200 + (number * 7) as u8;
        let pixel = if class == 0 { [level, 20, 20] } else { [20, 20, level] };
        pixel.repeat(32 * 32)
    };
    let labels: Vec<u32> = (0..12).map(|number| number % 2).collect();
    let images: Vec<u8> =
        labels.iter().enumerate().flat_map(|(number, &class)| photo(class, number / 2)).collect();
    let names = ["red", "blue"].map(String::from).to_vec();
    let make = |labels: &[u32], names: &[String]| {
        let images = images[..labels.len() * 32 * 32 * 3].to_vec();
        Lab::photos(Box::new(CpuDevice::new(1)), small(), images, labels.to_vec(), names.to_vec())
    };
    let mut lab = make(&labels, &names).expect("an experiment");
    assert_eq!((lab.train().len() % 8, lab.test().len()), (0, 4), "one in four is kept for the test");
    let events = run(&mut lab, |_, _| ());
    let tests: Vec<f64> = events[events.len() - 1].points.iter().filter_map(|point| point.test).collect();
    assert_eq!(tests, [1.0; 3], "anybody can tell red from blue");
    let message = |result: anyhow::Result<Lab>| result.err().expect("an error").to_string();
    assert!(message(make(&labels[..3], &names)).contains("`blue` needs two photos"));
    assert!(message(make(&[0, 0], &names[..1])).contains("two classes"));
}
