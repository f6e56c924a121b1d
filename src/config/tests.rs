//! The whole way from text to problems; each test claims what one kind of fault looks like.

use super::*;
use crate::secret::Secret;
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
        "EMPTY" => Some("".into()),
        "URL" => Some("sqlite:other.db".into()),
        "REDIS_URL" => Some("rediss+sentinel://u:hunter2@a,b:1/main".into()),
        "SERVER" => Some("postgres://me:hunter2@host/db".into()),
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
    assert_error(&with("[xyzzy]\nurl = 'x'"), 1, 2, &["unknown section `xyzzy`"]);
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
fn redis_is_what_the_file_says() {
    let key = "[deployment]\nkey = { env = \"KEY\" }\n";
    assert_eq!(good(GOOD).config.redis, None);
    let redis = good(&with(&format!("{key}[redis]\nurl = \"redis://a/3\""))).config.redis.unwrap();
    assert_eq!(redis.servers, RedisServers::Single(("a".into(), 6379)));
    assert_eq!((redis.database, redis.prefix.as_str(), redis.tls), (3, "doorward:", false));
    assert_eq!((redis.value_ttl, redis.timeout), (Duration::from_mins(1), Duration::from_millis(100)));
    let lines = "url = { env = \"REDIS_URL\" }\nsentinel_user = \"s\"\nsentinel_password = { env = \"KEY\" }\n\
         prefix = \"site:\"\nvalue_ttl = \"5s\"\ntimeout = \"1s\"";
    let redis = good(&with(&format!("{key}[redis]\n{lines}"))).config.redis.unwrap();
    let RedisServers::Sentinel { sentinels, service, login } = redis.servers else { panic!("{redis:?}") };
    assert_eq!((sentinels, service.as_str()), (vec![("a".into(), 26_379), ("b".into(), 1)], "main"));
    assert_eq!(login.user.as_deref(), Some("s"));
    assert!(login.password.is_some());
    assert_eq!(redis.login, RedisLogin { user: Some("u".into()), password: Some(Secret::new("hunter2")) });
    assert_eq!((redis.tls, redis.prefix.as_str(), redis.value_ttl), (true, "site:", Duration::from_secs(5)));
}

#[test]
fn redis_needs_a_key_that_is_given() {
    let redis = "[redis]\nurl = \"redis://a\"";
    assert_error(&with(redis), 1, 1, &["needs `key` in [deployment]", "openssl rand"]);
    let missing = format!("{redis}\n[deployment]\nkey = {{ file = \"there-is-none\" }}");
    assert_error(&with(&missing), 1, 1, &["there is no", "there-is-none", "openssl rand"]);
}

#[test]
fn faults_of_redis_have_a_place_and_show_no_password() {
    let key = "[deployment]\nkey = { env = \"KEY\" }\n[redis]\n";
    let at = |lines: &str, line, column, parts: &[&str]| {
        let text = with(&format!("{key}{lines}"));
        assert_error(&text, line, column, parts);
        let shown = parse(&text).unwrap_err();
        assert!(!format!("{shown}{shown:?}").contains("hunter2"), "{shown}");
    };
    at("prefix = \"a:\"", 3, 1, &["[redis] has no `url`", "redis+cluster://"]);
    at("url = \"http://a\"", 4, 7, &["`http` is not the scheme", "redis+sentinel://"]);
    at("url = \"redis://u:hunter2/hunter2@a\"", 4, 7, &["cannot be taken apart"]);
    at("url = \"redis://u:hunter2@a?hunter2\"", 4, 7, &["no parameters"]);
    at("url = { env = \"NOT_SET\" }", 4, 15, &["`NOT_SET` is not set"]);
    at("url = \"redis://a\"\nprefix = \"{a}\"", 5, 10, &["a prefix such as"]);
    at("url = \"redis://a\"\nvalue_ttl = \"2h\"", 5, 13, &["from 1s to 1h"]);
    at("url = \"redis://a\"\ntimeout = \"1ms\"", 5, 11, &["from 10ms to 5s"]);
    at("url = \"redis://a\"\ntime = \"1ms\"", 5, 1, &["unknown key `time`"]);
}

#[test]
fn redis_is_warned_of() {
    let key = "[deployment]\nkey = { env = \"KEY\" }\n[redis]\n";
    let at = |lines: &str, line, column, parts: &[&str]| {
        let text = with(&format!("{key}{lines}"));
        assert_warning(&text, line, column, parts);
        let loaded = good(&text);
        let shown = format!("{}{loaded:?}", loaded.render_warnings(true));
        assert!(!shown.contains("hunter2"), "{shown}");
    };
    at("url = \"redis://u:hunter2@a\"", 4, 7, &["a secret is written"]);
    at("url = \"redis+sentinel://a/b\"\nsentinel_password = \"hunter2\"", 5, 21, &["a secret is written"]);
    at("url = \"redis://a\"\nsentinel_user = \"x\"", 5, 17, &["names no sentinels"]);
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
fn databases_of_four_schemes_are_known() {
    let url = |url: &str| with(&format!("[store]\nurl = {url}"));
    assert_eq!(good(&url("'sqlite:a/b.db'")).config.store.url, StoreUrl::Sqlite("/nowhere/a/b.db".into()));
    assert_eq!(good(&url("'sqlite:/a.db'")).config.store.url, StoreUrl::Sqlite("/a.db".into()));
    assert_eq!(good(&url("{ env = 'URL' }")).config.store.url, StoreUrl::Sqlite("/nowhere/other.db".into()));
    assert_error(&url("'oracle://a/b'"), 2, 7, &["`oracle` is not supported", "sqlite, postgres, mysql"]);
    assert_error(&url("'doorward.db'"), 2, 7, &["expected a database URL"]);
    assert_error(&url("'sqlite::memory:'"), 2, 7, &["in memory"]);
    assert_error(&url("{ file = 'url.txt' }"), 2, 16, &["cannot read"]);
    let error = parse(&url("'oracle://me:hunter2@host/db'")).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("@host/db"), "{error}");
}

#[test]
fn a_database_server_is_shown_without_its_password() {
    let url = |url: &str| with(&format!("[store]\nurl = '{url}'"));
    for (written, shown) in [
        ("postgres://me:hunter2@host/db", "postgres://me@host/db"),
        ("postgresql://host:5433/db?sslmode=verify-full", "postgresql://host:5433/db"),
        ("postgres://me@/db?host=/run/postgresql", "postgres://me@/db"),
        ("mysql://me:hunter2@[::1]:3307/db?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem", "mysql://me@[::1]:3307/db"),
        ("mariadb://me:%40%2F@host/db", "mariadb://me@host/db"),
    ] {
        let loaded = good(&url(written));
        let store = loaded.config.store;
        assert_eq!(store.url.to_string(), shown, "{written}");
        assert!(!format!("{store:?}").contains("hunter2"), "{written}");
        let has_password = written.contains(":hunter2@") || written.contains(":%40");
        let warned = loaded.warnings.iter().any(|warning| warning.message.contains("a secret is written"));
        assert_eq!(warned, has_password, "{written}");
    }
    let elsewhere = good(&with("[store]\nurl = { env = 'SERVER' }"));
    assert_eq!(elsewhere.config.store.url.to_string(), "postgres://me@host/db");
    assert!(elsewhere.warnings.is_empty());
}

#[test]
fn a_wrong_url_of_a_server_is_refused_without_a_word_of_its_password() {
    let url = |url: &str| with(&format!("[store]\nurl = '{url}'"));
    for (written, told) in [
        ("postgres:db", "`//` is missing"),
        ("postgres://me:hunter2@host", "names no database"),
        ("postgres://me:hunter2@host/", "names no database"),
        ("postgres://me:hunter2@host/a/b", "names no database"),
        ("postgres://me:hun@ter2@host/db", "%40"),
        ("postgres://me:hun/ter2@host/db", "names no database"),
        ("postgres://me:h/ter2?x@host", "%40"),
        ("postgres://me:hunter2/db", "%40"),
        ("postgres://me:hunter2@host/db#x", "%23"),
        ("postgres://me:hunter2@host/db?sslmod=require", "did you mean `sslmode`?"),
        ("postgres://me:hunter2@host/db?password=x", "`password` is not known"),
        ("postgres://me:hunter2@host/db?sslmode=allow", "verify-full"),
        ("mysql://me:hunter2@host/db?ssl-mode=on", "verify_identity"),
        ("mysql://me:hunter2@host/db?charset=latin1", "`charset` is not known"),
    ] {
        let error = parse(&url(written)).unwrap_err().to_string();
        assert!(error.contains(told), "{written}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("ter2"), "{written}: {error}");
    }
    let connections = |count: &str| with(&format!("[store]\nconnections = {count}"));
    assert_eq!(good(&connections("20")).config.store.connections.get(), 20);
    assert_eq!(good(GOOD).config.store.connections.get(), 8);
    assert_error(&connections("0"), 2, 15, &["connections"]);
}

#[test]
fn djangos_database_and_our_own_are_not_the_same_on_a_server() {
    let store = "[store]\nurl = { env = 'SERVER' }\nlayout = 'django'\n[store.django]\n\
                 secret_key = { env = 'KEY' }\n[store.own]\nurl = ";
    assert_error(&with(&format!("{store}{{ env = 'SERVER' }}")), 7, 7, &["is Django's, too"]);
    assert!(parse(&with(&format!("{store}'sqlite:own.db'"))).is_ok());
}

// ---- an existing Django database

/// A good file on Django's database, with further lines in `[store.django]`; the first of them is line 5.
fn django_with(lines: &str) -> String {
    let store = "[store]\nurl = 'sqlite:django.sqlite3'\nlayout = 'django'\n[store.django]";
    with(&format!("{store}\n{lines}\nsecret_key = {{ env = 'KEY' }}"))
}

fn django(text: &str) -> Django {
    match good(text).config.store.layout {
        Layout::Django(django) => *django,
        Layout::Doorward => panic!("not Django's"),
    }
}

#[test]
fn djangos_layout_needs_a_secret_key_and_nothing_else() {
    assert_eq!(good(GOOD).config.store.layout, Layout::Doorward);
    assert_eq!(good(&with("[store]\nlayout = 'doorward'")).config.store.layout, Layout::Doorward);
    let django = django(&django_with(""));
    assert_eq!(django.secret_key.expose(), b"0123456789abcdef0123456789abcdef");
    assert_eq!((django.secret_key_fallbacks.len(), django.md5, django.rehash), (0, false, false));
    assert_eq!(django.backends, ["django.contrib.auth.backends.ModelBackend"]);
    assert_eq!(django.user, UserTable::default());
    assert_eq!(django.own, StoreUrl::Sqlite("/nowhere/doorward.db".into()));
    assert_eq!(django.user.groups.unwrap().table, "auth_user_groups");
}

#[test]
fn every_key_of_djangos_layout_is_taken() {
    let text = with(
        "[store]\nurl = 'sqlite:django.sqlite3'\nlayout = 'django'\n[store.django]\nsecret_key = { env = 'KEY' }\n\
         secret_key_fallbacks = [{ env = 'SHORT' }]\nbackends = ['a.B', 'c.d.E']\nmd5 = true\nrehash = true\n\
         [store.django.user]\ntable = 'accounts_user'\nid = 'uuid'\nusername = 'email'\npassword = 'pw'\n\
         is_active = ''\nis_staff = ''\nemail = ''\nlast_login = ''\ngroups_table = 'accounts_user_groups'\n\
         groups_column = 'account_id'\n[store.own]\nurl = 'sqlite:own.db'",
    );
    let django = django(&text);
    assert_eq!(django.secret_key_fallbacks[0].expose(), b"hunter2");
    assert_eq!(
        (django.backends, django.md5, django.rehash),
        (vec!["a.B".into(), "c.d.E".into()], true, true)
    );
    assert_eq!(django.own, StoreUrl::Sqlite("/nowhere/own.db".into()));
    let user = UserTable {
        table: "accounts_user".into(),
        id: "uuid".into(),
        username: "email".into(),
        password: "pw".into(),
        is_active: None,
        is_staff: None,
        email: None,
        last_login: None,
        groups: Some(GroupTable { table: "accounts_user_groups".into(), user: "account_id".into() }),
    };
    assert_eq!(django.user, user);
}

#[test]
fn a_user_table_without_groups_has_none() {
    assert_eq!(django(&django_with("user = { groups_table = '' }")).user.groups, None);
    let renamed = django(&django_with("user = { groups_column = 'u' }")).user.groups.unwrap();
    assert_eq!((renamed.table.as_str(), renamed.user.as_str()), ("auth_user_groups", "u"));
}

#[test]
fn what_djangos_layout_lacks_is_told() {
    assert_error(&with("[store]\nlayout = 'djagno'"), 2, 10, &["a layout", "did you mean `django`?"]);
    let no_url = with("[store]\nlayout = 'django'\n[store.django]\nsecret_key = { env = 'KEY' }");
    assert_error(&no_url, 2, 10, &["needs `url`", "name Django's database"]);
    let no_key = with("[store]\nurl = 'sqlite:d.sqlite3'\nlayout = 'django'");
    assert_error(
        &no_key,
        3,
        10,
        &["needs `secret_key` in [store.django]", "{ env = \"DJANGO_SECRET_KEY\" }"],
    );
    assert_error(&format!("{no_key}\n[store.django]\n"), 9, 1, &["needs `secret_key`"]);
}

#[test]
fn djangos_sections_are_for_djangos_layout_alone() {
    assert_error(
        &with("[store.django]\nmd5 = true"),
        1,
        1,
        &["`[store.django]` is for layout", "write layout"],
    );
    assert_error(&with("[store.own]\nurl = 'sqlite:a.db'"), 1, 1, &["`[store.own]` is for layout"]);
    assert_error(&with("[store.django.user]\nid = 'a'"), 1, 8, &["`[store.django]` is for layout"]);
    let text = with("[store]\nlayout = 'doorward'\n[store.django]\nmd5 = true");
    assert_error(&text, 3, 1, &["`[store.django]` is for layout"]);
    // What was meant is not known.
    assert_error(&with("[store]\nlayout = 3\n[store.django]\nmd5 = true"), 2, 10, &["expected a layout"]);
}

#[test]
fn doorwards_own_database_is_not_djangos() {
    let own =
        |url: &str| django_with("").replace("[upstreams", &format!("[store.own]\nurl = '{url}'\n[upstreams"));
    assert_error(&own("sqlite:django.sqlite3"), 8, 7, &["is Django's, too", "[store.own]"]);
    assert_error(&own("sqlite:./django.sqlite3"), 8, 7, &["is Django's, too"]);
    assert_error(&own("oracle://a"), 8, 7, &["`oracle` is not supported"]);
    let default = django_with("").replace("django.sqlite3", "doorward.db");
    assert_error(&default, 2, 7, &["is Django's, too", "name another file in [store.own]"]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("django.sqlite3"), "").unwrap();
    std::os::unix::fs::symlink("django.sqlite3", directory.path().join("own.db")).unwrap();
    let error = Config::parse(&own("sqlite:own.db"), &source_in(directory.path())).unwrap_err().to_string();
    assert!(error.contains("is Django's, too"), "{error}");
    good(&own("sqlite:own.db"));
}

#[test]
fn the_log_is_not_written_into_either_database() {
    for file in ["django.sqlite3", "doorward.db"] {
        let text = format!("{}[log]\nfile = \"{file}\"\n", django_with(""));
        assert_error(&text, 12, 8, &["a file that this configuration uses"]);
    }
}

#[test]
fn names_of_tables_and_backends_are_plain() {
    for name in ["", "a b", "1a", "a\\\"b", "a;b", "ä", &"x".repeat(64)] {
        let text = django_with(&format!("user = {{ id = \"{name}\" }}"));
        assert_error(&text, 5, 15, &["the name of a table or column", "a letter or _"]);
    }
    assert_error(&django_with("user = { email = 'a-b' }"), 5, 18, &["or \"\" if there is none"]);
    assert_error(&django_with("backends = []"), 5, 12, &["no session is ever good", "leave the key out"]);
    assert_error(&django_with("backends = ['a b.C']"), 5, 13, &["the path of a class", "ModelBackend"]);
    assert_error(&django_with("backends = ['Backend']"), 5, 13, &["the path of a class"]);
    assert_error(&django_with("backends = ['a.B', 'a.B']"), 5, 20, &["listed twice", "keep one"]);
    assert_error(&django_with("user = { groups = 'a' }"), 5, 10, &["unknown key `groups`"]);
}

#[test]
fn djangos_secret_keys_are_found_elsewhere() {
    let fallbacks = |text: &str| django_with(&format!("secret_key_fallbacks = [{text}]"));
    assert_error(&fallbacks("{ env = 'NONE' }"), 5, 33, &["`NONE` is not set"]);
    assert_error(&fallbacks("{ env = 'EMPTY' }"), 5, 33, &["the secret key is empty", "SECRET_KEY"]);
    assert_error(&fallbacks("{ file = 'none' }"), 5, 34, &["cannot read", "Django's SECRET_KEY"]);
    assert_error(&fallbacks("''"), 5, 25, &["the secret key is empty"]);
    assert_error(&fallbacks("{ evn = 'KEY' }"), 5, 27, &["did you mean `env`?"]);
    assert_error(&django_with("secret_key_fallbacks = 'a'"), 5, 24, &["expected a list"]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("key"), "from a file\n").unwrap();
    let loaded = Config::parse(&fallbacks("{ file = 'key' }"), &source_in(directory.path())).unwrap();
    let Layout::Django(django) = loaded.config.store.layout else { panic!("not Django's") };
    assert_eq!(django.secret_key_fallbacks[0].expose(), b"from a file");
}

#[test]
fn inline_secret_keys_are_warned_of_and_not_shown() {
    let text = django_with("")
        .replace("{ env = 'KEY' }", "'hunter2'\nsecret_key_fallbacks = [ 'hunter2', 'hunter2' ]");
    let loaded = good(&text);
    let places: Vec<_> = loaded.warnings.iter().map(|it| (it.line, it.column)).collect();
    assert_eq!(places, [(6, 14), (7, 26), (7, 37)]);
    assert!(loaded.warnings.iter().all(|it| said(it).contains("better write { env")));
    let shown = format!("{}{loaded:?}", loaded.render_warnings(true));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn djangos_secret_keys_are_not_shown_wherever_they_stand() {
    for lines in [
        // Broken.
        "[store.django]\nsecret_key = hunter2",
        "[store.django]\nsecret_key = 'hunter2",
        "[store.django]\nsecret_kye = 'hunter2' x",
        "[store.django]\n'secret_key' = 'hunter2' x",
        "[store]\ndjango = { secret_key = 'hunter2' md5 = true }",
        "[store]\ndjango.secret_key = 'hunter2' x",
        "[store.django]\nsecret_key_fallbacks = [\n  'a'\n  'hunter2',\n]",
        "[store.django]\nsecret_key_fallbacks = [\n  'a'\n  'x=hunter2',\n]",
        "[store.django]\nsecret_key_fallbacks = ['hunter2'",
        "[store.django]\nsecret_key_fallbacks = ['hunter2', hunter2]",
        // In a wrong place, or under a wrong name.
        "[store]\nsecret_key = 'hunter2'",
        "[django]\nsecret_key = 'hunter2'",
        "secret_key = 'hunter2'",
        "settings = { django = { secret_key = 'hunter2' } }",
        "[store.djagno]\nsecret_key = 'hunter2'",
        "[store.django]\nsecretkey = 'hunter2'",
        "[store.django]\nsecret_key = 'a'\nsecret-key = 'hunter2'",
        "[store.django]\nsecret_key_fallback = ['hunter2']",
        "[store.django]\nsecret_key_fallbacks = 'hunter2'",
        "[store.django]\nsecret_key = ['hunter2']",
        "[store.django]\nsecret_key_fallbacks = [['hunter2']]",
        "[store.django]\nsecret_key_fallbacks = [3, 'hunter2']",
        "[store.django]\nsecret_key_fallbacks = 'hunter2 x'",
        "[limits]\nkey = 'hunter2'",
    ] {
        let error = parse(&with(lines)).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{lines}\n\n{error}");
    }
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

/// The kind of the scheme that these lines define, the first of which is line 2.
fn scheme(name: &str, lines: &str) -> SchemeConfig {
    let config = good(&with(&format!("[authentication.schemes.{name}]\n{lines}"))).config;
    config.authentication.schemes.into_iter().find(|scheme| scheme.name == name).unwrap().kind
}

fn scheme_with(name: &str, lines: &str) -> String {
    with(&format!("[authentication.schemes.{name}]\n{lines}"))
}

#[test]
fn schemes_named_like_their_kinds_are_there_without_a_table() {
    let text = route_with("schemes = [\"session\", \"basic\", \"token\"]");
    let config = good(&text).config;
    assert_eq!(config.routes[0].schemes, [2, 1, 0]);
    let kinds: Vec<_> = config.authentication.schemes.into_iter().map(|scheme| scheme.kind).collect();
    let session = SchemeConfig::Session(Box::default());
    let basic = SchemeConfig::Basic { realm: "api".to_owned() };
    assert_eq!(kinds, [token("Token", &[TokenFamily::Doorward]), basic, session]);
    let all = good(&with("[authentication]\nschemes = [\"basic\", \"token\"]")).config.routes.remove(0);
    assert_eq!(all.schemes, [1, 0]);
    let parts: &[&str] = &["no scheme `remote-user`", "[authentication.schemes.remote-user] with peers"];
    assert_error(&route_with("schemes = [\"remote-user\"]"), 5, 12, parts);
}

#[test]
fn families_of_tokens_follow_the_layout() {
    let both = [TokenFamily::Doorward, TokenFamily::Authtoken];
    assert_eq!(good(&django_with("")).config.authentication.schemes[0].kind, token("Token", &both));
    assert_eq!(scheme("token", "families = ['doorward']"), token("Token", &both[..1]));
    let of_django = |families: &str| {
        format!("{}[authentication.schemes.t]\nkind = 'token'\nfamilies = {families}\n", django_with(""))
    };
    let kind = |families: &str| good(&of_django(families)).config.authentication.schemes.remove(3).kind;
    assert_eq!(kind("['authtoken']"), token("Token", &both[1..]));
    assert_eq!(kind("['authtoken', 'doorward']"), token("Token", &[both[1], both[0]]));
    let told: &[&str] = &["no table of the family `authtoken`", "layout = \"django\""];
    assert_error(&scheme_with("token", "families = ['authtoken']"), 2, 13, told);
    assert_error(&scheme_with("token", "families = []"), 2, 12, &["no token is ever good", "doorward"]);
    let twice = scheme_with("token", "families = ['doorward', 'doorward']");
    assert_error(&twice, 2, 25, &["listed twice", "keep one"]);
    let text = scheme_with("token", "families = ['authtokn']");
    assert_error(&text, 2, 13, &["a family of tokens", "did you mean `authtoken`?"]);
}

#[test]
fn realms_come_from_the_route_the_scheme_or_all() {
    let basic = |realm: &str| SchemeConfig::Basic { realm: realm.to_owned() };
    assert_eq!(scheme("staff", "kind = 'basic'"), basic("api"));
    assert_eq!(scheme("basic", "realm = 'my place'"), basic("my place"));
    let text = with("[authentication]\nrealm = 'all'\n[authentication.schemes.staff]\nkind = 'basic'");
    let schemes = good(&text).config.authentication.schemes;
    assert_eq!((&schemes[1].kind, &schemes[3].kind), (&basic("all"), &basic("all")));
    assert_eq!(good(GOOD).config.routes[0].realm, None);
    assert_eq!(good(&route_with("realm = 'r'")).config.routes[0].realm.as_deref(), Some("r"));
    for bad in ["a\\\"b", "a\\\\b", "a\\nb", &"x".repeat(257)] {
        for text in [
            with(&format!("[authentication]\nrealm = \"{bad}\"")),
            scheme_with("basic", &format!("realm = \"{bad}\"")),
        ] {
            assert_error(&text, 2, 9, &["a realm such as \"api\"", "no quotes"]);
        }
        assert_error(&route_with(&format!("realm = \"{bad}\"")), 5, 9, &["a realm such as"]);
    }
}

#[test]
fn keys_of_another_kind_are_told_from_misspelt_ones() {
    let keys = [
        ("keyword = 'A'", "token"),
        ("families = ['doorward']", "token"),
        ("realm = 'a'", "basic"),
        ("cookie = 'a'", "session"),
        ("age = '1h'", "session"),
        ("secure = true", "session"),
        ("domain = 'a.b'", "session"),
        ("same_site = 'Lax'", "session"),
        ("csrf = {}", "session"),
        ("header = 'A'", "remote-user"),
        ("peers = ['::1']", "remote-user"),
        ("create_users = true", "remote-user"),
    ];
    for (line, of) in keys {
        let (key, value) = line.split_once(" = ").unwrap();
        let column = line.len() - value.len() + 1;
        for (kind, own) in [
            ("token", "which has `keyword`, `families`"),
            ("basic", "which has `realm`"),
            ("session", "which has `cookie`, `age`, `secure`, `domain`, `same_site`, `csrf`"),
        ] {
            let text = scheme_with("x", &format!("{line}\nkind = '{kind}'"));
            if kind == of {
                good(&text);
            } else {
                let message = format!("`{key}` is a key of schemes of kind `{of}`");
                assert_error(&text, 2, column, &[&message, &format!("`x` is of kind `{kind}`, {own}")]);
            }
        }
        let text = scheme_with("x", line);
        assert_error(&text, 1, 25, &["has no `kind`", &format!("write kind = \"{of}\"")]);
    }
    assert_error(&scheme_with("session", "cokie = 'a'"), 2, 1, &["did you mean `cookie`?"]);
    let other = scheme_with("basic", "kind = 'token'");
    assert_error(&other, 2, 8, &["another kind than its name says", "a name of its own"]);
    // A scheme whose kind is not known is not missed as well.
    let text = format!("{}schemes = ['x']\n", scheme_with("x", "kind = 'sesion'\ncookie = 'a'"));
    assert_error(&text, 2, 8, &["did you mean `session`?"]);
}

fn session(lines: &str) -> SessionConfig {
    match scheme("session", lines) {
        SchemeConfig::Session(session) => *session,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_key_of_a_session_is_taken() {
    let default = session("");
    assert_eq!(default, SessionConfig::default());
    assert_eq!((default.cookie.as_str(), default.age), ("sessionid", Duration::from_hours(14 * 24)));
    assert_eq!((default.secure, default.same_site, default.domain), (true, SameSite::Lax, None));
    assert_eq!((default.csrf.cookie.as_str(), default.csrf.header.as_str()), ("csrftoken", "x-csrftoken"));
    assert_eq!(default.csrf.age.as_secs(), 31_449_600, "Django's CSRF_COOKIE_AGE");
    let all = session(
        "cookie = '__Secure-s'\nage = '1m'\nsecure = true\ndomain = '.Example.com'\nsame_site = 'None'\n\
         csrf = { cookie = 'c', header = 'X-C', trusted_origins = ['https://*.a.b', 'http://c:81'], \
         domain = 'a.b', age = '400d' }",
    );
    let csrf = CsrfConfig {
        cookie: "c".to_owned(),
        header: http::HeaderName::from_static("x-c"),
        trusted_origins: vec!["https://*.a.b".to_owned(), "http://c:81".to_owned()],
        domain: Some("a.b".to_owned()),
        in_session: false,
        age: Duration::from_hours(400 * 24),
    };
    let expected = SessionConfig {
        cookie: "__Secure-s".to_owned(),
        age: Duration::from_mins(1),
        secure: true,
        domain: Some(".example.com".to_owned()),
        same_site: SameSite::None,
        csrf,
    };
    assert_eq!(all, expected);
}

#[test]
fn faulty_sessions_are_reported() {
    let wrong =
        |line: &str, column, parts: &[&str]| assert_error(&scheme_with("session", line), 2, column, parts);
    wrong("cookie = 'a b'", 10, &["the name of a cookie", "letters, digits"]);
    wrong("age = '59s'", 7, &["out of range", "from 1m to 400d"]);
    wrong("age = '401d'", 7, &["out of range", "from 1m to 400d"]);
    wrong("domain = 'https://a'", 10, &["a domain such as", "the name alone"]);
    wrong("same_site = 'lax'", 13, &["did you mean `Lax`?"]);
}

#[test]
fn insecure_sessions_are_warned_of() {
    assert!(!session("secure = false").secure);
    assert_warning(&scheme_with("session", "secure = false"), 2, 10, &["in clear", "unless this is a test"]);
    let found = problems(&scheme_with("session", "same_site = 'None'\nsecure = false"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        said(&found[0]).contains("must be secure") && said(&found[0]).contains("take secure = false out")
    );
    assert_eq!((found[0].line, found[0].column), (2, 13));
    for name in ["__Host-s", "__secure-s"] {
        let found = problems(&scheme_with("session", &format!("cookie = '{name}'\nsecure = false")));
        assert!(said(&found[0]).contains("without `secure`"), "{found:#?}");
    }
    let host = scheme_with("session", "cookie = '__Host-s'\ndomain = 'a.b'");
    assert_error(&host, 2, 10, &["with a `domain`", "leave one of them out"]);
}

#[test]
fn faulty_csrf_options_are_reported() {
    let wrong = |csrf: &str, column, parts: &[&str]| {
        assert_error(&scheme_with("session", &format!("csrf = {{ {csrf} }}")), 2, column, parts);
    };
    wrong("cookie = ''", 19, &["the name of a cookie"]);
    wrong("cookie = 'sessionid'", 19, &["both cookies are called `sessionid`", "another name"]);
    wrong("header = 'Cookie'", 19, &["another meaning in HTTP", "X-CSRFToken"]);
    wrong("age = '1s'", 16, &["from 1m to 400d"]);
    wrong("domain = ''", 19, &["a domain such as"]);
    wrong("in_session = true", 23, &["for layout = \"django\" alone", "leave it out"]);
    wrong("trusted_origins = ['a.b']", 29, &["did you mean \"https://a.b\"?"]);
    wrong("trusted_origins = ['https://a', 'https://A']", 42, &["listed twice", "keep one"]);
    wrong("trusted = []", 10, &["unknown key `trusted`"]);
    let django =
        format!("{}[authentication.schemes.session]\ncsrf = {{ in_session = true }}\n", django_with(""));
    let SchemeConfig::Session(session) = &good(&django).config.authentication.schemes[2].kind else {
        panic!("no session")
    };
    assert!(session.csrf.in_session);
}

#[test]
fn users_of_a_server_in_front_come_from_listed_peers() {
    let kind = scheme("remote-user", "peers = ['10.0.0.1', 'fd00::/8']");
    let peers = vec!["10.0.0.1/32".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let header = http::HeaderName::from_static("remote-user");
    assert_eq!(kind, SchemeConfig::RemoteUser { header, peers, create_users: false });
    let all = scheme("sso", "kind = 'remote-user'\nheader = 'X-User'\npeers = ['::1']\ncreate_users = true");
    let header = http::HeaderName::from_static("x-user");
    let peers = vec!["::1/128".parse().unwrap()];
    assert_eq!(all, SchemeConfig::RemoteUser { header, peers, create_users: true });
    assert_error(&scheme_with("remote-user", ""), 1, 25, &["has no `peers`", "peers = [\"127.0.0.1\"]"]);
    assert_error(&scheme_with("remote-user", "peers = []"), 2, 9, &["has no `peers`"]);
    assert_error(&scheme_with("remote-user", "peers = ['a']"), 2, 10, &["expected a network"]);
    assert_error(&scheme_with("remote-user", "peers = ['::1', '::1']"), 2, 17, &["listed twice", "keep one"]);
    let header = scheme_with("remote-user", "header = 'Authorization'\npeers = ['::1']");
    assert_error(&header, 2, 10, &["another meaning in HTTP", "Remote-User"]);
    let any = scheme_with("remote-user", "peers = ['0.0.0.0/0']");
    assert_warning(&any, 2, 10, &["any client can be any user", "your own servers"]);
}

#[test]
fn what_is_mended_of_drf_is_off_and_a_route_has_the_last_word() {
    let traps = |text: &str| {
        let route = good(text).config.routes.remove(0);
        (
            route.explicit_credentials_first,
            route.bad_credentials_on_public,
            route.unauthenticated_status,
            route.preflight,
        )
    };
    let off = (false, BadCredentials::Refuse, None, Preflight::Refuse);
    let on = (true, BadCredentials::Ignore, Some(Unauthenticated::Unauthorized), Preflight::Pass);
    let lines = "explicit_credentials_first = true\nbad_credentials_on_public = 'ignore'\n\
                 unauthenticated_status = 401\npreflight = 'pass'";
    assert_eq!(traps(GOOD), off);
    assert_eq!(traps(&route_with(lines)), on);
    let all = with(&format!("[authentication]\n{lines}"));
    assert_eq!(traps(&all), on);
    let back =
        "explicit_credentials_first = false\nbad_credentials_on_public = 'refuse'\npreflight = 'refuse'";
    let (first, bad, status, preflight) = traps(&format!("{all}{back}\n"));
    assert_eq!((first, bad, preflight), (false, BadCredentials::Refuse, Preflight::Refuse));
    assert_eq!(status, Some(Unauthenticated::Unauthorized));
    for (line, column, told) in [
        ("explicit_credentials_first = 'yes'", 30, "`true` or `false`"),
        ("bad_credentials_on_public = 'ignor'", 29, "did you mean `ignore`?"),
        ("unauthenticated_status = 403", 26, "the first scheme of the route decides"),
        ("unauthenticated_status = '401'", 26, "without quotes"),
        ("preflight = 'passes'", 13, "did you mean `pass`?"),
    ] {
        assert_error(&route_with(line), 5, column, &[told]);
        assert_error(&with(&format!("[authentication]\n{line}")), 2, column, &[told]);
    }
}

#[test]
fn login_pages_are_paths_of_this_host() {
    let text = format!("{}{LOGIN_ROUTE}", route_with("login_page = '/accounts/login/'"));
    let route = good(&text).config.routes.remove(0);
    assert_eq!(route.login_page.as_deref(), Some("/accounts/login/"));
    assert_error(
        &route_with("login_page = 'https://a/'"),
        5,
        14,
        &["a path of this host", "begin with a slash"],
    );
    assert_error(&route_with("login_page = '//a'"), 5, 14, &["another host"]);
    assert_error(&route_with("login_page = '/a?b'"), 5, 14, &["without a query"]);
}

const LOGIN_ROUTE: &str = "[routes.login]\npath = '/accounts/login'\nhandler = 'login'\n";

#[test]
fn login_pages_that_nobody_reaches_are_warned_of() {
    let text = route_with("login_page = '/accounts/login/'\nschemes = ['session']");
    let parts: &[&str] = &["the login page of route `all` is in route `all`", "handler = \"login\""];
    assert_warning(&text, 3, 9, parts);
    assert!(good(&format!("{text}{LOGIN_ROUTE}")).warnings.is_empty());
    let elsewhere = format!("{text}{LOGIN_ROUTE}host = 'b.example'\n").replace("path = '/'", "");
    let elsewhere = elsewhere.replace("upstream = \"legacy\"", "upstream = \"legacy\"\nhost = 'a.example'");
    assert_warning(&elsewhere, 3, 9, parts);
    let posts = format!("{text}{LOGIN_ROUTE}methods = ['POST']\n");
    assert_warning(&posts, 3, 9, parts);
    let around = "[routes.accounts]\npath = '/accounts'\nupstream = 'legacy'\npermission = 'anyone'\n";
    assert!(good(&format!("{text}{around}")).warnings.is_empty());
}

// ---- handlers

/// A route with this handler and further lines, the first of which is line 4.
fn handled(handler: &str, lines: &str) -> String {
    format!("[routes.h]\npath = '/h'\nhandler = '{handler}'\n{lines}\n")
}

#[test]
fn handlers_have_their_options() {
    let action = |handler: &str, lines: &str| good(&handled(handler, lines)).config.routes.remove(0).action;
    let doorward = Action::ObtainToken { family: TokenFamily::Doorward };
    assert_eq!(action("obtain-token", ""), doorward);
    assert_eq!(action("obtain-token", "family = 'doorward'"), doorward);
    assert_eq!(action("login", ""), Action::Login { session: 2, redirect: "/".to_owned() });
    assert_eq!(action("logout", ""), Action::Logout { session: 2, redirect: "/".to_owned() });
    assert_eq!(action("whoami", ""), Action::WhoAmI);
    let browser =
        "session = 'browser'\nredirect = '/a?b'\n[authentication.schemes.browser]\nkind = 'session'";
    assert_eq!(action("login", browser), Action::Login { session: 3, redirect: "/a?b".to_owned() });
    assert_eq!(action("logout", browser), Action::Logout { session: 3, redirect: "/a?b".to_owned() });
    let django = |lines: &str| {
        let text = format!("{}{}", django_with(""), handled("obtain-token", lines));
        good(&text).config.routes.remove(1).action
    };
    assert_eq!(django(""), Action::ObtainToken { family: TokenFamily::Authtoken });
    assert_eq!(django("family = 'doorward'"), doorward);
}

#[test]
fn handlers_that_give_credentials_out_are_open_and_whoami_is_a_route_like_others() {
    for handler in ["obtain-token", "login", "logout"] {
        let route = good(&handled(handler, "")).config.routes.remove(0);
        assert_eq!((route.schemes, route.permission), (Vec::new(), Permission::Anyone), "{handler}");
        assert_eq!(route.max_body, 64 << 10);
    }
    let route = good(&handled("whoami", "")).config.routes.remove(0);
    assert_eq!((route.schemes, route.permission), (vec![0], Permission::Authenticated));
    let text = handled("whoami", "[authentication]\nschemes = ['session', 'token']\npermission = 'staff'");
    let route = good(&text).config.routes.remove(0);
    assert_eq!((route.schemes, route.permission), (vec![2, 0], Permission::Staff));
    assert_eq!(route.max_body, 64 << 10);
}

#[test]
fn faulty_handlers_are_reported() {
    let told: &[&str] = &["no table of the family `authtoken`", "write \"doorward\""];
    assert_error(&handled("obtain-token", "family = 'authtoken'"), 4, 10, told);
    let browser = "[authentication.schemes.browser]\nkind = 'session'";
    let named = |name: &str| handled("login", &format!("session = '{name}'\n{browser}"));
    assert_error(&named("browsr"), 4, 11, &["no scheme `browsr`", "did you mean `browser`?"]);
    assert_error(&named("x"), 4, 11, &["no scheme `x`", "of kind `session` are `session`, `browser`"]);
    assert_error(&named("token"), 4, 11, &["`token` is not of kind `session`", "`session`, `browser`"]);
    assert_error(&handled("logout", "redirect = '//a'"), 4, 12, &["a path of this host", "another host"]);
    assert_error(&handled("logut", ""), 3, 11, &["did you mean `logout`?"]);
    for (handler, path) in [
        ("obtain-token", "/api-token-auth/"),
        ("login", "/accounts/login/"),
        ("logout", "/accounts/logout/"),
        ("whoami", "/whoami/"),
    ] {
        let text = format!("[routes.h]\nhandler = '{handler}'\n");
        assert_error(&text, 1, 9, &["has no `path`", &format!("write path = \"{path}\"")]);
    }
}

#[test]
fn keys_of_another_handler_are_told() {
    for (key, value, of) in [
        ("family", "'doorward'", &["obtain-token"][..]),
        ("session", "'session'", &["login", "logout"]),
        ("redirect", "'/'", &["login", "logout"]),
    ] {
        let line = format!("{key} = {value}");
        let told = format!("`{key}` is a key of routes with handler = \"{}\"", of[0]);
        for handler in ["obtain-token", "login", "logout", "whoami"] {
            let text = handled(handler, &line);
            if of.contains(&handler) {
                good(&text);
            } else {
                assert_error(&text, 4, key.len() + 4, &[&told, "leave it out"]);
            }
        }
        assert_error(&route_with(&line), 5, key.len() + 4, &[&told]);
        // Which handler was meant is not known.
        assert_error(&handled("logn", &line), 3, 11, &["did you mean `login`?"]);
    }
}

#[test]
fn routes_that_check_passwords_are_known() {
    let checks = |text: &str| {
        let config = good(text).config;
        config.routes.iter().all(|route| route.checks_passwords(&config.authentication.schemes))
    };
    assert!(checks(&handled("obtain-token", "")) && checks(&handled("login", "")));
    assert!(!checks(&handled("logout", "")) && !checks(&handled("whoami", "")) && !checks(GOOD));
    assert!(checks(&route_with("schemes = ['token', 'basic']")));
    assert!(checks(&handled("whoami", "schemes = ['basic']")));
    // So switched-off guards are warned of there.
    let off = "[authentication]\nguard = \"off\"";
    assert!(good(&with(off)).warnings.is_empty());
    assert_warning(&format!("{}schemes = ['basic']\n", with(off)), 2, 9, &["`guard` is off"]);
}

// ---- CORS

#[test]
fn origins_of_pages_are_listed() {
    let cors = |lines: &str| good(&with(&format!("[cors]\n{lines}"))).config.cors;
    assert_eq!(cors(""), Cors { origins: Vec::new(), credentials: false });
    let origins = vec!["https://app.example.com".to_owned(), "http://localhost:3000".to_owned()];
    let both = "origins = ['https://APP.example.com', 'http://localhost:3000']\ncredentials = true";
    assert_eq!(cors(both), Cors { origins, credentials: true });
    let wrong = |origin: &str, parts: &[&str]| {
        assert_error(&with(&format!("[cors]\norigins = ['https://a', '{origin}']")), 2, 25, parts);
    };
    wrong("*", &["an origin such as", "list each origin"]);
    wrong("https://*.a.b", &["no patterns"]);
    wrong("https://a/b", &["no path"]);
    wrong("a.b", &["did you mean \"https://a.b\"?"]);
    wrong("https://A", &["listed twice", "keep one"]);
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
            shared: false,
        },
        Throttle {
            name: "all".to_owned(),
            rate: Rate { count: 10, period: Duration::from_secs(1) },
            by: ThrottleBy::Route,
            shared: false,
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

const REDIS: &str = "[deployment]\nkey = { env = 'KEY' }\n[redis]\nurl = 'redis://127.0.0.1'\n";

#[test]
fn throttles_of_logins_are_shared_where_there_is_a_redis() {
    let login = "[routes.t]\npath = \"/t\"\nhandler = \"obtain-token\"\nthrottles = [\"login\"]\n";
    let hot = format!("{GOOD}throttles = ['login']\n");
    let is_shared = |text: String| good(&text).config.throttles[0].shared;
    assert!(is_shared(format!("{REDIS}{LOGIN}{login}")));
    assert!(!is_shared(format!("{LOGIN}{login}")), "no Redis");
    assert!(!is_shared(format!("{REDIS}{LOGIN}{hot}")), "each request would ask Redis");
    assert!(!is_shared(format!("{REDIS}{LOGIN}{login}{hot}")), "another route has it, too");
    assert!(!is_shared(format!("{REDIS}{LOGIN}{GOOD}")), "no route has it");
    let large = "[throttles.login]\nrate = '1001/day'\n";
    assert!(!is_shared(format!("{REDIS}{large}{login}")), "too many times to keep");
    // What the file says counts.
    assert!(!is_shared(format!("{REDIS}{LOGIN}shared = false\n{login}")));
    assert!(is_shared(format!("{REDIS}{LOGIN}shared = true\n{hot}")));
}

#[test]
fn throttles_that_cannot_be_shared_are_reported() {
    let route = |lines: &str| format!("{}throttles = ['a']\n", with(lines));
    let shared = |rate: &str| format!("[throttles.a]\nrate = '{rate}'\nshared = true");
    assert_error(&route(&shared("5/s")), 3, 10, &["needs a Redis", "add [redis]", "shared = false"]);
    let large = route(&format!("{}\n{REDIS}", shared("1001/s")));
    assert_error(&large, 3, 10, &["more than 1000 cannot be shared", "smaller rate"]);
    assert_error(&route("[throttles.a]\nrate = '5/s'\nshared = 'yes'"), 3, 10, &["true"]);
    // A Redis with faults is one all the same.
    let faulty = "[redis]\nurl = 'http://127.0.0.1'";
    let problems = problems(&route(&format!("{}\n{faulty}", shared("5/s"))));
    assert!(problems.iter().all(|problem| !problem.message.contains("needs a Redis")), "{problems:?}");
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
        "layout",
        "secret_key",
        "secret_key_fallbacks",
        "kind",
        "families",
        "peers",
        "csrf",
        "realm",
        "origins",
        "unauthenticated_status",
        "login_page",
        "session",
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
        "\"login\"",
        "\"django\"",
        "\"session\"",
        "\"remote-user\"",
        "401",
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
        "[store.django]",
        "[store.django.user]",
        "[cors]",
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
