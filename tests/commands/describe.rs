//! What shells and manuals know of the commands.

use crate::Home;
use std::collections::BTreeSet;
use std::fs;

#[test]
fn shells_are_told_how_to_complete() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
        for word in ["import", "allow-weak", "passwd"] {
            assert!(ran.output.contains(word), "{shell} does not know of {word}");
        }
    }
    let bash = home.shell("doorward completions bash | bash -n; exit ${PIPESTATUS[1]}");
    assert_eq!((bash.code, bash.errors.as_str()), (0, ""));
    assert_eq!(home.run(&["completions", "csh"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let home = Home::new();
    let page = home.run(&["man"]);
    assert_eq!((page.code, page.errors.as_str()), (0, ""));
    for heading in [".TH doorward 1", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH SUBCOMMANDS"] {
        assert!(page.output.contains(heading), "{heading}:\n{}", page.output);
    }
    let written = home.run(&["man", "man/man1"]);
    assert_eq!((written.code, written.errors.as_str()), (0, ""));
    let files = fs::read_dir(home.path("man/man1")).unwrap();
    let files: BTreeSet<String> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    for name in ["doorward", "doorward-user-add", "doorward-token-import", "doorward-group-list"] {
        assert!(files.contains(&format!("{name}.1")), "{files:?}");
    }
    for file in &files {
        let text = fs::read_to_string(home.path("man/man1").join(file)).unwrap();
        let name = file.strip_suffix(".1").unwrap();
        assert!(text.contains(&format!(".TH {name} 1")) && text.contains(".SH NAME"), "{text}");
    }
    fs::write(home.path("file"), "").unwrap();
    let refused = home.run(&["man", "file"]);
    assert_eq!(refused.code, 1);
    assert!(refused.errors.contains("cannot write to file"), "{}", refused.errors);
}
