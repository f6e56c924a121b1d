//! A headless Chromium, driven by `chromedriver` (W3C WebDriver): commands are JSON by HTTP on the loopback.
//!
//! One connection a command: it is what needs no client of HTTP.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What elements are called in answers (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// WebDriver, section 17.4.2.
pub(crate) const ENTER: &str = "\u{e007}";

/// A browser with a profile of its own; ended when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

/// Part of a page.
pub(crate) struct Element(String);

impl Browser {
    /// Starts it. It takes any certificate: that of a test is self-signed.
    pub(crate) fn start() -> Self {
        for (program, package) in [("chromedriver", "chromium-driver"), ("chromium", "chromium")] {
            let found =
                Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(
                found.is_ok_and(|status| status.success()),
                "{program} is missing, or does not start; install the Debian package {package}, or run scripts/test"
            );
        }
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().unwrap();
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map(Result::unwrap).find_map(|line| {
            line.strip_prefix("ChromeDriver was started successfully on port ")?
                .trim_end_matches('.')
                .parse()
                .ok()
        });
        let profile = tempfile::tempdir().unwrap();
        let port = port.expect("chromedriver says its port");
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        browser.session = browser.open();
        browser
    }

    fn open(&self) -> String {
        let mut arguments = vec![
            "--headless=new".to_owned(),
            format!("--user-data-dir={}", self._profile.path().display()),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-background-networking".to_owned(),
            "--no-first-run".to_owned(),
        ];
        if rustix::process::geteuid().is_root() {
            // The sandbox refuses to run as root, as containers of tests often do.
            arguments.push("--no-sandbox".to_owned());
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = self.command("POST", "/session", Some(&wanted));
        answer["sessionId"].as_str().unwrap().to_owned()
    }

    /// One command; its value.
    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(given) = line.strip_prefix("content-length:") {
                length = given.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let error = &answer["value"]["error"];
        assert!(error.is_null(), "{method} {path}: {}", answer["value"]["message"]);
        answer["value"].clone()
    }

    fn get(&self, path: &str) -> Value {
        self.command("GET", &format!("/session/{}{path}", self.session), None)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.command("POST", &format!("/session/{}{path}", self.session), Some(body))
    }

    fn text(&self, path: &str) -> String {
        self.get(path).as_str().unwrap_or_default().to_owned()
    }

    /// Goes to an address, and waits for the page.
    pub(crate) fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    pub(crate) fn url(&self) -> String {
        self.text("/url")
    }

    pub(crate) fn title(&self) -> String {
        self.text("/title")
    }

    /// The first element that a CSS selector names; there must be one.
    pub(crate) fn find(&self, selector: &str) -> Element {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        Element(found[ELEMENT].as_str().unwrap().to_owned())
    }

    /// What can be seen of an element.
    pub(crate) fn visible(&self, selector: &str) -> String {
        self.text(&format!("/element/{}/text", self.find(selector).0))
    }

    /// What assistive technology calls it, and as what.
    pub(crate) fn role_and_label(&self, selector: &str) -> (String, String) {
        let Element(id) = self.find(selector);
        (
            self.text(&format!("/element/{id}/computedrole")),
            self.text(&format!("/element/{id}/computedlabel")),
        )
    }

    /// What is typed into a field.
    pub(crate) fn value(&self, selector: &str) -> String {
        self.text(&format!("/element/{}/property/value", self.find(selector).0))
    }

    /// Types into a field, in place of what is there.
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let Element(id) = self.find(selector);
        self.post(&format!("/element/{id}/clear"), &json!({}));
        self.post(&format!("/element/{id}/value"), &json!({ "text": text }));
    }

    /// Types where the cursor is.
    pub(crate) fn press(&self, keys: &str) {
        let Element(id) = Element(self.get("/element/active")[ELEMENT].as_str().unwrap().to_owned());
        self.post(&format!("/element/{id}/value"), &json!({ "text": keys }));
    }

    /// The `id` of what has the cursor.
    pub(crate) fn focused(&self) -> String {
        let active = self.get("/element/active");
        self.text(&format!("/element/{}/property/id", active[ELEMENT].as_str().unwrap()))
    }

    pub(crate) fn click(&self, selector: &str) {
        let Element(id) = self.find(selector);
        self.post(&format!("/element/{id}/click"), &json!({}));
    }

    /// Waits for a title: what a click leads to is not waited for.
    pub(crate) fn wait_for_title(&self, title: &str) {
        self.wait_for(title, || self.title() == title);
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let since = Instant::now();
        while !is_so() {
            let late = since.elapsed() > PATIENCE;
            assert!(
                !late,
                "{what:?} does not come, but {:?} at {}: {:#?}",
                self.title(),
                self.url(),
                self.console()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a script's body in the page; the policy of the page is not asked.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// A cookie of the page, with its attributes; `None`: there is none.
    pub(crate) fn cookie(&self, name: &str) -> Option<Value> {
        let all = self.get("/cookie");
        all.as_array().unwrap().iter().find(|cookie| cookie["name"] == name).cloned()
    }

    pub(crate) fn delete_cookie(&self, name: &str) {
        self.command("DELETE", &format!("/session/{}/cookie/{name}", self.session), None);
    }

    /// What the browser has told its console since the last time.
    pub(crate) fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        entries
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| format!("{} {}", entry["source"], entry["message"]))
            .collect()
    }

    /// Makes the page as wide as that, and its colours as people ask for them.
    pub(crate) fn look_at(&self, width: u32, scheme: &str) {
        let command = |cmd: &str, params: Value| {
            self.post("/goog/cdp/execute", &json!({ "cmd": cmd, "params": params }));
        };
        let size = json!({ "width": width, "height": 720, "deviceScaleFactor": 1, "mobile": width < 600 });
        command("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        command("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// The page as it looks, as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        data_encoding::BASE64.decode(self.text("/screenshot").as_bytes()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.command("DELETE", &format!("/session/{}", self.session), None);
        }
        // Asked to end, it ends its browser too.
        let id = rustix::process::Pid::from_raw(self.driver.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap_or_default();
        drop(self.driver.wait());
    }
}

/// Where pictures are kept, for whoever wants to look.
pub(crate) fn pictures() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}
