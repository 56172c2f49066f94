//! `ftpq shell`: the prompt. Every client command and every verb of the protocol, in any case, and
//! a few commands for this side. With `-b`, or when standard input is no terminal, a batch.

mod complete;
mod editor;
mod local;

use std::{
    cell::Cell,
    fs,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};

use self::editor::{Editor, Event};
use crate::{
    client::Client,
    commands::{self, ClientCommand},
    exit::{self, Ended},
    interrupt::{WHOLE, unless_interrupted},
    output::say,
    target::ServerName,
};

/// Type commands at a prompt, or run a file of them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to begin on: HOST or HOST:PORT
    target: Option<String>,
    /// Run the commands in this file (- is standard input) and stop at the first that fails; a line
    /// that begins with - may fail
    #[arg(short, long, value_name = "FILE")]
    batch: Option<PathBuf>,
}

/// Runs the shell. Returns its exit code.
pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<u8> {
    if let Some(target) = args.target {
        let server = ServerName::parse(&target, client.global.port)?;
        client.session(&server).await?.welcome().await?;
        client.state.set_current(&server)?;
    }
    let ran = match args.batch {
        Some(file) => batch(client, &read(&file)?).await,
        None if io::stdin().is_terminal() => interactive(client).await,
        None => batch(client, &read("-".as_ref())?).await,
    };
    client.close().await;
    ran
}

/// What one line asks for.
enum Line {
    Nothing,
    Bye,
    Help,
    /// `!command`: for this machine's own shell.
    System(String),
    Local(local::Command),
    Client(Box<ClientCommand>),
}

impl Line {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(Line::Nothing);
        }
        if let Some(command) = text.strip_prefix('!') {
            return Ok(Line::System(command.into()));
        }
        let mut words = shlex::split(text).ok_or_else(|| Ended::usage("a quote is not closed"))?;
        if let Some(verb) = words.first_mut() {
            *verb = verb.to_lowercase();
        }
        let arguments: Vec<_> = words.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["bye" | "quit" | "exit"] => return Ok(Line::Bye),
            ["help" | "?"] => return Ok(Line::Help),
            _ => {}
        }
        if let Some(command) = local::Command::parse(&arguments)? {
            return Ok(Line::Local(command));
        }
        match Typed::try_parse_from(&words) {
            Ok(typed) => Ok(Line::Client(Box::new(typed.command))),
            Err(error) if !error.use_stderr() => {
                write!(io::stdout(), "{error}")?; // `ls --help`
                Ok(Line::Nothing)
            }
            Err(error) => Err(Ended::usage(first_paragraph(&error.to_string()))),
        }
    }
}

/// A line as clap reads it: no program name in front.
#[derive(Parser)]
#[command(name = "", no_binary_name = true, disable_help_subcommand = true)]
struct Typed {
    #[command(subcommand)]
    command: ClientCommand,
}

async fn interactive(client: &mut Client) -> anyhow::Result<u8> {
    greet(client).await?;
    let mut editor = Editor::start(client.home.history())?;
    // From here on it ends nothing but what runs.
    let _taken = signal(SignalKind::interrupt())?;
    let mut code = exit::OK;
    loop {
        editor.ask(prompt(client));
        let line = loop {
            match editor.next().await {
                Some(Event::Line(line)) => break line,
                Some(Event::Complete(request)) => {
                    let names = complete::remote_names(client, &request.folder).await;
                    request.answer(names);
                }
                Some(Event::Interrupted) => break String::new(),
                None => return Ok(code),
            }
        };
        // What came before is not for this line.
        let mut interrupts = signal(SignalKind::interrupt())?;
        let line = Line::parse(&line);
        let meaning = match &line {
            Ok(Line::Client(command)) => command.interrupted(),
            _ => String::new(),
        };
        // What that runs has the terminal, and hears of Ctrl-C itself.
        let is_others = matches!(line, Ok(Line::System(_)));
        let ran = tokio::select! {
            ran = execute(client, line) => ran,
            _ = interrupts.recv(), if !is_others => {
                say(format_args!("interrupted{meaning}"));
                Ok(Ran::Code(exit::SIGINT))
            }
        };
        match ran {
            Ok(Ran::Bye) => return Ok(code),
            Ok(Ran::Code(ended)) => code = ended,
            Err(error) => {
                say(format_args!("ftpq: {}", exit::line(&error)));
                code = exit::code_of(&error);
            }
        }
    }
}

async fn batch(client: &mut Client, lines: &str) -> anyhow::Result<u8> {
    let at = Cell::new(0);
    let work = async {
        let ran = each(client, lines, &at).await;
        client.settle().await;
        ran
    };
    unless_interrupted(work, || format!(" in line {}: {WHOLE}", at.get())).await
}

/// Runs one line after the other, and tells `at` which it is.
async fn each(client: &mut Client, lines: &str, at: &Cell<usize>) -> anyhow::Result<u8> {
    for (line, number) in lines.lines().zip(1..) {
        at.set(number);
        let line = line.trim();
        let (line, may_fail) = line.strip_prefix('-').map_or((line, false), |rest| (rest, true));
        let ran = execute(client, Line::parse(line)).await.with_context(|| format!("line {number}"));
        match ran {
            Ok(Ran::Bye) => break,
            Ok(Ran::Code(code)) if code != exit::OK && !may_fail => return Ok(code),
            Err(error) if !may_fail => return Err(error),
            Err(error) => say(format_args!("ftpq: {}", exit::line(&error))),
            Ok(Ran::Code(_)) => {}
        }
    }
    Ok(exit::OK)
}

enum Ran {
    Code(u8),
    Bye,
}

async fn execute(client: &mut Client, line: anyhow::Result<Line>) -> anyhow::Result<Ran> {
    let code = match line? {
        Line::Nothing => exit::OK,
        Line::Bye => return Ok(Ran::Bye),
        Line::Help => {
            writeln!(io::stdout(), "{}", help())?;
            exit::OK
        }
        Line::System(command) => local::system(&command).await?,
        Line::Local(command) => command.run().map(|()| exit::OK)?,
        Line::Client(command) => commands::run(client, *command).await?,
    };
    Ok(Ran::Code(code))
}

/// The opening screen: what can be typed, and where one is.
async fn greet(client: &mut Client) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "ftpq {}: secure file transfer over QUIC\n\n{}\n", env!("CARGO_PKG_VERSION"), help())?;
    let Ok(server) = client.server(None) else {
        return writeln!(out, "Not connected yet: CON host");
    };
    let connected = async { anyhow::Ok(client.session(&server).await?.welcome().await?) };
    match connected.await {
        Ok(welcome) => writeln!(out, "Connected to {server} as {}.", ftpq_proto::Escaped::new(&welcome.user))?,
        Err(error) => say(format_args!("ftpq: {}", exit::line(&error))),
    }
    Ok(())
}

fn help() -> String {
    let mut text = String::from(HELP);
    let known = ["con", "ls", "cd", "put", "get"];
    for command in Typed::command().get_subcommands().filter(|command| !known.contains(&command.get_name())) {
        let about = command.get_about().map(|about| about.to_string().to_lowercase()).unwrap_or_default();
        text += &format!("\n  {:<26}{about}", command.get_name());
    }
    text + "\n  lcd, lls, lpwd, !command  the same on this machine\n  help, bye                 this text; leave"
}

const HELP: &str = "  CON host[:port]           connect
  LIST [path]         ls    show a folder
  CD path             cd    go to a folder; CD .. goes back
  UPLD file...        put   upload; -r for folders, --to for another place
  DWLD file...        get   download; -r for folders, --to for another place";

fn prompt(client: &Client) -> String {
    match client.server(None) {
        Ok(server) => format!("ftpq {}:{}> ", server.host, client.state.folder(&server)),
        Err(_) => "ftpq> ".into(),
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// clap's errors take several paragraphs; the first says what is wrong.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let error = lines.join(" ");
    format!("{} (help lists the commands)", error.strip_prefix("error: ").unwrap_or(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_taken_in_any_case_and_under_both_names() {
        for line in ["LIST", "List /x", "ls -l", "UPLD a b", "upld 'a b'", "DWLD f --to g", "CON host", "Cd .."] {
            assert!(matches!(Line::parse(line), Ok(Line::Client(_))), "{line}");
        }
        assert!(matches!(Line::parse("BYE"), Ok(Line::Bye)));
        assert!(matches!(Line::parse("  # note"), Ok(Line::Nothing)));
        assert!(matches!(Line::parse("!ls -l"), Ok(Line::System(_))));
        assert!(matches!(Line::parse("LPWD"), Ok(Line::Local(_))));
        for bad in ["fly", "cd 'x", "put"] {
            assert_eq!(exit::code_of(&Line::parse(bad).err().unwrap()), exit::USAGE, "{bad}");
        }
    }
}
