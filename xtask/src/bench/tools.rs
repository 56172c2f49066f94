//! The programs of others that the benchmark drives: where they are, what they come in, how old they are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use xshell::{Shell, cmd};

/// A program: its name, Debian's package for it, and how it is asked for its version.
struct Tool {
    name: &'static str,
    package: Option<&'static str>,
    version: Option<&'static str>,
}

const TOOLS: &[Tool] = &[
    Tool { name: "ip", package: Some("iproute2"), version: None },
    Tool { name: "tc", package: Some("iproute2"), version: None },
    Tool { name: "ethtool", package: Some("ethtool"), version: None },
    Tool { name: "ssh", package: Some("openssh-client"), version: Some("-V") },
    Tool { name: "ssh-keygen", package: Some("openssh-client"), version: None },
    Tool { name: "sshd", package: Some("openssh-server"), version: None },
    Tool { name: "rsync", package: Some("rsync"), version: Some("--version") },
    Tool { name: "curl", package: Some("curl"), version: Some("--version") },
    Tool { name: "nginx", package: Some("nginx"), version: Some("-v") },
    Tool { name: "tar", package: Some("tar"), version: None },
    Tool { name: "qcp", package: None, version: Some("--version") },
];

/// Where a program is. `FTPQ_QCP` names qcp's, which Debian does not have.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    if name == "qcp"
        && let Some(file) = env::var_os("FTPQ_QCP").map(PathBuf::from)
    {
        return file.is_file().then_some(file);
    }
    // An ordinary PATH rarely has the folders of services.
    let usual = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let listed = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&listed).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What to tell whoever lacks it.
pub(super) fn advice(name: &str) -> String {
    match TOOLS.iter().find(|tool| tool.name == name).and_then(|tool| tool.package) {
        Some(package) => format!("{name} is not installed (Debian package {package}; `--install` does it)"),
        None => format!("{name} is not installed (`cargo install {name}`, or name it in FTPQ_QCP)"),
    }
}

/// Installs what is missing, from Debian.
pub(super) fn install(shell: &Shell) -> Result<()> {
    let missing = TOOLS.iter().filter(|tool| find(tool.name).is_none());
    let mut packages: Vec<&str> = missing.filter_map(|tool| tool.package).collect();
    packages.dedup();
    if !packages.is_empty() {
        cmd!(shell, "apt-get install --yes --no-install-recommends {packages...}").run()?;
    }
    Ok(())
}

/// The version of each program that has one and is there, beginning with ftpq's.
pub(super) fn versions(ftpq: &Path) -> Vec<String> {
    let theirs = TOOLS.iter().filter_map(|tool| version(&find(tool.name)?, tool.version?));
    version(ftpq, "--version").into_iter().chain(theirs).collect()
}

/// The first line of what it says of itself, up to what it was built with.
fn version(program: &Path, option: &str) -> Option<String> {
    let said = Command::new(program).arg(option).output().ok()?;
    let said = if said.stdout.is_empty() { said.stderr } else { said.stdout };
    Some(short(String::from_utf8_lossy(&said).lines().next()?))
}

fn short(line: &str) -> String {
    let line = line.split([',', '(']).next().unwrap_or_default();
    let words = line.trim_start_matches("nginx version: ").split_whitespace().filter(|word| *word != "version");
    words.take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_a_name_and_a_number() {
        assert_eq!(
            short("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026"),
            "OpenSSH_9.2p1 Debian-2+deb12u10"
        );
        assert_eq!(short("rsync  version 3.5.0  protocol version 32"), "rsync 3.5.0");
        assert_eq!(short("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1"), "curl 7.88.1");
        assert_eq!(short("nginx version: nginx/1.22.1"), "nginx/1.22.1");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(advice("sshd").contains("openssh-server") && advice("qcp").contains("FTPQ_QCP"));
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
