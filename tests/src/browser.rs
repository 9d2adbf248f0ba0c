//! A headless Chromium in which tests open pages, and what is wrong with a page there.
//!
//! chromedriver is spoken to over plain HTTP on the loopback interface, as WebDriver and its
//! extensions for Chromium define it. What a page looks like is found out by `inspect.js`
//! in the page; this file starts and ends the programs, and reads their logs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};

/// Reads a page: a function body whose argument is the width that was asked for.
const INSPECT: &str = include_str!("inspect.js");

/// Names of Chromium, the first that there is.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// No answer of chromedriver takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer that is read: a screenshot of a long page has some millions of bytes.
const MAX_ANSWER: usize = 1 << 28;

/// Tallest screenshot, in pixels: the end of what Chromium draws in one piece.
const TALLEST: u64 = 16_000;

/// Narrower screens are those of phones, on which a page says itself how wide it is.
const DESK: u32 = 600;

/// What a page is seen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A screen that is set to light colors.
    Light,
    /// A screen that is set to dark colors.
    Dark,
    /// Paper.
    Print,
}

/// A page as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// CSS pixels.
    pub width: u32,
    /// Where it is shown.
    pub medium: Medium,
}

/// A phone and a desk, light and dark, and A4 paper within its margins.
pub const VIEWS: [View; 5] = [
    View::new(360, Medium::Light),
    View::new(360, Medium::Dark),
    View::new(1440, Medium::Light),
    View::new(1440, Medium::Dark),
    View::new(718, Medium::Print),
];

impl View {
    const fn new(width: u32, medium: Medium) -> Self {
        Self { width, medium }
    }
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let medium = match self.medium {
            Medium::Light => "light",
            Medium::Dark => "dark",
            Medium::Print => "print",
        };
        write!(f, "{}-{medium}", self.width)
    }
}

/// A drawing of a page: inline SVG that is no mere sign.
#[derive(Clone, Debug, Deserialize)]
pub struct Plot {
    /// What it is called for those who do not see it.
    pub name: String,
    /// CSS pixels.
    pub width: f64,
    /// CSS pixels.
    pub height: f64,
    /// Lines, areas and points with an extent.
    pub n_shapes: usize,
}

/// Something that a reader would stumble over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// `overflow`, `tiny`, `contrast`, `overlap`, `struck`, `clipped`, `covered`, `empty` or
    /// `unnamed`.
    pub kind: String,
    /// Where and by how much.
    pub what: String,
}

/// What was found in one view.
#[derive(Clone, Debug, Deserialize)]
pub struct Inspection {
    /// All drawings, in the order of the page.
    pub plots: Vec<Plot>,
    /// Pieces of visible text.
    pub n_texts: usize,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
}

/// A browser with one window. Dropping it ends both programs.
pub struct Browser {
    driver: Child,
    /// Not read any more, but open: chromedriver may still write.
    _said: BufReader<ChildStdout>,
    port: u16,
    session: String,
    window: String,
    _profile: tempfile::TempDir,
}

fn installed(names: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    names
        .iter()
        .flat_map(|name| std::env::split_paths(&folders).map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

impl Browser {
    /// Starts one; says that the test is skipped where it is not installed.
    ///
    /// # Panics
    /// If what is installed does not start.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "the test runner counts these lines")]
    pub fn start() -> Option<Self> {
        let Some(driver) = installed(&["chromedriver"]) else {
            eprintln!("skipped: chromedriver is not installed");
            return None;
        };
        let Some(browser) = installed(&BROWSERS) else {
            eprintln!("skipped: Chromium is not installed");
            return None;
        };
        Some(Self::of(&driver, &browser))
    }

    fn of(driver: &Path, browser: &Path) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        // A group of its own, which Chromium's processes join: they end with it.
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts");
        let said = driver.stdout.take().expect("its output is piped");
        let mut browser_of_driver = Self {
            driver,
            _said: BufReader::new(said),
            port: 0,
            session: String::new(),
            window: String::new(),
            _profile: profile,
        };
        browser_of_driver.open_session(browser);
        browser_of_driver
    }

    fn open_session(&mut self, browser: &Path) {
        self.port = port_of(&mut self._said);
        let profile = self._profile.path().display();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            &format!("--user-data-dir={profile}"),
            "about:blank",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": browser, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }}});
        let session = self.ask("POST", "/session", &wanted);
        let text = |value: &Value| value.as_str().expect("a name").to_owned();
        self.session = text(&session["sessionId"]);
        self.window = text(&self.get("window"));
        // The page that a new window shows goes on loading until another takes its place.
        self.post("url", &json!({ "url": "about:blank" }));
    }

    /// Opens a page of this machine and returns what it said on the console and which
    /// requests it made, each one a fault. The page itself is none, and neither is what lies
    /// within it.
    ///
    /// # Panics
    /// If the browser does not answer.
    pub fn open(&mut self, page: &Path) -> Vec<String> {
        let (_, _) = (self.log("browser"), self.log("performance"));
        let url = format!("file://{}", page.display());
        self.post("url", &json!({ "url": url }));
        let mut faults = Vec::new();
        for entry in self.log("browser") {
            faults.push(format!("console: {} {}", entry["level"], entry["message"]));
        }
        for entry in self.log("performance") {
            let message = entry["message"].as_str().unwrap_or_default();
            let event: Value = serde_json::from_str(message).expect("events are JSON");
            if event["webview"] != self.window.as_str() {
                continue;
            }
            let event = &event["message"];
            let asked = &event["params"];
            // What Chromium's own pages ask for is no concern of this one.
            let document = asked["documentURL"].as_str().unwrap_or_default();
            let is_of_page = !document.starts_with("chrome:");
            if event["method"] != "Network.requestWillBeSent" || !is_of_page {
                continue;
            }
            let request = asked["request"]["url"].as_str().unwrap_or_default();
            if request != url && !request.starts_with("data:") {
                faults.push(format!("request: {request}"));
            }
        }
        faults
    }

    /// Shows the open page in a view and reads it.
    ///
    /// # Panics
    /// If the browser does not answer.
    pub fn inspect(&mut self, view: View) -> Inspection {
        self.show(view);
        let found = self.post(
            "execute/sync",
            &json!({ "script": INSPECT, "args": [view.width] }),
        );
        serde_json::from_value(found).expect("inspect.js answers in this form")
    }

    /// Lays the page out for a view, as high as it is: nothing has to be scrolled to.
    fn show(&mut self, view: View) {
        let (medium, scheme) = match view.medium {
            Medium::Light => ("screen", "light"),
            Medium::Dark => ("screen", "dark"),
            Medium::Print => ("print", "light"),
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let media = json!({ "media": medium, "features": features });
        self.command("Emulation.setEmulatedMedia", media);
        // Twice: how high a page is at a width is known once it has that width.
        let mut height = 800;
        for _ in 0..2 {
            let metrics = json!({
                "width": view.width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": view.width < DESK,
            });
            self.command("Emulation.setDeviceMetricsOverride", metrics);
            height = self.height_of_page();
        }
    }

    fn height_of_page(&mut self) -> u64 {
        let script = "return document.documentElement.scrollHeight";
        let height = self.post("execute/sync", &json!({ "script": script, "args": [] }));
        height.as_u64().unwrap_or(800)
    }

    /// Writes what a view shows as PNG.
    ///
    /// # Panics
    /// If the browser does not answer, or the file can not be written.
    pub fn screenshot(&mut self, view: View, file: &Path) {
        self.show(view);
        let height = self.height_of_page().min(TALLEST);
        let clip = json!({ "x": 0, "y": 0, "width": view.width, "height": height, "scale": 1 });
        let wanted = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let shot = self.command("Page.captureScreenshot", wanted);
        let png = STANDARD.decode(shot["data"].as_str().unwrap_or_default());
        std::fs::write(file, png.expect("base64")).expect("a screenshot is written");
    }

    fn command(&mut self, name: &str, params: Value) -> Value {
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": name, "params": params }),
        )
    }

    /// What came to a log since it was asked last.
    fn log(&mut self, kind: &str) -> Vec<Value> {
        match self.post("se/log", &json!({ "type": kind })) {
            Value::Array(entries) => entries,
            other => panic!("a log that is none: {other}"),
        }
    }

    fn get(&mut self, what: &str) -> Value {
        let path = format!("/session/{}/{what}", self.session);
        self.ask("GET", &path, &Value::Null)
    }

    fn post(&mut self, what: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{what}", self.session);
        self.ask("POST", &path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = exchange(self.port, method, path, body)
            .unwrap_or_else(|err| panic!("chromedriver does not answer {method} {path}: {err}"));
        let mut answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
        let value = answer["value"].take();
        assert_eq!(status, 200, "{method} {path}: {value:#}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = exchange(self.port, "DELETE", &path, &Value::Null);
        }
        if let Some(group) = i32::try_from(self.driver.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

/// The port that chromedriver chose, from what it says at its start.
fn port_of(said: &mut impl BufRead) -> u16 {
    let marker = "successfully on port ";
    let line = said
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains(marker))
        .expect("chromedriver says its port");
    let (_, port) = line.split_once(marker).expect("it was just found");
    port.trim_end_matches('.').parse().expect("a port")
}

/// One request and its answer: status and body.
fn exchange(port: u16, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Vec<u8>)> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\
         Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;

    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| invalid("no status"))?;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.ok_or_else(|| invalid("no length"))?;
    if length > MAX_ANSWER {
        return Err(invalid("an answer without end"));
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    Ok((status, answer))
}
