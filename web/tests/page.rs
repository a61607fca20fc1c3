//! The page in headless Chromium, from its start to the table at its end. `scripts/web_test` builds the site and
//! runs this; SITE names its folder, SCREENSHOTS one for pictures to look at.
#![cfg(not(target_family = "wasm"))]

mod browser;

use std::path::PathBuf;

use browser::{Browser, serve};
use serde_json::Value;

/// A task and networks so small that a software driver is done in seconds.
const SMALL: &str =
    "classes=4&train=128&test=32&teacher=perceptron32&student=perceptron16&epochs=3&batch=32&rate=0.01";

fn site() -> String {
    serve(std::env::var_os("SITE").map(PathBuf::from).expect("SITE: the folder that scripts/web has built"))
}

fn screenshot(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        browser.screenshot(&PathBuf::from(folder).join(name));
    }
}

fn text(browser: &Browser, script: &str) -> String {
    browser.run(&format!("return {script}")).as_str().unwrap_or_default().to_string()
}

/// Presses start and waits for the result; the curves as they are then.
fn train(browser: &Browser) -> Value {
    browser.wait(60, "!document.getElementById('start').disabled");
    browser.click("#start");
    browser.wait(300, "document.getElementById('table-caption').textContent === 'Result'");
    browser.run("return [...document.querySelectorAll('#accuracy > svg path[class*=c-]')].map((path) => path.getAttribute('d'))")
}

#[test]
#[ignore = "needs a browser: scripts/web_test"]
fn a_page_distils_on_webgpu() {
    let (site, browser) = (site(), Browser::open(&[]));
    browser.resize(1280, 900, false);
    browser.visit(&format!("{site}/?{SMALL}"));
    let first = train(&browser);
    let device = text(&browser, "document.getElementById('device').textContent");
    assert!(device.contains("BrowserWebGpu"), "trained on {device}");

    // The curves moved, and the table holds four results.
    let lines = "document.querySelectorAll('#accuracy > svg path.line')";
    browser.wait(10, &format!("{lines}.length >= 4 && [...{lines}].every((path) => path.getAttribute('d').split('L').length >= 2)"));
    let cells = browser.run("return [...document.querySelectorAll('#table tbody td:nth-child(4)')].map((cell) => cell.textContent)");
    let cells: Vec<&str> = cells.as_array().expect("cells").iter().filter_map(Value::as_str).collect();
    assert!(cells.len() == 4 && cells.iter().all(|cell| cell.ends_with('%')), "{cells:?}");
    assert_eq!(browser.run("return document.querySelectorAll('.picture .students').length"), 8);
    assert_eq!(browser.run("return document.querySelectorAll('#filters figure').length"), 4);

    // The step's kernels, timed, and the program of the one that is chosen by key.
    browser.click("#show");
    browser.wait(120, "document.querySelectorAll('#kernels button').length > 10");
    browser.click("#time");
    browser.wait(120, "/ms in all|µs in all|cannot/.test(document.getElementById('total').textContent)");
    let total = text(&browser, "document.getElementById('total').textContent");
    assert!(total.contains("in all"), "{total}");
    browser.run("document.querySelector('#kernels button').focus()");
    let down = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true }))";
    browser.run(down);
    browser.wait(60, "document.getElementById('wgsl').textContent.includes('@compute') && document.getElementById('wgsl-title').textContent.startsWith('1:')");

    for (width, height, name) in [(1280, 900, "desktop"), (390, 844, "phone")] {
        browser.resize(width, height, width < 500);
        for dark in [false, true] {
            browser.prefer(dark, true);
            browser.wait(
                10,
                &format!(
                    "document.querySelector('#accuracy > svg').getAttribute('viewBox').split(' ')[2] <= {width}"
                ),
            );
            let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
            assert!(
                overflow.as_i64().is_some_and(|overflow| overflow <= 0),
                "{width} px: {overflow} too wide"
            );
            screenshot(&browser, &format!("{name}-{}.png", if dark { "dark" } else { "light" }));
        }
    }
    assert_eq!(browser.errors(), Vec::<String>::new());

    // The same seed, the same curves, also if it is stopped and goes on by single steps.
    browser.resize(1280, 900, false);
    browser.click("#restart");
    browser.wait(60, "!document.getElementById('step').disabled");
    browser.click("#step");
    browser.wait(60, "document.getElementById('state').textContent.includes('step 1 of')");
    assert_eq!(train(&browser), first);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a browser: scripts/web_test"]
fn without_webgpu_the_page_says_so_and_goes_on() {
    let (site, browser) = (site(), Browser::open(&["webgpu"]));
    browser.visit(&format!("{site}/?{SMALL}"));
    train(&browser);
    let notice = text(&browser, "document.getElementById('notice').textContent");
    assert!(notice.contains("WebGPU") && notice.contains("goes on without it"), "{notice}");
    assert!(text(&browser, "document.getElementById('device').textContent").starts_with("CPU (1 thread"));

    // Each part by itself, as a book embeds it.
    let names =
        browser.run("return [...document.querySelectorAll('[data-part]')].map((part) => part.dataset.part)");
    let names: Vec<&str> = names.as_array().expect("parts").iter().filter_map(Value::as_str).collect();
    assert!(names.len() > 5, "{names:?}");
    let shown = "[...document.querySelectorAll('[data-part]')].filter((part) => part.offsetHeight).map((part) => part.dataset.part).join()";
    for name in names.iter().filter(|name| **name != "schedule").chain(&["schedule"]) {
        browser.visit(&format!("{site}/?{SMALL}&part={name}"));
        browser.wait(60, "!document.getElementById('start').disabled");
        assert_eq!(text(&browser, shown), *name);
    }
    browser.click("#show");
    browser.wait(60, "document.getElementById('wgsl').textContent.includes('@compute')");

    // Photos are dropped, and taught.
    browser.visit(&format!("{site}/?{SMALL}"));
    browser.wait(60, "!document.getElementById('start').disabled");
    browser.run(
        "window.dropped = (async () => {
            for (const [bin, colour] of [...document.querySelectorAll('.bin')].slice(0, 2).map((bin, i) => [bin, ['crimson', 'navy'][i]])) {
                const files = new DataTransfer();
                for (let size = 40; size < 46; size++) {
                    const canvas = new OffscreenCanvas(size, 60);
                    const context = canvas.getContext('2d');
                    context.fillStyle = colour;
                    context.fillRect(0, 0, size, 60);
                    files.items.add(new File([await canvas.convertToBlob()], `${colour}${size}.png`, { type: 'image/png' }));
                }
                bin.dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }));
            }
        })()",
    );
    browser.wait(30, "document.querySelectorAll('.thumbs button').length === 12 && !document.getElementById('teach').disabled");
    browser.click("#teach");
    browser.wait(300, "document.getElementById('table-caption').textContent === 'Result'");
    let right =
        text(&browser, "document.querySelector('#table tbody tr:last-child td:nth-child(4)').textContent");
    assert_eq!(right, "100.0 %", "anybody can tell crimson from navy");
    assert_eq!(browser.errors(), Vec::<String>::new());
}
