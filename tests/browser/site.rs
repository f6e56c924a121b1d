//! A gateway with a login page before an application that has none.

use doorward::app::{Options, Running};
use doorward::config::{Config, Source};
use doorward::credentials::NewAccount;
use doorward::secret::Secret;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Gateway and application; they end with the test.
pub(crate) struct Site {
    gateway: Option<Running>,
    pub(crate) directory: TempDir,
}

impl Site {
    /// With the configuration that `docs/login.md` begins with, and further sections.
    pub(crate) fn start(sections: &str) -> Self {
        let application = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = application.local_addr().unwrap();
        std::thread::spawn(move || application.incoming().for_each(|stream| drop(serve(stream.unwrap()))));
        let documented = block("toml").replace("127.0.0.1:9000", &address.to_string());
        let text = format!("[listen]\nhttps = [\"127.0.0.1:0\"]\n\n{documented}\n{sections}\n");
        let directory = tempfile::tempdir().unwrap();
        let name = "doorward.toml".to_owned();
        let source = Source { name, directory: directory.path().to_owned(), environment: |_| None };
        let config = Config::parse(&text, &source).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
        let gateway = Running::start(&config, Options::default()).unwrap();
        let alice = NewAccount {
            username: "alice".to_owned(),
            password: Secret::new(PASSWORD),
            ..NewAccount::default()
        };
        gateway.block_on(gateway.credentials().add_user(alice)).unwrap().unwrap();
        Self { gateway: Some(gateway), directory }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let port = self.gateway.as_ref().unwrap().addresses()[0].port();
        format!("https://localhost:{port}{path}")
    }

    /// Changes the store behind the gateway's back.
    pub(crate) fn execute(&self, statement: &'static str) {
        use sqlx::ConnectOptions as _;
        let path = self.directory.path().join("doorward.db");
        let gateway = self.gateway.as_ref().unwrap();
        let changed = async move {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        };
        gateway.block_on(changed).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
    }
}

/// The first block of a language in `docs/login.md`: what people paste is what is tested.
fn block(language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/login.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// One request: a page that says who is there, with the button of the documentation.
fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut user = "nobody".to_owned();
    let (mut leaves, mut port) = (false, String::new());
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if let Some(name) = line.to_ascii_lowercase().strip_prefix("remote-user:") {
            name.trim().clone_into(&mut user);
        }
        leaves |= line.starts_with("GET /leave ");
        if let Some(host) = line.to_ascii_lowercase().strip_prefix("host: localhost:") {
            host.clone_into(&mut port);
        }
        if line.is_empty() {
            break;
        }
    }
    if leaves {
        return write!(
            &stream,
            "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{port}/app\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
    }
    let button = block("html");
    let page = format!("<!doctype html><title>Application</title><p id=\"user\">{user}</p>\n{button}");
    let length = page.len();
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{page}"
    )
}
