//! One gateway before one upstream, and the protocols that a case is run over.
//!
//! Every case gets a gateway and an upstream of its own, once for each protocol: nothing that one case leaves in a
//! pool or a cache is seen by another.

use super::client::{Answer, Client, Protocol, Request};
use super::gateway::TestGateway;
use super::upstream::{Mark, TestUpstream};
use doorward::app::Options;
use std::time::Duration;

/// What is special about a case's gateway.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Further lines of `[listen]`.
    pub(crate) listen: &'static str,
    /// Further lines of `[upstreams.legacy]`.
    pub(crate) upstream: &'static str,
    /// `timeout = { … }` of the upstream.
    pub(crate) timeout: &'static str,
    /// Everything after the upstream: routes and other sections.
    pub(crate) sections: String,
    pub(crate) workers: u16,
    /// The request that shows that nothing came before it; it must reach the upstream.
    pub(crate) canary: Request,
    /// Clock, observer and schemes put in for the test.
    pub(crate) options: Options,
}

/// Everything needs a token but what is under `/public`.
pub(crate) const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["token"]
max_body = "64MiB"

[routes.public]
path = "/public"
upstream = "legacy"
schemes = ["token"]
permission = "anyone"
"#;

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "",
            upstream: "",
            timeout: r#"connect = "2s", response = "8s", idle = "8s""#,
            sections: ROUTES.to_owned(),
            // Pools are one per worker: with one worker, what is reused does not depend on chance.
            workers: 1,
            canary: Request::get("/canary"),
            options: Options::default(),
        }
    }
}

impl Settings {
    /// Other routes and sections.
    pub(crate) fn sections(text: &str) -> Self {
        Self { sections: text.to_owned(), ..Self::default() }
    }

    /// The configuration file.
    pub(crate) fn config(&self, upstream_url: &str) -> String {
        let Self { listen, upstream, timeout, sections, workers, .. } = self;
        format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = {workers}\n{listen}\n\n\
             [store]\nurl = \"sqlite:doorward.db\"\n\n\
             [upstreams.legacy]\nservers = [\"{upstream_url}\"]\ntimeout = {{ {timeout} }}\n{upstream}\n\n\
             {sections}\n"
        )
    }
}

/// A gateway, its upstream, and the user `alice` with a token.
pub(crate) struct World {
    /// Before the gateway, so that it goes first: a gateway that stops waits for its upstream.
    pub(crate) upstream: TestUpstream,
    pub(crate) gateway: TestGateway,
    pub(crate) token: String,
    canary: Request,
}

impl World {
    pub(crate) fn start(settings: &Settings) -> Self {
        Self::before(TestUpstream::start(), settings)
    }

    /// With an upstream that is there already.
    pub(crate) fn before(upstream: TestUpstream, settings: &Settings) -> Self {
        Self::with(upstream, settings, settings.options.clone())
    }

    /// With something put in for tests.
    pub(crate) fn with(upstream: TestUpstream, settings: &Settings, options: Options) -> Self {
        let gateway = TestGateway::start_with(&settings.config(upstream.url()), options);
        Self::around(gateway, upstream, settings)
    }

    fn around(gateway: TestGateway, upstream: TestUpstream, settings: &Settings) -> Self {
        gateway.user("alice", "correct horse battery staple");
        let token = gateway.token("alice");
        Self { upstream, gateway, token, canary: settings.canary.clone() }
    }

    pub(crate) fn client(&self, protocol: Protocol) -> Client {
        Client::new(protocol, self.gateway.address())
    }

    /// A client that speaks HTTP/1.1 in clear.
    pub(crate) fn in_clear(&self) -> Client {
        Client::in_clear(self.gateway.http_address())
    }

    /// A GET with alice's token.
    pub(crate) fn get(&self, target: &str) -> Request {
        Request::get(target).token(&self.token)
    }

    /// A POST with alice's token and a `Content-Length`.
    pub(crate) fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::post(target, body).token(&self.token)
    }

    /// Runs a case over one protocol; call it outside of a runtime.
    pub(crate) fn run(&self, protocol: Protocol, case: impl AsyncFnOnce(&Self, &Client)) {
        let label = Label(protocol);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = self.client(protocol);
            let case = tokio::time::timeout(Duration::from_mins(1), case(self, &client));
            assert!(case.await.is_ok(), "the case takes more than a minute");
        });
        self.upstream.assert_no_violation();
        drop(label);
    }

    /// Fails unless the upstream saw nothing since the mark: no request and no byte.
    ///
    /// Then a canary is sent, so that what would still have been on its way has come: the upstream must see it alone.
    pub(crate) async fn assert_refused(&self, client: &Client, mark: Mark) {
        let (requests, bytes) = self.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0, "{bytes} bytes reached the upstream and {requests:#?}");
        let canary = self.canary.clone().token(&self.token);
        let answer = client.fresh().send(canary).await;
        assert_eq!(answer.status, 200, "the canary: {answer:?}");
        let (requests, bytes) = self.upstream.since(mark);
        assert!(requests.len() == 1 && bytes == 0, "{bytes} bytes reached the upstream and {requests:#?}");
    }
}

/// Says which protocol it was when a case fails.
struct Label(Protocol);

impl Drop for Label {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was over {:?}", self.0);
        }
    }
}

/// Runs a case over HTTP/1.1 and over HTTP/2, each with a gateway of its own; side by side, since cases mostly wait.
pub(crate) fn on_both(settings: &Settings, case: impl AsyncFn(&World, &Client) + Sync) {
    std::thread::scope(|scope| {
        let run = |protocol| {
            let case = &case;
            scope.spawn(move || World::start(settings).run(protocol, case))
        };
        for thread in [Protocol::Http1, Protocol::Http2].map(run) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Runs a case that only HTTP/1.1 can express.
pub(crate) fn on_http1(settings: &Settings, case: impl AsyncFnOnce(&World, &Client)) {
    World::start(settings).run(Protocol::Http1, case);
}

/// Fails unless this is an answer of the gateway itself, with this status, that tells nothing of the inside.
pub(crate) fn assert_own(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let detail = answer.detail();
    assert!(!detail.is_empty());
    for inside in ["127.0.0.1", "os error", "legacy", "::", "Error"] {
        assert!(!detail.contains(inside), "{detail:?} tells {inside:?}");
    }
    assert!(answer.one("x-request-id").is_some_and(|id| !id.is_empty()), "no X-Request-Id: {answer:?}");
    assert!(!answer.truncated);
}
