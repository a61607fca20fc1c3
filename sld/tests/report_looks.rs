//! Reports can be read: on paper, on a phone, in grey and with any kind of colour vision, by keyboard.
//!
//! What a browser makes of a page cannot be seen here; what it needs for it can.

mod sample;

use sld::report::{Run, render};

fn run(name: &str, distiller: &str, seed: u64) -> Run {
    Run {
        name: name.into(),
        info: sample::info(distiller, 240),
        metrics: sample::metrics(240, 75.0, distiller == "SLD", seed),
        evaluation: Some(sample::evaluation(100, 75.0)),
        config: sld::config::Config::default().to_yaml(),
    }
}

/// A report of one run, one of several, and one of a run of a single epoch.
fn reports() -> [String; 3] {
    let mut short = run("short", "SLD", 4);
    short.metrics.truncate(1);
    let several = [run("alone", "NONE", 2), run("kd", "KD", 3), run("sld", "SLD", 1)];
    [render(&[run("sld", "SLD", 1)]), render(&several), render(&[short])]
}

/// What stands between `from` and the next `to`, wherever it does.
fn between<'a>(text: &'a str, from: &str, to: &str) -> std::vec::IntoIter<&'a str> {
    let found: Vec<&str> =
        text.split(from).skip(1).map(|rest| &rest[..rest.find(to).expect("an end")]).collect();
    found.into_iter()
}

/// The value of an attribute.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    between(tag, &format!(" {name}=\""), "\"").next()
}

fn charts(html: &str) -> Vec<&str> {
    between(html, "<figure class=\"card chart\">", "</figure>").collect()
}

/// The texts of a drawing: attributes and content.
fn texts(svg: &str) -> Vec<(&str, &str)> {
    between(svg, "<text", "</text>").map(|text| text.split_once('>').unwrap()).collect()
}

/// A letter's width in font sizes, more than any common font's mean.
const LETTER: f64 = 0.6;

/// Where a level text lies: from and to.
fn extent(attributes: &str, text: &str, size: f64) -> (f64, f64) {
    let x: f64 = attribute(attributes, "x").unwrap().parse().unwrap();
    let width = LETTER * size * text.chars().count() as f64;
    match attribute(attributes, "text-anchor") {
        Some("end") => (x - width, x),
        Some("middle") => (x - width / 2.0, x + width / 2.0),
        _ => (x, x + width),
    }
}

#[test]
fn every_axis_says_what_it_is() {
    for html in reports() {
        assert!(!charts(&html).is_empty());
        for chart in charts(&html) {
            let axes: Vec<&str> = between(chart, "<text class=\"axis\"", "</text>")
                .map(|text| text.split_once('>').unwrap().1)
                .collect();
            assert!(matches!(axes[..], [quantity, "epoch"] if quantity.len() > 2), "{axes:?}");
        }
        for map in between(&html, "<figure class=\"card heat\">", "</figure>") {
            assert!(map.contains(">predicted class</text>") && map.contains(">true class</text>"));
        }
    }
}

#[test]
fn the_confusion_has_a_scale_of_its_shades() {
    let html = &reports()[0];
    let key = between(html, "<svg class=\"key\"", "</svg>").next().expect("a scale");
    let marks: Vec<&str> = texts(key).iter().map(|text| text.1).collect();
    for mark in ["right", "mistaken", "0", "2", "25", "100%"] {
        assert!(marks.contains(&mark), "{mark} of {marks:?}");
    }
    // A class taken for another in 20 of 100 images: between 14 and 25%, the fourth of eight shades.
    let mut run = run("two", "NONE", 1);
    let mut evaluation = sld::run::Evaluation::new(1, vec!["cat".into(), "dog".into()]);
    evaluation.confusion = vec![vec![80, 20], vec![0, 100]];
    run.evaluation = Some(evaluation);
    let html = render(&[run]);
    assert!(html.contains("<path class=\"wrong\" fill-opacity=\"0.50\" d=\"M1 0h1v1h-1z\"/>"));
    assert!(html.contains("<path class=\"right\" fill-opacity=\"1.00\" d=\"M0 0h1v1h-1zM1 1h1v1h-1z\"/>"));
}

#[test]
fn texts_of_charts_lie_on_their_paper() {
    for html in reports() {
        for chart in charts(&html) {
            let svg = &chart[chart.find("<svg viewBox=\"0 0 480 264\"").expect("the paper")..];
            // As large as on a phone.
            let mut written: Vec<(&str, f64, f64)> = Vec::new();
            for (attributes, text) in texts(svg) {
                let size = if attributes.contains("class=\"event\"") { 12.5 } else { 14.0 };
                let (from, to) = extent(attributes, text, size);
                assert!(from >= 0.0 && to <= 480.0, "{text}: {from} to {to}");
                let height = attribute(attributes, "y").unwrap();
                for &(other, start, end) in written.iter().filter(|other| other.0 == height) {
                    assert!(to <= start || end <= from, "{text} runs into another at {other}");
                }
                written.push((height, from, to));
            }
        }
    }
}

#[test]
fn lines_are_told_apart_without_colour() {
    // The shape of its marks, or its dashes, by the legend.
    let kinds = |chart: &str| -> Vec<String> {
        between(chart, "<li>", "</li>")
            .map(|item| {
                let marks = between(item, "<path class=\"marks", "/>").next();
                let shape = marks.map(|path| attribute(path, "d").unwrap().to_owned());
                shape.unwrap_or_else(|| format!("dashed: {}", item.contains(" dashed\"")))
            })
            .collect()
    };
    let many: Vec<Run> = (0..8).map(|i| run(&format!("run {i}"), "KD", i)).collect();
    for html in reports().into_iter().chain([render(&many)]) {
        for chart in charts(&html) {
            let mut kinds = kinds(chart);
            let all = kinds.len();
            kinds.sort();
            kinds.dedup();
            assert_eq!(kinds.len(), all, "{kinds:?} in {}", &chart[..200]);
        }
    }
    // Past the number of colours and marks, each pair of them is still another.
    let many: Vec<Run> = (0..20).map(|i| run(&format!("run {i}"), "KD", i)).collect();
    let html = render(&many);
    let legend = between(charts(&html)[0], "<ul class=\"legend\">", "</ul>").next().unwrap();
    let mut samples: Vec<&str> = between(legend, "<svg", "</svg>").collect();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples.len(), 20);
}

#[test]
fn marks_lie_on_their_line() {
    for html in reports() {
        for chart in charts(&html) {
            for marks in
                between(chart, "<path class=\"marks c", "/>").filter(|path| !path.contains("M14.0 6.0"))
            {
                let (colour, path) = (&marks[..1], attribute(marks, "d").unwrap());
                let line = between(chart, &format!("<path class=\"line c{colour}\""), "/>")
                    .find(|line| !line.contains("M1 6H27"))
                    .and_then(|line| attribute(line, "d"))
                    .unwrap();
                for place in path.split('M').skip(1) {
                    let end = place.find(['m', 'z']).unwrap();
                    let (x, y) = place[..end].split_once(' ').unwrap();
                    let at = [format!("{x} {y}"), format!("H{x}V{y}")];
                    assert!(at.iter().any(|at| line.contains(at)), "{at:?} in {line}");
                }
            }
        }
    }
}

#[test]
fn what_is_set_for_an_epoch_is_drawn_in_steps() {
    let html = &reports()[0];
    for chart in charts(html) {
        let line =
            between(chart, "<path class=\"line c", "/>").find(|line| !line.contains("M1 6H27")).unwrap();
        let line = attribute(line, "d").unwrap();
        match chart.contains("<h3>Learning rate</h3>") {
            true => assert!(line.contains("V") && !line.contains('L'), "{line}"),
            false => assert!(line.contains("L") && !line.contains('V'), "{line}"),
        }
    }
    // The gate opens in epoch 151 of 240 and stays open: the ground is tinted from there to the end.
    let opened = 58.0 + 408.0 * 150.0 / 239.0;
    let tinted = format!("<path class=\"gate\" d=\"M{opened:.1} 36H466.0V226.0H{opened:.1}z\"/>");
    assert!(html.matches(&tinted).count() >= 6, "{tinted}");
}

#[test]
fn names_of_classes_are_whole() {
    for (classes, letters) in [(2, 5), (10, 8), (10, 24), (10, 60), (30, 24), (31, 9), (100, 40)] {
        let mut run = run("names", "NONE", 1);
        let mut evaluation = sample::evaluation(classes, 60.0);
        let name = |i: usize| format!("{}{i:03}", "n".repeat(letters - 3));
        evaluation.classes = (0..classes).map(name).collect();
        run.evaluation = Some(evaluation);
        let html = render(&[run]);
        // In the list: the sheet cuts nothing off, and names stand there whole.
        let list = between(&html, "<div class=\"card bars\"", "<section>").next().unwrap();
        for i in 0..classes {
            assert!(list.contains(&format!("{}</span>", name(i))), "{}", name(i));
        }
        // At the map: on the paper, or a number that the list explains.
        let map = between(&html, "<figure class=\"card heat\">", "</figure>").next().unwrap();
        let paper: Vec<f64> =
            attribute(map, "viewBox").unwrap().split(' ').map(|edge| edge.parse().unwrap()).collect();
        let (right, bottom) = (paper[0] + paper[2], paper[1] + paper[3]);
        assert!(paper[2] <= 2.0 * classes as f64, "{classes} {letters}: names take more than the map");
        let svg = &map[..map.find("<g class=\"cursor\">").unwrap()];
        for group in between(svg, "<g class=\"names\"", "</g>") {
            let size: f64 = attribute(group, "font-size").unwrap().parse().unwrap();
            for (attributes, text) in texts(group) {
                match attribute(attributes, "transform") {
                    None => {
                        let (from, to) = extent(attributes, text, size);
                        let y: f64 = attribute(attributes, "y").unwrap().parse().unwrap();
                        // The title of the axis is left of it.
                        assert!(
                            from >= paper[0] + size && to <= right && y <= bottom,
                            "{classes} {letters} {text}"
                        );
                    }
                    Some(leaning) => {
                        let x: f64 = between(leaning, "translate(", " ").next().unwrap().parse().unwrap();
                        let length = LETTER * size * text.chars().count() as f64;
                        assert!(x + 0.5 * length <= right, "{classes} {letters}: {text} past the right edge");
                        assert!(-0.2 - 0.87 * length >= paper[1] + size, "{classes} {letters}: {text} above");
                    }
                }
                if let Ok(number) = text.parse::<usize>() {
                    assert!(list.contains(&format!("<small>{number}</small> {}<", name(number))), "{number}");
                }
            }
        }
    }
    assert!(!STYLE.contains("ellipsis"));
}

#[test]
fn best_and_hardest_are_named_only_where_it_is_no_chance() {
    let with = |rows: &[(u32, u32)]| {
        let n = rows.len();
        let mut run = run("few", "NONE", 1);
        let mut evaluation = sld::run::Evaluation::new(1, (0..n).map(|i| format!("class_{i}")).collect());
        for (i, (right, images)) in rows.iter().enumerate() {
            evaluation.confusion[i][i] = *right;
            evaluation.confusion[i][(i + 1) % n] += images - right;
        }
        run.evaluation = Some(evaluation);
        render(&[run])
    };
    // 20 images each: 12, 10, 9 and 8 right is what equal classes look like.
    let chance = with(&[(12, 20), (10, 20), (9, 20), (8, 20)]);
    assert!(!chance.contains("Hardest:") && !chance.contains("Best:") && chance.contains("No single class"));
    // The same shares of 2,000 images are not.
    let sure = with(&[(1200, 2000), (1000, 2000), (900, 2000), (800, 2000)]);
    assert!(sure.contains("Hardest: <b>class 3</b> with 40.0%"), "hardest");
    assert!(sure.contains("Best: <b>class 0</b> with 60.0%"), "best");
    // Two that are equally hard: neither is the hardest. All known: nothing is hard.
    let tie = with(&[(1200, 2000), (1000, 2000), (800, 2000), (800, 2000)]);
    assert!(!tie.contains("Hardest:"));
    assert!(!with(&[(20, 20), (20, 20)]).contains("Hardest:"));
    // Classes without test images have no accuracy, so none of 0%.
    let absent = with(&[(1200, 2000), (0, 0), (900, 2000), (800, 2000)]);
    assert!(absent.contains("Hardest: <b>class 3</b>") && !absent.contains("data-tip=\"class 1:"));
    check_bars(&absent, 3);
}

fn check_bars(html: &str, bars: usize) {
    assert_eq!(html.matches("<div class=\"bar\" data-tip=").count(), bars);
}

#[test]
fn everything_that_can_be_looked_into_can_be_reached_by_keyboard() {
    for html in reports() {
        for figure in between(&html, "<figure", "</figure>") {
            assert_eq!(figure.matches(" tabindex=\"0\"").count(), 1, "{}", &figure[..120]);
        }
        for list in between(&html, "<div class=\"card bars", ">") {
            assert!(list.contains(" tabindex=\"0\""), "{list}");
        }
        // Nothing is told by a title, which neither a finger nor the keyboard brings up.
        assert!(!html.contains(" title=\""));
    }
}

const STYLE: &str = include_str!("../src/report/style.css");

#[test]
fn nothing_scrolls_sideways_and_narrow_tables_keep_their_headings() {
    assert!(!STYLE.contains("overflow-x") && !STYLE.contains("overflow: auto"));
    for html in reports() {
        for table in between(&html, "<table class=\"comparison\">", "</table>") {
            let (_, table) = table.split_once("<thead>").unwrap();
            let headings: Vec<&str> =
                between(table, "<th", "</th>").map(|heading| heading.split_once('>').unwrap().1).collect();
            for row in between(table, "<tr class", "</tr>") {
                let of: Vec<&str> = between(row, " data-of=\"", "\"").collect();
                assert_eq!(of, headings);
            }
        }
    }
}

/// The eight colours and the ground they lie on, in the light and in the dark.
fn palettes() -> [(Vec<[f64; 3]>, [f64; 3]); 2] {
    let colour = |part: &str, name: &str| -> [f64; 3] {
        let hex = between(part, &format!("{name}: #"), ";").next().unwrap();
        [0, 2, 4].map(|i| {
            let value = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    };
    let dark = STYLE.find("prefers-color-scheme: dark").unwrap();
    [&STYLE[..dark], &STYLE[dark..]]
        .map(|part| ((0..8).map(|i| colour(part, &format!("--c{i}"))).collect(), colour(part, "--card")))
}

/// Each row times the vector.
fn times(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
    matrix.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum())
}

/// Björn Ottosson's OKLab of linear RGB: equal distances look equally far.
fn oklab(rgb: [f64; 3]) -> [f64; 3] {
    let cones = times(
        &[
            [0.412_221_47, 0.536_332_54, 0.051_445_99],
            [0.211_903_50, 0.680_699_55, 0.107_396_96],
            [0.088_302_46, 0.281_718_84, 0.629_978_70],
        ],
        rgb.map(|value| value.clamp(0.0, 1.0)),
    );
    times(
        &[
            [0.210_454_26, 0.793_617_79, -0.004_072_05],
            [1.977_998_50, -2.428_592_21, 0.450_593_71],
            [0.025_904_04, 0.782_771_77, -0.808_675_77],
        ],
        cones.map(f64::cbrt),
    )
}

/// What people see who have no cones for long, medium or short waves: Machado, Oliveira and Fernandes, *A
/// Physiologically-based Model for Simulation of Color Vision Deficiency* (2009).
const VISIONS: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
];

#[test]
fn colours_are_told_apart_by_every_kind_of_colour_vision() {
    for (colours, ground) in palettes() {
        let luminance = |rgb: [f64; 3]| 0.05 + 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
        for (vision, matrix) in VISIONS.iter().enumerate() {
            for i in 0..8 {
                for j in 0..i {
                    let [a, b] = [i, j].map(|i| oklab(times(matrix, colours[i])));
                    let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                    // About five just noticeable differences; the first four are in most reports.
                    let least = if i < 4 { 0.12 } else { 0.09 };
                    assert!(distance > least, "c{i} and c{j}, vision {vision}: {distance:.3}");
                }
            }
        }
        for (i, colour) in colours.iter().enumerate() {
            let (a, b) = (luminance(*colour), luminance(ground));
            // What WCAG 2 asks of drawings.
            assert!(a.max(b) / a.min(b) >= 3.0, "c{i}: {:.2}", a.max(b) / a.min(b));
        }
    }
}
