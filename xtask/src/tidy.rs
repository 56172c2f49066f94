//! `cargo xtask tidy`: the architecture's invariants, most of them absences, as far as a program can
//! see them. Each violation is one line, `file:line: what`.
//!
//! Words are looked for in code, not in comments; where nothing else is said, in `src` alone, since
//! a test may do what the tested must not.

use std::{collections::BTreeSet, fmt, fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::project;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    if let Some(argument) = args.first() {
        project::refuse(argument)?;
    }
    let shell = project::shell()?;
    let mut files = Vec::new();
    for folder in ["crates", "fuzz", "tests", "xtask"] {
        collect(project::root()?, folder, &mut files)?;
    }
    let tree = cmd!(shell, "cargo tree --workspace --edges normal --prefix none").quiet().read()?;

    let mut violations = check_verbs(&files);
    violations.extend(check_providers(&tree));
    let manifest = File { path: "Cargo.toml".into(), text: fs::read_to_string(project::root()?.join("Cargo.toml"))? };
    violations.extend(check_root(&manifest)?);
    for file in &files {
        violations.extend(if file.path.ends_with(".rs") { check_source(file) } else { check_manifest(file)? });
    }
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("tidy: {} files, no violations", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} violations", violations.len());
    Ok(ExitCode::FAILURE)
}

/// Words that must not be said in a place.
struct Rule {
    place: fn(&str) -> bool,
    words: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        place: |path| path.starts_with("crates/ftpq-proto/src/"),
        words: &["std::fs", "std::net", "async fn", "quinn", "tokio", "rustix"],
        why: "the protocol does no I/O and waits for nothing",
    },
    Rule {
        place: |path| {
            path.starts_with("crates/")
                && in_src(path)
                && !NAMES_QUINN.iter().any(|name| path.split('/').nth(1) == Some(name))
        },
        words: &["quinn", "quinn_proto"],
        why: "only ftpq-transport and ftpq-congestion name quinn, so that another QUIC can take its place",
    },
    Rule {
        place: |path| in_library(path) && !in_tests(path),
        words: &["print!", "println!", "eprint!", "eprintln!", "clap", "signal"],
        why: "only the binary prints, parses arguments and handles signals",
    },
    Rule {
        place: |path| {
            let server = path.starts_with("crates/ftpq-server/src/") && path != "crates/ftpq-server/src/dispatch.rs";
            server || path.starts_with("crates/ftpq-handler/src/")
        },
        words: &["Response::Reply", "Reply::Error"],
        why: "only the dispatcher writes replies",
    },
    Rule {
        place: |path| {
            path.starts_with("crates/ftpq-server/src/commands/") || path.starts_with("crates/ftpq-handler/src/")
        },
        words: &["std::fs", "tokio::fs", "rustix"],
        why: "only ftpq-storage opens served files",
    },
    Rule {
        place: |_| true,
        words: &[concat!("todo", "!"), concat!("unimplemented", "!"), concat!("dbg", "!")],
        why: "unfinished",
    },
];

/// What a comment must not say either.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// The libraries that know which QUIC it is.
const NAMES_QUINN: &[&str] = &["ftpq-congestion", "ftpq-transport"];

/// Who may depend on whom, within the project. The binary may depend on all.
const ARROWS: &[(&str, &[&str])] = &[
    ("ftpq-proto", &[]),
    ("ftpq-congestion", &[]),
    ("ftpq-transport", &["ftpq-congestion", "ftpq-proto"]),
    ("ftpq-storage", &["ftpq-proto"]),
    ("ftpq-handler", &["ftpq-proto", "ftpq-storage", "ftpq-transport"]),
    ("ftpq-server", &["ftpq-handler", "ftpq-proto", "ftpq-storage", "ftpq-transport"]),
    ("ftpq-client", &["ftpq-proto", "ftpq-storage", "ftpq-transport"]),
];

/// Longer files are several files.
const MAX_LINES: usize = 500;

fn in_src(path: &str) -> bool {
    path.split('/').nth(2) == Some("src")
}

fn in_library(path: &str) -> bool {
    path.starts_with("crates/ftpq-") && in_src(path)
}

fn in_tests(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

fn check_source(file: &File) -> Vec<Violation> {
    let mut found = Vec::new();
    if !file.text.starts_with("//!") {
        found.push(file.violation(1, "does not begin with a `//!` comment that says what it is for"));
    }
    let lines = file.text.lines().count();
    if lines > MAX_LINES && !in_tests(&file.path) {
        found.push(file.violation(lines, format!("longer than {MAX_LINES} lines")));
    }
    let rules: Vec<&Rule> = RULES.iter().filter(|rule| (rule.place)(&file.path)).collect();
    let mut in_use_std = false;
    for (number, line) in (1..).zip(file.text.lines()) {
        let code = without_comment(line);
        in_use_std |= code.contains("use std::{");
        let code = if in_use_std { with_std(code) } else { code.into() };
        in_use_std &= !code.contains(';');
        for rule in &rules {
            for word in rule.words.iter().filter(|word| says(&code, word)) {
                found.push(file.violation(number, format!("`{word}`: {}", rule.why)));
            }
        }
        for word in UNFINISHED.iter().filter(|word| says(line, word)) {
            found.push(file.violation(number, format!("`{word}`: unfinished")));
        }
    }
    found
}

/// The dependencies that the crate is built with; those of its tests are free.
fn check_manifest(file: &File) -> Result<Vec<Violation>> {
    let manifest: toml::Table = file.text.parse().with_context(|| file.path.clone())?;
    let name = manifest.get("package").and_then(|package| package.get("name")?.as_str()).unwrap_or_default();
    let mut found = Vec::new();
    // What cargo-fuzz builds is outside of the workspace.
    if !inherits_lints(&manifest) && file.path != "fuzz/Cargo.toml" {
        found.push(file.violation(1, "does not say `[lints] workspace = true`: `unsafe` would be allowed"));
    }
    let arrows = ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
    if arrows.is_none() && in_library(&file.path.replace("Cargo.toml", "src/")) {
        found.push(file.violation(1, "a new library: say in xtask/src/tidy.rs what it may depend on"));
    }
    for (dependency, line) in dependencies(&manifest).into_iter().map(|name| (name, file.line_of(name))) {
        if dependency.starts_with("ftpq-") && arrows.is_some_and(|to| !to.contains(&dependency)) {
            found.push(file.violation(line, format!("{name} must not depend on {dependency}")));
        }
        if dependency.starts_with("quinn") && file.path.starts_with("crates/") && !NAMES_QUINN.contains(&name) {
            found.push(file.violation(line, format!("only ftpq-transport and ftpq-congestion depend on {dependency}")));
        }
        if name == "ftpq-proto" && matches!(dependency, "tokio" | "rustix") {
            found.push(file.violation(line, format!("the protocol does no I/O: no {dependency}")));
        }
    }
    Ok(found)
}

/// Without them, anything goes.
fn inherits_lints(manifest: &toml::Table) -> bool {
    let inherited = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
    inherited == Some(true) || manifest.get("package").is_none()
}

/// What all crates inherit.
fn check_root(file: &File) -> Result<Option<Violation>> {
    let manifest: toml::Table = file.text.parse().with_context(|| file.path.clone())?;
    let lint = || manifest.get("workspace")?.get("lints")?.get("rust")?.get("unsafe_code")?.as_str();
    Ok((lint() != Some("forbid")).then(|| file.violation(1, "`unsafe_code` is not forbidden")))
}

/// A verb has the same file name in every layer.
fn check_verbs(files: &[File]) -> Vec<Violation> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let missing = |file: &&File| match file.path.strip_prefix("crates/ftpq-proto/src/commands/") {
        None | Some("mod.rs") => false,
        Some(name) => !paths.contains(format!("crates/ftpq-server/src/commands/{name}").as_str()),
    };
    let verbs = files.iter().filter(missing);
    verbs.map(|file| file.violation(1, "has no handler of the same file name in ftpq-server")).collect()
}

/// With two providers of cryptography compiled in, which one is used is an accident.
fn check_providers(tree: &str) -> Option<Violation> {
    let second = tree.lines().find(|line| line.starts_with("ring v"))?;
    Some(Violation { file: "Cargo.lock".into(), line: 1, what: format!("{second}: a second crypto provider") })
}

#[derive(Debug, PartialEq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// A source or a manifest. The path begins at the root of the workspace, with `/` on every system.
struct File {
    path: String,
    text: String,
}

impl File {
    fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { file: self.path.clone(), line, what: what.into() }
    }

    fn line_of(&self, word: &str) -> usize {
        self.text.lines().position(|line| line.starts_with(word)).map_or(1, |index| index + 1)
    }
}

fn collect(root: &Path, folder: &str, files: &mut Vec<File>) -> Result<()> {
    let Ok(children) = fs::read_dir(root.join(folder)) else { return Ok(()) };
    let mut names = children.map(|child| Ok(child?.file_name())).collect::<Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let path = format!("{folder}/{}", name.display());
        if root.join(&path).is_dir() {
            if name != "target" {
                collect(root, &path, files)?;
            }
        } else if path.ends_with(".rs") || path.ends_with("/Cargo.toml") {
            files.push(File { text: fs::read_to_string(root.join(&path))?, path });
        }
    }
    Ok(())
}

/// By their own names, whatever the crate calls them.
fn dependencies(manifest: &toml::Table) -> Vec<&str> {
    let systems = manifest.get("target").and_then(toml::Value::as_table);
    let tables = systems.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let kinds = tables.chain([manifest]).flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")]);
    let entries = kinds.flatten().filter_map(toml::Value::as_table).flatten();
    entries.map(|(name, entry)| entry.get("package").and_then(toml::Value::as_str).unwrap_or(name)).collect()
}

/// The line up to `//`, unless that is part of an address.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Each name in a line of `use std::{…};` with its full path.
fn with_std(code: &str) -> String {
    let separators = |c: char| c.is_whitespace() || "{},".contains(c);
    code.split(separators).filter(|name| !name.is_empty()).map(|name| format!("std::{name} ")).collect()
}

/// Whether `word` stands in `code`, and not as a part of a longer one.
fn says(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let goes_on = word.ends_with(is_name) && after.starts_with(is_name);
        !before.ends_with(is_name) && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    /// The lines of `code`, after a first that all files need, which break a rule in `path`.
    fn bad_lines(path: &str, code: &str) -> Vec<usize> {
        check_source(&file(path, &format!("//! Doc.\n{code}"))).into_iter().map(|violation| violation.line).collect()
    }

    fn bad_dependencies(path: &str, manifest: &str) -> Vec<String> {
        check_manifest(&file(path, manifest)).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_protocol_does_no_io() {
        let path = "crates/ftpq-proto/src/path.rs";
        assert_eq!(bad_lines(path, "use std::fs;\nuse std::fmt;\nasync fn f() {}"), [2, 4]);
        assert_eq!(bad_lines(path, "use std::{fmt, net::SocketAddr};"), [2]);
        assert_eq!(bad_lines(path, "use std::{\n    fmt,\n    fs,\n};\nlet fs = 1;"), [4]);
        assert!(bad_lines(path, "// std::fs is not for us\nlet fs = 1;").is_empty());
        assert!(bad_lines("crates/ftpq-client/src/lib.rs", "use std::fs;").is_empty());
    }

    #[test]
    fn only_the_transport_names_quinn() {
        assert_eq!(bad_lines("crates/ftpq-server/src/server.rs", "use quinn::Endpoint;\nlet quinnell = 1;"), [2]);
        assert_eq!(bad_lines("crates/ftpq-server/src/server.rs", "use quinn_proto::VarInt;"), [2]);
        assert!(bad_lines("crates/ftpq-transport/src/stream.rs", "use quinn::Endpoint;").is_empty());
        assert!(bad_lines("crates/ftpq-congestion/src/lib.rs", "use quinn_proto::RttEstimator;").is_empty());
    }

    #[test]
    fn libraries_are_silent() {
        let code = "println!(\"x\");\neprint!(\"x\");\nuse tokio::signal;\nuse clap::Parser;\nsprint!();";
        assert_eq!(bad_lines("crates/ftpq-server/src/server.rs", code), [2, 3, 4, 5]);
        assert!(bad_lines("crates/ftpq/src/main.rs", code).is_empty());
        assert!(bad_lines("crates/ftpq-server/examples/sum.rs", code).is_empty());
    }

    #[test]
    fn only_the_dispatcher_replies() {
        let code = "send.frame(&Response::Reply(reply));";
        assert_eq!(bad_lines("crates/ftpq-server/src/session.rs", code), [2]);
        assert_eq!(bad_lines("crates/ftpq-handler/src/exchange.rs", code), [2]);
        assert!(bad_lines("crates/ftpq-server/src/dispatch.rs", code).is_empty());
        assert!(bad_lines("crates/ftpq-client/src/session.rs", code).is_empty());
    }

    #[test]
    fn only_the_storage_opens_served_files() {
        let code = "use std::{fs, io};\nlet x = rustix::fs::open();";
        assert_eq!(bad_lines("crates/ftpq-server/src/commands/rm.rs", code), [2, 3]);
        assert!(bad_lines("crates/ftpq-server/src/access.rs", code).is_empty());
    }

    #[test]
    fn files_are_short_finished_and_say_what_they_are_for() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(bad_lines("crates/ftpq/src/main.rs", &long), [MAX_LINES + 2]);
        assert!(bad_lines("crates/ftpq-storage/src/local/tests.rs", &long).is_empty());
        assert!(bad_lines("tests/e2e/main.rs", &long).is_empty());
        let [mark, call] = [UNFINISHED[0], RULES.last().unwrap().words[0]];
        assert_eq!(bad_lines("tests/e2e/main.rs", &format!("// {mark}: later\n{call}()")), [2, 3]);
        assert_eq!(check_source(&file("xtask/src/x.rs", "use std::fs;")).len(), 1);
    }

    #[test]
    fn arrows_point_one_way() {
        let client = "crates/ftpq-client/Cargo.toml";
        let head = "[lints]\nworkspace = true\n[package]\nname = \"ftpq-client\"\n[dependencies]\nftpq-proto.workspace = true\n";
        assert!(bad_dependencies(client, head).is_empty());
        assert_eq!(
            bad_dependencies(client, &format!("{head}ftpq-server.workspace = true\n")),
            ["crates/ftpq-client/Cargo.toml:7: ftpq-client must not depend on ftpq-server"]
        );
        assert!(bad_dependencies(client, &format!("{head}[dev-dependencies]\nftpq-server = \"1\"")).is_empty());
        let renamed =
            format!("{head}[target.'cfg(unix)'.dependencies]\nq = {{ package = \"quinn\", version = \"1\" }}");
        assert_eq!(bad_dependencies(client, &renamed).len(), 1);
        let proto = "[lints]\nworkspace = true\n[package]\nname = \"ftpq-proto\"\n[dependencies]\ntokio = \"1\"\nrustix = \"1\"";
        assert_eq!(bad_dependencies("crates/ftpq-proto/Cargo.toml", proto).len(), 2);
        let new = |name: &str| format!("[lints]\nworkspace = true\n[package]\nname = \"{name}\"");
        assert_eq!(bad_dependencies("crates/ftpq-new/Cargo.toml", &new("ftpq-new")).len(), 1);
        assert!(bad_dependencies("crates/ftpq/Cargo.toml", &new("ftpq")).is_empty());
    }

    #[test]
    fn unsafe_code_is_forbidden_everywhere() {
        let bare = "[package]\nname = \"ftpq\"";
        for lints in ["", "\n[lints]\nworkspace = false", "\n[lints.rust]\nunsafe_code = \"allow\""] {
            assert_eq!(bad_dependencies("crates/ftpq/Cargo.toml", &format!("{bare}{lints}")).len(), 1, "{lints}");
        }
        assert!(bad_dependencies("fuzz/Cargo.toml", bare).is_empty());
        let root = |level: &str| file("Cargo.toml", &format!("[workspace.lints.rust]\nunsafe_code = \"{level}\""));
        assert_eq!(check_root(&root("forbid")).unwrap(), None);
        assert!(check_root(&root("deny")).unwrap().is_some() && check_root(&file("Cargo.toml", "")).unwrap().is_some());
    }

    #[test]
    fn every_verb_has_its_handler() {
        let verb = |layer: &str, name: &str| file(&format!("crates/{layer}/src/commands/{name}"), "");
        let mut files = vec![verb("ftpq-proto", "mod.rs"), verb("ftpq-proto", "cd.rs"), verb("ftpq-proto", "mv.rs")];
        files.push(verb("ftpq-server", "cd.rs"));
        let missing: Vec<String> = check_verbs(&files).into_iter().map(|violation| violation.file).collect();
        assert_eq!(missing, ["crates/ftpq-proto/src/commands/mv.rs"]);
    }

    #[test]
    fn one_crypto_provider() {
        assert_eq!(check_providers("aws-lc-rs v1.14.0\nrustls v0.23.45\nmonitoring v0.1.0"), None);
        assert!(check_providers("rustls v0.23.45\nring v0.17.14").is_some());
    }
}
