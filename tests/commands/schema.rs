//! `doorward schema`, asked of a validator that knows nothing of doorward.

use crate::Home;
use jsonschema::Validator;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn validator() -> Validator {
    let ran = Home::new().run(&["schema"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    let schema: Value = serde_json::from_str(&ran.output).unwrap();
    assert_eq!(schema.get("$schema").unwrap(), "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// A file as an editor sees it.
fn instance(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n\n{text}"));
    serde_json::to_value(table).unwrap()
}

fn faults(validator: &Validator, text: &str) -> Vec<String> {
    let instance = instance(text);
    let faults = validator.iter_errors(&instance);
    faults.map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

#[test]
fn every_file_that_is_shipped_passes() {
    let validator = validator();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<String> = Vec::new();
    for directory in ["config", "config/examples"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("```toml\n").skip(1);
    texts.extend(blocks.map(|rest| rest.split_once("\n```").unwrap().0.to_owned()));
    let written = Home::new().run(&["init", "-", "--listen", ":8443"]).output;
    texts.push(written.lines().map(uncommented).collect::<Vec<_>>().join("\n"));
    texts.push(written);
    assert!(texts.len() > 22, "{}", texts.len());
    for text in texts {
        assert_eq!(faults(&validator, &text), [""; 0], "\n\n{text}");
    }
}

#[test]
fn the_lines_of_the_readme_tell_an_editor_where_the_schema_is() {
    let home = Home::new();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, lines) = readme.split_once("```sh\ndoorward schema").unwrap();
    let (lines, _) = lines.split_once("\n```").unwrap();
    let pasted = home.shell(&format!("doorward schema{lines}"));
    assert_eq!((pasted.code, pasted.errors.as_str()), (0, ""));
    let text = fs::read_to_string(home.path("doorward.toml")).unwrap();
    // taplo, "Configuration directives": a comment in the first lines of the document.
    let named = text.lines().next().unwrap().strip_prefix("#:schema ./").unwrap();
    let schema: Value = serde_json::from_str(&fs::read_to_string(home.path(named)).unwrap()).unwrap();
    assert_eq!(schema["title"], "doorward.toml");
    assert_eq!(home.run(&["check"]).code, 0);
}

/// A line of the file that `init` writes, with its key or section taken in; the examples would be there twice.
fn uncommented(line: &str) -> &str {
    let key =
        line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.starts_with("certificates = [{"));
    key.or_else(|| line.strip_prefix("# ").filter(|rest| rest.starts_with('['))).unwrap_or(line)
}

#[test]
fn every_form_of_a_value_passes() {
    let validator = validator();
    for text in [
        "[store]\nurl = { env = \"A\" }",
        "[deployment]\nkey = { file = \"a\" }",
        "[tls]\nhsts = \"off\"",
        "[tls]\nhsts = { max_age = 0, preload = true }",
        "[authentication]\nguard = \"off\"\nschemes = [\"token\"]\npermission = { groups = [\"a\"] }",
        "[authentication.schemes.partner]\nkind = \"token\"",
        "[authentication.guard]\naddress = \"off\"",
        "[authentication]\nunauthenticated_status = 401\npreflight = \"pass\"",
        "[authentication.schemes.a]\nkind = \"session\"\ncsrf = { trusted_origins = [\"https://*.a.b\"] }",
        "[authentication.schemes.a]\nkind = \"remote-user\"\npeers = [\"::1\", \"10.0.0.0/8\"]",
        "[store]\nlayout = \"django\"\ndjango = { secret_key = { env = \"A\" }, secret_key_fallbacks = [\"a\"] }",
        "[store.django.user]\nemail = \"\"\nid = \"uuid\"",
        "[cors]\norigins = [\"https://a:8443\"]\ncredentials = true",
        "[routes.a]\nhandler = \"login\"\nsession = \"browser\"\nredirect = \"/?a=b\"",
        "[tokens]\nttl = \"never\"",
        "[cache]\nnegative_ttl = 0",
        "[upstreams.a]\nservers = [\"unix:/a\", \"https://[::1]:9443\"]\nhost = \"app.internal\"",
        "[throttles.a]\nrate = \"5/min\"\nby = \"user\"",
    ] {
        assert_eq!(faults(&validator, text), [""; 0], "\n\n{text}");
    }
}

#[test]
fn wrong_files_do_not_pass() {
    let validator = validator();
    for text in [
        "[listne]",
        "[listen]\nhttp_s = []",
        "[listen]\nhttps = \"[::]:8443\"",
        "[listen]\nhttps = [\":8443\"]",
        "[listen]\nworkers = 2000",
        "[limits]\nconnections = \"10\"",
        "[limits]\nheader_bytes = 1024",
        "[limits]\nheader_bytes = \"64KB\"",
        "[limits]\nheader_time = 10",
        "[log]\nlevel = \"loud\"",
        "[store]\nurl = { envv = \"A\" }",
        "[tls]\nhsts = \"on\"",
        "[tls]\ncertificates = [{ cart = \"a\" }]",
        "[authentication]\nguard = \"none\"",
        "[authentication.schemes.partner]\nkind = \"tokn\"",
        "[upstreams.a]\nservers = [\"127.0.0.1:9000\"]",
        "[upstreams.a]\ntimeout = { connect = 2 }",
        "[upstreams.\"a b\"]\nservers = []",
        "[routes.a]\npath = \"api\"",
        "[routes.a]\npermission = \"authentcated\"",
        "[routes.a]\nstrip_prefix = \"true\"",
        "[throttles.a]\nrate = \"5/month\"",
        "[authentication]\nunauthenticated_status = 403",
        "[authentication.schemes.a]\ncookie = \"a b\"",
        "[store]\nlayout = \"djagno\"",
        "[store.django.user]\nid = \"\"",
        "[cors]\norigins = [\"*\"]",
        "[routes.a]\nlogin_page = \"//a\"",
        "[routes.a]\nfamily = \"knox\"",
    ] {
        assert_ne!(faults(&validator, text), [""; 0], "\n\n{text}");
    }
}
