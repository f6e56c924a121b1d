//! The login page and what belongs to it, as Django's `LoginView` and `LogoutView` (5.2) behave behind
//! `CsrfViewMiddleware`: what a browser sees, what programs see, and what a session is worth afterwards.

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::gateway::manual_clock;
use crate::harness::secrets;
use crate::harness::traces::Traces;
use crate::harness::world::{Settings, World, on_both};
use data_encoding::BASE64;
use doorward::identity::Digest;
use doorward::secret::Secret;
use doorward::trace::Reason;
use sqlx::ConnectOptions as _;
use std::collections::BTreeMap;
use std::time::Duration;

const PASSWORD: &str = "correct horse battery staple";
const ORIGIN: &str = "https://gateway.test";
const FORM: &str = "application/x-www-form-urlencoded";
const WRONG: &str =
    "Please enter a correct username and password. Note that both fields may be case-sensitive.";
/// Everything is behind the login page.
const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["session", "token"]
login_page = "/accounts/login/"

[routes.public]
path = "/public"
upstream = "legacy"
schemes = ["session"]
permission = "anyone"

[routes.login]
path = "/accounts/login/"
handler = "login"
redirect = "/welcome/"

[routes.logout]
path = "/accounts/logout/"
handler = "logout"
redirect = "/bye/"

[routes.whoami]
path = "/whoami/"
handler = "whoami"
schemes = ["session", "token"]
"#;

/// What pages of ours have besides what all answers have.
const PAGE_FIELDS: &[&str] = &[
    "set-cookie",
    "location",
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-opener-policy",
    "x-frame-options",
];

fn settings(sections: &str) -> Settings {
    Settings::sections(&format!("{ROUTES}\n{sections}\n"))
}

/// A browser: keeps cookies, says where its requests come from, and remembers the form that it was shown.
struct Browser<'a> {
    client: &'a Client,
    jar: BTreeMap<String, String>,
    /// What the form would send besides what is typed in.
    hidden: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, jar: BTreeMap::new(), hidden: BTreeMap::new() }
    }

    /// Sends with cookies, and keeps those of the answer.
    async fn send(&mut self, request: Request) -> Answer {
        let cookies: Vec<_> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.field("Cookie", cookies.join("; ")) };
        let answer = self.client.send(request.expect(PAGE_FIELDS)).await;
        for cookie in answer.all("set-cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Goes to a page.
    async fn go(&mut self, target: &str) -> Answer {
        let request = Request::get(target).field("Sec-Fetch-Mode", "navigate").field("Accept", "text/html");
        let answer = self.send(request).await;
        self.hidden = hidden(&answer.text());
        answer
    }

    /// Sends the form that it was shown.
    async fn submit(&mut self, target: &str, typed: &[(&str, &str)]) -> Answer {
        let hidden = self.hidden.clone();
        let fields = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let answer = self.send(form(target, fields.chain(typed.iter().copied()))).await;
        self.hidden = hidden_or(&answer.text(), hidden);
        answer
    }

    async fn log_in(&mut self) -> Answer {
        self.go("/accounts/login/").await;
        self.submit("/accounts/login/", &[("username", "alice"), ("password", PASSWORD)]).await
    }

    fn key(&self) -> String {
        self.jar["sessionid"].clone()
    }

    fn token(&self) -> String {
        self.jar["csrftoken"].clone()
    }
}

/// A form as browsers send it.
fn form<'f>(target: &str, fields: impl Iterator<Item = (&'f str, &'f str)>) -> Request {
    let body: Vec<_> = fields.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let request = Request::post(target, body.join("&")).field("Content-Type", FORM);
    request.field("Origin", ORIGIN).field("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
}

fn escaped(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(escape).collect()
}

/// Hidden fields of a page.
fn hidden(page: &str) -> BTreeMap<String, String> {
    let attribute = |tag: &str, name: &str| {
        let rest = tag.split_once(&format!(" {name}=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.replace("&#38;", "&").replace("&#34;", "\"")
    };
    let tags = page.split("<input type=\"hidden\"").skip(1);
    tags.map(|tag| (attribute(tag, "name"), attribute(tag, "value"))).collect()
}

fn hidden_or(page: &str, otherwise: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let found = hidden(page);
    if found.is_empty() { otherwise } else { found }
}

/// A page of ours, with this status, that people can read.
fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.one("content-type").as_deref(), Some("text/html; charset=utf-8"), "{answer:?}");
    assert!(answer.one("cache-control").unwrap().contains("no-store"));
    assert_eq!(answer.one("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(answer.one("x-frame-options").as_deref(), Some("DENY"));
    assert_eq!(answer.one("referrer-policy").as_deref(), Some("same-origin"));
    let page = answer.text();
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self' https:; frame-ancestors 'none'; base-uri 'none'",
        BASE64.encode(&Digest::of(style.as_bytes()).0)
    );
    assert_eq!(answer.one("content-security-policy"), Some(policy));
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{page}");
    for outside in
        ["<script", "\"javascript:", "\"http", "\"//", "src=", "style=", "<link", "url(", "@import"]
    {
        assert!(!page.contains(outside), "{outside} is in {page}");
    }
    assert!(page.contains("<main>") && page.matches("<h1>").count() == 1, "{page}");
}

fn assert_json(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body), "{answer:?}");
    assert_eq!(answer.one("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
}

/// The value and the attributes of a cookie that an answer sets.
fn cookie(answer: &Answer, name: &str) -> (String, Vec<String>) {
    let set = answer.all("set-cookie");
    let mut found = set.iter().filter_map(|one| one.strip_prefix(&format!("{name}=")));
    let one = found.next().unwrap_or_else(|| panic!("no {name}: {set:?}"));
    assert!(found.next().is_none(), "{name} is set twice: {set:?}");
    let mut parts = one.split("; ").map(str::to_owned);
    (parts.next().unwrap(), parts.collect())
}

fn sets_session(answer: &Answer) -> bool {
    answer.all("set-cookie").iter().any(|cookie| cookie.starts_with("sessionid="))
}

/// Whether somebody with this session is let in.
async fn is_let_in(client: &Client, key: &str) -> bool {
    let request = Request::get("/x").field("Cookie", format!("sessionid={key}")).expect(&["set-cookie"]);
    let status = client.send(request).await.status;
    assert!([200, 403].contains(&status), "{status}");
    status == 200
}

async fn sessions(world: &World) -> i64 {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM session").fetch_one(&mut connection).await.unwrap()
}

/// Changes the store behind the gateway's back.
async fn execute(world: &World, statement: &'static str) {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

// --- a browser

#[test]
fn a_browser_logs_in_works_and_logs_out() {
    on_both(&settings(""), async |world, client| {
        let mut browser = Browser::new(client);
        let page = browser.go("/accounts/login/").await;
        assert_page(&page, 200);
        assert_eq!(page.one("vary").as_deref(), Some("Cookie"));
        let (before, attributes) = cookie(&page, "csrftoken");
        assert!(before.len() == 32 && !sets_session(&page), "{page:?}");
        assert_eq!(attributes[1..], ["Max-Age=31449600", "Path=/", "SameSite=Lax", "Secure"]);
        // What is in the form is masked, so that it differs each time.
        assert!(!page.text().contains(&before));
        let mark = world.upstream.mark();
        let typed = [("username", "alice"), ("password", PASSWORD)];
        let answer = browser.submit("/accounts/login/", &typed).await;
        assert_eq!((answer.status, answer.one("location").as_deref()), (302, Some("/welcome/")));
        assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
        let (key, attributes) = cookie(&answer, "sessionid");
        assert_eq!(key.len(), 32);
        assert_eq!(attributes[1..], ["Max-Age=1209600", "HttpOnly", "Path=/", "SameSite=Lax", "Secure"]);
        assert_ne!(cookie(&answer, "csrftoken").0, before, "a new secret with every login");
        let (requests, bytes) = world.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0, "the upstream sees nothing of a login");

        assert_eq!(browser.go("/app?x").await.status, 200);
        let seen = world.upstream.last();
        assert_eq!((seen.one("remote-user").as_deref(), seen.one("cookie")), (Some("alice"), None));
        let write = Request::post("/app", "x").field("Origin", ORIGIN);
        let refused = browser.send(write.clone()).await;
        assert_eq!((refused.status, refused.detail().as_str()), (403, "CSRF Failed: CSRF token missing."));
        let token = browser.token();
        assert_eq!(browser.send(write.field("X-CSRFToken", &token)).await.status, 200);

        browser.go("/accounts/login/").await;
        let answer = browser.submit("/accounts/logout/", &[]).await;
        assert_eq!((answer.status, answer.one("location").as_deref()), (302, Some("/bye/")));
        let (value, attributes) = cookie(&answer, "sessionid");
        assert_eq!((value.as_str(), attributes[1].as_str()), ("\"\"", "Max-Age=0"));
        assert!(!browser.jar.contains_key("sessionid"));
        assert!(!is_let_in(client, &key).await, "the session has ended");
        assert_eq!(sessions(world).await, 0);
    });
}

#[test]
fn the_page_can_be_used_by_everybody() {
    on_both(&settings(""), async |_, client| {
        let mut browser = Browser::new(client);
        let page = browser.go("/accounts/login/").await.text();
        for needed in [
            "<title>Log in</title>",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<form method=\"post\">",
            "<label for=\"username\">Username</label>\n<input id=\"username\" name=\"username\" type=\"text\"",
            "<label for=\"password\">Password</label>\n<input id=\"password\" name=\"password\" type=\"password\"",
            "autocomplete=\"username\"",
            "autocomplete=\"current-password\"",
            "<button type=\"submit\">Log in</button>",
        ] {
            assert!(page.contains(needed), "{needed} is not in {page}");
        }
        // Nothing is wrong yet, and nothing is said to be.
        for wrong in ["role=\"alert\"", "aria-invalid=", "aria-describedby=", "maxlength"] {
            assert!(!page.contains(wrong), "{wrong} is in {page}");
        }
        let focused = page.split("<input").find(|tag| tag.contains("autofocus")).unwrap();
        assert!(focused.contains("id=\"username\"") && page.matches("autofocus").count() == 1);
        // Reading it is all that HEAD differs in.
        let head = browser.send(Request::new("HEAD", "/accounts/login/").field("Accept", "text/html")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    });
}

#[test]
fn a_failed_attempt_keeps_name_and_next_and_says_what_is_wrong() {
    on_both(&settings(""), async |world, client| {
        world.upstream.assert_no_violation();
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/?next=/app%3Fa%3Db%26c").await;
        assert_eq!(browser.hidden["next"], "/app?a=b&c");
        for (typed, title, told) in [
            ([("username", "al\"i<ce"), ("password", "wrong")], "Wrong username or password", WRONG),
            ([("username", "nobody"), ("password", PASSWORD)], "Wrong username or password", WRONG),
            ([("username", "alice"), ("password", "")], "Password missing", "This field is required."),
            ([("username", "  "), ("password", "x")], "Username missing", "This field is required."),
            (
                [("username", ""), ("password", "")],
                "Username and password missing",
                "This field is required.",
            ),
        ] {
            let answer = browser.submit("/accounts/login/", &typed).await;
            assert_page(&answer, 200);
            assert!(!sets_session(&answer));
            let page = answer.text();
            assert!(page.contains(&format!("<title>Error: {title} – Log in</title>")), "{page}");
            let (_, alert) = page.split_once("role=\"alert\"").unwrap();
            let (alert, fields) = alert.split_once("</div>").unwrap();
            assert!(alert.contains(told), "{page}");
            // Each field that is wrong says so, and by which words.
            let described: Vec<_> = fields.split("aria-describedby=\"").skip(1).collect();
            assert!(
                !described.is_empty() && described.len() == fields.matches("aria-invalid=\"true\"").count()
            );
            for name in described.iter().map(|rest| rest.split_once('"').unwrap().0) {
                assert!(page.contains(&format!(" id=\"{name}\"")), "{name} is not in {page}");
            }
            let name = typed[0].1.replace('"', "&#34;").replace('<', "&#60;");
            assert!(page.contains(&format!("value=\"{name}\"")), "{page}");
            assert!(!page.contains(PASSWORD) && !page.contains("al\"i<ce"));
            assert_eq!(browser.hidden["next"], "/app?a=b&c");
        }
        let typed = [("username", " ＡＬＩＣＥ"), ("password", PASSWORD)];
        assert_page(&browser.submit("/accounts/login/", &typed).await, 200);
        // Blanks around a name and compatible forms are nothing, as in Django's form.
        let typed = [("username", " ａｌｉｃｅ\t"), ("password", PASSWORD)];
        let answer = browser.submit("/accounts/login/", &typed).await;
        assert_eq!(answer.one("location").as_deref(), Some("/app?a=b&c"), "{answer:?}");
    });
}

#[test]
fn next_leads_to_this_origin_alone() {
    on_both(&settings("[authentication]\nguard = \"off\""), async |_, client| {
        let mut browser = Browser::new(client);
        for (query, field, location) in [
            ("", None, "/welcome/"),
            ("?next=/a%20b%3Fc", None, "/a%20b?c"),
            ("?next=/%C3%A9", None, "/%C3%A9"),
            ("?next=/from-query", Some("/from-form"), "/from-form"),
            ("?next=/from-query", Some(""), "/welcome/"),
            ("?next=/from-query", Some("//evil.test"), "/welcome/"),
            ("?next=https://evil.test/", None, "/welcome/"),
            ("?next=//evil.test/", None, "/welcome/"),
            ("?next=/%5Cevil.test", None, "/welcome/"),
            ("?next=/%09/evil.test", None, "/welcome/"),
            ("?next=%0A//evil.test", None, "/welcome/"),
            ("?next=/a%0D%0ASet-Cookie:x", None, "/welcome/"),
            ("?next=javascript:alert(1)", None, "/welcome/"),
            ("?next=%20/a", None, "/welcome/"),
            ("?next=a", None, "/welcome/"),
        ] {
            browser.hidden.clear();
            let target = format!("/accounts/login/{query}");
            let page = browser.go(&target).await;
            assert!(!page.text().contains("evil"), "{page:?}");
            // Whether the form says it or the query alone.
            browser.hidden.remove("next");
            let mut typed = vec![("username", "alice"), ("password", PASSWORD)];
            typed.extend(field.map(|next| ("next", next)));
            let answer = browser.submit(&target, &typed).await;
            assert_eq!(answer.one("location").as_deref(), Some(location), "{query} {field:?}");
            assert_eq!(answer.all("set-cookie").len(), 2, "{answer:?}");
            let answer = browser.submit(&target.replace("login", "logout"), &typed[2..]).await;
            // The token was of the last page.
            assert_eq!(answer.status, 403);
        }
    });
}

#[test]
fn the_query_alone_keeps_next_through_a_failed_attempt() {
    on_both(&settings(""), async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/?next=/app").await;
        browser.hidden.remove("next");
        let typed = [("username", "alice"), ("password", "wrong")];
        browser.submit("/accounts/login/?next=/app", &typed).await;
        assert_eq!(browser.hidden["next"], "/app");
    });
}

// --- sessions

#[test]
fn a_session_from_before_the_login_is_dead_after_it() {
    on_both(&settings(""), async |world, client| {
        // What an attacker has planted: a key that nobody knows, and a session of their own.
        world.gateway.running();
        let mut attacker = Browser::new(client);
        attacker.log_in().await;
        let own = attacker.key();
        for planted in ["0123456789abcdefghijklmnopqrstuv".to_owned(), own] {
            let mut victim = Browser::new(client);
            victim.jar.insert("sessionid".to_owned(), planted.clone());
            assert_eq!(victim.log_in().await.status, 302);
            assert_ne!(victim.key(), planted);
            assert!(is_let_in(client, &victim.key()).await);
            assert!(!is_let_in(client, &planted).await, "fixed by somebody else");
        }
        assert_eq!(sessions(world).await, 2);
    });
}

#[test]
fn a_secret_against_forged_requests_from_before_the_login_is_dead_after_it() {
    on_both(&settings(""), async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/").await;
        let (planted, masked) = (browser.token(), browser.hidden["csrfmiddlewaretoken"].clone());
        browser.log_in().await;
        for token in [planted, masked] {
            let write = Request::post("/app", "x").field("Origin", ORIGIN).field("X-CSRFToken", &token);
            let answer = browser.send(write).await;
            assert_eq!(answer.status, 403, "{answer:?}");
            assert!(answer.detail().ends_with("incorrect."), "{answer:?}");
        }
    });
}

#[test]
fn several_sessions_of_a_user_end_one_by_one() {
    on_both(&settings(""), async |_, client| {
        let (mut one, mut two) = (Browser::new(client), Browser::new(client));
        one.log_in().await;
        two.log_in().await;
        let (first, second) = (one.key(), two.key());
        one.go("/accounts/login/").await;
        assert_eq!(one.submit("/accounts/logout/", &[]).await.status, 302);
        assert!(!is_let_in(client, &first).await && is_let_in(client, &second).await);
        // Whoever is logged out already may do it once more.
        assert_eq!(one.submit("/accounts/logout/", &[]).await.status, 302);
    });
}

#[test]
fn a_session_ends_with_its_time() {
    let (clock, options) = manual_clock();
    let sections = "[authentication.schemes.session]\nage = \"1h\"";
    let settings = Settings { options, ..settings(sections) };
    on_both(&settings, async |_, client| {
        let mut browser = Browser::new(client);
        let answer = browser.log_in().await;
        assert_eq!(cookie(&answer, "sessionid").1[1], "Max-Age=3600");
        assert!(is_let_in(client, &browser.key()).await);
    });
    clock.advance(Duration::from_mins(59));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        World::start(&settings).run(protocol, async |_, client| {
            let mut browser = Browser::new(client);
            browser.log_in().await;
            let key = browser.key();
            clock.advance(Duration::from_mins(59));
            assert!(is_let_in(client, &key).await);
            clock.advance(Duration::from_mins(2));
            assert!(!is_let_in(client, &key).await);
        });
    }
}

#[test]
fn a_new_password_and_a_deactivation_end_sessions_at_once() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(""));
        let client = world.client(protocol);
        let key = |world: &World| {
            let key = std::cell::RefCell::new(String::new());
            world.run(protocol, async |_, client| {
                let mut browser = Browser::new(client);
                assert_eq!(browser.log_in().await.status, 302);
                *key.borrow_mut() = browser.key();
                assert!(is_let_in(client, &browser.key()).await);
            });
            key.into_inner()
        };
        let before = key(&world);
        let running = world.gateway.running();
        let renewed = running.credentials().set_password("alice", Secret::new(PASSWORD));
        running.block_on(renewed).unwrap().unwrap();
        world.run(protocol, async |_, client| assert!(!is_let_in(client, &before).await));
        let before = key(&world);
        world.gateway.deactivate("alice");
        world.run(protocol, async |_, client| {
            assert!(!is_let_in(client, &before).await);
            let mut browser = Browser::new(client);
            let answer = browser.log_in().await;
            assert_page(&answer, 200);
            assert!(answer.text().contains(WRONG), "an inactive user is told what a wrong password is");
        });
        drop(client);
    }
}

// --- programs

#[test]
fn the_three_steps_of_postman_lead_to_a_session() {
    on_both(&settings(""), async |world, client| {
        let mut postman = Browser::new(client);
        let any = |request: Request| request.field("Accept", "*/*");
        assert_eq!(postman.send(any(Request::get("/accounts/login/"))).await.status, 200);
        let part = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = format!("{}{}--x--\r\n", part("username", "alice"), part("password", PASSWORD));
        // Over HTTPS Django wants to know where a request comes from.
        let data = any(Request::post("/accounts/login/", body))
            .field("Content-Type", "multipart/form-data; boundary=x")
            .field("Referer", format!("{ORIGIN}/"))
            .field("X-CSRFToken", postman.token());
        let answer = postman.send(data).await;
        assert_eq!((answer.status, answer.one("location").as_deref()), (302, Some("/welcome/")));
        assert_eq!(postman.send(any(Request::get("/call"))).await.status, 200);
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
    });
}

fn json(target: &str, body: &str) -> Request {
    Request::post(target, body).field("Content-Type", "application/json").field("Origin", ORIGIN)
}

#[test]
fn programs_are_answered_in_json() {
    let (clock, options) = manual_clock();
    let settings = Settings { options, ..settings("") };
    on_both(&settings, async |_, client| {
        let mut program = Browser::new(client);
        program.send(Request::get("/accounts/login/")).await;
        let with_token =
            |program: &Browser<'_>, request: Request| request.field("X-CSRFToken", program.token());
        for (body, told) in [
            (
                r#"{"username": "alice", "password": "wrong"}"#,
                format!("{{\"non_field_errors\":[\"{WRONG}\"]}}"),
            ),
            (
                "{}",
                r#"{"username":["This field is required."],"password":["This field is required."]}"#
                    .to_owned(),
            ),
            (r#"{"username": "alice"}"#, r#"{"password":["This field is required."]}"#.to_owned()),
        ] {
            let answer = program.send(with_token(&program, json("/accounts/login/", body))).await;
            assert_json(&answer, 400, &told);
            assert!(!sets_session(&answer));
        }
        let list = program.send(with_token(&program, json("/accounts/login/", "[]"))).await;
        assert_json(&list, 400, r#"{"detail":"Bad request."}"#);
        let body = format!("{{\"username\": \"alice\", \"password\": \"{PASSWORD}\"}}");
        let answer = program.send(with_token(&program, json("/accounts/login/", &body))).await;
        let expires = doorward::clock::Clock::unix(clock.as_ref()).0 + 1_209_600;
        assert_json(&answer, 200, &format!(r#"{{"user":"alice","scheme":"Session","expires":{expires}}}"#));
        let key = program.key();
        assert!(is_let_in(client, &key).await);
        // The token of before the login is none any more.
        let answer = program.send(json("/accounts/logout/", "")).await;
        assert_json(&answer, 403, r#"{"detail":"CSRF Failed: CSRF token missing."}"#);
        assert!(is_let_in(client, &key).await);
        let answer = program.send(with_token(&program, json("/accounts/logout/", ""))).await;
        assert_eq!((answer.status, answer.body.len(), answer.one("content-type")), (204, 0, None));
        assert!(!is_let_in(client, &key).await);
    });
}

#[test]
fn a_form_that_asks_for_json_gets_it() {
    on_both(&settings(""), async |_, client| {
        let mut program = Browser::new(client);
        program.send(Request::get("/accounts/login/")).await;
        for (password, status) in [("wrong", 400), (PASSWORD, 200)] {
            let body = format!("username=alice&password={}", escaped(password));
            let request = Request::post("/accounts/login/", body).field("Content-Type", FORM);
            let request = request.field("Origin", ORIGIN).field("Accept", "application/json, text/html;q=0");
            let answer = program.send(request.field("X-CSRFToken", program.token())).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(answer.one("content-type").as_deref(), Some("application/json"));
        }
    });
}

// --- what is refused

#[test]
fn forged_logins_and_logouts_are_refused() {
    let traces = Traces::new();
    let settings = Settings { options: traces.options(), ..settings("") };
    on_both(&settings, async |world, client| {
        let mut browser = Browser::new(client);
        browser.log_in().await;
        let key = browser.key();
        browser.go("/accounts/login/").await;
        let (secret, token) = (browser.token(), browser.hidden["csrfmiddlewaretoken"].clone());
        let other = "0123456789abcdefghijklmnopqrstuv";
        let fields = |token: &str| {
            format!("username=alice&password={}&csrfmiddlewaretoken={token}", escaped(PASSWORD))
        };
        let cases = [
            (None, Some(("Origin", ORIGIN)), token.as_str(), "CSRF cookie not set."),
            (Some("short"), Some(("Origin", ORIGIN)), &token, "CSRF cookie has incorrect length."),
            (Some(&secret), Some(("Origin", ORIGIN)), "", "CSRF token missing."),
            (Some(&secret), Some(("Origin", ORIGIN)), other, "CSRF token from POST incorrect."),
            (Some(other), Some(("Origin", ORIGIN)), &token, "CSRF token from POST incorrect."),
            (
                Some(&secret),
                Some(("Origin", "https://evil.test")),
                &token,
                "Origin checking failed - https://evil.test does not match any trusted origins.",
            ),
            (
                Some(&secret),
                Some(("Origin", "null")),
                &token,
                "Origin checking failed - null does not match any trusted origins.",
            ),
            (Some(&secret), None, &token, "Referer checking failed - no Referer."),
            (
                Some(&secret),
                Some(("Referer", "https://evil.test/<b>")),
                &token,
                "Referer checking failed - https://evil.test/<b> does not match any trusted origins.",
            ),
        ];
        for (path, again) in [("/accounts/login/", ""), ("/accounts/logout/", "/bye/")] {
            for (cookie, source, token, why) in &cases {
                let mut cookies = format!("sessionid={key}");
                cookies.extend(cookie.iter().flat_map(|cookie| ["; csrftoken=", cookie]));
                let request = Request::post(path, fields(token)).field("Content-Type", FORM);
                let request =
                    source.iter().fold(request, |request, (name, value)| request.field(name, value));
                let request = request.field("Cookie", cookies).expect(PAGE_FIELDS);
                let answer = client.send(request.clone().field("Accept", "text/html")).await;
                assert_page(&answer, 403);
                assert_eq!(answer.all("set-cookie"), [""; 0]);
                let page = answer.text();
                assert!(
                    page.contains("CSRF verification failed") && page.contains("Allow cookies"),
                    "{page}"
                );
                assert!(page.contains(&why.replace('<', "&#60;").replace('>', "&#62;")), "{why}: {page}");
                assert!(page.contains(&format!("<a class=\"button\" href=\"{again}\">")), "{page}");
                let answer = client.send(request.field("Accept", "application/json")).await;
                assert_json(
                    &answer,
                    403,
                    &serde_json::json!({ "detail": format!("CSRF Failed: {why}") }).to_string(),
                );
            }
        }
        assert!(is_let_in(client, &key).await, "nobody was logged out");
        assert_eq!(sessions(world).await, 1, "nobody was logged in");
        assert!(traces.all().iter().any(|told| told.trace.reason == Reason::SchemeRefused));
    });
}

#[test]
fn what_another_site_sends_is_not_told_what_is_wrong_with_it() {
    on_both(&settings(""), async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/").await;
        for body in ["{", "[]", r#"{"username": "alice", "password": "wrong"}"#] {
            let answer = browser.send(json("/accounts/login/", body)).await;
            assert_json(&answer, 403, r#"{"detail":"CSRF Failed: CSRF token missing."}"#);
        }
        let text = Request::post("/accounts/login/", "x").field("Content-Type", "text/plain");
        let answer = browser.send(text.field("Origin", ORIGIN)).await;
        assert_page(&answer, 403);
    });
}

#[test]
fn an_origin_that_is_trusted_may_log_in() {
    let sections = "[authentication.schemes.session]\ncsrf = { trusted_origins = [\"https://spa.test\"] }";
    on_both(&settings(sections), async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/").await;
        let body = format!("{{\"username\": \"alice\", \"password\": \"{PASSWORD}\"}}");
        for (origin, status) in [("https://evil.test", 403), ("https://spa.test", 200)] {
            let request = Request::post("/accounts/login/", body.clone()).field("Origin", origin);
            let request = request.field("Content-Type", "application/json");
            let answer = browser.send(request.field("X-CSRFToken", browser.token())).await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
    });
}

#[test]
fn methods_that_the_pages_do_not_have_are_refused() {
    on_both(&settings(""), async |_, client| {
        for (path, methods, allow) in [
            ("/accounts/login/", ["PUT", "DELETE", "PATCH"], "GET, POST, HEAD, OPTIONS"),
            ("/accounts/logout/", ["GET", "HEAD", "DELETE"], "POST, OPTIONS"),
        ] {
            for method in methods {
                let request = Request::new(method, path).field("Accept", "text/html").expect(PAGE_FIELDS);
                let answer = client.send(request).await;
                assert_eq!((answer.status, answer.one("allow").as_deref()), (405, Some(allow)), "{answer:?}");
                let json = client.send(Request::new(method, path).field("Accept", "application/json")).await;
                if method != "HEAD" {
                    assert_page(&answer, 405);
                    assert_json(
                        &json,
                        405,
                        &format!("{{\"detail\":\"Method \\\"{method}\\\" not allowed.\"}}"),
                    );
                }
            }
            let answer = client.send(Request::new("OPTIONS", path)).await;
            assert_eq!(
                (answer.status, answer.one("allow").as_deref(), answer.body.len()),
                (200, Some(allow), 0)
            );
        }
    });
}

#[test]
fn bodies_that_cannot_be_read_are_refused_in_words() {
    on_both(&settings(""), async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/").await;
        let large = "x".repeat(65 << 10);
        for (content_type, body, status, words) in [
            (FORM, large.as_str(), 413, "Too large"),
            ("text/plain", "x", 415, "Not understood"),
            ("multipart/form-data", "x", 400, "Not understood"),
        ] {
            let request = Request::post("/accounts/login/", body).field("Content-Type", content_type);
            let request = request.field("Origin", ORIGIN).field("X-CSRFToken", browser.token());
            let answer = browser.send(request.clone().field("Accept", "text/html")).await;
            assert_page(&answer, status);
            assert!(answer.text().contains(&format!("<h1>{words}</h1>")), "{answer:?}");
            let answer = browser.send(request.field("Accept", "application/json")).await;
            assert_eq!((answer.status, answer.detail().is_empty()), (status, false));
        }
    });
}

#[test]
fn too_many_failed_logins_are_told_to_wait() {
    let traces = Traces::new();
    let sections = "[authentication.guard]\naddress_and_user = \"2/hour\"\nuser_delay = \"off\"";
    on_both(&Settings { options: traces.options(), ..settings(sections) }, async |_, client| {
        let mut browser = Browser::new(client);
        browser.go("/accounts/login/").await;
        let typed = [("username", "mallory"), ("password", "guess")];
        for _ in 0..2 {
            assert_page(&browser.submit("/accounts/login/", &typed).await, 200);
        }
        let answer = browser.submit("/accounts/login/", &typed).await;
        assert_page(&answer, 429);
        let seconds: u64 = answer.one("retry-after").unwrap().parse().unwrap();
        assert!((1700..=1800).contains(&seconds), "{seconds}");
        let page = answer.text();
        assert!(
            page.contains("<title>Error: Too many attempts</title>")
                && page.contains("Wait for 30 minutes, then try again.")
        );
        let body = r#"{"username": "mallory", "password": "guess"}"#;
        let answer = browser.send(json("/accounts/login/", body).field("X-CSRFToken", browser.token())).await;
        assert_eq!(answer.status, 429);
        assert!(answer.detail().starts_with("Request was throttled. Expected available in "));
        let told = |reason| traces.all().iter().any(|told| told.trace.reason == reason);
        assert!(told(Reason::LoginFailed) && told(Reason::GuardThrottled));
    });
}

#[test]
fn a_throttle_of_the_route_is_a_page_to_people() {
    let sections = "[throttles.login]\nrate = \"1/min\"";
    let text = format!("{ROUTES}\n{sections}\n")
        .replace("handler = \"login\"\n", "handler = \"login\"\nthrottles = [\"login\"]\n");
    on_both(&Settings::sections(&text), async |_, client| {
        let mut browser = Browser::new(client);
        assert_page(&browser.go("/accounts/login/").await, 200);
        let answer = browser.go("/accounts/login/").await;
        assert_page(&answer, 429);
        let seconds = answer.one("retry-after").unwrap();
        assert!(answer.text().contains(&format!("Wait for {seconds} seconds, then")), "{answer:?}");
        let answer = browser.send(Request::get("/accounts/login/").field("Accept", "application/json")).await;
        assert_eq!(answer.status, 429);
        assert!(answer.detail().starts_with("Request was throttled."));
    });
}

#[test]
fn while_the_store_is_away_nobody_is_told_that_a_password_is_wrong() {
    let traces = Traces::new();
    on_both(&Settings { options: traces.options(), ..settings("") }, async |world, client| {
        let mut browser = Browser::new(client);
        browser.log_in().await;
        browser.go("/accounts/login/").await;
        execute(world, "CREATE TRIGGER refuse BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        execute(world, "CREATE TRIGGER keep BEFORE DELETE ON session BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        let typed = [("username", "alice"), ("password", PASSWORD)];
        let refused = async |browser: &mut Browser<'_>, path: &str| {
            let answer = browser.submit(path, &typed).await;
            assert_page(&answer, 503);
            assert!(answer.one("retry-after").is_some() && answer.all("set-cookie").is_empty());
            assert!(answer.text().contains("Try again in a moment"), "{answer:?}");
        };
        refused(&mut browser, "/accounts/login/").await;
        refused(&mut browser, "/accounts/logout/").await;
        assert!(is_let_in(client, &browser.key()).await, "what was not done was not answered as done");
        execute(world, "DROP TRIGGER refuse").await;
        execute(world, "ALTER TABLE user RENAME TO away").await;
        refused(&mut browser, "/accounts/login/").await;
        // The page itself needs no store.
        assert_page(&browser.go("/accounts/login/").await, 200);
        let body = r#"{"username": "alice", "password": "x"}"#;
        let answer = browser.send(json("/accounts/login/", body).field("X-CSRFToken", browser.token())).await;
        assert_json(&answer, 503, r#"{"detail":"Service temporarily unavailable, try again later."}"#);
        execute(world, "ALTER TABLE away RENAME TO user").await;
        let told = |reason| traces.all().iter().any(|told| told.trace.reason == reason);
        assert!(told(Reason::NotWritten) && told(Reason::StoreUnavailable), "{:#?}", traces.all());
    });
}

#[test]
fn a_login_in_clear_is_refused_and_the_page_is_shown_by_https() {
    let settings = Settings { listen: "http = [\"127.0.0.1:0\"]", ..settings("") };
    World::start(&settings).run(Protocol::Http1, async |world, _| {
        let clear = world.in_clear();
        let body = format!("username=alice&password={}", escaped(PASSWORD));
        let answer = clear.send(Request::post("/accounts/login/", body).field("Content-Type", FORM)).await;
        assert_eq!(answer.status, 403);
        assert!(answer.detail().contains("must be considered exposed"), "{answer:?}");
        let page = Request::get("/accounts/login/?next=/app").expect(&["location"]);
        let answer = clear.send(page).await;
        let location = answer.one("location").unwrap();
        assert!(
            location.starts_with("https://gateway.test:") && location.ends_with("/accounts/login/?next=/app")
        );
        assert!(answer.all("set-cookie").is_empty());
        let logout = clear.send(Request::post("/accounts/logout/", "x")).await;
        assert_eq!((logout.status, logout.detail().as_str()), (403, "HTTPS is required."));
        let session = Request::get("/x").field("Cookie", "sessionid=0123456789abcdefghijklmnopqrstuv");
        assert_eq!(clear.send(session).await.status, 403, "a session in clear is exposed");
    });
}

#[test]
fn who_logged_in_is_traced() {
    let traces = Traces::new();
    let settings = Settings { options: traces.options(), ..settings("") };
    World::start(&settings).run(Protocol::Http2, async |_, client| {
        let mut browser = Browser::new(client);
        browser.log_in().await;
        let of_login = |all: &[crate::harness::traces::Told]| {
            let mut of = all.iter().filter(|told| told.path.as_deref() == Some("/accounts/login/"));
            of.any(|told| told.status == Some(302) && told.trace.principal.is_some())
        };
        assert!(traces.becomes(of_login).await, "{:#?}", traces.all());
    });
}

// --- whoami

#[test]
fn whoami_says_who_by_which_scheme_and_until_when() {
    let routes = ROUTES.replace(
        "schemes = [\"session\", \"token\"]",
        "schemes = [\"session\", \"token\", \"basic\", \"sso\"]",
    );
    let sso = "[authentication.schemes.sso]\nkind = \"remote-user\"\nheader = \"X-Sso-User\"\npeers = [\"127.0.0.1\"]\n";
    let open = "[routes.open]\npath = \"/open/\"\nhandler = \"whoami\"\nschemes = [\"token\"]\npermission = \"anyone\"\n";
    let (clock, options) = manual_clock();
    let settings = Settings { options, ..Settings::sections(&format!("{routes}{sso}{open}")) };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings);
        world.gateway.member("bob", &["editors", "ops"], "");
        let of_bob = world.gateway.token("bob");
        world.run(protocol, async |world, client| {
            let now = doorward::clock::Clock::unix(clock.as_ref()).0;
            let mut browser = Browser::new(client);
            browser.log_in().await;
            let basic = format!("Basic {}", BASE64.encode(format!("alice:{PASSWORD}").as_bytes()));
            secrets::used(&basic);
            for (request, user, groups, scheme, expires) in [
                (world.get("/whoami/"), "alice", "[]", "Token", (now + 30 * 86_400).to_string()),
                (
                    Request::get("/whoami/").token(&of_bob),
                    "bob",
                    r#"["editors","ops"]"#,
                    "Token",
                    (now + 30 * 86_400).to_string(),
                ),
                (Request::get("/whoami/").field("Authorization", &basic), "alice", "[]", "Basic", "null".to_owned()),
                (Request::get("/whoami/").field("X-Sso-User", "alice"), "alice", "[]", "RemoteUser", "null".to_owned()),
                (
                    Request::get("/whoami/").field("Cookie", format!("sessionid={}", browser.key())),
                    "alice",
                    "[]",
                    "Session",
                    (now + 1_209_600).to_string(),
                ),
            ] {
                let answer = client.send(request).await;
                let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                let credential = told["credential"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
                assert!(!credential.is_empty() && credential.len() <= 40, "{credential}");
                let expected = format!(
                    r#"{{"user":"{user}","groups":{groups},"staff":false,"scheme":"{scheme}","credential":"{credential}","expires":{expires}}}"#
                );
                assert_json(&answer, 200, &expected);
                assert_eq!(answer.one("allow").as_deref(), Some("GET, HEAD, OPTIONS"));
            }
            let nobody = client.send(Request::get("/open/")).await;
            let expected = r#"{"user":null,"groups":[],"staff":false,"scheme":null,"credential":null,"expires":null}"#;
            assert_json(&nobody, 200, expected);
            let nobody = client.send(Request::get("/whoami/")).await;
            assert_eq!(nobody.status, 403);
            let post = client.send(world.post("/whoami/", "")).await;
            assert_json(&post, 405, r#"{"detail":"Method \"POST\" not allowed."}"#);
        });
    }
}

// --- navigation

#[test]
fn a_navigation_leads_to_the_login_page_and_back() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let mut browser = Browser::new(client);
        let answer = browser.go("/app/a?b=c&d=%C3%A9").await;
        let location = answer.one("location").unwrap();
        assert_eq!((answer.status, answer.body.len(), answer.one("content-type")), (302, 0, None));
        assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
        assert_eq!(answer.one("vary").as_deref(), Some("Cookie"));
        assert_eq!(answer.one("www-authenticate"), None);
        let (requests, bytes) = world.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0);
        assert_page(&browser.go(&location).await, 200);
        browser.submit(&location, &[("username", "alice"), ("password", "wrong")]).await;
        let answer = browser.submit(&location, &[("username", "alice"), ("password", PASSWORD)]).await;
        assert_eq!(answer.one("location").as_deref(), Some("/app/a?b=c&d=%C3%A9"), "{location}");
        assert_eq!(browser.go("/app/a?b=c&d=%C3%A9").await.status, 200);
        assert_eq!(world.upstream.last().target, "/app/a?b=c&d=%C3%A9");
        // A session that has ended leads there as well, and is taken from the browser.
        let stale = "0123456789abcdefghijklmnopqrstuv";
        browser.jar.insert("sessionid".to_owned(), stale.to_owned());
        assert_eq!(browser.go("/app").await.status, 302);
        assert!(!browser.jar.contains_key("sessionid"));
    });
}

#[test]
fn only_navigations_are_led_to_the_login_page() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let unknown = "Token 0000000000000000000000000000000000000000";
        let cases: &[(&str, &[(&str, &str)], u16)] = &[
            ("GET", &[("Sec-Fetch-Mode", "navigate")], 302),
            ("HEAD", &[("Sec-Fetch-Mode", "navigate")], 302),
            ("GET", &[("Sec-Fetch-Mode", "navigate"), ("Authorization", unknown)], 302),
            ("GET", &[("Accept", "text/html,application/xhtml+xml;q=0.9")], 302),
            ("GET", &[("Accept", "application/json;q=0.5, TEXT/HTML")], 302),
            // Programs, whatever they would take.
            ("GET", &[], 403),
            ("GET", &[("Accept", "*/*")], 403),
            ("GET", &[("Accept", "application/json")], 403),
            ("GET", &[("Accept", "application/json, text/html;q=0")], 403),
            ("GET", &[("Accept", "text/html"), ("Authorization", unknown)], 403),
            ("GET", &[("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")], 403),
            ("GET", &[("Sec-Fetch-Mode", "no-cors"), ("Accept", "text/html")], 403),
            ("POST", &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")], 403),
            ("OPTIONS", &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")], 403),
        ];
        for (method, fields, status) in cases {
            let request =
                fields.iter().fold(Request::new(method, "/app"), |it, (name, value)| it.field(name, value));
            let answer = client.send(request.expect(&["location"])).await;
            assert_eq!(answer.status, *status, "{method} {fields:?}: {answer:?}");
            let location = answer.one("location");
            assert_eq!(location.as_deref(), (*status == 302).then_some("/accounts/login/?next=/app"));
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn nobody_is_led_round_in_circles() {
    // The login page itself is forgotten: it belongs to the route that leads there.
    let routes = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["session", "token"]
login_page = "/accounts/login/"
"#;
    on_both(&Settings::sections(routes), async |_, client| {
        let mut browser = Browser::new(client);
        for page in
            ["/accounts/login/", "/accounts/login", "/accounts/login/?next=/app", "/accounts/./login/"]
        {
            let answer = browser.go(page).await;
            assert_eq!((answer.status, answer.one("location")), (403, None), "{page}");
        }
        let answer = browser.go("/app").await;
        assert_eq!(answer.one("location").as_deref(), Some("/accounts/login/?next=/app"));
        // What would be too long to be led back to, or leads elsewhere, is left out.
        let long = format!("/{}", "a".repeat(2048));
        for target in [long.as_str(), "/a/..//evil.test"] {
            let answer = browser.go(target).await;
            let location = answer.one("location").unwrap_or_else(|| panic!("{answer:?}"));
            assert!(!location.contains("next=//") && location.len() < 1000, "{location}");
        }
    });
}

// --- other origins

/// What is told to a page of another origin.
fn cors_of(answer: &Answer) -> [Option<String>; 4] {
    let [allow, credentials, expose] =
        ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"]
            .map(|name| answer.one(name));
    let vary = answer.all("vary").join(", ");
    [allow, credentials, expose, Some(vary).filter(|vary| !vary.is_empty())]
}

const CORS_FIELDS: &[&str] = &[
    "set-cookie",
    "location",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
];

#[test]
fn own_answers_can_be_read_by_pages_of_listed_origins_alone() {
    const EXPOSED: &str = "WWW-Authenticate, Retry-After, X-Request-Id";
    for (credentials, told) in [(false, None), (true, Some("true".to_owned()))] {
        let sections = format!(
            "[cors]\norigins = [\"https://spa.test\", \"http://localhost:5173\"]\ncredentials = {credentials}\n"
        );
        on_both(&settings(&sections), async |world, client| {
            let get = |path: &str| Request::get(path).expect(CORS_FIELDS);
            for path in ["/app", "/whoami/"] {
                for origin in ["https://spa.test", "http://localhost:5173"] {
                    let answer = client.send(get(path).field("Origin", origin)).await;
                    assert_eq!(answer.status, 403);
                    let vary = Some("Cookie, Origin".to_owned());
                    let expected = [Some(origin.to_owned()), told.clone(), Some(EXPOSED.to_owned()), vary];
                    assert_eq!(cors_of(&answer), expected);
                }
                for origin in [
                    "https://evil.test",
                    "https://spa.test.evil.test",
                    "http://spa.test",
                    "null",
                    "https://SPA.test",
                ] {
                    let answer = client.send(get(path).field("Origin", origin)).await;
                    assert_eq!(
                        cors_of(&answer),
                        [None, None, None, Some("Cookie, Origin".to_owned())],
                        "{origin}"
                    );
                }
                let answer = client.send(get(path)).await;
                assert_eq!(cors_of(&answer), [None, None, None, Some("Cookie, Origin".to_owned())]);
            }
            // What the upstream answers is its own to open.
            let answer =
                client.send(world.get("/app").field("Origin", "https://spa.test").expect(CORS_FIELDS)).await;
            assert_eq!(
                (answer.status, cors_of(&answer)),
                (200, [None, None, None, Some("Cookie".to_owned())])
            );
        });
    }
}

fn preflight(path: &str, origin: &str) -> Request {
    Request::new("OPTIONS", path)
        .field("Origin", origin)
        .field("Access-Control-Request-Method", "POST")
        .field("Access-Control-Request-Headers", "content-type,x-csrftoken")
        .expect(CORS_FIELDS)
}

#[test]
fn preflights_for_handlers_are_answered_to_listed_origins() {
    let sections = "[cors]\norigins = [\"https://spa.test\"]\ncredentials = true\n";
    on_both(&settings(sections), async |world, client| {
        let mark = world.upstream.mark();
        for path in ["/accounts/login/", "/accounts/logout/", "/whoami/"] {
            let answer = client.send(preflight(path, "https://spa.test")).await;
            assert_eq!((answer.status, answer.body.len(), answer.one("content-type")), (204, 0, None));
            for (name, value) in [
                ("access-control-allow-origin", "https://spa.test"),
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-methods", "GET, POST, OPTIONS"),
                ("access-control-allow-headers", "content-type,x-csrftoken"),
                ("access-control-max-age", "600"),
            ] {
                assert_eq!(answer.one(name).as_deref(), Some(value), "{path} {name}");
            }
            let answer = client.send(preflight(path, "https://evil.test")).await;
            assert_eq!(answer.one("access-control-allow-origin"), None);
            assert_eq!(answer.one("access-control-allow-methods"), None);
        }
        // Where an upstream is behind it, the preflight is refused as everything without credentials.
        let answer = client.send(preflight("/app", "https://spa.test")).await;
        assert_eq!((answer.status, answer.one("access-control-allow-methods")), (403, None));
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn preflights_reach_an_upstream_that_answers_them_if_the_route_says_so() {
    let routes = ROUTES.replace("login_page = \"/accounts/login/\"\n", "preflight = \"pass\"\n");
    on_both(&Settings::sections(&routes), async |world, client| {
        let answer = client.send(preflight("/app", "https://spa.test")).await;
        assert_eq!(answer.status, 200);
        let seen = world.upstream.last();
        assert_eq!((seen.method.as_str(), seen.one("remote-user")), ("OPTIONS", None));
        assert_eq!(seen.one("access-control-request-method").as_deref(), Some("POST"));
        let mark = world.upstream.mark();
        for request in [
            // Not what a browser sends on its own behalf.
            preflight("/app", "https://spa.test").field("Cookie", "a=b"),
            preflight("/app", "https://spa.test")
                .field("Authorization", "Token 0000000000000000000000000000000000000000"),
            Request::new("OPTIONS", "/app").field("Origin", "https://spa.test"),
            Request::new("OPTIONS", "/app").field("Access-Control-Request-Method", "POST"),
            Request::post("/app", "")
                .field("Origin", "https://spa.test")
                .field("Access-Control-Request-Method", "POST"),
        ] {
            assert_eq!(client.send(request).await.status, 403);
        }
        world.assert_refused(client, mark).await;
    });
}
