//! A first file: from the address of a backend to a configuration that serves.
//!
//! It is always text that goes the way of every file, so that what is printed is what runs. What is commented out in it
//! is taken from the sample: keys, defaults and words are said once.

use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr};

use crate::config::problem::{Fault, quote};
use crate::config::sample::{self, Line};
use crate::config::scheme::SchemeKind;
use crate::config::upstream::ServerAddress;
use crate::config::value::Written as _;

/// What a first file says.
#[derive(Debug, Clone)]
pub struct Starter {
    servers: Vec<String>,
    listen: Option<SocketAddr>,
    scheme: String,
}

/// The keys that the commented file shows of a section.
type Shown = (&'static [&'static str], &'static [&'static str]);

const OF_UPSTREAM: Shown = (&["upstreams", "NAME"], &["balance", "timeout", "host"]);
const OF_ROUTE: Shown = (&["routes", "api"], &["host", "methods", "permission", "max_body", "strip_prefix"]);
const OF_LISTEN: Shown = (&["listen"], &["https", "http"]);
const SECTIONS: [Shown; 7] = [
    (&["tls"], &["certificates", "min_version"]),
    (&["store"], &["url"]),
    (&["tokens"], &["ttl", "per_user", "prefix"]),
    (&["identity"], &["user", "groups", "email"]),
    (&["clients"], &["trusted_proxies"]),
    (&["limits"], &["connections", "connections_per_address", "drain_time"]),
    (&["log"], &["format", "level", "file"]),
];
/// Sections that are commented out as a whole.
const BLOCKS: [Shown; 1] = [(&["routes", "obtain-token"], &["path", "handler"])];

const HEAD: &str = "\
# A line that begins with # and a key shows its default, unless it says \"example\": take the # away and change it.
# `doorward check` shows everything that is wrong with this file. All keys there are: config/doorward.toml of doorward's
# source. In an editor: doorward schema > doorward.schema.json, and #:schema ./doorward.schema.json as the first line.
";

impl Starter {
    /// From arguments of the command line: the servers, where to listen, the kind of scheme.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn new(to: &[String], listen: Option<&str>, scheme: &str) -> Result<Self, String> {
        for server in to {
            ServerAddress::from_text(server).map_err(|fault| refusal("--to", &fault))?;
        }
        match SchemeKind::from_text(scheme) {
            Ok(SchemeKind::Token) => {}
            Ok(kind) => {
                let fault = Fault::new(format!("a first file is for tokens, not for {}", quote(kind.name())));
                return Err(refusal(
                    "--scheme",
                    &fault.help("leave it out, and name other schemes in the file"),
                ));
            }
            Err(fault) => return Err(refusal("--scheme", &fault)),
        }
        let listen = listen.map(listen_address).transpose()?;
        Ok(Self { servers: to.to_vec(), listen, scheme: scheme.to_owned() })
    }

    /// The same with the address that is listened on, if one was named: its port may have been 0.
    #[must_use]
    pub fn listening_on(self, address: Option<SocketAddr>) -> Self {
        Self { listen: self.listen.and(address), ..self }
    }

    /// The servers as they were named.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The address that was named.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// The kind of scheme.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The shortest file.
    pub fn smallest(&self) -> String {
        let listen = self.listen.map(|address| format!("[listen]\nhttps = [\"{address}\"]\n\n"));
        format!("{}{}\n{}", listen.unwrap_or_default(), self.upstream(), self.route())
    }

    /// The same, with the keys that are changed most, commented out.
    pub fn commented(&self) -> String {
        let lines = sample::lines();
        let mut text = format!("{HEAD}\n{}", self.upstream());
        show(&lines, OF_UPSTREAM, &mut text);
        text.push('\n');
        text.push_str(&self.route());
        show(&lines, OF_ROUTE, &mut text);
        for (section, keys) in BLOCKS {
            text.push('\n');
            show_head(&lines, section, "# ", &mut text);
            show(&lines, (section, keys), &mut text);
        }
        text.push_str("\n[listen]\n");
        match self.listen {
            Some(address) => append(&mut text, &format!("https = [\"{address}\"]")),
            None => show(&lines, (OF_LISTEN.0, &["https"]), &mut text),
        }
        show(&lines, (OF_LISTEN.0, &["http"]), &mut text);
        for (section, keys) in SECTIONS {
            text.push('\n');
            show_head(&lines, section, "", &mut text);
            show(&lines, (section, keys), &mut text);
        }
        text
    }

    fn upstream(&self) -> String {
        let servers = self.servers.iter().cloned().map(toml::Value::String).collect();
        format!("[upstreams.legacy]\nservers = {}\n", toml::Value::Array(servers))
    }

    fn route(&self) -> String {
        let scheme = &self.scheme;
        format!("[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = [\"{scheme}\"]\n")
    }
}

/// Of the command line, not of a file, so there is no place to point at.
fn refusal(argument: &str, fault: &Fault) -> String {
    format!("{argument}: {}", fault.to_string().replace('\n', "; "))
}

/// An address as in the file, or a port alone for all addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port {
        return SocketAddr::from_text(text).map_err(|fault| refusal("--listen", &fault));
    }
    let port = port.parse::<u16>().map_err(|_| {
        let fault = Fault::new("ports are at most 65535").help("write one such as \":8443\"");
        refusal("--listen", &fault)
    })?;
    Ok((Ipv6Addr::UNSPECIFIED, port).into())
}

fn append(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The head of a section, with what the sample says of it.
fn show_head(lines: &[Line], section: &[&str], mark: &str, text: &mut String) {
    if let Some(line) = lines.iter().find(|line| line.is_at(section, None)) {
        write_lines(line, mark, text);
    }
}

/// The keys of a section, commented out.
fn show(lines: &[Line], (section, keys): Shown, text: &mut String) {
    for key in keys {
        for line in lines.iter().filter(|line| line.is_at(section, Some(key))) {
            write_lines(line, "# ", text);
        }
    }
}

fn write_lines(line: &Line, mark: &str, text: &mut String) {
    for (number, written) in line.written.iter().enumerate() {
        // Writing to a String cannot fail.
        match written.split_once("  # ") {
            // The comment keeps its column.
            Some((code, comment)) if number == 0 => {
                let code = format!("{mark}{}", code.trim_end());
                writeln!(text, "{code:<31} # {}", comment.trim_start()).unwrap_or_default();
            }
            _ => writeln!(text, "{}{written}", if number == 0 { mark } else { "" }).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};
    use std::fs;

    fn starter(to: &[&str], listen: Option<&str>) -> Result<Starter, String> {
        let to: Vec<String> = to.iter().map(|&to| to.to_owned()).collect();
        Starter::new(&to, listen, "token")
    }

    /// A configuration as it shows itself; what a shorter file leaves out is in it.
    fn meaning(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs");
        let made = crate::accept::tls::self_signed(&certs, &[]).unwrap();
        fs::rename(made.cert, certs.join("example.pem")).unwrap();
        fs::rename(made.key, certs.join("example.key")).unwrap();
        let source = Source {
            name: "doorward.toml".to_owned(),
            directory: directory.path().to_owned(),
            environment: |_| None,
        };
        let loaded = Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}\n\n{text}"));
        assert!(loaded.warnings.is_empty(), "{:#?}\n\n{text}", loaded.warnings);
        format!("{:#?}", loaded.config).replace(&*directory.path().to_string_lossy(), "")
    }

    #[test]
    fn the_commented_file_means_what_the_smallest_means() {
        for (to, listen) in [
            (&["http://127.0.0.1:9000"][..], None),
            (&["unix:/run/a \"b\"\\\n.sock", "https://10.0.0.6"], Some(":9443")),
        ] {
            let starter = starter(to, listen).unwrap();
            assert_eq!(meaning(&starter.commented()), meaning(&starter.smallest()));
        }
    }

    #[test]
    fn what_is_commented_out_can_be_taken_in_as_it_is() {
        let starter = starter(&["http://127.0.0.1:9000"], None).unwrap();
        let text = starter.commented();
        let lines: Vec<&str> = text.lines().collect();
        let expected = meaning(&text);
        let mut seen = 0;
        let mut at = 0;
        while at < lines.len() {
            // A section that is commented out goes with its keys.
            let is_head = lines[at].starts_with("# [");
            let is_key = lines[at].starts_with("# ") && lines[at].contains(" = ");
            let end = if is_head {
                lines[at..].iter().position(|line| line.is_empty()).unwrap() + at
            } else {
                at + 1
            };
            if is_head || is_key {
                seen += 1;
                let mut taken: Vec<&str> = lines.clone();
                for line in &mut taken[at..end] {
                    *line = line.strip_prefix("# ").unwrap_or(line);
                }
                let found = meaning(&taken.join("\n"));
                let is_example = lines[at].contains("# example");
                assert!(is_example || found == expected, "{} is not the default", lines[at]);
                assert!(!is_head && !is_example || found != expected, "{} changes nothing", lines[at]);
            }
            at = end;
        }
        let shown = [OF_UPSTREAM, OF_ROUTE, OF_LISTEN].into_iter().chain(SECTIONS);
        let keys: usize = shown.map(|(_, keys)| keys.len()).sum();
        assert!(seen >= keys + BLOCKS.len(), "{seen} of {keys} keys:\n{text}");
    }

    #[test]
    fn an_address_may_be_a_port_alone() {
        for (text, address) in [
            (":8443", "[::]:8443"),
            ("8443", "[::]:8443"),
            ("127.0.0.1:8443", "127.0.0.1:8443"),
            ("[::1]:0", "[::1]:0"),
        ] {
            let starter = starter(&["http://a"], Some(text)).unwrap();
            assert_eq!(starter.listen().unwrap().to_string(), address);
        }
        for (text, told) in [
            ("", "an address with a port"),
            (":", "an address with a port"),
            (":99999", "at most 65535"),
            ("127.0.0.1", "did you mean \"127.0.0.1:8443\"?"),
            ("localhost:8443", "write the address"),
            ("[::1]", "an address with a port"),
        ] {
            let refused = starter(&["http://a"], Some(text)).unwrap_err();
            assert!(refused.starts_with("--listen: ") && refused.contains(told), "{text}: {refused}");
        }
    }

    #[test]
    fn wrong_servers_and_schemes_are_told_with_what_to_write() {
        let refused = starter(&["http://a", "127.0.0.1:9000"], None).unwrap_err();
        assert!(refused.ends_with("did you mean \"http://127.0.0.1:9000\"?"), "{refused}");
        for port in ["9000", ":9000"] {
            let refused = starter(&[port], None).unwrap_err();
            assert!(refused.ends_with("did you mean \"http://127.0.0.1:9000\"?"), "{refused}");
        }
        let refused = starter(&["http://user:hunter2@a"], None).unwrap_err();
        assert!(refused.starts_with("--to: ") && !refused.contains("hunter2"), "{refused}");
        let refused = Starter::new(&["http://a".to_owned()], None, "tokn").unwrap_err();
        assert!(refused.starts_with("--scheme: ") && refused.ends_with("did you mean `token`?"), "{refused}");
        // The steps that are printed with it are about tokens.
        for kind in ["basic", "session", "remote-user"] {
            let refused = Starter::new(&["http://a".to_owned()], None, kind).unwrap_err();
            assert!(refused.contains(&format!("not for `{kind}`; leave it out")), "{refused}");
        }
    }
}
