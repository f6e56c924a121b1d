//! `doorward django triggers`.

use crate::services::postgres::{Database, Postgres};
use crate::{Home, PASSWORD};
use std::fs;
use std::path::Path;

const TABLES: &str = "auth_user, auth_user_groups, auth_group, authtoken_token, django_session";

/// A site in PostgreSQL, and a doorward that adopts it.
fn adopted(url: impl FnOnce(&Database<'static>) -> String) -> (Home, Database<'static>) {
    let database = Postgres::shared().database();
    database.load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixture_pg.sql"));
    let home = django(&url(&database));
    (home, database)
}

fn django(url: &str) -> Home {
    let home = Home::new();
    fs::write(home.path("url"), url).unwrap();
    fs::write(home.path("secret_key"), "of-django-0123456789-abcdefghijklmnopqrstuvwxyz").unwrap();
    home.configure(
        "\n[store]\nurl = { file = \"url\" }\nlayout = \"django\"\n\n\
         [store.django]\nsecret_key = { file = \"secret_key\" }\n",
    );
    home
}

fn said(home: &Home, options: &[&str]) -> String {
    let ran = home.run(&[&["django", "triggers"], options].concat());
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""), "{options:?}");
    ran.output
}

fn refused(home: &Home, options: &[&str]) -> String {
    let ran = home.run(&[&["django", "triggers"], options].concat());
    assert_eq!((ran.code, ran.output.as_str()), (1, ""), "{options:?}");
    ran.errors
}

fn count(database: &Database<'_>) -> String {
    database.psql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'doorward%'")
}

#[test]
fn they_are_printed_made_and_taken_away() {
    let (home, database) = adopted(Database::url);
    let script = said(&home, &[]);
    assert_eq!(count(&database), "0", "nothing is done unless it is asked for");
    assert_eq!(said(&home, &["--install", "--print"]), script);
    assert_eq!(said(&home, &["--install"]), format!("Made triggers on {TABLES}\n"));
    assert_eq!(said(&home, &["--install"]), format!("The triggers are there already, on {TABLES}\n"));
    let made = count(&database);
    assert_eq!(made, "19");
    let removal = said(&home, &["--remove", "--print"]);
    assert_eq!(count(&database), made);
    assert_eq!(said(&home, &["--remove"]), "Removed the triggers\n");
    assert_eq!(said(&home, &["--remove"]), "There are no triggers\n");
    // What somebody else runs does the same.
    database.psql(&script);
    assert_eq!(said(&home, &["--install"]), format!("The triggers are there already, on {TABLES}\n"));
    database.psql(&removal);
    assert_eq!(count(&database), "0");
    assert_eq!(home.run(&["django", "triggers", "--install", "--remove"]).code, 2);
}

/// The role of a careful site reads, and owns nothing.
#[test]
fn who_may_not_is_told_who_may() {
    let (home, database) = adopted(|database| {
        database.psql(&format!(
            "CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
        ));
        let password = PASSWORD.replace(' ', "%20");
        database.url().replace("doorward:postgres-password-of-the-gateway", &format!("reader:{password}"))
    });
    let told = refused(&home, &["--install"]);
    for words in ["reader may not do this", "auth_user belongs to doorward", "add `--print`"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(count(&database), "0");
    database.psql(&format!("SET ROLE doorward; {}", said(&home, &[])));
    assert_eq!(said(&home, &["--install"]), format!("The triggers are there already, on {TABLES}\n"));
    assert!(refused(&home, &["--remove"]).contains("reader may not do this"));
    assert_eq!(count(&database), "19");
}

#[test]
fn where_there_are_none_it_is_told_what_is_done_instead() {
    let home = Home::new();
    for option in [&[][..], &["--install"], &["--remove"]] {
        let told = refused(&home, option);
        assert!(told.contains("layout = \"django\"") && told.contains("tell what was changed"), "{told}");
    }
    let told = refused(&django("sqlite:db.sqlite3"), &["--install"]);
    assert!(told.contains("sees by itself when a SQLite file is written"), "{told}");
    let told = refused(&django("mysql://u:p@127.0.0.1:1/site"), &[]);
    assert!(told.contains("MySQL notifies nobody"), "{told}");
    // A server that is not there.
    let told = refused(&django("postgres://u:p@127.0.0.1:1/site"), &[]);
    assert!(told.contains("cannot be asked"), "{told}");
    let database = Postgres::shared().database();
    let told = refused(&django(&database.url()), &[]);
    assert!(told.contains("there is no table auth_user"), "{told}");
}
