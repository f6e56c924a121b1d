//! The login page in a browser: what a person sees and does, and what the browser thinks of it.
//!
//! Needs Debian's `chromium` and `chromium-driver`; `scripts/test` installs them. Pictures of every page, in light and in
//! dark colours, wide and narrow, are left under `target/tmp/browser/`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod driver;
mod site;

use driver::{Browser, ENTER, pictures};
use site::{PASSWORD, Site};

/// Text that is too faint (WCAG 2.2, success criterion 1.4.3: 4.5 to 1), frames of fields that are (1.4.11: 3 to 1),
/// targets that are too small (2.5.8: 24 pixels), and a page that is wider than the window (1.4.10).
const FAULTS: &str = r#"
const channels = color => color.match(/[\d.]+/g).map(Number);
const background = element => {
    for (let it = element; it; it = it.parentElement) {
        const color = channels(getComputedStyle(it).backgroundColor);
        if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
};
const luminance = color => {
    const [r, g, b] = color.slice(0, 3).map(one => {
        one /= 255;
        return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
};
const faults = [];
let texts = 0;
for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    const says = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const name = element.outerHTML.slice(0, 80);
    if (says || element.matches("input:not([type=hidden])")) {
        texts += 1;
        const found = contrast(channels(style.color), background(element));
        if (found < 4.5) faults.push(`text ${found.toFixed(2)} ${name}`);
    }
    if (element.matches("input:not([type=hidden])")) {
        const found = contrast(channels(style.borderTopColor), background(element.parentElement));
        if (found < 3) faults.push(`frame ${found.toFixed(2)} ${name}`);
    }
    if (element.matches("input:not([type=hidden]), button, .button")) {
        const { width, height } = element.getBoundingClientRect();
        if (width < 24 || height < 24) faults.push(`small ${name}`);
    }
}
if (!texts) faults.push("no text");
if (document.documentElement.scrollWidth > innerWidth) faults.push(`wide ${document.documentElement.scrollWidth}`);
if (document.documentElement.lang !== "en") faults.push("no language");
return faults;
"#;

/// Looks at a page as different people do, and leaves pictures of it.
fn look(browser: &Browser, name: &str) {
    for (width, scheme) in [(320, "light"), (320, "dark"), (1000, "dark"), (1000, "light")] {
        browser.look_at(width, scheme);
        let faults = browser.run(FAULTS);
        assert_eq!(faults, serde_json::json!([]), "{name}, {width} pixels, {scheme}");
        let picture = pictures().join(format!("{name}-{width}-{scheme}.png"));
        std::fs::write(picture, browser.screenshot()).unwrap();
    }
    // What the policy does not let in has no colour.
    let color = "return getComputedStyle(document.querySelector('button, .button')).backgroundColor";
    assert_eq!(browser.run(color), "rgb(29, 78, 216)", "the style of {name} is not applied");
    assert_nothing_blocked(browser);
}

/// The console tells of statuses, too; of nothing else.
fn assert_nothing_blocked(browser: &Browser) {
    for told in browser.console() {
        let is_status = told.contains("the server responded with a status of");
        assert!(is_status && !told.contains("favicon"), "the browser complains: {told}");
    }
}

fn log_in(browser: &Browser, username: &str, password: &str) {
    browser.fill("#username", username);
    browser.fill("#password", password);
    browser.click("button");
}

#[test]
fn a_person_logs_in_and_out() {
    let (site, browser) = (Site::start(""), Browser::start());
    browser.go(&site.url("/app?a=b"));
    assert_eq!(browser.url(), site.url("/accounts/login/?next=/app%3Fa%3Db"));
    assert_eq!(browser.title(), "Log in");
    assert_eq!(browser.focused(), "username");
    for (selector, role, label) in [
        ("#username", "textbox", "Username"),
        ("#password", "textbox", "Password"),
        ("button", "button", "Log in"),
        ("h1", "heading", "Log in"),
    ] {
        assert_eq!(browser.role_and_label(selector), (role.to_owned(), label.to_owned()));
    }
    let cookie = browser.cookie("csrftoken").unwrap();
    assert_eq!(
        (&cookie["secure"], &cookie["httpOnly"], &cookie["sameSite"]),
        (&true.into(), &false.into(), &"Lax".into())
    );
    assert_eq!(browser.cookie("sessionid"), None);
    look(&browser, "login");

    log_in(&browser, "alice", "wrong");
    browser.wait_for_title("Error: Wrong username or password – Log in");
    assert!(browser.visible("[role=alert]").starts_with("Please enter a correct username and password."));
    assert_eq!((browser.value("#username").as_str(), browser.value("#password").as_str()), ("alice", ""));
    assert_eq!(browser.focused(), "password");
    look(&browser, "wrong");
    // The browser itself asks for what is missing; blanks are for the gateway to refuse.
    log_in(&browser, "  ", "x");
    browser.wait_for_title("Error: Username missing – Log in");
    assert_eq!(browser.visible("[role=alert]"), "Username: This field is required.");
    assert_eq!(browser.focused(), "username");
    look(&browser, "missing");

    // By keyboard alone.
    browser.fill("#username", "alice");
    browser.press("\u{e004}");
    assert_eq!(browser.focused(), "password");
    browser.press(&format!("{PASSWORD}{ENTER}"));
    browser.wait_for_title("Application");
    assert_eq!((browser.url(), browser.visible("#user")), (site.url("/app?a=b"), "alice".to_owned()));
    let cookie = browser.cookie("sessionid").unwrap();
    assert_eq!(
        (&cookie["secure"], &cookie["httpOnly"], &cookie["sameSite"]),
        (&true.into(), &true.into(), &"Lax".into())
    );
    assert_eq!((&cookie["path"], &cookie["domain"]), (&"/".into(), &"localhost".into()));

    browser.click("button");
    browser.wait_for_title("Log in");
    assert_eq!(browser.url(), site.url("/accounts/login/"));
    assert_eq!(browser.cookie("sessionid"), None);
    browser.go(&site.url("/app"));
    assert_eq!(browser.url(), site.url("/accounts/login/?next=/app"));
}

#[test]
fn a_person_who_is_refused_is_told_what_to_do() {
    let guard = "[authentication.guard]\naddress_and_user = \"2/hour\"\nuser_delay = \"off\"";
    let (site, browser) = (Site::start(guard), Browser::start());
    browser.go(&site.url("/accounts/login/?next=/app"));
    browser.delete_cookie("csrftoken");
    log_in(&browser, "alice", PASSWORD);
    browser.wait_for_title("Error: Your request was refused");
    let told = browser.visible("main");
    assert!(told.contains("CSRF verification failed.") && told.contains("CSRF cookie not set."), "{told}");
    assert_eq!(browser.cookie("sessionid"), None);
    look(&browser, "forged");
    browser.click(".button");
    browser.wait_for_title("Log in");
    assert_eq!(browser.url(), site.url("/accounts/login/?next=/app"), "and nothing is lost");

    for _ in 0..2 {
        log_in(&browser, "mallory", "guess");
        browser.wait_for_title("Error: Wrong username or password – Log in");
        browser.go(&site.url("/accounts/login/?next=/app"));
    }
    log_in(&browser, "mallory", "guess");
    browser.wait_for_title("Error: Too many attempts");
    assert!(browser.visible("main").contains("Wait for 30 minutes, then try again."));
    look(&browser, "throttled");
    browser.click(".button");
    browser.wait_for_title("Log in");

    site.execute("ALTER TABLE user RENAME TO away");
    log_in(&browser, "alice", PASSWORD);
    browser.wait_for_title("Error: Not available at the moment");
    look(&browser, "away");
    site.execute("ALTER TABLE away RENAME TO user");
    browser.click(".button");
    browser.wait_for_title("Log in");
    log_in(&browser, "alice", PASSWORD);
    browser.wait_for_title("Application");
    assert_eq!((browser.url(), browser.visible("#user")), (site.url("/app"), "alice".to_owned()));
}

/// What is blocked is seen, so that an empty console proves something.
#[test]
#[should_panic(expected = "the browser complains")]
fn what_the_policy_blocks_is_seen() {
    let (site, browser) = (Site::start(""), Browser::start());
    browser.go(&site.url("/accounts/login/"));
    browser.run("document.body.append(Object.assign(document.createElement('style'), { textContent: 'p{color:red}' }))");
    assert_nothing_blocked(&browser);
}

/// A page that a browser is led to may lead on to another origin: what the policy says of forms must not stop that.
#[test]
fn a_login_may_lead_on_to_another_origin() {
    let (site, browser) = (Site::start(""), Browser::start());
    browser.go(&site.url("/leave"));
    log_in(&browser, "alice", PASSWORD);
    let elsewhere = site.url("/accounts/login/?next=/app").replace("localhost", "127.0.0.1");
    browser.wait_for("the other origin", || browser.url() == elsewhere);
    assert_nothing_blocked(&browser);
}
