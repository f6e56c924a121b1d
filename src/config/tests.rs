//! The whole way from text to problems; each test claims what one kind of fault looks like.

use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;

const SAMPLE: &str = include_str!("../../config/doorward.toml");
const DEV: &str = include_str!("../../config/dev.toml");

/// A file with nothing wrong, to which tests add one fault.
const GOOD: &str =
    "[upstreams.legacy]\nservers = [\"http://127.0.0.1:9000\"]\n[routes.all]\nupstream = \"legacy\"\n";

fn environment(name: &str) -> Option<OsString> {
    match name {
        "KEY" => Some("0123456789abcdef0123456789abcdef".into()),
        "SHORT" => Some("hunter2".into()),
        "URL" => Some("sqlite:other.db".into()),
        _ => None,
    }
}

fn source_in(directory: &Path) -> Source {
    Source { name: "doorward.toml".to_owned(), directory: directory.to_owned(), environment }
}

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    Config::parse(text, &source_in(Path::new("/nowhere")))
}

fn good(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Problems(faulty)) => faulty.problems,
        other => panic!("{other:?}"),
    }
}

/// Line, column and what is said, for one error.
fn error(text: &str) -> (usize, usize, String) {
    let problems = problems(text);
    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    (problem.line, problem.column, said(problem))
}

fn warning(text: &str) -> (usize, usize, String) {
    let loaded = good(text);
    let [problem] = loaded.warnings.as_slice() else { panic!("{:#?}", loaded.warnings) };
    assert_eq!(problem.severity, Severity::Warning);
    (problem.line, problem.column, said(problem))
}

fn said(problem: &Problem) -> String {
    format!("{}; {}", problem.message, problem.help.as_deref().unwrap_or_default())
}

/// The good file with lines added in front, so that line numbers are easy to see.
fn with(lines: &str) -> String {
    format!("{lines}\n{GOOD}")
}

/// The good file with lines added to its route, the first of which is line 5.
fn route_with(lines: &str) -> String {
    format!("{GOOD}{lines}\n")
}

#[track_caller]
fn assert_error(text: &str, line: usize, column: usize, parts: &[&str]) {
    let (at_line, at_column, said) = error(text);
    assert_eq!((at_line, at_column), (line, column), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

#[track_caller]
fn assert_warning(text: &str, line: usize, column: usize, parts: &[&str]) {
    let (at_line, at_column, said) = warning(text);
    assert_eq!((at_line, at_column), (line, column), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

// ---- the files that are shipped

#[test]
fn sample_file_equals_the_defaults() {
    let loaded = good(SAMPLE);
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
    let (sample, default) = (loaded.config, good(DEV).config);
    assert_eq!(sample.listen.https, default.listen.https);
    assert_eq!(sample.listen.workers, default.listen.workers);
    assert_eq!(sample.tls.certificates, default.tls.certificates);
    assert_eq!(sample.tls.min_version, default.tls.min_version);
    assert_eq!(sample.tls.self_signed_directory, default.tls.self_signed_directory);
    assert_eq!((sample.tls.hsts, default.tls.hsts), (None, None));
    assert_eq!((sample.listen.http, sample.listen.https_port), (Vec::new(), None));
    assert_eq!(sample.deployment.key, default.deployment.key);
    assert_eq!(sample.store, default.store);
    assert_eq!(sample.cache, Cache::default());
    assert_eq!(sample.authentication, Authentication::default());
    assert_eq!(sample.tokens, Tokens::default());
    assert_eq!(sample.identity, IdentityHeaders::default());
    assert_eq!(sample.clients, Clients::default());
    assert_eq!(sample.cors, Cors::default());
    assert_eq!(sample.limits, Limits::default());
    assert_eq!(sample.log, Log::default());
    assert_eq!(sample.upstreams, default.upstreams);
    let unnamed = |routes: &[Route]| {
        let unnamed = routes.iter().map(|route| Route { name: String::new(), ..route.clone() });
        unnamed.collect::<Vec<_>>()
    };
    assert_eq!(unnamed(&sample.routes), unnamed(&default.routes));
}

#[test]
fn defaults_pass_their_own_ranges() {
    let config = good(GOOD).config;
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.cache, Cache::default());
    assert_eq!(config.tokens, Tokens::default());
}

#[test]
fn sample_file_has_every_key() {
    let shape = shape::Shape::of::<Raw>();
    for (place, keys) in shape.tables() {
        for key in keys.keys() {
            assert!(sample_has(&place, key), "`{key}` of [{place}] is missing in config/doorward.toml");
        }
    }
}

/// Whether the sample sets the key in this section, or in an inline table there; comments count.
fn sample_has(place: &str, key: &str) -> bool {
    let mut section = String::new();
    for line in SAMPLE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            section = header.split(']').next().unwrap_or_default().to_owned();
            for named in ["upstreams.", "routes.", "throttles.", "authentication.schemes."] {
                if section.starts_with(named) {
                    section = format!("{named}NAME");
                }
            }
            let is_section = section == format!("{place}.{key}");
            if is_section || place.is_empty() && section.split('.').next() == Some(key) {
                return true;
            }
        }
        let is_set = section == place && line.starts_with(&format!("{key} = "));
        let is_below = place.starts_with(&format!("{section}."));
        let is_set_below =
            [format!("{{ {key} = "), format!(", {key} = ")].iter().any(|set| line.contains(set));
        if is_set || is_below && is_set_below {
            return true;
        }
    }
    false
}

#[test]
fn development_file_is_good() {
    let config = good(DEV).config;
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.routes[1].action, Action::ObtainToken { family: TokenFamily::Doorward });
    assert_eq!(config.routes[1].permission, Permission::Anyone);
    assert_eq!(config.routes[1].max_body, 64 << 10);
    assert_eq!(config.routes[1].path, "/api-token-auth");
}

#[test]
fn smallest_file_in_the_help_is_good() {
    let (_, text) = SMALLEST.split_once('\n').unwrap();
    good(text);
}

// ---- HTTPS only

#[test]
fn hsts_is_off_or_a_table() {
    let hsts = |written: &str| good(&with(&format!("[tls]\nhsts = {written}"))).config.tls.hsts;
    assert_eq!(hsts("\"off\""), None);
    assert_eq!(hsts("{}"), Some(Hsts::default()));
    let all = Hsts { max_age: Duration::from_hours(48 * 365), include_subdomains: true, preload: true };
    assert_eq!(hsts("{ max_age = \"730d\", include_subdomains = true, preload = true }"), Some(all));
    assert_eq!(hsts("{ max_age = 0 }").unwrap().max_age, Duration::ZERO);
    let wrong = |written: &str, column, parts: &[&str]| {
        assert_error(&with(&format!("[tls]\nhsts = {written}")), 2, column, parts);
    };
    let text = with("[tls]\nhsts = {}");
    assert_warning(&text, 2, 8, &["self-signed"]);
    wrong("\"on\"", 8, &["\"off\" or a table", "found `on`"]);
    wrong("true", 8, &["\"off\" or a table", "found boolean"]);
    wrong("{ maxage = \"1d\" }", 10, &["unknown key `maxage`", "did you mean `max_age`?"]);
    wrong("{ max_age = \"3651d\" }", 20, &["out of range", "to 3650d"]);
    wrong("{ preload = true }", 20, &["include_subdomains"]);
    wrong("{ include_subdomains = true, preload = true, max_age = \"364d\" }", 47, &["365d at least"]);
}

#[test]
fn what_happens_to_exposed_tokens_is_one_of_two() {
    let tokens = good(&with("[tokens]\non_exposed_token = \"revoke\"")).config.tokens;
    assert_eq!(tokens.on_exposed_token, OnExposedToken::Revoke);
    assert_error(&with("[tokens]\non_exposed_token = \"revok\""), 2, 20, &["did you mean `revoke`?"]);
}

// ---- everything at once

#[test]
fn many_faults_are_reported_at_once() {
    let text = r#"[listen]
https = ["[::]:8443", ":8080"]
wrokers = 3
[limits]
header_bytes = "64KB"
header_time = 10
connections = 0
[upstreams.legacy]
servers = ["http://127.0.0.1:9000"]
timeout = { conect = "2s", idle = 5 }
[routes.a]
path = "/a/../b"
upstrem = "legcy"
schemes = ["token", "tokne"]
permission = "authentcated"
[route.c]
handler = "obtain-tokens"
path = "/c"
"#;
    let expected = r#"error: expected an address with a port such as "[::]:8443", found `:8080`
 --> doorward.toml:2:23
  |
2 | https = ["[::]:8443", ":8080"]
  |                       ^^^^^^^
  = help: did you mean "[::]:8080", all addresses?

error: unknown key `wrokers` in `[listen]`
 --> doorward.toml:3:1
  |
3 | wrokers = 3
  | ^^^^^^^
  = help: did you mean `workers`?

error: expected a size such as "64KiB", found `64KB`
 --> doorward.toml:5:16
  |
5 | header_bytes = "64KB"
  |                ^^^^^^
  = help: did you mean "64KiB"?

error: expected a duration such as "30s", found `10`
 --> doorward.toml:6:15
  |
6 | header_time = 10
  |               ^^
  = help: did you mean "10s"?

error: `connections` is out of range: 0
 --> doorward.toml:7:15
  |
7 | connections = 0
  |               ^
  = help: it must be from 1 to 1000000

error: unknown key `conect` in `[upstreams.legacy.timeout]`
  --> doorward.toml:10:13
   |
10 | timeout = { conect = "2s", idle = 5 }
   |             ^^^^^^
   = help: did you mean `connect`?

error: expected a duration such as "30s", found `5`
  --> doorward.toml:10:35
   |
10 | timeout = { conect = "2s", idle = 5 }
   |                                   ^
   = help: did you mean "5s"?

error: expected a path such as "/api/", found `/a/../b`
  --> doorward.toml:12:8
   |
12 | path = "/a/../b"
   |        ^^^^^^^^^
   = help: it must not have empty segments, `.` or `..`

error: unknown key `upstrem` in `[routes.a]`
  --> doorward.toml:13:1
   |
13 | upstrem = "legcy"
   | ^^^^^^^
   = help: did you mean `upstream`?

error: there is no upstream `legcy`
  --> doorward.toml:13:11
   |
13 | upstrem = "legcy"
   |           ^^^^^^^
   = help: did you mean `legacy`?

error: there is no scheme `tokne`
  --> doorward.toml:14:21
   |
14 | schemes = ["token", "tokne"]
   |                     ^^^^^^^
   = help: did you mean `token`?

error: expected a permission such as "authenticated" or { groups = ["editors"] }, found `authentcated`
  --> doorward.toml:15:14
   |
15 | permission = "authentcated"
   |              ^^^^^^^^^^^^^^
   = help: did you mean `authenticated`?

error: unknown section `route`
  --> doorward.toml:16:2
   |
16 | [route.c]
   |  ^^^^^
   = help: did you mean `[routes.c]`?

error: expected a handler such as "obtain-token", found `obtain-tokens`
  --> doorward.toml:17:11
   |
17 | handler = "obtain-tokens"
   |           ^^^^^^^^^^^^^^^
   = help: did you mean `obtain-token`?

doorward.toml: 14 errors"#;
    assert_eq!(parse(text).unwrap_err().to_string(), expected);
}

#[test]
fn faults_are_capped_and_counted() {
    let mut text = String::from("[limits]\n");
    text.extend((0..1000).map(|n| format!("nonsense-{n} = 1\n")));
    let error = parse(&with(&text)).unwrap_err().to_string();
    assert_eq!(error.matches("error: ").count(), PROBLEMS_MAX);
    assert!(error.ends_with("doorward.toml: 100 errors; there may be more, mend these first"), "{error}");
}

#[test]
fn too_long_a_text_is_refused() {
    assert_error(&" ".repeat(FILE_BYTES_MAX + 1), 1, 1, &["larger than"]);
}

// ---- syntax

#[test]
fn syntax_errors_are_all_reported() {
    let found =
        problems(&with("[listen]\nworkers = \nworker = 3\n[tls]\nmin_version = 1.2.3\n[log]\nlevel = debug"));
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 3, 5, 7], "{found:#?}");
    assert_eq!(said(&found[3]), "strings must be quoted; put quotes around it");
}

#[test]
fn unclosed_bracket_is_one_error_where_it_was_opened() {
    let text = format!("[listen]\nworker = 3\nhttps = [\"[::]:1\"\n{GOOD}");
    let found = problems(&text);
    let places: Vec<(usize, usize)> = found.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 1), (3, 9)], "{found:#?}");
    let text =
        with("[tls]\ncertificates = [{ cert = 'a', key = 'b' }\n[limits]\nconnections = 'x'\n[log]\nx = 1");
    assert_error(&text, 2, 16, &["unclosed array", "everything behind this bracket"]);
}

#[test]
fn syntax_error_at_the_very_start_has_a_place() {
    let error = parse("= 3").unwrap_err().to_string();
    assert!(error.contains("doorward.toml:1:1\n"), "{error}");
}

#[test]
fn broken_line_is_reported_once() {
    assert_error(&with("[limits]\nheader_count = \nbody_idle = \"1s\""), 2, 16, &[]);
}

#[test]
fn key_twice_is_an_error() {
    assert_error(&route_with("path = \"/\"\npath = \"/a\""), 6, 1, &["duplicate key"]);
}

#[test]
fn schemes_as_list_and_tables_is_explained() {
    let text =
        with("[authentication]\nschemes = [\"token\"]\n[authentication.schemes.partner]\nkind = \"token\"");
    let problems = problems(&text);
    assert!(problems.iter().any(|p| said(p).contains("named instances")), "{problems:#?}");
}

// ---- keys

#[test]
fn unknown_key_suggests_the_nearest() {
    assert_error(
        &with("[listen]\nworker = 3"),
        2,
        1,
        &["unknown key `worker` in `[listen]`", "did you mean `workers`?"],
    );
}

#[test]
fn unknown_key_is_found_in_another_section() {
    assert_error(&with("[listen]\nmin_version = \"1.3\""), 2, 1, &["`min_version` is a key of [tls]"]);
    assert_error(&with("workers = 3"), 1, 1, &["before any section", "`workers` is a key of [listen]"]);
}

#[test]
fn the_log_is_not_written_into_a_file_with_something_else_in_it() {
    for file in ["doorward.key", "doorward.db"] {
        let text = with(&format!("[log]\nfile = \"{file}\""));
        assert_error(&text, 2, 8, &["a file that this configuration uses", "a file of its own"]);
    }
}

#[test]
fn unknown_key_without_a_neighbour_lists_what_is_known() {
    assert_error(
        &with("[listen]\nxyzzy = 3"),
        2,
        1,
        &["known here are `admin`, `admin_socket`, `http`, `https`, `https_port`, `workers`"],
    );
    assert_error(&with("[redis]\nurl = 'x'"), 1, 2, &["unknown section `redis`"]);
}

#[test]
fn misspelt_key_is_not_missed_as_well() {
    assert_error(
        "[upstreams.a]\nserver = [\"http://a\"]\n[routes.a]\nupstream = \"a\"",
        2,
        1,
        &["`servers`"],
    );
    assert_error(
        "[upstream.a]\nservers = [\"http://a\"]\n[routes.a]\nupstream = \"a\"",
        1,
        2,
        &["`[upstreams.a]`"],
    );
}

#[test]
fn key_with_a_wrong_value_is_not_missed_as_well() {
    assert_error(
        "[upstreams.a]\nservers = 3\n[routes.a]\nupstream = \"a\"",
        2,
        11,
        &["expected a list, found integer"],
    );
    assert_error(&with("[listen]\nhttps = [1]"), 2, 10, &["expected an address", "found the integer `1`"]);
    assert_error("upstreams = 3\n[routes.a]\nupstream = \"a\"", 1, 13, &["expected"]);
    assert_error("routes = 3\n", 1, 10, &["expected"]);
}

// ---- types and values

#[test]
fn wrong_types_say_what_is_expected() {
    assert_error(&with("[listen]\nworkers = \"4\""), 2, 11, &["expected a whole number", "without quotes"]);
    assert_error(&with("[listen]\nhttps = \"[::]:8443\""), 2, 9, &["expected a list", "brackets"]);
    assert_error(&with("listen = 3"), 1, 10, &["expected a table such as [listen]"]);
    assert_error(
        &with("[log]\nlevel = true"),
        2,
        9,
        &["expected a log level such as \"info\", found the boolean"],
    );
    assert_error(&with("[log]\nlevel = 1979-05-27"), 2, 9, &["expected a log level"]);
    assert_error(&with("[log]\nlevel = 1.5"), 2, 9, &["expected a log level"]);
    assert_error(&with("[log]\nlevel = 99999999999999999999"), 2, 9, &["expected a log level"]);
    assert_error(&with("[identity]\nforward_credentials = \"true\""), 2, 23, &["without quotes"]);
    assert_error(&route_with("permission = { groups = [1] }"), 5, 26, &["expected a string"]);
    assert_error(&with("[tls.certificates]\ncert = 'a'"), 1, 1, &["expected a list, found a table"]);
}

#[test]
fn quantities_out_of_range_name_the_range() {
    assert_error(
        &with("[limits]\nheader_bytes = \"1KiB\""),
        2,
        16,
        &["is out of range: 1KiB", "from 4KiB to 1MiB"],
    );
    assert_error(&with("[limits]\nstore_time = 0"), 2, 14, &["from 100ms to 1m"]);
    assert_error(&with("[limits]\nstreams_per_connection = 5000"), 2, 26, &["from 1 to 1000"]);
    assert_error(&with("[tokens]\nttl = \"0s\""), 2, 7, &["from 1s to 3650d"]);
    assert_error(&with("[listen]\nworkers = -1"), 2, 11, &["expected a whole number"]);
    assert_error(&with("[cache]\ncapacity = \"1B\""), 2, 12, &["from 1MiB to 64GiB"]);
}

#[test]
fn values_of_limits_are_taken() {
    let text = with(
        "[limits]\nstreams_per_connection = 7\nheader_count = 12\nstore_time = \"250ms\"\nunread_body = \"0B\"",
    );
    let limits = good(&text).config.limits;
    assert_eq!((limits.streams_per_connection, limits.header_count, limits.unread_body), (7, 12, 0));
    assert_eq!(limits.store_time, Duration::from_millis(250));
}

#[test]
fn zero_switches_staleness_off() {
    for zero in ["0", "\"0s\""] {
        let config = good(&with(&format!("[cache]\nstale_while_unreachable = {zero}"))).config;
        assert_eq!(config.cache.stale_while_unreachable, Duration::ZERO);
        assert_eq!(config.routes[0].stale_while_unreachable, Duration::ZERO);
    }
}

#[test]
fn tokens_may_live_for_ever() {
    assert_eq!(good(&with("[tokens]\nttl = \"never\"\nprefix = \"dw_\"")).config.tokens.ttl, None);
    assert_error(&with("[tokens]\nprefix = \"a b\""), 2, 10, &["at most 16"]);
}

#[test]
fn the_log_goes_to_a_file_beside_this_one_and_may_be_a_share() {
    let log = good(&with("[log]\nfile = \"log/doorward.log\"\npasses = \"1/100\"")).config.log;
    assert_eq!(log.file, Some(PathBuf::from("/nowhere/log/doorward.log")));
    assert_eq!(log.passes, Share::OneOf(100.try_into().unwrap()));
    assert_eq!(good(&with("[log]\npasses = \"none\"")).config.log.passes, Share::None);
    assert_error(&with("[log]\nfile = \"\""), 2, 8, &["expected a path"]);
    assert_error(&with("[log]\npasses = 0"), 2, 10, &["expected a share such as \"1/100\"", "\"none\""]);
    assert_error(&with("[log]\npasses = \"1/0\""), 2, 10, &["expected a share", "\"1/1000000\""]);
}

#[test]
fn traces_need_a_collector_nearby_and_a_doorward_that_was_built_for_them() {
    let text = with("[traces]\nendpoint = \"http://127.0.0.1:4318\"\nsample = \"1/7\"");
    if !cfg!(feature = "otel") {
        assert_error(&text, 1, 1, &["built without traces", "--features otel"]);
        return;
    }
    let traces = good(&text).config.traces.unwrap();
    assert_eq!((traces.host.as_str(), traces.port), ("127.0.0.1", 4318));
    assert_eq!(traces.sample, Share::OneOf(7.try_into().unwrap()));
    assert_eq!(traces.service_name, "doorward");
    assert_error(&with("[traces]"), 1, 1, &["no `endpoint`"]);
    assert_error(&with("[traces]\nendpoint = \"https://a\""), 2, 12, &["by http://"]);
    assert_error(&with("[traces]\nendpoint = \"a:1\""), 2, 12, &["did you mean \"http://a:1\"?"]);
}

#[test]
fn addresses_are_corrected() {
    assert_error(&with("[listen]\nhttps = [\"8443\"]"), 2, 10, &["did you mean \"[::]:8443\""]);
    assert_error(&with("[listen]\nhttps = [\"127.0.0.1\"]"), 2, 10, &["did you mean \"127.0.0.1:8443\""]);
    assert_error(&with("[listen]\nhttps = [\"localhost:1\"]"), 2, 10, &["not looked up"]);
    assert_error(&with("[listen]\nhttps = [\"[::]:1\", \"[::]:1\"]"), 2, 20, &["twice"]);
    assert_error(&with("[listen]\nhttps = []"), 2, 9, &["no address"]);
    assert_error(&with("[listen]\nhttp = [\"[::]:80\", \"[::]:80\"]"), 2, 20, &["twice"]);
    let both = "[listen]\nhttps = [\"[::]:443\"]\nhttp = [\"[::]:80\", \"[::]:443\"]";
    assert_error(&with(both), 3, 20, &["twice"]);
    assert_error(&with("[listen]\nhttp = [\"[::]:8443\"]"), 2, 9, &["twice"]);
    assert_error(&with("[listen]\nhttps_port = 0"), 2, 14, &["out of range", "from 1 to 65535"]);
    assert_error(&with("[listen]\nhttps_port = 65536"), 2, 14, &["out of range"]);
    let listen = good(&with("[listen]\nhttp = [\"[::]:80\"]\nhttps_port = 443")).config.listen;
    assert_eq!((listen.http, listen.https_port), (vec!["[::]:80".parse().unwrap()], Some(443)));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert_eq!(
        good(&with("[listen]\nhttps = [\"127.0.0.1:0\", \"127.0.0.1:0\"]")).config.listen.https,
        [any, any]
    );
}

#[test]
fn networks_are_checked() {
    assert_error(&with("[clients]\ntrusted_proxies = [\"10.0.0.0/99\"]"), 2, 20, &["expected a network"]);
    let config = good(&with("[clients]\ntrusted_proxies = [\"10.0.0.1\", \"fd00::/8\"]")).config;
    let shown: Vec<String> = config.clients.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1/32", "fd00::/8"]);
    assert_warning(&with("[clients]\ntrusted_proxies = [\"0.0.0.0/0\"]"), 2, 20, &["every peer is trusted"]);
}

// ---- identity

#[test]
fn identity_names_are_unlike_even_folded() {
    let text = with("[identity]\nuser = \"Remote-User\"\ngroups = \"remote_user\"");
    assert_error(&text, 3, 10, &["used twice", "`remote-user` at 2:8"]);
    assert_error(&with("[identity]\nemail = \"REMOTE.USER\""), 2, 9, &["the default of `user`"]);
}

#[test]
fn identity_names_mean_nothing_else() {
    for name in ["Host", "content-length", "Connection", "Authorization", "Cookie", "Transfer_Encoding"] {
        assert_error(&with(&format!("[identity]\nuser = \"{name}\"")), 2, 8, &["another meaning"]);
    }
    assert_error(&with("[identity]\nuser = \"Remote User\""), 2, 8, &["expected a header name"]);
}

#[test]
fn forwarded_credentials_are_warned_of() {
    assert_warning(&with("[identity]\nforward_credentials = true"), 2, 23, &["passed on"]);
}

// ---- secrets and the store

#[test]
fn inline_secret_is_warned_of_and_not_shown() {
    let text = with("[deployment]\nkey = \"0123456789abcdef0123456789abcdef\"");
    assert_warning(&text, 2, 7, &["secret"]);
    let loaded = good(&text);
    assert!(matches!(loaded.config.deployment.key, DeploymentKey::Given(_)));
    let shown = format!("{}{loaded:?}", loaded.render_warnings(true));
    assert!(!shown.contains("0123456789"), "{shown}");
}

#[test]
fn short_deployment_key_is_refused_and_not_shown() {
    for key in ["\"hunter2\"", "{ env = \"SHORT\" }"] {
        let error = parse(&with(&format!("[deployment]\nkey = {key}"))).unwrap_err();
        assert!(error.to_string().contains("fewer than 32 bytes"), "{error}");
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn misspelt_secret_is_not_shown() {
    let error = parse(&with("[deploymnt]\nkey = \"hunter2\"\nkye = 'hunter2'")).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn secret_on_a_broken_line_is_not_shown() {
    for line in [
        "key = hunter2",
        "key = \"hunter2",
        "key = \"a\"\nkey = \"hunter2\"",
        "key = 'hunter2' x",
        "\"key\" = hunter2",
    ] {
        let error = parse(&with(&format!("[deployment]\n{line}"))).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn deployment_key_is_found_elsewhere() {
    let key = |text: &str| good(&with(text)).config.deployment.key;
    assert!(matches!(key("[deployment]\nkey = { env = \"KEY\" }"), DeploymentKey::Given(_)));
    assert_eq!(key("[deployment]\nkey = { file = \"k\" }"), DeploymentKey::File("/nowhere/k".into()));
    assert_eq!(key(""), DeploymentKey::File("/nowhere/doorward.key".into()));
    assert_error(&with("[deployment]\nkey = { env = \"NONE\" }"), 2, 15, &["`NONE` is not set"]);
    assert_error(&with("[deployment]\nkey = { evn = \"KEY\" }"), 2, 9, &["did you mean `env`?"]);
    assert_error(&with("[deployment]\nkey = { env = \"KEY\", file = \"k\" }"), 2, 7, &["one of them"]);
    assert_error(&with("[deployment]\nkey = 3"), 2, 7, &["expected a string, { env"]);
}

#[test]
fn only_sqlite_is_supported() {
    let url = |url: &str| with(&format!("[store]\nurl = {url}"));
    assert_eq!(good(&url("'sqlite:a/b.db'")).config.store.url, StoreUrl::Sqlite("/nowhere/a/b.db".into()));
    assert_eq!(good(&url("'sqlite:/a.db'")).config.store.url, StoreUrl::Sqlite("/a.db".into()));
    assert_eq!(good(&url("{ env = 'URL' }")).config.store.url, StoreUrl::Sqlite("/nowhere/other.db".into()));
    assert_error(&url("'mysql://a/b'"), 2, 7, &["`mysql` is not supported", "SQLite"]);
    assert_error(&url("'doorward.db'"), 2, 7, &["expected a database URL"]);
    assert_error(&url("'sqlite::memory:'"), 2, 7, &["in memory"]);
    assert_error(&url("{ file = 'url.txt' }"), 2, 16, &["cannot read"]);
    let error = parse(&url("'postgres://me:hunter2@host/db'")).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("@host/db"), "{error}");
}

// ---- authentication

#[test]
fn schemes_are_named_instances() {
    let text = "[authentication.schemes.partner]\nkind = \"token\"\nkeyword = \"Bearer\"\n";
    let config = good(&with(text)).config;
    let names: Vec<&str> = config.authentication.schemes.iter().map(|scheme| scheme.name.as_str()).collect();
    assert_eq!(names, ["token", "basic", "session", "partner"]);
    assert_eq!(config.authentication.schemes[3].kind, token("Bearer", &[TokenFamily::Doorward]));
    assert_eq!(config.routes[0].schemes, [0]);
    let both = format!("{}schemes = [\"partner\", \"token\"]\n", with(text));
    assert_eq!(good(&both).config.routes[0].schemes, [3, 0]);
}

fn token(keyword: &str, families: &[TokenFamily]) -> SchemeConfig {
    SchemeConfig::Token { keyword: keyword.to_owned(), families: families.to_vec() }
}

#[test]
fn token_scheme_can_be_redefined() {
    let config = good(&with("[authentication.schemes.token]\nkeyword = \"Bearer\"")).config;
    assert_eq!(config.authentication.schemes.len(), 3);
    assert_eq!(config.authentication.schemes[0].kind, token("Bearer", &[TokenFamily::Doorward]));
}

#[test]
fn faulty_schemes_are_reported() {
    assert_error(&with("[authentication.schemes.partner]\nkeyword = \"A\""), 1, 25, &["has no `kind`"]);
    assert_error(&with("[authentication.schemes.p]\nkind = \"tokens\""), 2, 8, &["did you mean `token`?"]);
    assert_error(&with("[authentication.schemes.token]\nkeyword = \"A b\""), 2, 11, &["a keyword"]);
    assert_error(
        &with("[authentication]\nschemes = [\"jwt\"]"),
        2,
        12,
        &["no scheme `jwt`", "known here are `token`, `basic`, `session`"],
    );
    // A key of a later feature is an unknown one.
    assert_error(&with("[tls]\nclient_ca = 'a'"), 2, 1, &["unknown key `client_ca`"]);
    assert_error(&with("[authentication]\nschemes = 3"), 2, 11, &["expected a list such as"]);
    assert_error(&route_with("schemes = [\"token\", \"token\"]"), 5, 21, &["twice"]);
}

#[test]
fn route_without_schemes_is_public_or_refused() {
    assert_warning(&route_with("schemes = []"), 5, 11, &["nobody can pass route `all`"]);
    assert_warning(&route_with("schemes = []\npermission = \"staff\""), 5, 11, &["nobody can pass"]);
    assert_error(&with("[authentication]\nschemes = []"), 5, 9, &["nobody can pass"]);
    good(&route_with("schemes = []\npermission = \"anyone\""));
    let text =
        format!("{GOOD}[routes.t]\npath = \"/t\"\nhandler = \"obtain-token\"\npermission = \"staff\"\n");
    assert_error(&text, 8, 14, &["nobody can pass route `t`"]);
}

#[test]
fn permissions_have_one_kind() {
    let permission =
        |text: &str| good(&route_with(&format!("permission = {text}"))).config.routes[0].permission.clone();
    assert_eq!(permission("\"read-only\""), Permission::ReadOnly);
    assert_eq!(
        permission("{ groups = [\"a\", \"b\"] }"),
        Permission::Groups(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(permission("{ users = [\"a\"] }"), Permission::Users(vec!["a".to_owned()]));
    assert_error(&route_with("permission = { groups = ['a'], users = ['b'] }"), 5, 14, &["one of them"]);
    assert_error(&route_with("permission = { groups = [] }"), 5, 14, &["nobody could ever pass"]);
    assert_error(&route_with("permission = { grups = ['a'] }"), 5, 16, &["did you mean `groups`?"]);
}

#[test]
fn unverified_credentials_pass_only_to_public_routes() {
    assert_error(&route_with("pass_unverified = true"), 5, 19, &["only for routes with permission"]);
    good(&route_with("pass_unverified = true\npermission = \"anyone\""));
}

// ---- upstreams and routes

#[test]
fn upstream_takes_every_key() {
    let text = "[upstreams.a]\nservers = [\"https://a\", \"unix:/s\"]\nbalance = \"round-robin\"\nhost = \"b:81\"\n\
                timeout = { connect = \"1s\" }\nconnections = 3\nqueue_time = \"0s\"\ncase_insensitive = true\n\
                [routes.a]\nupstream = \"a\"\n";
    let upstream = good(text).config.upstreams.remove(0);
    assert_eq!(upstream.servers.len(), 2);
    assert_eq!(upstream.balance, Balance::RoundRobin);
    assert!(matches!(&upstream.host, UpstreamHost::Fixed(value) if value == "b:81"));
    assert_eq!(upstream.timeout.connect, Duration::from_secs(1));
    assert_eq!(upstream.timeout.idle, Duration::from_mins(1));
    assert_eq!((upstream.connections, upstream.queue_time), (3, Duration::ZERO));
    assert!(upstream.case_insensitive);
}

#[test]
fn upstream_needs_servers() {
    assert_error("[upstreams.a]\n[routes.a]\nupstream = \"a\"", 1, 12, &["upstream `a` has no `servers`"]);
    assert_error("[upstreams.a]\nservers = []\n[routes.a]\nupstream = \"a\"", 1, 12, &["has no `servers`"]);
}

#[test]
fn misspelt_host_is_no_name() {
    let text = |host| {
        format!("[upstreams.a]\nservers = ['http://a']\nhost = \"{host}\"\n[routes.a]\nupstream = \"a\"")
    };
    assert_error(&text("preserv"), 3, 8, &["did you mean `preserve`?"]);
    good(&text("upstream1"));
    assert_error(&text("a b"), 3, 8, &["expected \"preserve\""]);
}

#[test]
fn dangling_upstream_suggests_the_nearest() {
    assert_error(
        &format!("{GOOD}[routes.b]\npath = '/b'\nupstream = 'legcy'\n"),
        7,
        12,
        &["no upstream `legcy`", "`legacy`"],
    );
    assert_error("[routes.b]\nupstream = 'x'\n", 2, 12, &["define it"]);
}

#[test]
fn route_goes_to_one_place() {
    assert_error(
        &format!("{GOOD}[routes.b]\npath = '/b'\n"),
        5,
        9,
        &["neither `upstream` nor `handler`", "\"legacy\""],
    );
    assert_error(&route_with("handler = 'obtain-token'"), 5, 11, &["both `upstream` and `handler`"]);
    assert_error(&format!("{GOOD}[routes.b]\nhandler = 'obtain-token'"), 5, 9, &["has no `path`"]);
}

#[test]
fn no_routes_is_an_error_that_shows_the_smallest_file() {
    assert_error("", 1, 1, &["no routes", "[routes.everything]"]);
}

#[test]
fn names_are_plain() {
    assert_error(
        &format!("{GOOD}[routes.'a b']\npath = '/b'\nupstream = 'legacy'"),
        5,
        9,
        &["no name for a route"],
    );
}

#[test]
fn hosts_and_methods_are_checked() {
    assert_error(&route_with("host = 'a:80'"), 5, 8, &["without a port"]);
    assert_error(&route_with("host = '*'"), 5, 8, &["leave the key out"]);
    assert_error(&route_with("methods = ['GET', 'post']"), 5, 19, &["did you mean \"POST\"?"]);
    let route = good(&route_with("host = '*.EXAMPLE.com'\nmethods = ['GET', 'GET']")).config.routes.remove(0);
    assert_eq!(route.host, HostPattern::Wildcard("example.com".to_owned()));
    assert_eq!(route.methods, Some(vec![http::Method::GET]));
}

#[test]
fn two_routes_do_not_claim_one_place() {
    let two = |a: &str, b: &str| {
        format!("{GOOD}[routes.a]\nupstream = 'legacy'\n{a}\n[routes.b]\nupstream = 'legacy'\n{b}\n")
    };
    let text = two("path = '/x'", "path = '/x/'");
    assert_error(&text, 8, 9, &["route `b` claims `/x`", "route `a` has already", "doorward.toml:5:9"]);
    assert_error(&two("path = '/x'\nmethods = ['GET']", "path = '/x'"), 9, 9, &["claims"]);
    assert_error(&two("path = '/x'", "path = '/x'\nmethods = ['GET']"), 8, 9, &["claims"]);
    let (get, post) = ("path = '/x'\nmethods = ['GET', 'PUT']", "path = '/x'\nmethods = ['POST', 'PUT']");
    assert_error(&two(get, post), 9, 9, &["claims"]);
    let host = "path = '/x'\nhost = 'A.example'";
    assert_error(&two(host, "path = '/x'\nhost = 'a.example'"), 9, 9, &["`a.example/x`"]);
    good(&two(host, "path = '/x'"));
    good(&two("path = '/x'\nmethods = ['GET']", "path = '/x'\nmethods = ['POST']"));
    good(&two("path = '/x'", "path = '/xy'"));
    // A route with another fault still has its place.
    let text = text.replacen("upstream = 'legacy'\npath = '/x'\n", "upstream = 'legcy'\npath = '/x'\n", 1);
    let said: Vec<_> = problems(&text).iter().map(said).collect();
    assert!(said[0].contains("no upstream `legcy`") && said[1].contains("route `b` claims `/x`"), "{said:?}");
}

#[test]
fn public_prefix_around_a_protected_one_is_warned_of() {
    let two = |public: &str, protected: &str| {
        let public = format!("[routes.public]\nupstream = 'legacy'\npermission = 'anyone'\n{public}\n");
        format!(
            "[upstreams.legacy]\nservers = ['http://a']\n{public}[routes.admin]\nupstream = 'legacy'\n{protected}\n"
        )
    };
    let parts: &[&str] = &["`public` encloses the protected route `admin`", "doorward.toml:7:9"];
    assert_warning(&two("path = '/'", "path = '/admin'"), 3, 9, parts);
    assert_warning(&two("path = '/'", "path = '/admin/x'\nhost = 'a.example'"), 3, 9, parts);
    assert!(good(&two("path = '/adm'", "path = '/admin'")).warnings.is_empty());
    assert!(good(&two("path = '/admin/public'", "path = '/admin'")).warnings.is_empty());
    let other_hosts = two("path = '/'\nhost = 'b.example'", "path = '/admin'\nhost = 'a.example'");
    assert!(good(&other_hosts).warnings.is_empty());
}

#[test]
fn useless_parts_are_warned_of() {
    assert_warning(&format!("{GOOD}[upstreams.b]\nservers = ['http://b']"), 5, 12, &["`b` is never used"]);
    assert_warning(&route_with("methods = []"), 5, 11, &["can never match"]);
    assert_warning(&route_with("methods = ['TRACE']"), 5, 11, &["can never match"]);
}

// ---- throttles and guards

const LOGIN: &str = "[throttles.login]\nrate = \"5/min\"\n";

#[test]
fn throttles_are_named_and_listed() {
    let text =
        format!("{LOGIN}[throttles.all]\nrate = '10/s'\nby = 'route'\n{GOOD}throttles = ['all', 'login']");
    let config = good(&text).config;
    let minute = Duration::from_mins(1);
    let expected = [
        Throttle {
            name: "login".to_owned(),
            rate: Rate { count: 5, period: minute },
            by: ThrottleBy::Client,
        },
        Throttle {
            name: "all".to_owned(),
            rate: Rate { count: 10, period: Duration::from_secs(1) },
            by: ThrottleBy::Route,
        },
    ];
    assert_eq!(config.throttles, expected);
    assert_eq!(config.routes[0].throttles, [1, 0]);
    let handler = "[routes.t]\npath = \"/t\"\nhandler = \"obtain-token\"\nthrottles = [\"login\"]\n";
    assert_eq!(good(&format!("{LOGIN}{handler}")).config.routes[0].throttles, [0]);
}

#[test]
fn faulty_throttles_are_reported() {
    let route = |lines: &str, names: &str| format!("{}throttles = {names}\n", with(lines));
    assert_error(&route(LOGIN, "['logn']"), 8, 14, &["no throttle `logn`", "did you mean `login`?"]);
    assert_error(&route(LOGIN, "['zebra']"), 8, 14, &["known here are `login`"]);
    assert_error(&route_with("throttles = ['login']"), 5, 14, &["no throttle `login`", "define it"]);
    assert_error(&route(LOGIN, "['login', 'login']"), 8, 23, &["`login` is listed twice"]);
    assert_error(&route("[throttles.a]", "['a']"), 1, 12, &["throttle `a` has no `rate`", "100/min"]);
    let faulty = |line: &str| route(&format!("[throttles.a]\nrate = '1/s'\n{line}"), "['a']");
    assert_error(&faulty("by = 'clinet'"), 3, 6, &["did you mean `client`?"]);
    assert_error(&route("[throttles.a]\nrate = '5/week'", "['a']"), 2, 8, &["a rate such as", "`5/week`"]);
    assert_error(&route("[throttles.a]\nrate = 5", "['a']"), 2, 8, &["a rate such as"]);
    assert_error(&route("[throttles.a]\nrat = '5/s'", "['a']"), 2, 1, &["did you mean `rate`?"]);
    assert_error(&route("[throttles.\"a b\"]\nrate = '5/s'", "['a b']"), 1, 12, &["no name for a throttle"]);
    let many: Vec<_> = (0..17).map(|n| format!("[throttles.t{n}]\nrate = '5/s'\n")).collect();
    let names: Vec<_> = (0..17).map(|n| format!("'t{n}'")).collect();
    let text = route(&many.concat(), &format!("[{}]", names.join(", ")));
    assert_error(&text, 40, 13, &["at most 16 throttles"]);
}

#[test]
fn unused_throttles_are_warned_of() {
    assert_warning(&with(LOGIN.trim_end()), 1, 12, &["throttle `login` is never used"]);
}

/// A route that checks passwords.
fn handler_with(lines: &str) -> String {
    format!("{lines}\n[routes.t]\npath = \"/t\"\nhandler = \"obtain-token\"\n")
}

#[test]
fn guards_are_on_and_can_be_switched_off_visibly() {
    let config = good(&handler_with("")).config;
    assert_eq!(config.authentication.guard, Guard::default());
    let one = handler_with("[authentication.guard]\naddress = 'off'\nuser_delay = '500ms'");
    let guard = good(&one).config.authentication.guard;
    let half = Duration::from_millis(500);
    assert_eq!(guard, Guard { address: None, user_delay: Some(half), ..Guard::default() });
    assert_warning(&one, 2, 11, &["`address` is off"]);
    let all = handler_with("[authentication]\nguard = \"off\"");
    let off = Guard { address: None, address_and_user: None, user_delay: None };
    assert_eq!(good(&all).config.authentication.guard, off);
    assert_warning(&all, 2, 9, &["`guard` is off"]);
    let each = "[authentication.guard]\naddress = 'off'\naddress_and_user = 'off'\nuser_delay = 'off'";
    assert_eq!(good(&handler_with(each)).config.authentication.guard, off);
    assert_eq!(good(&handler_with(each)).warnings.len(), 3);
    // Where no password is checked, there is nothing to guard.
    assert!(good(&with("[authentication]\nguard = \"off\"")).warnings.is_empty());
}

#[test]
fn faulty_guards_are_reported() {
    let guard = |line: &str| with(&format!("[authentication.guard]\n{line}"));
    assert_error(&guard("address = '0/min'"), 2, 11, &["a rate such as \"20/min\", or \"off\""]);
    assert_error(&guard("address_and_user = 'of'"), 2, 20, &["\"off\""]);
    assert_error(&guard("user_delay = '31s'"), 2, 14, &["from 100ms to 30s"]);
    assert_error(&guard("user_delay = 2"), 2, 14, &["a duration such as \"2s\", or \"off\""]);
    assert_error(&guard("adress = '5/s'"), 2, 1, &["did you mean `address`?"]);
    assert_error(&with("[authentication]\nguard = 'none'"), 2, 9, &["or \"off\""]);
}

// ---- files

#[test]
fn certificates_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a.pem", &made.cert.pem());
    write("a.key", &made.signing_key.serialize_pem());
    write("empty", "");
    write("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let read = |cert: &str, key: &str| {
        let text = with(&format!("[tls]\ncertificates = [{{ cert = '{cert}', key = '{key}' }}]"));
        Config::parse(&text, &source_in(directory.path()))
    };
    assert_eq!(
        read("a.pem", "a.key").unwrap().config.tls.certificates[0].cert,
        directory.path().join("a.pem")
    );
    for (cert, key, said) in [
        ("none", "a.key", "cannot read"),
        ("empty", "a.key", "no certificate in"),
        ("broken", "a.key", "not well-formed PEM"),
        ("a.pem", "empty", "no private key in"),
        ("a.pem", "a.pem", "no private key in"),
    ] {
        let error = read(cert, key).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert_error(&with("[tls]\ncertificates = [{ cert = 'a' }]"), 2, 17, &["both `cert` and `key`"]);
}

#[test]
fn trust_anchors_are_opened() {
    let text = "[upstreams.a]\nservers = ['https://a']\nca = 'none.pem'\n[routes.a]\nupstream = 'a'";
    assert_error(text, 3, 6, &["cannot read"]);
}

#[test]
fn file_is_read_with_paths_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("doorward.toml");
    assert!(matches!(Config::load(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, GOOD).unwrap();
    let config = Config::load(&path).unwrap().config;
    assert_eq!(config.store.url, StoreUrl::Sqlite(directory.path().join("doorward.db")));
    assert_eq!(config.tls.self_signed_directory, directory.path().join("certs"));
    std::fs::write(&path, format!("{GOOD}\n[tls]\nself_signed = '/var/lib/doorward/certs'")).unwrap();
    let elsewhere = Config::load(&path).unwrap().config.tls.self_signed_directory;
    assert_eq!(elsewhere, Path::new("/var/lib/doorward/certs"));
    std::fs::write(&path, b"[listen]\n# \xff\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains(":2:3") && error.contains("not UTF-8"), "{error}");
}

// ---- hostile texts

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in ["a.".repeat(100_000), "a = [".repeat(100_000), "a = {b".repeat(50_000), "[".repeat(100_000)]
    {
        assert!(parse(&text).is_err());
    }
}

/// Whatever is wrong, it is said in bounded space and points into the text.
fn check_any(text: &str) {
    let Err(ConfigError::Problems(faulty)) = parse(text) else { return };
    assert!(faulty.problems.iter().any(|problem| problem.severity == Severity::Error));
    for problem in &faulty.problems {
        assert!(problem.line >= 1 && problem.column >= 1 && problem.span.start <= text.len(), "{problem:?}");
    }
    assert!(faulty.render(false).len() < 200_000);
}

fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "path",
        "upstream",
        "upstrem",
        "servers",
        "key",
        "schemes",
        "permission",
        "https",
        "url",
        "timeout",
        "host",
        "methods",
        "header_bytes",
        "ttl",
        "user",
        "certificates",
        "handler",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "\"x\"",
        "[]",
        "{}",
        "true",
        "\"/a\"",
        "[\"http://a\"]",
        "{ env = 1 }",
        "{ groups = [\"a\"] }",
        "[1, [",
        "\"anyone\"",
        "1979-05-27",
        "\"\u{1b}\"",
        "'é",
        "[{ cert = '' }]",
        "\"obtain-token\"",
        "-1",
        "1e9",
    ]);
    let section = prop::sample::select(vec![
        "[listen]",
        "[routes.a]",
        "[routes.b]",
        "[route.a]",
        "[upstreams.a]",
        "[authentication.schemes.x]",
        "[authentication]",
        "[[routes.a]]",
        "[tls]",
        "[deployment]",
        "[store]",
        "[limits]",
        "[identity]",
        "[",
    ]);
    prop_oneof![
        section.prop_map(str::to_owned),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn no_file_makes_it_panic(lines in prop::collection::vec(line(), 0..20)) {
        check_any(&lines.join("\n"));
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(at in 0..SAMPLE.len(), with in any::<char>(), cut in 0_usize..30) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, [with]);
        check_any(&text.into_iter().collect::<String>());
    }
}

#[test]
fn a_login_page_is_for_routes_that_take_sessions() {
    let with = |schemes: &str| {
        let page = "login_page = \"/accounts/login/\"\n";
        format!(
            "{GOOD}schemes = {schemes}\n{page}[routes.login]\npath = \"/accounts/login/\"\nhandler = \"login\"\n"
        )
    };
    let (line, column, said) = warning(&with("[\"token\", \"basic\"]"));
    assert_eq!((line, column), (6, 14));
    assert!(said.starts_with("whoever has logged in is led to the login page again"), "{said}");
    assert!(said.ends_with("write \"session\" among its schemes"), "{said}");
    assert!(good(&with("[\"session\"]")).warnings.is_empty());
    assert!(good(&with("[\"token\", \"session\"]")).warnings.is_empty());
    // A name that is not known is told of, and nothing that would follow from it.
    assert_eq!(problems(&with("[\"sesion\"]")).len(), 1);
}
