//! A browser to test a page in: chromedriver, and a server for the site's files.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Serves a folder of files for as long as the process lives; returns its address.
pub fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream, &folder));
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) {
    let mut request = BufReader::new(stream.try_clone().expect("a stream"));
    let mut first = String::new();
    let mut line = String::new();
    if request.read_line(&mut first).is_err() {
        return;
    }
    while request.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let path = first.split([' ', '?']).nth(1).unwrap_or("/");
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    };
    let (status, body) = match fs::read(folder.join(name)) {
        Ok(body) if !name.contains("..") => ("200 OK", body),
        _ => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// Chromium with one window.
pub struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// With the flags of `webdriver.json`, but for those that contain one of `without`.
    pub fn open(without: &[&str]) -> Browser {
        let program = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
        let mut driver =
            Command::new(program).arg("--port=0").stdout(Stdio::piped()).spawn().expect("chromedriver");
        // "ChromeDriver was started successfully on port 12345."
        let port = BufReader::new(driver.stdout.take().expect("its output"))
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_suffix('.')?.rsplit_once("on port ").map(|(_, port)| port.to_string())
            })
            .expect("chromedriver's port");
        let mut wanted: Value = serde_json::from_str(include_str!("../../webdriver.json")).expect("JSON");
        let flags = wanted["goog:chromeOptions"]["args"].as_array_mut().expect("flags");
        flags
            .retain(|flag| !without.iter().any(|part| flag.as_str().is_some_and(|flag| flag.contains(part))));
        wanted["goog:loggingPrefs"] = json!({ "browser": "ALL" });
        let url = format!("http://127.0.0.1:{port}/session");
        let answer = post(&url, &json!({ "capabilities": { "alwaysMatch": wanted } }));
        let session = format!("{url}/{}", answer["sessionId"].as_str().expect("a session"));
        post(&format!("{session}/timeouts"), &json!({ "script": 300_000 }));
        Browser { driver, session }
    }

    pub fn visit(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    /// The value of a script's `return`.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns something true.
    ///
    /// # Panics
    /// It never does, or the page says that something did not work.
    pub fn wait(&self, seconds: u64, condition: &str) {
        let begun = Instant::now();
        while self.run(&format!("return Boolean({condition})")) != true {
            let notice = self.run("return document.getElementById('notice')?.textContent");
            let failed = notice.as_str().is_some_and(|text| text.contains("did not work"));
            let state = || self.run("return document.getElementById('state')?.textContent");
            assert!(
                !failed && begun.elapsed() < Duration::from_secs(seconds),
                "not: {condition}; the page says: {} {notice}; {:?}",
                state(),
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Clicks what a selector finds, as a person would.
    pub fn click(&self, selector: &str) {
        let options = "{ block: 'center', behavior: 'instant' }";
        self.run(&format!("document.querySelector('{selector}').scrollIntoView({options})"));
        let element = self.post("element", json!({ "using": "css selector", "value": selector }));
        let id =
            element.as_object().and_then(|e| e.values().next()?.as_str()).expect("an element").to_string();
        self.post(&format!("element/{id}/click"), json!({}));
    }

    /// A window of so many CSS pixels, as a phone's or a desktop's.
    pub fn resize(&self, width: u32, height: u32, mobile: bool) {
        let parameters =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", parameters);
    }

    /// Whether pages are to be dark, and to move as little as they can.
    pub fn prefer(&self, dark: bool, still: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let motion = if still { "reduce" } else { "no-preference" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The whole page as a PNG.
    pub fn screenshot(&self, path: &Path) {
        self.run("window.scrollTo({ top: 0, behavior: 'instant' })");
        let shot = self
            .devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "format": "png" }));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, decode(shot["data"].as_str().expect("a picture"))).expect("written");
    }

    /// Errors on the console since the last call.
    pub fn errors(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let serious = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        serious.map(|entry| entry["message"].as_str().unwrap_or("").to_string()).collect()
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    fn post(&self, command: &str, body: Value) -> Value {
        post(&format!("{}/{command}", self.session), &body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn post(url: &str, body: &Value) -> Value {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let answer = agent.post(url).content_type("application/json").send(body.to_string());
    let text = answer.expect("an answer").into_body().read_to_string().expect("text");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let value = answer["value"].clone();
    assert!(value.get("error").is_none(), "{url}: {value}");
    value
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|&c| c != b'=').map(|c| value(c).into()).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = (0..4).fold(0, |bits, i| (bits << 6) | chunk.get(i).copied().unwrap_or(0));
        (1..chunk.len()).map(move |i| (bits >> (24 - 8 * i)) as u8).collect::<Vec<_>>()
    });
    bytes.collect()
}
