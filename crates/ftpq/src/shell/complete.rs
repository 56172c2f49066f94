//! Tab: commands first, then names on the side that the command is about.

use ftpq_proto::{Escaped, Kind, UserPath};
use rustyline::{
    Context, Helper,
    completion::{Completer, FilenameCompleter, Pair, Quote, escape, extract_word, unescape},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};

use super::editor::{PATIENCE, Questions};
use crate::client::Client;

/// Completes words.
pub(super) struct Words {
    local: FilenameCompleter,
    remote: Questions,
}

impl Words {
    pub(super) fn new(remote: Questions) -> Self {
        Self { local: FilenameCompleter::new(), remote }
    }

    fn complete_remote(&self, line: &str, pos: usize) -> (usize, Vec<Pair>) {
        let (start, word) = extract_word(line, pos, ESCAPE, is_break);
        let typed = unescape(word, ESCAPE);
        let folder_len = typed.rfind(['/', ':']).map_or(0, |at| at + 1);
        let (folder, begun) = typed.split_at(folder_len);
        let names = self.remote.names_in(folder);
        let pairs = names.into_iter().filter(|name| name.starts_with(begun)).map(|name| Pair {
            replacement: escape(format!("{folder}{name}"), ESCAPE, is_break, Quote::None),
            display: name,
        });
        (start, pairs.collect())
    }
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, cx: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..pos).unwrap_or(line);
        let Some((command, _)) = before.trim_start().split_once(' ') else {
            return Ok((0, commands(before.trim_start())));
        };
        match command.to_lowercase().as_str() {
            "put" | "upld" | "lcd" | "lls" => self.local.complete(line, pos, cx),
            // What follows `--to` of a download is local, everything else of it remote.
            "get" | "dwld" if before.contains(" --to ") => self.local.complete(line, pos, cx),
            _ => Ok(self.complete_remote(line, pos)),
        }
    }
}

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

/// The names in the remote folder that was typed, folders with a slash. Names that could not be
/// shown or typed back are left out.
pub(super) async fn remote_names(client: &mut Client, folder: &str) -> Vec<String> {
    let list = async {
        let server = client.server(None)?;
        let path = client.resolve(&server, &UserPath::new(folder)?)?;
        let mut listing = client.storage(&server).await?.list(&path).await?;
        let (mut names, mut listed) = (Vec::new(), 0);
        while let Some(page) = listing.next_page().await? {
            listed += page.len();
            for entry in page {
                let name = entry.name.as_ref().and_then(|name| std::str::from_utf8(name.as_bytes()).ok());
                let Some(name) = name.filter(|name| prints(name)) else { continue };
                names.push(if entry.kind == Kind::Folder { format!("{name}/") } else { name.into() });
            }
            if listed > MOST {
                break;
            }
        }
        names.sort();
        anyhow::Ok(names)
    };
    // The editor waits no longer either, and then nothing else could be typed.
    tokio::time::timeout(PATIENCE, list).await.map(Result::unwrap_or_default).unwrap_or_default()
}

/// Whether `name` is shown as it is. The editor escapes nothing.
fn prints(name: &str) -> bool {
    Escaped::new(name).to_string().replace("\\\\", "\\") == name
}

/// More names help nobody who presses Tab.
const MOST: usize = 2000;

const ESCAPE: Option<char> = Some('\\');

fn is_break(c: char) -> bool {
    c == ' ' || c == '"' || c == '\''
}

/// Commands that begin like this, in the case in which they were begun.
fn commands(begun: &str) -> Vec<Pair> {
    let upper = begun.starts_with(|c: char| c.is_ascii_uppercase());
    let all: &[&str] = if upper {
        &["CON", "LIST", "CD", "UPLD", "DWLD"]
    } else {
        &[
            "call", "cd", "con", "get", "ls", "mkdir", "mv", "put", "pwd", "rm", "stat", "lcd", "lls", "lpwd", "help",
            "bye",
        ]
    };
    let pair = |name: &&str| Pair { display: (*name).into(), replacement: format!("{name} ") };
    all.iter().filter(|name| name.starts_with(begun)).map(pair).collect()
}
